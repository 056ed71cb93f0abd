"""Replies on their way out: a status, headers and a body, or a stream of one."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from apus.kernel.buffers import Chunk, Stored
from apus.kernel.errors import CloudError
from apus.wire.route import ApiRequest, Reply, ended, primed, send_chunks
from apus.wire.versions import Version, VersionChain, text_of

ANSWER: Final = "apus.answer"
"""Extension of ASGI, in the scope: has a `Wholesale` as ANSWERER."""
ANSWERER: Final = "answerer"

_encode = msgspec.json.Encoder().encode
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_TOKENS: Final = re.compile(r"[-!#$%&'*+.^_`|~0-9a-z]*")
BODILESS: Final = (204, 304)
"""Statuses of answers that have no body."""

Body = Chunk | Stored
"""All of an answer's."""
BODIES: Final = (bytes, memoryview, Stored)

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Wholesale(Protocol):
    """Sends an answer that is there as a whole: a server asks about each header of others."""

    async def answer(self, status: int, fields: bytes, body: Chunk) -> None:
        """`fields`: lines of headers, each with its end; they state the size of the body, or there is none."""
        ...

    async def answer_stored(self, status: int, fields: bytes, body: Stored) -> bool:
        """The same with a body that is read on its way.  False: nothing was sent, since it has to be waited for.

        Raise what reading the rest raises, when some of it is out.
        """
        ...


class NotBegun(Exception):
    """Nothing of the answer was sent: the error can be told in its place."""

    def __init__(self, error: CloudError) -> None:
        super().__init__(error)
        self.error = error


class Answer(NamedTuple):
    """A reply as it goes out."""

    status: int
    headers: Sequence[tuple[str, str]]
    """Names in lower case."""
    data: Body
    stream: AsyncIterator[Chunk] | None


def rendered(
    request: ApiRequest, reply: Reply, versions: VersionChain | None, marks: Sequence[tuple[str, str]] = ()
) -> Answer:
    """`marks`: further headers, names in lower case."""
    status = reply.status or request.route.status
    bodiless = status in BODILESS
    data: Body = b""
    content_type = reply.content_type
    if reply.stream is None and reply.body is not None and not bodiless:
        if isinstance(reply.body, BODIES):
            data = reply.body
        else:
            data, content_type = _encode(reply.body), content_type or "application/json"
    headers = [("x-openstack-request-id", request.request_id), *marks]
    if content_type is not None:
        headers.append(("content-type", content_type))
    if versions is not None and request.version is not None:
        headers.extend(_version_headers(versions, request.version))
    return completed(request, reply, status, headers, data)


def completed(request: ApiRequest, reply: Reply, status: int, headers: list[tuple[str, str]], data: Body) -> Answer:
    """With the reply's own headers behind these, and those that say where its body ends, and whether the connection."""
    named = [(name.lower(), value) for name, value in reply.headers.items()]
    headers += named
    sized = reply.stream is not None or status in BODILESS or any(name == "content-length" for name, _ in named)
    if not sized:
        headers.append(("content-length", str(len(data))))
    if "expect" in request.headers and not request.body_ended:
        # The client still holds its body back, and may send it or not: what follows here would be a guess.
        headers.append(("connection", "close"))
    return Answer(status, headers, data, reply.stream)


async def send_answer(request: ApiRequest, answer: Answer, send: Send) -> None:
    """Raise NotBegun when its body cannot be read and nothing of it was sent."""
    bodiless = request.method == "HEAD" or answer.status in BODILESS
    data = b"" if bodiless else answer.data
    stream = None if bodiless else answer.stream
    if stream is None:
        extension = request.scope.get("extensions", {}).get(ANSWER)
        fields = None if extension is None else fields_of(answer.headers, None if bodiless else len(data))
        if extension is not None and fields is not None:
            wholesale: Wholesale = extension[ANSWERER]
            if not isinstance(data, Stored):
                await wholesale.answer(answer.status, fields, data)
                return
            if await wholesale.answer_stored(answer.status, fields, data):
                return
    if isinstance(data, Stored):
        try:
            stream = await primed(data.rest(0))
        except CloudError as error:
            raise NotBegun(error) from error
    headers = [(name.encode("ascii"), _clean(value)) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if stream is None:
        await send({"type": "http.response.body", "body": data})
    else:
        await _send_stream(request, stream, send)


def fields_of(headers: Sequence[tuple[str, str]], size_bytes: int | None) -> bytes | None:
    """The headers of an answer as they are sent, or None where the server shall look at each of them: what a client
    named cannot begin another header, and a body has the size (bytes) that is stated."""
    names, values = zip(*headers, strict=True)
    if not ("".join(values).isprintable() and _TOKENS.fullmatch("".join(names))) or "connection" in names:
        return None
    if size_bytes is not None and values[names.index("content-length")] != str(size_bytes):
        return None
    return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("utf-8", "replace")


def _version_headers(versions: VersionChain, version: Version) -> list[tuple[str, str]]:
    number, vary = text_of(version), "OpenStack-API-Version"
    headers = [("openstack-api-version", f"{versions.service_type} {number}")]
    if versions.legacy_header is not None:
        headers.append((versions.legacy_header, number))
        vary += f", {versions.legacy_header}"
    return [*headers, ("vary", vary)]


def _clean(value: str) -> bytes:
    """A header's value: what a client named cannot begin another header."""
    return _CONTROLS.sub(" ", value).encode("utf-8", "replace")


async def _send_stream(request: ApiRequest, stream: AsyncIterator[Chunk], send: Send) -> None:
    async with ended(stream):
        await send_chunks(stream, send, request.gone if request.body_ended else None)
