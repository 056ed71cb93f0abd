"""One request to the S3 door: which bucket and key it is about, what it asks, and who asks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from apus.kernel.caller import Caller
from apus.services.object.model import IndexHead
from apus.skins.s3.errors import S3Error
from apus.wire.body import Receive
from apus.wire.route import ApiRequest

if TYPE_CHECKING:
    from apus.skins.s3.auth import Proof
    from apus.skins.s3.door import S3Door

KEY_BYTES_MAX: Final = 1024
BUCKET_BYTES_MAX: Final = 255
DOCUMENT_BYTES_MAX: Final = 2 << 20
"""Of an XML or JSON body: a thousand keys of 1,024 bytes, each character an entity."""


class S3Request(ApiRequest):
    """Headers are joined by commas where they come twice; names in lower case, values as latin-1."""

    __slots__ = ("account", "bucket", "door", "head", "key", "operation", "params_of", "proof")

    def __init__(
        self, scope: Mapping[str, Any], receive: Receive, headers: Mapping[str, str], request_id: str, door: S3Door
    ) -> None:
        super().__init__(scope, receive, headers, request_id)
        self.raw_path = scope["raw_path"].decode("latin-1")
        self.raw_query = scope["query_string"].decode("latin-1")
        self.door = door
        self.bucket, self.key = "", ""
        self.params_of: dict[str, str] = {}
        self.account = ""
        """Of the bucket."""
        self.head: IndexHead
        """The bucket's; set once it is known to exist."""
        self.proof: Proof | None = None
        self.operation = ""

    def parse(self, domains: tuple[str, ...]) -> None:
        """Find out bucket, key and query.  Raise S3Error for what is no UTF-8."""
        bucket_of_host = virtual_bucket(self.headers.get("host", ""), domains)
        path = self.raw_path
        if not path.startswith("/"):
            raise S3Error("InvalidURI")
        if bucket_of_host is not None:
            self.bucket, key = bucket_of_host, path[1:]
        else:
            raw_bucket, _, key = path[1:].partition("/")
            self.bucket = _decoded(raw_bucket)
        self.key = _decoded(key)
        if len(self.key.encode()) > KEY_BYTES_MAX:
            shown = {"Size": str(len(self.key.encode())), "MaxSizeAllowed": str(KEY_BYTES_MAX)}
            raise S3Error("KeyTooLongError", fields=shown)
        if self.raw_query:
            for item in self.raw_query.split("&"):
                name, _, value = item.partition("=")
                if name:
                    self.params_of.setdefault(_decoded(name, "query"), _decoded(value.replace("+", " "), "query"))

    def param(self, name: str, default: str | None = None) -> str | None:
        return self.params_of.get(name, default)

    @property
    def resource(self) -> str:
        return self.raw_path

    @property
    def whoever(self) -> Caller | None:
        """None: nobody in particular."""
        return self.caller

    @property
    def remote_ip(self) -> str:
        return str((self.scope.get("client") or ("",))[0])

    def text(self, name: str) -> str:
        """A header's value as the UTF-8 that it may be."""
        value = self.headers.get(name, "")
        return value if value.isascii() else value.encode("latin-1").decode("utf-8", "replace")


def joined_headers(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in pairs:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        found[name] = f"{found[name]},{value}" if name in found else value
    return found


def virtual_bucket(host: str, domains: tuple[str, ...]) -> str | None:
    """The bucket in a host name, when it is one below a domain of ours."""
    name = re.sub(r":[0-9]*$", "", host).lower()
    for domain in domains:
        if name.endswith("." + domain):
            return name[: -len(domain) - 1]
    return None


def _decoded(text: str, what: str = "path") -> str:
    if text.isascii() and "%" not in text:
        return text
    try:
        decoded = unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", f"The {what} is not UTF-8.") from None
    if "\0" in decoded:
        raise S3Error("InvalidURI", f"The {what} contains a NUL.")
    return decoded
