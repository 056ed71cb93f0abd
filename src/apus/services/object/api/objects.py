"""Objects of the Swift API: bodies stream both ways, and nothing is left of an upload that did not end."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import quote, unquote

from apus.kernel.errors import CloudError, Invalid, NotFound, TooLarge
from apus.services.object.api import views
from apus.services.object.api.bodies import (
    KEPT_HEADERS,
    OBJECT_NAME_MAX,
    content_length_of,
    is_true,
    names_of,
    object_headers,
    text_of,
)
from apus.services.object.api.faults import page
from apus.services.object.engine import OBJECT_BYTES_MAX, Found, Intent
from apus.services.object.logic.conditions import check
from apus.services.object.logic.merge import seconds_of
from apus.services.object.logic.ranges import parse_ranges
from apus.services.object.model import Head, IndexHead
from apus.services.object.service import Objects
from apus.wire.route import ApiRequest, Reply

_BOUNDARY: Final = "apus{:016x}"


async def show_object(request: ApiRequest) -> Reply:
    service: Objects = request.service
    account, container, name = names_of(request)
    await _container_to_read(request, account, container)
    found = await service.find(account, container, name, newest=is_true(request.headers.get("x-newest")))
    if found is None:
        if request.headers.get("if-match"):
            return page(412)
        raise NotFound("object.absent", "The resource could not be found.")
    head, headers = found.head, views.object_headers(found.head)
    refused = check(request.headers, head.etag, seconds_of(head.changed), reading=True)
    if refused is not None:
        kept = {name: headers[name] for name in ("etag", "last-modified", "x-timestamp")}
        return page(refused, kept)
    if request.method == "HEAD":
        return Reply(b"", 200, headers, content_type=head.shown_type)
    ranges = _ranges(request.headers, head)
    if ranges is None:
        stream = service.engine.read(found, 0, head.size_bytes)
        return _whole_or_stream(found, 0, head.size_bytes, 200, headers, stream)
    if not ranges:
        return page(416, {"content-range": f"bytes */{head.size_bytes}", "etag": head.etag, "accept-ranges": "bytes"})
    if len(ranges) == 1:
        offset, length = ranges[0]
        headers["content-length"] = str(length)
        headers["content-range"] = f"bytes {offset}-{offset + length - 1}/{head.size_bytes}"
        return _whole_or_stream(found, offset, length, 206, headers, service.engine.read(found, offset, length))
    return _multipart(service, found, ranges, headers)


async def put_object(request: ApiRequest) -> Reply:
    service: Objects = request.service
    account, container, name = names_of(request)
    if "x-copy-from" in request.headers:
        return await _copy_here(request, account, container, name)
    await _container_to_write(request, account, container)
    size = content_length_of(request, needed=True)
    if size is not None and size > OBJECT_BYTES_MAX:
        raise TooLarge("object.too_large", "Your request is too large.")
    _check_etag(request.headers.get("etag"))
    refused = await _precondition(request, account, container, name)
    if refused is not None:
        return refused
    intent = Intent(
        account,
        container,
        name,
        _content_type(request, name),
        object_headers(request.headers, service.cluster.world.clock.now_s()),
        size,
        _etag(request.headers.get("etag")),
    )
    head = await service.put(intent, request.stream())
    return page(201, {"etag": head.etag, "last-modified": views.last_modified(head.stamp)})


async def post_object(request: ApiRequest) -> Reply:
    service: Objects = request.service
    account, container, name = names_of(request)
    await _container_to_write(request, account, container)
    found = await service.find(account, container, name, newest=True)
    if found is None:
        raise NotFound("object.absent", "The resource could not be found.")
    headers = object_headers(request.headers, service.cluster.world.clock.now_s())
    for kept in KEPT_HEADERS:  # Swift keeps these unless they are sent, an empty one removes
        if kept not in request.headers and kept in found.head.shown_headers:
            headers[kept] = found.head.shown_headers[kept]
    content_type = request.headers.get("content-type")
    await service.describe(account, container, name, content_type, headers)
    return page(202)


async def delete_object(request: ApiRequest) -> Reply:
    service: Objects = request.service
    account, container, name = names_of(request)
    await _container_to_write(request, account, container)
    refused = await _precondition(request, account, container, name)
    if refused is not None:
        return refused
    found = await service.engine.find(account, container, name, newest=True)
    if found is not None:
        await service.delete(account, container, name)
    if found is None or service.expired(found.head):  # as Swift: it is gone already, but now its row is too
        raise NotFound("object.absent", "The resource could not be found.")
    return page(204)


async def copy_object(request: ApiRequest) -> Reply:
    """`COPY` with `Destination`: the same as a `PUT` there with `X-Copy-From`."""
    account, container, name = names_of(request)
    to_account = unquote(request.headers.get("destination-account", "")) or account
    to_container, to_name = _path_header(request, "destination")
    return await _copy(request, (account, container, name), (to_account, to_container, to_name))


async def _copy_here(request: ApiRequest, account: str, container: str, name: str) -> Reply:
    if content_length_of(request, needed=False):
        raise Invalid("object.copy_body", "Copy requests require a zero byte body", field="Content-Length")
    from_account = unquote(request.headers.get("x-copy-from-account", "")) or account
    from_container, from_name = _path_header(request, "x-copy-from")
    return await _copy(request, (from_account, from_container, from_name), (account, container, name))


async def _copy(request: ApiRequest, source: tuple[str, str, str], target: tuple[str, str, str]) -> Reply:
    service: Objects = request.service
    await _container_to_read(request, source[0], source[1])
    await _container_to_write(request, target[0], target[1])
    found = await service.find(*source, newest=True)
    if found is None:
        raise NotFound("object.absent", "The resource could not be found.")
    refused = check(request.headers, found.head.etag, seconds_of(found.head.changed), reading=False)
    if refused is not None:
        return page(refused)
    sent = object_headers(request.headers, service.cluster.world.clock.now_s())
    fresh = is_true(request.headers.get("x-fresh-metadata"))
    headers = sent if fresh else {**found.head.shown_headers, **sent}
    content_type = request.headers.get("content-type") or found.head.shown_type
    size = found.head.size_bytes
    intent = Intent(*target, content_type, headers, size, found.head.etag)
    head = await service.put(intent, service.engine.read(found, 0, size))
    return page(
        201,
        {
            "etag": head.etag,
            "last-modified": views.last_modified(head.stamp),
            "x-copied-from": quote(f"{source[1]}/{source[2]}"),
            "x-copied-from-account": quote(source[0]),
            "x-copied-from-last-modified": views.last_modified(found.head.changed),
            **{name: value for name, value in headers.items() if name.startswith("x-object-meta-")},
        },
    )


async def _container_to_read(request: ApiRequest, account: str, container: str) -> IndexHead:
    return await _container(request, account, container, to_write=False)


async def _container_to_write(request: ApiRequest, account: str, container: str) -> IndexHead:
    return await _container(request, account, container, to_write=True)


async def _container(request: ApiRequest, account: str, container: str, *, to_write: bool) -> IndexHead:
    """Who may not act on an account does not learn which containers it has."""
    service: Objects = request.service
    head: IndexHead | None = None
    missing: CloudError | None = None
    try:
        head = await service.container(account, container)
    except NotFound as error:
        missing = error
    service.require(request.caller, account, head, to_write=to_write, referrer=request.headers.get("referer", ""))
    if head is None:
        assert missing is not None
        raise missing
    return head


async def _precondition(request: ApiRequest, account: str, container: str, name: str) -> Reply | None:
    """`If-*` of a write.  The object is looked up only if there is one."""
    headers, service = request.headers, request.service
    if not headers.keys() & {"if-match", "if-none-match", "if-unmodified-since"}:
        return None
    if request.method == "PUT" and headers.get("if-none-match", "*").strip() != "*":
        raise Invalid("object.if_none_match", "If-None-Match only supports *", field="If-None-Match")
    found: Found | None = await service.find(account, container, name, newest=True)
    etag, changed_s = (found.head.etag, seconds_of(found.head.changed)) if found else (None, 0.0)
    refused = check(headers, etag, changed_s, reading=False)
    return page(refused) if refused is not None else None


def _ranges(headers: Mapping[str, str], head: Head) -> list[tuple[int, int]] | None:
    header = headers.get("range")
    if header is None:
        return None
    if_range = headers.get("if-range")
    if if_range is not None and if_range.strip('"') not in (head.etag, views.last_modified(head.changed)):
        return None
    return parse_ranges(header, head.size_bytes)


def _whole_or_stream(
    found: Found, offset: int, length: int, status: int, headers: dict[str, str], stream: AsyncIterator[bytes]
) -> Reply:
    """A small object goes out in one piece with its head."""
    if found.data is not None:
        return Reply(found.data[offset : offset + length], status, headers, content_type=found.head.shown_type)
    return Reply(None, status, headers, stream=stream, content_type=found.head.shown_type)


def _multipart(service: Objects, found: Found, ranges: list[tuple[int, int]], headers: dict[str, str]) -> Reply:
    boundary = _BOUNDARY.format(service.cluster.world.dice.getrandbits(64))
    size, shown_type = found.head.size_bytes, found.head.shown_type
    heads = [
        f"--{boundary}\r\nContent-Type: {shown_type}\r\n"
        f"Content-Range: bytes {offset}-{offset + length - 1}/{size}\r\n\r\n".encode()
        for offset, length in ranges
    ]
    end = f"--{boundary}--".encode()
    total = sum(len(head) + length + 2 for head, (_, length) in zip(heads, ranges, strict=True)) + len(end)

    async def parts() -> AsyncIterator[bytes]:
        for head, (offset, length) in zip(heads, ranges, strict=True):
            yield head
            async for chunk in service.engine.read(found, offset, length):
                yield chunk
            yield b"\r\n"
        yield end

    headers["content-length"] = str(total)
    return Reply(None, 206, headers, stream=parts(), content_type=f"multipart/byteranges;boundary={boundary}")


def _content_type(request: ApiRequest, name: str) -> str:
    given = request.headers.get("content-type")
    if given and not is_true(request.headers.get("x-detect-content-type")):
        return text_of(given, "Content-Type")
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def _etag(text: str | None) -> str | None:
    return text.strip().strip('"').lower() if text else None


def _check_etag(text: str | None) -> None:
    etag = _etag(text)
    if etag is not None and (len(etag) != 32 or any(digit not in "0123456789abcdef" for digit in etag)):
        raise Invalid("object.etag", "ETag is not the MD5 of anything: 32 hexadecimal digits.", field="ETag")


def _path_header(request: ApiRequest, name: str) -> tuple[str, str]:
    text = unquote(text_of(request.headers.get(name, ""), name)).lstrip("/")
    container, slash, rest = text.partition("/")
    if not container or not slash or not rest or len(rest.encode()) > OBJECT_NAME_MAX or "\0" in text:
        raise Invalid("object.destination", f"{name.title()} header must be of the form <container name>/<object name>")
    return container, rest
