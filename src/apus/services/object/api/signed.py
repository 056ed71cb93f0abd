"""Requests with a signature in place of a token: temporary URLs, and forms that upload files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from html import escape
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from apus.kernel.errors import CloudError, Invalid, TooLarge, Unauthenticated
from apus.services.object.api.ask import Ask
from apus.services.object.api.bodies import OBJECT_NAME_MAX, object_headers
from apus.services.object.api.faults import FAULTS, HTML
from apus.services.object.engine import OBJECT_BYTES_MAX, Intent
from apus.services.object.logic.conditions import http_date
from apus.services.object.logic.notices import POST
from apus.services.object.logic.signed import Grant, form_message, grant_of, keys_of
from apus.services.object.logic.tempurl import METHODS, NOT_SENT, SHOWN_METADATA, TempUrl, temp_url_of
from apus.wire.multipart import FormReader, Part, boundary_of
from apus.wire.route import Reply

FIELD_MAX_BYTES: Final = 64 << 10
FILES_MAX: Final = 1_000


async def _grant(ask: Ask, signature: str, messages: list[str]) -> Grant | None:
    account = await ask.service.directory.known(ask.account, "")
    container = await ask.service.directory.known(ask.account, ask.container)
    keys = (
        (Grant(ask.account, ask.container), keys_of(container.metadata, "container") if container else []),
        (Grant(ask.account, ""), keys_of(account.metadata, "account") if account else []),
    )
    return grant_of(signature, messages, keys)


async def temp_url(ask: Ask) -> TempUrl | None:
    """The temporary URL that this request is, with its rights given to `ask`.  Raise Unauthenticated."""
    if "temp_url_" not in ask.request.raw_query:
        return None
    url = temp_url_of(dict(ask.request.queries))
    if url is None or not (ask.name or _of_a_site(ask, url)):
        return None
    address = str((ask.request.scope.get("client") or ("",))[0])
    path = unquote(ask.request.raw_path)
    good = ask.method in METHODS and url.expires_s > ask.now_s and url.covers(ask.name) and url.admits(address)
    grant = await _grant(ask, url.signature, url.messages(ask.method, path)) if good else None
    if grant is None:
        raise Unauthenticated("object.temp_url", "401 Unauthorized: Temp URL invalid")
    if ask.method in ("PUT", "POST"):
        for name in NOT_SENT:
            if name in ask.headers:
                shown = f"Header {name.title()!r} not allowed in tempurl {ask.method} request"
                raise Invalid("object.temp_url_header", shown, field=name)
    ask.grant = grant
    return url


def _of_a_site(ask: Ask, url: TempUrl) -> bool:
    """Who may read all that begins so may see which there are, where the container is a site that shows it."""
    return bool(ask.container) and url.prefix is not None and ask.method in ("GET", "HEAD")


def signed_reply(ask: Ask, url: TempUrl, reply: Reply, *, saved: bool) -> Reply:
    """A browser saves what it reads, but for pages of a site; only metadata that is meant to be public is shown."""
    headers = {
        name: value
        for name, value in reply.headers.items()
        if not name.startswith("x-object-meta-") or name.startswith(SHOWN_METADATA)
    }
    if saved and ask.method in ("GET", "HEAD") and reply.status in (200, 206):
        headers["content-disposition"] = url.disposition(ask.name, headers.get("content-disposition"))
        headers["expires"] = http_date(url.expires_s)
    return msgspec.structs.replace(reply, headers=headers)


def is_form(ask: Ask) -> bool:
    return boundary_of(ask.headers.get("content-type", "")) is not None


async def post_form(ask: Ask) -> Reply:
    """Files from a form: the fields come first, and sign how many there may be, how large, and until when."""
    boundary = boundary_of(ask.headers.get("content-type", ""))
    assert boundary is not None
    form = FormReader(boundary, ask.request.stream())
    fields: dict[str, str] = {}
    status, message = 201, ""
    try:
        await _take(ask, form, fields)
    except CloudError as error:
        status, message = FAULTS.status(error), error.shown
        if status >= 500:
            raise
    if status == 401:  # who has no signature does not say where others are sent
        return Reply(f"FormPost: {message.title()}".encode(), status, content_type=HTML)
    redirect = fields.get("redirect", "")
    if not redirect:
        body = f"<html><h1>{message or 'Created'}</h1></html>" if status != 201 else ""
        return Reply(body.encode(), status, content_type=HTML)
    mark = "&" if "?" in redirect else "?"
    location = f"{redirect}{mark}status={status}&message={quote(message)}"
    body = f'<html><body><p><a href="{escape(location)}">Click to continue...</a></p></body></html>'
    return Reply(body.encode(), 303, {"location": location}, content_type=HTML)


async def _take(ask: Ask, form: FormReader, fields: dict[str, str]) -> None:
    limits: tuple[int, int] | None = None
    files = 0
    while (part := await form.next_part()) is not None:
        if part.filename is None:
            if limits is None:
                fields[part.name.lower()] = await form.text(FIELD_MAX_BYTES)
            continue
        if not part.filename:  # a file field that was left empty
            continue
        limits = limits or await _signed_limits(ask, fields)
        files += 1
        if files > limits[1]:
            raise Invalid("object.form_files", "max file count exceeded", field="max_file_count")
        await _keep(ask, part, fields, _bounded(form.data(), limits[0]))
    if not files:
        raise Invalid("object.form_files", "no files to process")


async def _signed_limits(ask: Ask, fields: dict[str, str]) -> tuple[int, int]:
    """(bytes of a file, number of files) that the form may send.  Raise Unauthenticated."""
    names = ("max_file_size", "max_file_count", "expires")
    texts = [fields.get(name, "") for name in names]
    for name, text in zip(names, texts, strict=True):
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise Invalid("object.form_field", f"{name} not an integer", field=name)
    size, count, expires_s = (int(text) for text in texts)
    if expires_s < ask.now_s:
        raise Unauthenticated("object.form_signature", "form expired")
    message = form_message(unquote(ask.request.raw_path), fields.get("redirect", ""), *texts)
    ask.grant = await _grant(ask, fields.get("signature", ""), [message])
    if ask.grant is None:
        raise Unauthenticated("object.form_signature", "invalid signature")
    await ask.to_write()
    return min(size, OBJECT_BYTES_MAX), min(count, FILES_MAX)


async def _keep(ask: Ask, part: Part, fields: dict[str, str], data: AsyncIterator[bytes]) -> None:
    assert part.filename
    name = ask.name + part.filename
    if "\0" in name or len(name.encode()) > OBJECT_NAME_MAX:
        raise Invalid("object.name_length", f"Object name length longer than {OBJECT_NAME_MAX}, or with a NUL")
    said = {name.replace("_", "-"): fields[name] for name in ("x_delete_at", "x_delete_after") if name in fields}
    headers = object_headers(said, ask.now_s)
    if "content-encoding" in part.headers:
        headers["content-encoding"] = part.headers["content-encoding"]
    content_type = part.headers.get("content-type") or "application/octet-stream"
    await ask.service.put(Intent(ask.account, ask.container, name, content_type, headers), data, cause=POST)


async def _bounded(data: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in data:
        size += len(chunk)
        if size > limit:
            raise TooLarge("object.form_size", "max_file_size exceeded", field="max_file_size")
        yield chunk
