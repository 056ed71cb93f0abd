"""The body of a request, as it comes or put where it is wanted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

Receive = Callable[[], Awaitable[Mapping[str, Any]]]

FILL: Final = "apus.fill"
"""Extension of ASGI, in the scope of requests whose body is long and of a stated length: has a `Filler` as FILLER."""
FILLER: Final = "filler"


class ClientGone(Exception):
    """The client closed the connection before its body was whole."""


class Filler(Protocol):
    """Has the network put a body where it is wanted, past the parser.  Besides, `receive` goes on to work."""

    @property
    def ended(self) -> bool:
        """All of the body was given."""
        ...

    async def fill(self, view: memoryview) -> int:
        """How many bytes were put there: fewer than fit only at the end, or when the client has gone."""
        ...


class Body:
    """Bytes as they come.  Raises ClientGone when they end early."""

    def __init__(self, receive: Receive, filler: Filler | None, on_end: Callable[[], None]) -> None:
        self._receive, self._filler, self._on_end = receive, filler, on_end
        self._ended = False
        self._rest = memoryview(b"")
        """Of a piece that did not fit."""

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        if self._rest:
            rest, self._rest = self._rest, memoryview(b"")
            return bytes(rest)
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            if not message.get("more_body", False):
                self._end()
            chunk: bytes = message.get("body", b"")
            if chunk:
                return chunk
        raise StopAsyncIteration

    async def fill(self, view: memoryview) -> int:
        """Put as much there as fits, fewer only at the end."""
        if self._filler is not None and not self._rest:
            count = await self._filler.fill(view)
            if self._filler.ended:
                self._end()
            elif count < len(view):
                raise ClientGone
            return count
        count = 0
        while count < len(view):
            if not self._rest:
                piece = await anext(self, b"")
                if not piece:
                    break
                self._rest = memoryview(piece)
            fits = min(len(self._rest), len(view) - count)
            view[count : count + fits] = self._rest[:fits]
            count, self._rest = count + fits, self._rest[fits:]
        return count

    def _end(self) -> None:
        self._ended = True
        self._on_end()
