"""The API of a service as one table: routes, and what a handler is given and gives back."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import msgspec

from apus.kernel.buffers import Chunk
from apus.kernel.caller import Caller
from apus.kernel.errors import Invalid, TooLarge
from apus.kernel.limits import BODY_MAX_BYTES
from apus.wire.body import FILL, FILLER, Body, ClientGone, Filler, Receive
from apus.wire.versions import Version


class Reply(msgspec.Struct, frozen=True):
    """An answer.  `body` is encoded as JSON unless it is a Chunk; `stream` sends chunks as they come."""

    body: Any = None
    status: int | None = None
    """The route's own status when None."""
    headers: Mapping[str, str] = {}
    stream: AsyncIterator[Chunk] | None = None
    content_type: str | None = None

    def having(self, headers: Mapping[str, str]) -> Reply:
        """The same with these headers besides."""
        return msgspec.structs.replace(self, headers={**self.headers, **headers})


@contextlib.asynccontextmanager
async def until_gone(gone: Callable[[], Awaitable[None]] | None) -> AsyncIterator[None]:
    """Run the block until the client has gone, and raise ClientGone then: the server's `send` does not say so, and
    nobody would read the rest.  Without `gone` (the body is still being read) the block just runs.
    """
    if gone is None:
        yield
        return
    running, over = asyncio.current_task(), False
    assert running is not None

    def stop(watch: asyncio.Future[None]) -> None:
        if not (over or watch.cancelled()):
            running.cancel()

    watch = asyncio.ensure_future(gone())
    watch.add_done_callback(stop)
    try:
        yield
    except asyncio.CancelledError:
        if not watch.done():
            raise
        running.uncancel()
        raise ClientGone from None
    finally:
        over = True
        watch.cancel()


async def send_chunks(
    chunks: AsyncIterator[Chunk],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    gone: Callable[[], Awaitable[None]] | None,
) -> None:
    """The body of a reply, to its end.  Raise ClientGone."""
    async with until_gone(gone):
        async for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(0)  # to who has gone `send` returns at once: let the watch have its turn
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def ended(stream: AsyncIterator[Chunk]) -> AsyncIterator[AsyncIterator[Chunk]]:
    """Who reads no more of it lets go of what it holds."""
    try:
        yield stream
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


