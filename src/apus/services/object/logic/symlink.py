"""Symbolic links: empty objects that lead to another one, whatever it is or (static) as long as it is this one."""

from __future__ import annotations

from typing import Final, NamedTuple

from apus.services.object.logic.listed import LISTED, own_etag, parameters_text
from apus.services.object.model import SYSTEM, Head

LINKS_MAX: Final = 2
"""Links in a row; Swift's default."""

_PREFIX: Final = f"x-object{SYSTEM}symlink-"


class Target(NamedTuple):
    account: str
    container: str
    name: str
    etag: str = ""
    """What it has to be; empty: whatever it is."""
    size_bytes: int = 0

    @property
    def path(self) -> str:
        return f"{self.account}/{self.container}/{self.name}"


def target_of(head: Head) -> Target | None:
    path = head.headers.get(_PREFIX + "target")
    if path is None:
        return None
    account, container, name = path.split("/", 2)
    etag = head.headers.get(_PREFIX + "etag", "")
    return Target(account, container, name, etag, int(head.headers.get(_PREFIX + "bytes", "0")))


def etag_behind(head: Head) -> str:
    """What a static link to this has to name: of a static link what that names."""
    target = target_of(head)
    return target.etag if target is not None and target.etag else own_etag(head)


def link_headers(target: Target, slo_etag: str = "") -> dict[str, str]:
    """What makes an empty object a link; its row shows what reading a segmented target gives."""
    rows = {"symlink": target.path}
    headers = {_PREFIX + "target": target.path}
    if target.etag:
        headers |= {_PREFIX + "etag": target.etag, _PREFIX + "bytes": str(target.size_bytes)}
        rows |= {"symlink_etag": target.etag, "symlink_bytes": str(target.size_bytes)}
    if slo_etag:
        rows["slo_etag"] = slo_etag
    return {**headers, LISTED: parameters_text(**rows)}
