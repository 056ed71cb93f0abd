"""The metadata service: what a guest may know of itself, at 169.254.169.254.

Who asks is told by the network and the address that it asks from, which the port's source check keeps honest.
Documents are compute's; this door only finds them by path and lists directories, as EC2 and OpenStack do.  A guest
may say one thing itself, its administrator's password.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from apus.kernel.errors import Conflict
from apus.services.compute.contract import ComputeService

_OLD_EC2: Final = frozenset({"1.0", "2007-01-19", "2008-02-01", "2008-09-01"})
"""Asked for by old tools; what they want is in every later version."""
PASSWORD_MAX_BYTES: Final = 1020
"""As Nova: four values of 255 characters."""
_TEXT: Final = {"Content-Type": "text/plain; charset=UTF-8"}
_JSON: Final = {"Content-Type": "application/json"}


class MetadataAnswer(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes


class Addresses(Protocol):
    async def server_at(self, network_id: str, address: str) -> str | None: ...


class MetadataDoor:
    def __init__(self, network: Addresses, compute: ComputeService) -> None:
        self._network, self._compute = network, compute

    async def answer(
        self, network_id: str, remote_ip: str, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> MetadataAnswer:
        if method not in ("GET", "HEAD", "POST"):
            return MetadataAnswer(405, {**_TEXT, "Allow": "GET, HEAD, POST"}, b"Only GET, HEAD, POST are possible.\n")
        server_id = await self._network.server_at(network_id, remote_ip)
        documents = None if server_id is None else await self._compute.metadata_for(server_id)
        if server_id is None or documents is None:
            return MetadataAnswer(404, dict(_TEXT), b"No server has the address that this came from.\n")
        place = unquote(urlsplit(path).path)
        if method == "POST":
            return await self._keep(server_id, documents, place, body)
        return look_up(documents, place)

    async def _keep(self, server_id: str, documents: Mapping[str, bytes], path: str, body: bytes) -> MetadataAnswer:
        """The one thing that a guest may tell, once: its administrator's password, encrypted."""
        if not path.rstrip("/").endswith("/password") or path.strip("/") not in documents:
            return MetadataAnswer(404, dict(_TEXT), b"Only a password can be posted.\n")
        if not 0 < len(body) <= PASSWORD_MAX_BYTES:
            return MetadataAnswer(400, dict(_TEXT), f"A password has 1 to {PASSWORD_MAX_BYTES} bytes.\n".encode())
        try:
            await self._compute.keep_password(server_id, body.decode("ascii"))
        except UnicodeDecodeError:
            return MetadataAnswer(400, dict(_TEXT), b"An encrypted password is written in ASCII.\n")
        except Conflict as error:
            return MetadataAnswer(409, dict(_TEXT), f"{error.shown}\n".encode())
        return MetadataAnswer(200, dict(_TEXT), b"")


def look_up(documents: Mapping[str, bytes], path: str) -> MetadataAnswer:
    """A document, or the names in a directory."""
    parts = [part for part in path.split("/") if part]
    if parts and parts[0] in _OLD_EC2:
        parts[0] = "latest"
    name = "/".join(parts)
    if name in documents:
        kind = _JSON if name.endswith(".json") else _TEXT
        return MetadataAnswer(200, dict(kind), documents[name])
    names = _children(documents, name)
    if not names:
        return MetadataAnswer(404, dict(_TEXT), f"There is nothing at {path}.\n".encode())
    return MetadataAnswer(200, dict(_TEXT), "\n".join(names).encode())


def _children(documents: Mapping[str, bytes], directory: str) -> Sequence[str]:
    """Names one level below; a directory among them ends with a slash."""
    prefix = f"{directory}/" if directory else ""
    below = [name[len(prefix) :] for name in documents if name.startswith(prefix)]
    return sorted({f"{name.partition('/')[0]}/" if "/" in name else name for name in below})
