"""Frames between a proxy and the host of a drive, on one connection that both ends have proved the cluster's key for.

Each end sends a nonce, and then a MAC over both nonces under the key.  Both derive from these a key for each direction,
and every frame carries a MAC over its number and its bytes: none can be forged, changed, repeated or left out.  What is
in the frames is not hidden; objects that must be are encrypted before they come here (`encrypt_objects`).
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import secrets
import socket
import struct
from typing import Final

from apus.services.object.model import DriveTrouble

MAGIC: Final = b"apusdrv1"
NONCE_BYTES: Final = 32
PROOF_BYTES: Final = 32
MAC_BYTES: Final = 16
FRAME_BYTES_MAX: Final = 64 << 20
"""The longest answer lists the versions of a partition; the longest body is a packed object."""

GREET_S: Final = 3.0
BUFFERED_BYTES: Final = 4 << 20
"""What waits in this process for the network before whoever sends more has to wait."""

_LENGTH: Final = struct.Struct("<I")
_NUMBER: Final = struct.Struct("<Q")


class Channel:
    """Frames in both directions.  After any failure it is closed and of no more use."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key_out: bytes, key_in: bytes
    ) -> None:
        self._reader, self._writer, self._key_out, self._key_in = reader, writer, key_out, key_in
        self._sent = self._received = 0
        self.opened_s = asyncio.get_running_loop().time()

    def send(self, *parts: bytes | memoryview) -> None:
        """One frame, on its way when this returns."""
        mac = hashlib.blake2b(_NUMBER.pack(self._sent), key=self._key_out, digest_size=MAC_BYTES)
        for part in parts:
            mac.update(part)
        self._sent += 1
        self._writer.writelines([_LENGTH.pack(sum(len(part) for part in parts)), mac.digest(), *parts])

    async def drain(self, timeout_s: float) -> None:
        """Wait until little waits to be sent.  Raise DriveTrouble."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._writer.drain()
        except OSError as error:
            raise self.broken(error) from error

    async def receive(self) -> bytes:
        """The next frame.  Raise DriveTrouble when there is none, or it is not what was sent."""
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            if length > FRAME_BYTES_MAX:
                raise self.broken(f"a frame of {length} bytes")
            mac = await self._reader.readexactly(MAC_BYTES)
            data = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise self.broken(error) from error
        made = hashlib.blake2b(_NUMBER.pack(self._received), key=self._key_in, digest_size=MAC_BYTES)
        made.update(data)
        if not hmac.compare_digest(made.digest(), mac):
            raise self.broken("a frame is not what was sent")
        self._received += 1
        return data

    @property
    def is_clogged(self) -> bool:
        return self._writer.transport.get_write_buffer_size() > BUFFERED_BYTES

    @property
    def is_open(self) -> bool:
        return not (self._writer.is_closing() or self._reader.at_eof() or self._reader.exception())

    def close(self) -> None:
        self._writer.transport.abort()

    def broken(self, why: object) -> DriveTrouble:
        self.close()
        if isinstance(why, DriveTrouble):
            return why
        shown = str(why) or type(why).__name__
        return DriveTrouble(errno.ECONNRESET, f"the connection to the drive's host: {shown}")


async def call_host(host: str, port: int, secret: bytes) -> Channel:
    """Connect, and prove to each other who is who.  Raise DriveTrouble."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(GREET_S):
            reader, writer = await asyncio.open_connection(host, port)
            _prepare(writer)
            mine = secrets.token_bytes(NONCE_BYTES)
            writer.write(MAGIC + mine)
            theirs = await reader.readexactly(NONCE_BYTES)
            proof = await reader.readexactly(PROOF_BYTES)
            if not hmac.compare_digest(proof, _derived(secret, b"disk", mine, theirs)):
                raise DriveTrouble(errno.EACCES, f"{host}:{port} does not have this cluster's key")
            writer.write(_derived(secret, b"proxy", mine, theirs))
    except (asyncio.IncompleteReadError, OSError) as error:
        if writer is not None:
            writer.transport.abort()
        if isinstance(error, DriveTrouble):
            raise
        raise DriveTrouble(errno.EHOSTUNREACH, f"{host}:{port}: {str(error) or type(error).__name__}") from error
    except BaseException:
        if writer is not None:
            writer.transport.abort()
        raise
    return Channel(
        reader, writer, _derived(secret, b"to disk", mine, theirs), _derived(secret, b"to proxy", mine, theirs)
    )


async def answer_call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: bytes) -> Channel:
    """The other end of `call_host`.  Raise DriveTrouble when the caller does not have the key."""
    try:
        async with asyncio.timeout(GREET_S):
            _prepare(writer)
            greeting = await reader.readexactly(len(MAGIC) + NONCE_BYTES)
            if not greeting.startswith(MAGIC):
                raise DriveTrouble(errno.EPROTO, "the caller speaks something else")
            theirs, mine = greeting[len(MAGIC) :], secrets.token_bytes(NONCE_BYTES)
            writer.write(mine + _derived(secret, b"disk", theirs, mine))
            proof = await reader.readexactly(PROOF_BYTES)
    except (asyncio.IncompleteReadError, OSError) as error:
        if isinstance(error, DriveTrouble):
            raise
        raise DriveTrouble(errno.EPROTO, f"no greeting: {str(error) or type(error).__name__}") from error
    if not hmac.compare_digest(proof, _derived(secret, b"proxy", theirs, mine)):
        raise DriveTrouble(errno.EACCES, "the caller does not have this cluster's key")
    return Channel(
        reader, writer, _derived(secret, b"to proxy", theirs, mine), _derived(secret, b"to disk", theirs, mine)
    )


def _derived(secret: bytes, purpose: bytes, proxy_nonce: bytes, disk_nonce: bytes) -> bytes:
    return hmac.digest(secret, MAGIC + purpose + proxy_nonce + disk_nonce, "sha256")


def _prepare(writer: asyncio.StreamWriter) -> None:
    """An end that is cut off is found out even while nothing is sent."""
    connection: socket.socket = writer.get_extra_info("socket")
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ):
        connection.setsockopt(level, option, value)
    writer.transport.set_write_buffer_limits(high=BUFFERED_BYTES // 4)
