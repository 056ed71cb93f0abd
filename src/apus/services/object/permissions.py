"""Whether a caller may: what the rules say (`logic/rights.py`), with what only the store knows of an account."""

from __future__ import annotations

from apus.kernel.caller import Caller
from apus.kernel.errors import CloudError, Forbidden, Unauthenticated
from apus.services.object.directory import Directory
from apus.services.object.domains import AccountDomains
from apus.services.object.logic.access import DEFAULT_DOMAIN, is_reseller, owns
from apus.services.object.logic.account_access import ACCESS, Level, level_of
from apus.services.object.logic.rights import Answer, Ask, answer


class Permissions:
    def __init__(self, directory: Directory, domains: AccountDomains) -> None:
        self._directory, self._domains = directory, domains

    async def answer(self, ask: Ask) -> Answer:
        """ALLOWED, DENIED or SILENT.  Where it hangs on a name alone, the account says whether names count."""
        given = answer(ask)
        if given is not Answer.NAMED:
            return given
        domain = await self._domains.of(ask.container.account)
        return Answer.ALLOWED if domain == DEFAULT_DOMAIN else Answer.SILENT

    async def require(self, ask: Ask, *, signed: bool = False) -> bool:
        """Raise unless the caller may do this to the container; true when the account is his to change.

        `signed`: the request bears a signature of the owner's, which counts for all but a denial.
        """
        account = ask.container.account
        given = await self.answer(ask)
        if given is Answer.DENIED:
            raise _refused(ask.caller)
        if given is Answer.ALLOWED:
            return owns(ask.caller, account, to_write=True)
        return False if signed else await self.require_account(ask.caller, account, to_write=ask.to_write)

    async def require_account(self, caller: Caller | None, account: str, *, to_write: bool) -> bool:
        """Raise unless the caller may do so anywhere in the account; true when it is his to change."""
        if account.startswith("."):
            raise Forbidden("object.hidden_account", "Access was denied to this resource.")
        if owns(caller, account, to_write=to_write):
            return owns(caller, account, to_write=True)
        level = await self._account_level(caller, account)
        if level == "admin":
            return True
        if level == "read-write" or (level == "read-only" and not to_write):
            return False
        raise _refused(caller)

    async def _account_level(self, caller: Caller | None, account: str) -> Level:
        """What the account's own ACL gives a caller who is not its owner."""
        if caller is None:
            return ""
        head = await self._directory.known(account, "")
        text = head.metadata.get(ACCESS, "") if head is not None else ""
        if not text:
            return ""
        names = await self._domains.of(account) == DEFAULT_DOMAIN
        return level_of(text, caller, account, names=names)

    def require_reseller(self, caller: Caller | None) -> None:
        if not is_reseller(caller):
            raise Forbidden("object.reseller_only", "Only a reseller may make and delete accounts.")


def _refused(caller: Caller | None) -> CloudError:
    if caller is None:
        return Unauthenticated("object.no_token", "This server could not verify that you are authorized.")
    return Forbidden("object.forbidden", "Access was denied to this resource.")
