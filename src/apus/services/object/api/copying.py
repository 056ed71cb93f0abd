"""Copies: `COPY` with `Destination`, and the same as a `PUT` there with `X-Copy-From`; within and across accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote, unquote

from apus.kernel.buffers import Chunk
from apus.kernel.errors import Invalid, NotFound, TooLarge
from apus.services.object.api import large, links, views
from apus.services.object.api.ask import READ, READ_VERSION, WRITE, Ask
from apus.services.object.api.bodies import content_length_of, is_true, object_headers, path_header, text_of
from apus.services.object.api.faults import page
from apus.services.object.engine import OBJECT_BYTES_MAX, Found, Intent
from apus.services.object.logic.conditions import check
from apus.services.object.logic.hidden import shown
from apus.services.object.logic.listed import MANIFEST
from apus.services.object.logic.notices import COPY
from apus.services.object.logic.ranges import parse_ranges
from apus.services.object.logic.symlink import Target, link_headers
from apus.services.object.logic.uploads import UPLOAD
from apus.services.object.logic.versions import is_marker, version_of
from apus.services.object.model import Head
from apus.services.object.opening import DYNAMIC, Opened
from apus.wire.route import Reply

Place = tuple[str, str, str]


async def copy_object(ask: Ask) -> Reply:
    to_account = _account(ask, "destination-account")
    target = (to_account, *path_header(ask.headers, "destination"))
    return await _copy(ask, ask.place, target, ask.query("version-id"))


async def copy_here(ask: Ask) -> Reply:
    if content_length_of(ask.request, needed=False):
        raise Invalid("object.copy_body", "Copy requests require a zero byte body", field="Content-Length")
    text, mark, version_id = ask.headers["x-copy-from"].partition("?version-id=")
    source = (_account(ask, "x-copy-from-account"), *path_header({"x-copy-from": text}, "x-copy-from"))
    return await _copy(ask, source, ask.place, version_id if mark else None)


async def _copy(ask: Ask, source: Place, target: Place, version_id: str | None) -> Reply:
    service = ask.service
    container = await ask.container_of(source[0], source[1])
    found = await service.find(*source, newest=True, version_id=version_id)
    action = READ if version_id is None else READ_VERSION
    await ask.require(container, action, source[2], found.head if found is not None else None)
    if found is None or is_marker(found.head):
        raise NotFound("object.absent", "The resource could not be found.")
    await ask.may(WRITE, *target)
    link = await links.copied(ask, found.head, target[0]) if ask.query("symlink") == "get" else None
    if link is None:
        found = await service.follow(found, ask.may_read)
    refused = check(ask.headers, found.head.shown_etag, views.last_modified_s(found.head.changed), reading=False)
    if refused is not None:
        return page(refused)
    headers = _headers(ask, found, link)
    content_type = text_of(ask.headers.get("content-type", ""), "Content-Type") or found.head.shown_type
    intent = Intent(*target, content_type, headers)
    head = await _copied(ask, found, intent, itself=link is not None or ask.query("multipart-manifest") == "get")
    reply = {
        "etag": head.shown_etag,
        "last-modified": views.last_modified(head.stamp),
        "x-copied-from": quote(f"{source[1]}/{source[2]}"),
        "x-copied-from-account": quote(source[0]),
        "x-copied-from-last-modified": views.last_modified(found.head.changed),
        **{name: value for name, value in headers.items() if name.startswith("x-object-meta-")},
    }
    if await service.versioning(target[0], target[1]) == "enabled":
        reply["x-object-version-id"] = version_of(head)
    return page(201, reply)


async def _copied(ask: Ask, found: Found, intent: Intent, *, itself: bool) -> Head:
    """`itself`: of a manifest or a link that, and not what reading it gives."""
    service, head = ask.service, found.head
    if itself and UPLOAD in head.headers:
        itself = False  # its parts are its own
    if itself and MANIFEST in head.headers:
        return await large.put_copy(ask, found, intent)
    if itself:

        def stored(offset: int, length: int) -> AsyncIterator[Chunk]:
            return service.stored(found, offset, length)

        opened = Opened(head.shown_size_bytes, head.shown_etag, stored)
    else:
        opened = await service.open_parts(found, ask.may_read)
    part = await large.asked_part(ask, found) if not itself else None
    offset, size = part[:2] if part is not None else _range(ask.headers, opened.size_bytes)
    if part is not None and not size:
        raise Invalid("object.copy_range", "The requested part number is not satisfiable", field="part-number")
    if size > OBJECT_BYTES_MAX:
        raise TooLarge("object.too_large", "Your request is too large.")
    whole = size == opened.size_bytes and not opened.segmented
    sized = Intent(
        intent.account, intent.container, intent.name, intent.content_type, intent.headers, size,
        opened.etag if whole else None,
    )  # fmt: skip
    return await service.put(sized, opened.stream(offset, size), cause=COPY)


def _headers(ask: Ask, found: Found, link: Target | None) -> dict[str, str]:
    """`link`: it is a link that is copied, and leads there."""
    sent = object_headers(ask.headers, ask.now_s)
    before = {} if is_true(ask.headers.get("x-fresh-metadata")) else shown(found.head.shown_headers)
    if ask.query("multipart-manifest") != "get":
        before.pop(DYNAMIC, None)
    return {**before, **sent, **(link_headers(link) if link is not None else {})}


def _range(headers: Mapping[str, str], size: int) -> tuple[int, int]:
    found = parse_ranges(headers.get("range", ""), size)
    if found is None:
        return 0, size
    if len(found) != 1:
        raise Invalid("object.copy_range", "A copy is of one range that is there.", field="Range")
    return found[0]


def _account(ask: Ask, header: str) -> str:
    account = unquote(text_of(ask.headers.get(header, ""), header))
    if "/" in account or "\0" in account:
        raise Invalid("object.destination", "Account name cannot contain slashes", field=header)
    return account or ask.account
