"""Who may do what with a container: the owning project, and those whom its ACLs name.

The elements of an ACL are those of Swift: `.r:*`, `.r:.example.com`, `.r:-host`, `.rlistings`, `project:user`, with
`*` for any, or the name of a role or a project.
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
"""Of the project that set the container's ACLs, where that is not the default one."""


def account_of(project_id: str) -> str:
    return ACCOUNT_PREFIX + project_id


def is_reseller(caller: Caller | None) -> bool:
    """May act on every account, and make and delete accounts."""
    return caller is not None and (caller.is_admin or RESELLER_ROLE in caller.roles or "service" in caller.roles)


def owns(caller: Caller | None, account: str, *, to_write: bool) -> bool:
    return caller is not None and (is_reseller(caller) or is_owner(caller, account, to_write=to_write))


def is_owner(caller: Caller, account: str, *, to_write: bool) -> bool:
    """By the project that he acts for."""
    if caller.project_id is None or account != account_of(caller.project_id):
        return False
    return "member" in caller.roles or "swiftoperator" in caller.roles or (not to_write and "reader" in caller.roles)


def domain_of(account: str, caller: Caller | None) -> str:
    """Of the project whose account it is; empty for the default one, or where the caller acts for another project."""
    if caller is None or caller.project_id is None or account != account_of(caller.project_id):
        return ""
    return caller.project_domain_id if caller.project_domain_id not in (None, DEFAULT_DOMAIN) else ""


def acl_allows(
    acl: str, caller: Caller | None, *, domain: str = "", referrer: str = "", listing: bool = False, public: bool = True
) -> bool:
    """Without `public`, what everybody has counts as not there.  `domain`: of the account, as `domain_of` says it."""
    elements = [element.strip() for element in acl.split(",") if element.strip()]
    if not public:
        elements = [element for element in elements if not _is_public(element)]
    referrers = [element.partition(":")[2] for element in elements if element.startswith(".r:")]
    if referrers and _referred(referrers, referrer) and (not listing or ".rlistings" in elements):
        return True
    if caller is None:
        return False
    users, projects = known_as(caller, domain)
    users, projects = users | {"*"}, projects | {"*"}
    for element in elements:
        if element.startswith("."):
            continue
        project, colon, user = element.partition(":")
        if colon and project in projects and user in users:
            return True
        if not colon and (element in caller.roles or element in projects - {"*"}):
            return True
    return False


def known_as(caller: Caller, domain: str) -> tuple[set[str], set[str]]:
    """Ids and names of the user and of his project, as an ACL may say them that was made in this domain.

    Names are unique in a domain alone.  So an ACL of the default one means those of the default one, that nobody gets
    in who made a domain with the same names; and one of another domain has ids alone.
    """
    users, projects = {caller.user_id}, {caller.project_id or ""}
    if not domain and caller.user_domain_id == DEFAULT_DOMAIN and caller.project_domain_id in (None, DEFAULT_DOMAIN):
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
