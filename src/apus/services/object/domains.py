"""Of which domain an account's project is: names in its ACLs mean users and projects of the default one, or nobody.

The account keeps it (`DOMAIN`) once somebody who can tell it set something there.  Of an account that others made, or
an older release, identity is asked; where it does not say either, names count as nobody's: an owner who cannot let in
somebody by name writes his id, and one whose names let in others would never know.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from apus.kernel.caller import Caller
from apus.kernel.errors import Unavailable
from apus.services.identity.contract import Principals
from apus.services.object.directory import Directory
from apus.services.object.logic.access import ACCOUNT_PREFIX, told_domain
from apus.services.object.logic.account_access import DOMAIN
from apus.services.object.model import Change

UNKNOWN_S: Final = 5.0
"""For so long identity is not asked again what it did not know: who is refused may ask as often as he likes."""
REMEMBERED_MAX: Final = 10_000


class AccountDomains:
    def __init__(self, directory: Directory, principals: Principals | None) -> None:
        """`principals`: identity, where there is one."""
        self._directory, self._principals, self._cluster = directory, principals, directory.cluster
        self._told = OrderedDict[str, tuple[float, str]]()
        """By account: until when, and what identity said.  A project never moves to another domain."""

    async def of(self, account: str) -> str:
        """Its id; empty where nobody says."""
        head = await self._directory.known(account, "")
        kept = head.metadata.get(DOMAIN, "") if head is not None else ""
        return kept or await self._asked(account)

    async def learn(self, account: str, caller: Caller | None) -> None:
        """An account that is there keeps what the caller's token tells of it, if it did not know."""
        domain = told_domain(caller, account)
        known = await self._directory.known(account, "") if domain else None
        if known is not None and DOMAIN not in known.metadata:  # it is not made anew: it may be deleted by now
            stamp = self._cluster.stamp()
            await self._directory.apply(Change(account, "", fields={DOMAIN: (domain, stamp)}))

    async def _asked(self, account: str) -> str:
        if self._principals is None or not account.startswith(ACCOUNT_PREFIX):
            return ""
        now_s = self._cluster.world.clock.monotonic_s()
        until_s, domain = self._told.get(account, (0.0, ""))
        if now_s < until_s:
            return domain
        try:
            domain = await self._principals.project_domain(account.removeprefix(ACCOUNT_PREFIX)) or ""
        except Unavailable:
            domain = ""
        self._told[account] = math.inf if domain else now_s + UNKNOWN_S, domain
        self._told.move_to_end(account)
        if len(self._told) > REMEMBERED_MAX:
            self._told.popitem(last=False)
        return domain
