"""Static large objects: their manifests as clients send, see and delete them."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

import msgspec

from apus.kernel.errors import CloudError, Invalid, NotFound, TooLarge
from apus.services.object.api import reports, views
from apus.services.object.api.ask import DELETE, DELETE_VERSION, Ask
from apus.services.object.api.bodies import OBJECT_NAME_MAX, content_length_of, is_true
from apus.services.object.api.faults import FAULTS, page, words
from apus.services.object.condition import Condition
from apus.services.object.engine import Found, Intent
from apus.services.object.logic.listed import MANIFEST
from apus.services.object.logic.locks import check_unlocked
from apus.services.object.logic.manifest import Part, Segment, Wish, etag_of, manifest_text, part_of, wish_of
from apus.services.object.logic.versions import version_of
from apus.services.object.model import Head
from apus.wire.route import Reply

MANIFEST_BYTES_MAX: Final = 8 << 20
SEGMENTS_MAX: Final = 1_000
BEAT_S: Final = 10.0
_KEYS: Final = {"path", "etag", "size_bytes", "range", "data"}


async def put_manifest(ask: Ask, intent: Intent, condition: Condition) -> Reply:
    """`intent` is the object but for its bytes and ETag."""
    await ask.to_write()
    length = content_length_of(ask.request, needed=True)
    if length is not None and length > MANIFEST_BYTES_MAX:
        raise TooLarge("object.manifest_size", f"Manifest file > {MANIFEST_BYTES_MAX} bytes")
    wishes = wishes_of(await ask.request.read(MANIFEST_BYTES_MAX), ask.account)
    if any((wish.account, wish.container, wish.name) == ask.place for wish in wishes):
        raise Invalid("object.manifest_self", f"Manifest object name {ask.name!r} cannot be included in the manifest")
    if is_true(ask.query("heartbeat")):
        form = reports.form_of(ask.headers)
        return Reply(None, 202, stream=_beating(ask, intent, wishes, form, condition), content_type=reports.TYPES[form])
    segments, report = await _resolved(ask, wishes)
    if report.errors:
        return report.reply(reports.form_of(ask.headers), status=400)
    head = await _kept(ask, intent, segments, condition)
    shown = {"etag": f'"{head.shown_etag}"', "last-modified": views.last_modified(head.stamp)}
    if await ask.service.versioning(ask.account, ask.container) == "enabled":
        shown["x-object-version-id"] = version_of(head)
    return page(201, shown)


async def show_manifest(ask: Ask, found: Found, more: Mapping[str, str]) -> Reply:
    """The list itself; `format=raw`: as it could be sent again."""
    segments = await ask.service.segments(found)
    raw = ask.query("format") == "raw"
    data = manifest_text(segments, raw=raw)
    headers = {**views.object_headers(found.head), **more, "content-length": str(len(data))}
    headers["etag"] = hashlib.md5(data, usedforsecurity=False).hexdigest()
    body = data if ask.reading else b""
    content_type = found.head.shown_type if raw else "application/json; charset=utf-8"
    return Reply(body, 200, headers, content_type=content_type)


async def asked_part(ask: Ask, found: Found) -> Part | None:
    """Which of its segments `part-number` asks for; whatever is no manifest has none."""
    text = ask.query("part-number")
    if text is None or MANIFEST not in found.head.headers:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise Invalid("object.part_number", "Part number must be an integer greater than 0", field="part-number")
    if "range" in ask.headers:
        shown = "Range requests are not supported with part number queries"
        raise Invalid("object.part_number", shown, field="part-number")
    return part_of(await ask.service.segments(found), int(text))


async def put_copy(ask: Ask, found: Found, intent: Intent) -> Head:
    """The manifest itself copied: the segments have to be there where it comes to lie, and the caller's to read."""
    wishes = [wish_of(segment, intent.account) for segment in await ask.service.segments(found)]
    segments, report = await _resolved(ask, wishes)
    if report.errors:
        raise Invalid("object.manifest_copy", "\n".join(f"{path}, {why}" for path, why in report.errors))
    return await ask.service.put_manifest(intent, segments)


async def delete_all(ask: Ask, version_id: str | None) -> Reply:
    """The object, or this version, and all segments that it lists, nested ones too, as a bulk delete reports it.

    Of one that has to stay, so do the segments.
    """
    report = reports.Report("delete")
    found = await ask.service.find(*ask.place, newest=True, version_id=version_id)
    members: list[tuple[str, str, str]] = []
    if found is not None:
        try:
            await ask.may(DELETE if version_id is None else DELETE_VERSION, *ask.place)
            if version_id is not None:
                check_unlocked(found.head.shown_headers, ask.now_s)
        except CloudError as error:
            report.failed(f"/{ask.container}/{ask.name}", FAULTS.status(error))
            return report.reply(reports.form_of(ask.headers))
        if MANIFEST not in found.head.headers:
            report.errors.append((quote(f"/{ask.container}/{ask.name}"), "Not an SLO manifest"))
            return report.reply(reports.form_of(ask.headers))
        members = await ask.service.segmented.members(found)
    for account, container, name in members:
        await delete_one(ask, report, account, container, name)
    await delete_one(ask, report, *ask.place, version_id)
    return report.reply(reports.form_of(ask.headers))


