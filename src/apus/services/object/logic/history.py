"""The older kind of versions: what is overwritten or deleted is copied to another container of the client's own.

`stack`: a delete brings the last copy back; `history`: a delete is kept as an entry of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from apus.services.object.logic.merge import swift_time

ARCHIVE: Final = "x-container-sysmeta-archive"
"""`MODE CONTAINER`."""

DELETED_TYPE: Final = "application/x-deleted;swift_versions_deleted=1"
"""The type of an entry that says that the object was deleted."""


class Archive(NamedTuple):
    mode: Literal["stack", "history"]
    container: str


def archive_of(metadata: Mapping[str, str]) -> Archive | None:
    mode, _, container = metadata.get(ARCHIVE, "").partition(" ")
    if not container:
        return None
    return Archive("history" if mode == "history" else "stack", container)


def archive_prefix(name: str) -> str:
    """The length keeps apart names that begin alike."""
    return f"{len(name.encode()):03x}{name}/"


def archive_name(name: str, stamp: str) -> str:
    return archive_prefix(name) + swift_time(stamp)
