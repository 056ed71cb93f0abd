"""Where a drive is: a directory of this machine, or one of another host: `HOST:PATH`, `HOST:PORT:PATH`."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from apus.kernel.errors import Invalid

DISK_PORT: Final = 8779
"""Where a host answers for its drives, unless told otherwise."""

_AWAY: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^/:\[\]]+)(?::(\d{1,5}))?:(/.*)", re.DOTALL)
"""HOST, PORT, PATH."""


class DrivePlace(NamedTuple):
    path: str
    host: str = ""
    """A name or an address; empty: this machine."""
    port: int = 0

    @property
    def text(self) -> str:
        """As layouts keep it: `parse_place` makes the same of it."""
        if not self.host:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}:{self.path}"


def parse_place(text: str) -> DrivePlace:
    """Raise Invalid."""
    match = _AWAY.fullmatch(text)
    if match is None:
        return DrivePlace(text)
    host, port, path = match[1].strip("[]"), int(match[2] or DISK_PORT), match[3]
    if not 1 <= port <= 65535:
        raise Invalid("object.drive_place", f"path: {text[:200]!r} has the port {port}.", field="path")
    return DrivePlace(path, host, port)
