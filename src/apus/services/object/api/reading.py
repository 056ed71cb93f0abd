"""GET and HEAD of objects: of the bytes, of one version, of a link or of a manifest itself; ranges and conditions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final

import msgspec

from apus.kernel.buffers import Chunk
from apus.kernel.errors import NotFound
from apus.services.object.api import large, views
from apus.services.object.api.ask import READ, READ_VERSION, Ask
from apus.services.object.api.faults import HTML, page
from apus.services.object.engine import Found
from apus.services.object.logic.conditions import CONDITIONS, check
from apus.services.object.logic.history import DELETED_TYPE
from apus.services.object.logic.listed import MANIFEST
from apus.services.object.logic.manifest import Part
from apus.services.object.logic.ranges import parse_ranges
from apus.services.object.logic.symlink import target_of
from apus.services.object.logic.versions import NULL, is_marker, state_of, version_of
from apus.services.object.model import STRIDE_BYTES, Head
from apus.services.object.opening import Opened, bytes_with_head
from apus.wire.route import Reply, primed

_BOUNDARY: Final = "apus{:016x}"
_REFUSED: Final = (
    "etag", "last-modified", "x-timestamp", "accept-ranges", "content-location", "x-object-version-id",
)  # fmt: skip
"""What an answer tells of an object that its condition kept back."""


async def show_object(ask: Ask) -> Reply:
    container, version_id = await ask.container_of(ask.account, ask.container), ask.query("version-id")
    upto_bytes = bytes_with_head(ask.method, ask.headers)
    found = await ask.service.find(*ask.place, newest=ask.newest, version_id=version_id, upto_bytes=upto_bytes)
    action = READ if version_id is None else READ_VERSION
    await ask.require(container, action, ask.name, found.head if found is not None else None)
    if found is None:
        if ask.headers.get("if-match"):
            return page(412)
        raise NotFound("object.absent", "The resource could not be found.")
    version = _version(found, container.metadata, named=version_id is not None)
    if is_marker(found.head):
        return msgspec.structs.replace(page(404, version), content_type=DELETED_TYPE)
    if ask.query("symlink") == "get" and target_of(found.head) is not None:
        return await _shown(ask, found, await ask.service.open_parts(found), version)
    followed = await ask.service.follow(found, ask.may_read)
    if followed is not found:
        known = await ask.service.directory.known(followed.head.account, followed.head.container)
        where = {"content-location": views.path_of(followed.head)}
        version = {**where, **_version(followed, known.metadata if known is not None else {}, named=False)}
    if ask.query("multipart-manifest") == "get":
        if MANIFEST in followed.head.headers:
            return await large.show_manifest(ask, followed, version)
        return await _shown(ask, followed, _itself(ask, followed), version)
    part = await large.asked_part(ask, followed)
    opened = await ask.service.open_parts(followed, ask.may_read)
    reply = await _shown(ask, followed, opened, version, part)
    if opened.segmented and reply.stream is not None:
        return Reply(None, reply.status, reply.headers, await primed(reply.stream), reply.content_type)
    return reply


def _version(found: Found, container: Mapping[str, str], *, named: bool) -> dict[str, str]:
    """Which one it is, and where it stays when it is no longer the current one."""
    if not state_of(container):
        return {}
    version_id = version_of(found.head)
    shown = {"x-object-version-id": version_id}
    if not named and version_id != NULL:
        shown["content-location"] = f"{views.path_of(found.head)}?version-id={version_id}"
    return shown


def _itself(ask: Ask, found: Found) -> Opened:
    """Of an object that stands for others: its own bytes."""
    head = found.head

    def stream(offset: int, length: int) -> AsyncIterator[Chunk]:
        return ask.service.stored(found, offset, length)

    return Opened(head.shown_size_bytes, head.shown_etag, stream, ask.service.at_hand(found))


async def _shown(ask: Ask, found: Found, opened: Opened, more: Mapping[str, str], part: Part | None = None) -> Reply:
    head, headers = found.head, {**views.object_headers(found.head), **more}
    headers["content-length"] = str(opened.size_bytes)
    headers["etag"] = f'"{opened.etag}"' if opened.segmented else opened.etag
    if not CONDITIONS.isdisjoint(ask.headers):
        refused = check(ask.headers, opened.etag, views.last_modified_s(head.changed), reading=True)
        if refused is not None:
            return page(refused, {name: headers[name] for name in _REFUSED if name in headers})
    if part is not None:
        return await _part(ask, opened, part, headers, head.shown_type)
    if not ask.reading:
        return Reply(b"", 200, headers, content_type=head.shown_type)
    ranges = _ranges(ask.headers, opened, head)
    if ranges is None:
        return await _piece(opened, 0, opened.size_bytes, 200, headers, head.shown_type)
    if not ranges:
        shown = {"content-range": f"bytes */{opened.size_bytes}", "etag": headers["etag"], "accept-ranges": "bytes"}
        return page(416, shown)
    if len(ranges) == 1:
        return await _piece(opened, *ranges[0], 206, headers | _range(*ranges[0], opened), head.shown_type)
    boundary = _BOUNDARY.format(ask.service.cluster.world.dice.getrandbits(64))
    return _pieces(opened, ranges, headers, head.shown_type, boundary)


def _ranges(headers: Mapping[str, str], opened: Opened, head: Head) -> list[tuple[int, int]] | None:
    header = headers.get("range")
    if header is None:
        return None
    if_range = headers.get("if-range")
    if if_range is not None and if_range.strip('"') not in (opened.etag, views.last_modified(head.changed)):
        return None
    return parse_ranges(header, opened.size_bytes)


async def _part(ask: Ask, opened: Opened, part: Part, headers: dict[str, str], content_type: str) -> Reply:
    headers["x-parts-count"] = str(part.of)
    if not part.length:
        text = b"The requested part number is not satisfiable" if ask.reading else b""
        headers |= {"content-range": f"bytes */{opened.size_bytes}", "content-length": str(len(text))}
        return Reply(text, 416, headers, content_type=HTML)
    headers |= _range(part.offset, part.length, opened)
    if not ask.reading:
        return Reply(b"", 206, headers, content_type=content_type)
    return await _piece(opened, part.offset, part.length, 206, headers, content_type)


def _range(offset: int, length: int, opened: Opened) -> dict[str, str]:
    shown = f"bytes {offset}-{offset + length - 1}/{opened.size_bytes}"
    return {"content-length": str(length), "content-range": shown}


async def _piece(
    opened: Opened, offset: int, length: int, status: int, headers: dict[str, str], content_type: str
) -> Reply:
    """What is read in one go goes out with its head; so where it cannot be read, the status says so."""
    data = opened.body(offset, length)
    if data is None and length <= STRIDE_BYTES and not opened.segmented:
        chunks = [chunk async for chunk in opened.stream(offset, length)]
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if data is not None:
        return Reply(data, status, headers, content_type=content_type)
    return Reply(None, status, headers, stream=opened.stream(offset, length), content_type=content_type)


def _pieces(
    opened: Opened, ranges: list[tuple[int, int]], headers: dict[str, str], content_type: str, boundary: str
) -> Reply:
    heads = [
        f"--{boundary}\r\nContent-Type: {content_type}\r\n"
        f"Content-Range: bytes {offset}-{offset + length - 1}/{opened.size_bytes}\r\n\r\n".encode()
        for offset, length in ranges
    ]
    end = f"--{boundary}--".encode()
    total = sum(len(head) + length + 2 for head, (_, length) in zip(heads, ranges, strict=True)) + len(end)

    async def parts() -> AsyncIterator[Chunk]:
        for head, (offset, length) in zip(heads, ranges, strict=True):
            yield head
            async for chunk in opened.stream(offset, length):
                yield chunk
            yield b"\r\n"
        yield end

    headers["content-length"] = str(total)
    return Reply(None, 206, headers, stream=parts(), content_type=f"multipart/byteranges;boundary={boundary}")