async def delete_one(
    ask: Ask, report: reports.Report, account: str, container: str, name: str, version_id: str | None = None
) -> None:
    try:
        await ask.may(DELETE if version_id is None else DELETE_VERSION, account, container, name)
        deleted = await ask.service.delete(account, container, name, version_id=version_id)
        report.deleted += deleted.existed
        report.not_found += not deleted.existed
    except NotFound:
        report.not_found += 1
    except CloudError as error:
        report.failed(f"/{container}/{name}", FAULTS.status(error))


def wishes_of(data: bytes, account: str) -> list[Wish]:
    """Raise Invalid with all that is wrong."""
    try:
        items = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid("object.manifest_json", "Manifest must be valid JSON.") from error
    if not isinstance(items, list):
        raise Invalid("object.manifest_json", "Manifest must be a list.")
    if len(items) > SEGMENTS_MAX:
        raise TooLarge("object.manifest_size", f"Number of segments must be <= {SEGMENTS_MAX}")
    wishes, wrong = list[Wish](), list[str]()
    for index, item in enumerate(items):
        wish = _wish(item, account)
        if isinstance(wish, str):
            wrong.append(f"Index {index}: {wish}")
        else:
            wishes.append(wish)
    if not wrong and not any(wish.name for wish in wishes):
        wrong.append("Inline data segments require at least one object-backed segment.")
    if wrong:
        raise Invalid("object.manifest_json", "\n".join(wrong))
    return wishes


def _wish(item: Any, account: str) -> Wish | str:
    if not isinstance(item, dict):
        return "not a JSON object"
    unknown = sorted(set(item) - _KEYS)
    if unknown:
        return f"extraneous keys {', '.join(unknown)}"
    if "data" in item:
        return _data_wish(item["data"], len(item))
    path, etag, size, text = (item.get(key) for key in ("path", "etag", "size_bytes", "range"))
    if not isinstance(path, str):
        return "expected keys to include one of data or path"
    container, slash, name = path.lstrip("/").partition("/")
    if not container or not slash or not name or "\0" in path or len(name.encode("utf-8", "replace")) > OBJECT_NAME_MAX:
        return "path does not refer to an object. Path must be of the form /container/object."
    if isinstance(size, str) and size.isascii() and size.isdigit() and len(size) < 20:
        size = int(size)
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        return "invalid size_bytes"
    if etag is not None and not isinstance(etag, str):
        return "etag is not a text"
    if text is not None and (not isinstance(text, str) or "," in text):
        return "invalid range: one range of bytes is possible"
    return Wish(account, container, name, etag.strip('"').lower() if etag else None, size, text, said=path)


def _data_wish(data: Any, keys: int) -> Wish | str:
    if keys > 1:
        return "data cannot go with other keys"
    if not isinstance(data, str):
        return "data must be valid base64"
    try:
        decoded = base64.b64decode(data.encode(), validate=True)
    except (binascii.Error, ValueError):
        return "data must be valid base64"
    return Wish("", "", "", data=decoded) if decoded else "too small; each segment must be at least 1 byte"


async def _resolved(ask: Ask, wishes: Sequence[Wish]) -> tuple[Sequence[Segment], reports.Report]:
    segments, problems = await ask.service.segmented.resolve(wishes, ask.may_read)
    report = reports.Report("upload")
    report.errors = [(quote(it.wish.path), it.why) for it in problems]
    return segments, report


async def _kept(ask: Ask, intent: Intent, segments: Sequence[Segment], condition: Condition) -> Head:
    etag = etag_of(segments)
    if intent.etag is not None and intent.etag != etag:
        raise Invalid("object.etag", f"The ETag of these segments is {etag}, not {intent.etag}.", field="ETag")
    async with condition:
        await condition.settle()
        return await ask.service.put_manifest(intent, segments)


async def _beating(
    ask: Ask, intent: Intent, wishes: Sequence[Wish], form: str, condition: Condition
) -> AsyncIterator[bytes]:
    """A space now and then while it takes long, so that nobody on the way loses patience; then how it ended."""
    report, shown = reports.Report("upload"), dict[str, Any]()
    segments: Sequence[Segment] = ()
    began_s = ask.service.cluster.world.clock.monotonic_s()
    yield b" "
    for at in range(0, len(wishes), 100):
        some, part = await _resolved(ask, wishes[at : at + 100])
        segments, report.errors = [*segments, *some], [*report.errors, *part.errors]
        if ask.service.cluster.world.clock.monotonic_s() - began_s > BEAT_S:
            began_s += BEAT_S
            yield b" "
    if report.errors:
        report.status, report.body = "400 Bad Request", words(400)
    else:
        try:
            head = await _kept(ask, intent, segments, condition)
            report.status = "201 Created"
            shown = {"Etag": f'"{head.shown_etag}"', "Last Modified": views.last_modified(head.stamp)}
        except CloudError as error:
            report.status = reports.status_line(FAULTS.status(error))
            report.body = words(FAULTS.status(error))
    yield b"\r\n\r\n" + report.render(form, shown)
