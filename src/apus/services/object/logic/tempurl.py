"""Temporary URLs: `temp_url_sig` and `temp_url_expires` in a query, and what they were signed for."""

from __future__ import annotations

import datetime
import ipaddress
import posixpath
import re
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote

METHODS: Final = ("GET", "HEAD", "PUT", "POST", "DELETE")
PARAMETERS: Final = ("temp_url_sig", "temp_url_expires", "temp_url_prefix", "temp_url_ip_range", "filename", "inline")
NOT_SENT: Final = ("x-object-manifest", "x-symlink-target")
"""These would lead out of what was signed for."""

SHOWN_METADATA: Final = "x-object-meta-public-"
_EXPIRES: Final = re.compile(r"[0-9]{1,12}")


class TempUrl(NamedTuple):
    signature: str
    expires: str
    expires_s: int
    prefix: str | None
    ip_range: str | None
    filename: str | None
    inline: bool

    def messages(self, method: str, path: str) -> list[str]:
        """What may have been signed: who may write may look, too."""
        where = path if self.prefix is None else f"prefix:{path_head(path)}/{self.prefix}"
        first = f"ip={self.ip_range}\n" if self.ip_range is not None else ""
        methods = ("HEAD", "GET", "PUT", "POST") if method == "HEAD" else (method,)
        return [f"{first}{name}\n{self.expires_s}\n{where}" for name in methods]

    @property
    def query(self) -> str:
        """What a link to something below the prefix bears."""
        said = {
            "temp_url_prefix": self.prefix, "temp_url_expires": self.expires, "temp_url_sig": self.signature,
            "temp_url_ip_range": self.ip_range,
        }  # fmt: skip
        parts = [f"{name}={quote(text)}" for name, text in said.items() if text is not None]
        return "&".join([*parts, "inline"] if self.inline else parts)

    def covers(self, name: str) -> bool:
        return self.prefix is None or name.startswith(self.prefix)

    def admits(self, address: str) -> bool:
        if self.ip_range is None:
            return True
        try:
            return ipaddress.ip_address(address) in ipaddress.ip_network(self.ip_range)
        except ValueError:
            return False

    def disposition(self, name: str, kept: str | None) -> str:
        """`Content-Disposition` of what is read."""
        kind = "inline" if self.inline else "attachment"
        if self.inline and not self.filename:
            return "inline"
        if not self.filename and kept:
            return kept
        shown = self.filename or posixpath.basename(name.rstrip("/"))
        return f"{kind}; filename=\"{quote(shown, safe=' /')}\"; filename*=UTF-8''{quote(shown)}"


def temp_url_of(queries: Mapping[str, str]) -> TempUrl | None:
    """None when the query is no temporary URL's; one that is malformed expired long ago."""
    if "temp_url_sig" not in queries and "temp_url_expires" not in queries:
        return None
    expires = queries.get("temp_url_expires", "")
    return TempUrl(
        queries.get("temp_url_sig", ""),
        expires,
        _seconds(expires),
        queries.get("temp_url_prefix"),
        queries.get("temp_url_ip_range"),
        queries.get("filename"),
        "inline" in queries,
    )


def path_head(path: str) -> str:
    """`/v1/ACCOUNT/CONTAINER` of the path of an object."""
    return "/".join(path.split("/", 4)[:4])


def _seconds(text: str) -> int:
    if _EXPIRES.fullmatch(text):
        return int(text)
    for form in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"):
        try:
            return int(datetime.datetime.strptime(text, form).replace(tzinfo=datetime.UTC).timestamp())
        except ValueError:
            continue
    return 0
