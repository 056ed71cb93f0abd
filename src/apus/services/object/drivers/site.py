"""A machine on which drives are, seen from outside any of them: what is asked before a drive is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from apus.services.object.drivers.drive import KeptDrive
from apus.services.object.drivers.fence import DriveIdentity


class Site(Protocol):
    """Here or on another host.  The verbs raise OSError."""

    async def marked_as(self, path: Path) -> DriveIdentity | None:
        """What a directory is marked as; None when it is not, or its mark cannot be read."""
        ...

    async def mark(self, path: Path, identity: DriveIdentity) -> None:
        """Mark a directory, made if absent, as this drive; refuse one that is marked as another."""
        ...

    async def names(self, path: Path) -> Sequence[str]:
        """What is in a directory; nothing where there is none."""
        ...

    def open(self, path: Path, identity: DriveIdentity, part_power: int, policies: int, turn: int = 0) -> KeptDrive:
        """`policies`: how many storage policies the store has; `turn`: how often its ring was changed.

        The drive is to be started.
        """
        ...
