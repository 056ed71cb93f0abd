"""PUT, POST and DELETE of objects: bodies stream, and nothing is left of an upload that did not end."""

from __future__ import annotations

from apus.kernel.errors import Invalid, NotFound, TooLarge
from apus.services.object.api import copying, large, links, signed, sync, views
from apus.services.object.api.ask import DELETE, DELETE_VERSION, Ask
from apus.services.object.api.bodies import (
    KEPT_HEADERS,
    content_length_of,
    content_type_of_name,
    dynamic_manifest,
    is_true,
    object_headers,
    text_of,
)
from apus.services.object.api.conditions import condition_of
from apus.services.object.api.faults import page
from apus.services.object.engine import OBJECT_BYTES_MAX, Intent
from apus.services.object.logic.symlink import target_of
from apus.services.object.logic.versions import NULL, state_of, version_of
from apus.services.object.model import Head
from apus.services.object.opening import DYNAMIC
from apus.wire.route import Reply


async def put_object(ask: Ask) -> Reply:
    synced = await sync.stamp_of(ask)
    if synced and await sync.is_old(ask, synced):
        return page(202)
    if "x-copy-from" in ask.headers:
        return await copying.copy_here(ask)
    container = await ask.to_write()
    version_id = ask.query("version-id")
    if version_id is not None:
        return await _promote(ask, version_id)
    size = content_length_of(ask.request, needed=True)
    if size is not None and size > OBJECT_BYTES_MAX:
        raise TooLarge("object.too_large", "Your request is too large.")
    condition = condition_of(ask)
    await condition.look()
    etag = _etag(ask.headers.get("etag"))
    intent = Intent(*ask.place, _content_type(ask), _said(ask), size, etag, synced)
    if ask.query("multipart-manifest") == "put":
        return await large.put_manifest(ask, intent, condition)
    _check_etag(etag)
    if links.asked(ask.headers):
        intent = await links.intent_of(ask, intent)
    async with condition:
        head = await ask.service.put(intent, condition.over(ask.request.stream()))
    return page(201, _kept(head, versioned=state_of(container.metadata) == "enabled"))


async def post_object(ask: Ask) -> Reply:
    if signed.is_form(ask):
        return await signed.post_form(ask)
    if links.asked(ask.headers):
        shown = "A PUT request is required to set a symlink target"
        raise Invalid("object.symlink_post", shown, field="X-Symlink-Target")
    await ask.to_write()
    version_id = ask.query("version-id")
    found = await ask.service.find(*ask.place, newest=True, version_id=version_id)
    if found is None:
        raise NotFound("object.absent", "The resource could not be found.")
    headers = _said(ask)
    for kept in KEPT_HEADERS:  # Swift keeps these unless they are sent, an empty one removes
        if kept not in ask.headers and kept in found.head.shown_headers:
            headers[kept] = found.head.shown_headers[kept]
    content_type = ask.headers.get("content-type")
    await ask.service.describe(*ask.place, content_type, headers, version_id=version_id)
    target = target_of(found.head)
    if target is not None:
        return links.redirected(target)
    return page(202)


async def delete_object(ask: Ask) -> Reply:
    synced = await sync.stamp_of(ask)
    if synced:
        return await _delete_synced(ask, synced)
    version_id = ask.query("version-id")
    container = await ask.may(DELETE if version_id is None else DELETE_VERSION, *ask.place)
    if version_id == NULL and not state_of(container.metadata):
        version_id = None  # there is but one
    if ask.query("multipart-manifest") == "delete":
        return await large.delete_all(ask, version_id)
    if version_id is not None:
        return await _delete_version(ask, version_id)
    async with condition_of(ask) as condition:
        await condition.settle()
        deleted = await ask.service.delete(*ask.place)
    marked = {"x-object-version-id": deleted.version_id} if state_of(container.metadata) == "enabled" else {}
    return page(204 if deleted.existed else 404, marked)  # what has expired is gone already, but now its row is too


async def _delete_synced(ask: Ask, stamp: str) -> Reply:
    """Deleted at the other side at that time; what was written here since stays."""
    if await sync.is_old(ask, stamp):
        return page(409)
    if await ask.service.versioning(ask.account, ask.container):
        await ask.service.delete(*ask.place)
    else:
        await ask.service.shelf.discard(*ask.place, stamp=stamp)
    return page(204)


async def _delete_version(ask: Ask, version_id: str) -> Reply:
    await ask.service.delete(*ask.place, version_id=version_id)
    current = await ask.service.find(*ask.place, newest=True)
    shown = version_of(current.head) if current is not None else "null"
    return page(204, {"x-object-version-id": version_id, "x-object-current-version-id": shown})


async def _promote(ask: Ask, version_id: str) -> Reply:
    """Make an older version the current one."""
    if version_id == NULL:
        raise Invalid("object.version_id", "Invalid version parameter", field="version-id")
    if content_length_of(ask.request, needed=True):
        raise Invalid("object.promote_body", "PUT version-id requires a zero byte body", field="Content-Length")
    head = await ask.service.versions.promote(*ask.place, version_id)
    return page(201, _kept(head, versioned=True))


def _kept(head: Head, *, versioned: bool) -> dict[str, str]:
    shown = {"etag": head.shown_etag, "last-modified": views.last_modified(head.stamp)}
    return {**shown, "x-object-version-id": version_of(head)} if versioned else shown


def _said(ask: Ask) -> dict[str, str]:
    headers = object_headers(ask.headers, ask.now_s)
    dynamic = dynamic_manifest(ask.headers)
    return {**headers, DYNAMIC: dynamic} if dynamic else headers


def _content_type(ask: Ask) -> str:
    given = ask.headers.get("content-type")
    if given and not is_true(ask.headers.get("x-detect-content-type")):
        return text_of(given, "Content-Type")
    return content_type_of_name(ask.name)


def _etag(text: str | None) -> str | None:
    return text.strip().strip('"').lower() if text else None


def _check_etag(etag: str | None) -> None:
    if etag is not None and (len(etag) != 32 or any(digit not in "0123456789abcdef" for digit in etag)):
        raise Invalid("object.etag", "ETag is not the MD5 of anything: 32 hexadecimal digits.", field="ETag")
