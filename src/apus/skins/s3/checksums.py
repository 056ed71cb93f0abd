"""The checksums that S3's clients send, ask for and get back."""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from apus.kernel.buffers import Chunk
from apus.skins.s3.errors import S3Error


class Digest(Protocol):
    def update(self, data: Chunk, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    """A CRC as a running digest, big-endian."""

    def __init__(self, function: Callable[[Chunk, int], int], size_bytes: int) -> None:
        self._function, self._size_bytes, self._value = function, size_bytes, 0

    def update(self, data: Chunk, /) -> None:
        self._value = self._function(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._size_bytes, "big")


def _awscrt(name: str) -> Any:
    """Loaded when the first client asks: most send what zlib can do."""
    return getattr(importlib.import_module("awscrt.checksums"), name)


ALGORITHMS: Final[Mapping[str, Callable[[], Digest]]] = {
    "CRC32": lambda: _Crc(zlib.crc32, 4),
    "CRC32C": lambda: _Crc(_awscrt("crc32c"), 4),
    "CRC64NVME": lambda: _Crc(_awscrt("crc64nvme"), 8),
    "SHA1": lambda: hashlib.sha1(usedforsecurity=False),
    "SHA256": hashlib.sha256,
}
_SIZES: Final = {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}
_PREFIX: Final = "x-amz-checksum-"
_ABOUT: Final = frozenset(_PREFIX + what for what in ("algorithm", "mode", "type"))
HEADERS: Final = {_PREFIX + name.lower(): name for name in ALGORITHMS}
"""Header (and trailer) to algorithm."""

FULL: Final = "FULL_OBJECT"
COMPOSITE: Final = "COMPOSITE"
_KINDS: Final = {
    "CRC32": (COMPOSITE, FULL),
    "CRC32C": (COMPOSITE, FULL),
    "CRC64NVME": (FULL,),
    "SHA1": (COMPOSITE,),
    "SHA256": (COMPOSITE,),
}


def header_of(algorithm: str) -> str:
    return _PREFIX + algorithm.lower()


def encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def algorithm_of(text: str) -> str:
    """Raise S3Error for one that S3 does not know."""
    name = text.upper()
    if name not in ALGORITHMS:
        raise S3Error("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the "
                      "valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256].")  # fmt: skip
    return name


def checked(algorithm: str, value: str, field: str) -> str:
    """The value, when it can be one; raise S3Error."""
    try:
        digest = base64.b64decode(value, validate=True)
        if len(digest) == _SIZES[algorithm] and encoded(digest) == value:  # no bits behind the last byte
            return value
    except (binascii.Error, ValueError):
        pass
    raise S3Error("InvalidRequest", f"Value for {field} header is invalid.")


def kinds_of(algorithm: str) -> tuple[str, ...]:
    """What can be made of the checksums of parts for the whole; the usual one first."""
    return _KINDS[algorithm]


def sent_checksum(headers: Mapping[str, str], *, composite: bool = False) -> tuple[str, str] | None:
    """The one checksum among the headers, as (algorithm, value).  Raise S3Error for two, and for what is none.

    `composite`: it may be that of parts, with how many they are behind it.
    """
    sent = [name for name in headers if name.startswith(_PREFIX) and name not in _ABOUT]
    if not HEADERS.keys() >= set(sent):
        raise S3Error("InvalidRequest", "The algorithm type you specified in x-amz-checksum- header is invalid.")
    found = [(HEADERS[name], headers[name]) for name in sent]
    if len(found) > 1:
        raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not "
                      "allowed.")  # fmt: skip
    if not found:
        return None
    algorithm, value = found[0]
    digest = value.partition("-")[0] if composite else value
    checked(algorithm, digest, header_of(algorithm))
    return algorithm, value


def of_parts(algorithm: str, kind: str, parts: Sequence[tuple[str, int]]) -> str:
    """The checksum of the whole, from those of its parts and their sizes."""
    digests = [(base64.b64decode(value), size) for value, size in parts]
    if kind == COMPOSITE:
        return composite(algorithm, [digest for digest, _ in digests])
    return encoded(combined(algorithm, digests))


def combined(algorithm: str, parts: list[tuple[bytes, int]]) -> bytes:
    """The CRC of the whole from those of its parts and their sizes."""
    combine = _awscrt("combine_" + algorithm.lower())
    value = 0
    for digest, size in parts:
        value = combine(value, int.from_bytes(digest, "big"), size)
    return int(value).to_bytes(_SIZES[algorithm], "big")


def composite(algorithm: str, parts: list[bytes]) -> str:
    """The checksum of the parts' checksums, with how many they were: `…=-3`."""
    digest = ALGORITHMS[algorithm]()
    digest.update(b"".join(parts))
    return f"{encoded(digest.digest())}-{len(parts)}"
