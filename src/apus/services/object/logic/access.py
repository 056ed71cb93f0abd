"""Who may do what with a container: the owning project, and those whom its ACLs name.

The elements of an ACL are those of Swift: `.r:*`, `.r:.example.com`, `.r:-host`, `.rlistings`, `project:user`, with
`*` for any, or the name of a role or a project.

Names of users and projects are unique in a domain alone.  So they count only where all are of the default domain, the
account that is asked for too: else whoever may make a domain could make the names that an ACL lets in.  Ids always do.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from apus.kernel.caller import Caller
from apus.kernel.errors import Invalid

ACCOUNT_PREFIX: Final = "AUTH_"
DEFAULT_DOMAIN: Final = "default"
RESELLER_ROLE: Final = "ResellerAdmin"
ACL_DOMAIN: Final = "x-container-sysmeta-acl-domain"
"""Of the account's project, as it was known when an ACL was set: then who reads needs no look at the account."""


def account_of(project_id: str) -> str:
    return ACCOUNT_PREFIX + project_id


def is_reseller(caller: Caller | None) -> bool:
    """May act on every account, and make and delete accounts."""
    return caller is not None and (caller.is_admin or RESELLER_ROLE in caller.roles or "service" in caller.roles)


def owns(caller: Caller | None, account: str, *, to_write: bool) -> bool:
    return caller is not None and (is_reseller(caller) or is_owner(caller, account, to_write=to_write))


def is_owner(caller: Caller, account: str, *, to_write: bool) -> bool:
    """By the project that he acts for."""
    if not acts_for(caller, account):
        return False
    return "member" in caller.roles or "swiftoperator" in caller.roles or (not to_write and "reader" in caller.roles)


def acts_for(caller: Caller | None, account: str) -> bool:
    """It is the account of his project."""
    return caller is not None and caller.project_id is not None and account == account_of(caller.project_id)


def told_domain(caller: Caller | None, account: str) -> str:
    """Of the account's project, which a token of another project does not tell; empty then."""
    return (caller.project_domain_id or "") if caller is not None and acts_for(caller, account) else ""


def has_names(caller: Caller | None) -> bool:
    """He and his project are of the default domain."""
    return (
        caller is not None
        and caller.user_domain_id == DEFAULT_DOMAIN
        and (caller.project_id is None or caller.project_domain_id == DEFAULT_DOMAIN)
    )


def acl_allows(
    acl: str,
    caller: Caller | None,
    account: str,
    *,
    names: bool,
    referrer: str = "",
    listing: bool = False,
    public: bool = True,
) -> bool:
    """Whether an ACL in this account does.  `names`: the account is of the default domain.

    Without `public`, what everybody has counts as not there.
    """
    elements = [element.strip() for element in acl.split(",") if element.strip()]
    if not public:
        elements = [element for element in elements if not _is_public(element)]
    referrers = [element.partition(":")[2] for element in elements if element.startswith(".r:")]
    if referrers and _referred(referrers, referrer) and (not listing or ".rlistings" in elements):
        return True
    if caller is None:
        return False
    users, projects = known_as(caller, names=names)
    users, projects, roles = users | {"*"}, projects | {"*"}, roles_in(caller, account)
    for element in elements:
        if element.startswith("."):
            continue
        project, colon, user = element.partition(":")
        if colon and project in projects and user in users:
            return True
        if not colon and (element in roles or element in projects - {"*"}):
            return True
    return False


def roles_in(caller: Caller, account: str) -> frozenset[str]:
    """Those that ACLs may name: everybody has some role in a project of his own."""
    return caller.roles if acts_for(caller, account) else frozenset()


def known_as(caller: Caller, *, names: bool) -> tuple[set[str], set[str]]:
    """Ids of the user and of his project, as an ACL may say them; with `names` also what they are called."""
    users, projects = {caller.user_id}, {caller.project_id or ""}
    if names and has_names(caller):
        users.add(caller.user_name)
        projects.add(caller.project_name or "")
    return users - {""}, projects - {""}


def is_public_acl(acl: str) -> bool:
    """Whether it gives anything to everybody, or to all who have a token."""
    return any(_is_public(element.strip()) for element in acl.split(","))


def _is_public(element: str) -> bool:
    return (element.startswith(".r:") and not element.startswith(".r:-")) or element in ("*", "*:*")


def clean_acl(name: str, value: str) -> str:
    """The ACL as it is stored; raise Invalid when an element means nothing."""
    cleaned: list[str] = []
    for raw in value.split(","):
        element = raw.strip()
        if not element:
            continue
        if not element.startswith("."):
            cleaned.append(element)
            continue
        first, colon, second = (part.strip() for part in element.partition(":"))
        if first == ".rlistings" and not colon:
            cleaned.append(first)
        elif first in (".r", ".ref", ".referer", ".referrer"):
            cleaned.append(".r:" + _clean_referrer(name, element, second))
        else:
            raise Invalid("object.acl", f"Unknown designator {first!r} in ACL {element!r}.", field=name)
    if "write" in name.lower() and any(element.startswith(".r") for element in cleaned):
        raise Invalid("object.acl", "Referrers are not allowed in a write ACL.", field=name)
    return ",".join(cleaned)


def _clean_referrer(name: str, element: str, host: str) -> str:
    minus = "-" if host.startswith("-") else ""
    host = host.removeprefix("-").strip()
    if host.startswith("*") and host != "*":
        host = host[1:]
    if not host or host == ".":
        raise Invalid("object.acl", f"No host or domain in ACL {element!r}.", field=name)
    return minus + host


def _referred(hosts: list[str], referrer: str) -> bool:
    """The last element that fits decides."""
    host = urlsplit(referrer).hostname or "unknown"
    allowed = False
    for pattern in hosts:
        wanted = pattern.removeprefix("-")
        if wanted == "*" or host == wanted or (wanted.startswith(".") and host.endswith(wanted)):
            allowed = not pattern.startswith("-")
    return allowed