async def primed(stream: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    """The same, after its first piece was read: what is wrong from the start is still answered with a status."""
    first = await anext(stream, b"")

    async def all_of_it() -> AsyncIterator[Chunk]:
        yield first
        async for chunk in stream:
            yield chunk

    return all_of_it()


class ApiRequest:
    """One request, decoded as far as its route says."""

    __slots__ = (
        "_filler", "_queries", "_receive", "body", "body_ended", "caller", "headers", "method", "params", "raw_path",
        "raw_query", "request_id", "route", "scope", "service", "version",
    )  # fmt: skip

    def __init__(self, scope: Mapping[str, Any], receive: Receive, headers: Mapping[str, str], request_id: str) -> None:
        self.scope, self._receive, self.headers, self.request_id = scope, receive, headers, request_id
        self.method: str = scope["method"]
        self.raw_path: str = scope["raw_path"].decode("ascii", "replace")
        self.raw_query: str = scope["query_string"].decode("ascii", "replace")
        self.params: dict[str, str] = {}
        self.body: Any = None
        self.body_ended = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        """Whether all that the client sends was taken in."""
        self.service: Any = None
        self.version: Version | None = None
        self.route: Route = NO_ROUTE
        self.caller: Caller | None = None
        self._queries: list[tuple[str, str]] | None = None
        self._filler: Filler | None = scope.get("extensions", {}).get(FILL, {}).get(FILLER)

    @property
    def who(self) -> Caller:
        """The caller of a route that is not public."""
        assert self.caller is not None, "a public route has no caller"
        return self.caller

    @property
    def queries(self) -> Sequence[tuple[str, str]]:
        """All query parameters, in order, repeated ones included."""
        if self._queries is None:
            self._queries = parse_qsl(self.raw_query, keep_blank_values=True)
        return self._queries

    def query(self, name: str, default: str | None = None) -> str | None:
        """The last value of this parameter."""
        if not self.raw_query:
            return default
        for key, value in reversed(self.queries):
            if key == name:
                return value
        return default

    @property
    def base_url(self) -> str:
        """How the client reached us, without a path: http://127.0.0.1:8774."""
        host = self.headers.get("host")
        if not host:
            address, port = self.scope.get("server") or ("127.0.0.1", 80)
            host = f"{address}:{port}"
        return f"{self.scope.get('scheme', 'http')}://{host}"

    def stream(self) -> Body:
        """The body as it comes.  Raises ClientGone when it ends early."""
        return Body(self._receive, self._filler, self._ended)

    def _ended(self) -> None:
        self.body_ended = True

    async def gone(self) -> None:
        """Return when the client has closed the connection.  Only once the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def put_back(self, data: bytes) -> None:
        """Let `stream` and `read` give this body (again)."""
        received, left = self._receive, [{"type": "http.request", "body": data, "more_body": False}]

        async def receive() -> Mapping[str, Any]:
            return left.pop() if left else await received()

        self._receive, self._filler = receive, None

    async def read(self, limit_bytes: int = BODY_MAX_BYTES) -> bytes:
        """The whole body; raise TooLarge past the limit."""
        parts, size = [], 0
        async for chunk in self.stream():
            size += len(chunk)
            if size > limit_bytes:
                raise TooLarge("wire.body_too_large", f"The request body is larger than {limit_bytes} bytes.")
            parts.append(chunk)
        return b"".join(parts)


Handler = Callable[[ApiRequest], Awaitable[Reply]]


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """One line of a service's table."""

    method: str
    path: str
    """Below the service's prefix; `{name}` is one segment, a last `{name:path}` the rest."""
    to: Handler
    may: str | None
    """The action in the service's policy table; None: the handler asks the policy itself."""
    takes: Any = None
    """The msgspec type of the JSON body, envelope included; None: no JSON body (it may be a stream)."""
    status: int = 200
    name: str = ""
    """The operation, for version changes and documents; the handler's name unless given."""
    since: Version | None = None
    until: Version | None = None
    """The last version that still has this route."""
    replies: Any = None
    """The msgspec type or documentation class of the reply, for documents."""

    @property
    def operation(self) -> str:
        return self.name or getattr(self.to, "__name__", "")


async def _nowhere(request: ApiRequest) -> Reply:
    raise AssertionError("a request without a route is never handled")


NO_ROUTE: Final = Route("", "", _nowhere, None)


class _Node:
    __slots__ = ("below", "rest", "routes", "variable")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.variable: _Node | None = None
        self.rest: dict[str, list[tuple[Route, tuple[str, ...]]]] = {}
        self.routes: dict[str, list[tuple[Route, tuple[str, ...]]]] = {}


class Router:
    """Finds a route by walking the path's segments: the cost is the path's length, not the number of routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._root = _Node()
        for route in routes:
            self._add(route)

    def _add(self, route: Route) -> None:
        node, names = self._root, []
        target = None
        for segment in route.path.split("/")[1:]:
            if segment.startswith("{") and segment.endswith(":path}"):
                names.append(segment[1:-6])
                target = node.rest
                break
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.variable = node.variable or _Node()
                node = node.variable
            else:
                node = node.below.setdefault(segment, _Node())
        target = node.routes if target is None else target
        target.setdefault(route.method, []).append((route, tuple(names)))

    def find(self, method: str, raw_path: str) -> tuple[Sequence[tuple[Route, dict[str, str]]], Collection[str]]:
        """Routes for this method (several when versions differ), and the methods that the path has at all; HEAD goes
        with GET.

        `raw_path` is still percent-encoded and begins with '/', or is empty.
        """
        segments = raw_path.split("/")[1:]
        found = self._walk(self._root, segments, 0, ())
        if found is None:
            return (), ()
        methods, values = found
        chosen = methods.get(method) or (methods.get("GET") if method == "HEAD" else None) or []
        routes = [(route, dict(zip(names, values, strict=True))) for route, names in chosen]
        return routes, methods

    def _walk(
        self, node: _Node, segments: Sequence[str], at: int, values: tuple[str, ...]
    ) -> tuple[dict[str, list[tuple[Route, tuple[str, ...]]]], tuple[str, ...]] | None:
        if at == len(segments):
            return (node.routes, values) if node.routes else None
        segment = segments[at]
        below = node.below.get(segment)
        if below is not None:
            found = self._walk(below, segments, at + 1, values)
            if found is not None:
                return found
        if node.variable is not None and segment:
            value = unquote(segment) if "%" in segment else segment
            found = self._walk(node.variable, segments, at + 1, (*values, value))
            if found is not None:
                return found
        if node.rest:
            rest = "/".join(segments[at:])
            return node.rest, (*values, unquote(rest) if "%" in rest else rest)
        return None


def decode_body(data: bytes, type_: Any) -> Any:
    """Decode and validate JSON; raise Invalid naming the field, what was expected and what was given."""
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.ValidationError as error:
        raise invalid_body(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("wire.malformed", f"The request body is not valid JSON: {error}.") from error


def convert_body(value: Any, type_: Any) -> Any:
    """The same for a body that is already decoded."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise invalid_body(error) from error


def invalid_body(error: msgspec.ValidationError) -> Invalid:
    """`Expected `int`, got `str` - at `$.server.min_count`` names the field that is wrong."""
    what, _, where = str(error).partition(" - at ")
    field = where.strip("`").removeprefix("$").lstrip(".") or None
    place = f"Invalid input for field/attribute {field}" if field else "Invalid request body"
    return Invalid("wire.invalid_body", f"{place}: {what.replace('`', '')}.", field=field)
