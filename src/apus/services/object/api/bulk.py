"""Bulk requests: an archive taken apart into objects, and a list of things to delete.

200 says that it was tried; what became of it stands in the body.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from apus.kernel.errors import CloudError, Invalid, NotFound, TooLarge, Unauthenticated
from apus.services.object.api import large, reports
from apus.services.object.api.ask import WRITE, Ask
from apus.services.object.api.bodies import (
    CONTAINER_NAME_MAX,
    OBJECT_NAME_MAX,
    check_metadata,
    content_type_of_name,
    object_headers,
)
from apus.services.object.api.faults import FAULTS
from apus.services.object.engine import OBJECT_BYTES_MAX, Intent
from apus.services.object.logic.tar import Entry, EntryEnd, Event, TarParser, Unpacker
from apus.wire.route import Reply

FORMS: Final = ("tar", "tar.gz", "tar.bz2")
DELETES_MAX: Final = 10_000
FAILURES_MAX: Final = 1_000
CONTAINERS_MAX: Final = 10_000
_LINE_MAX: Final = 3 * (CONTAINER_NAME_MAX + OBJECT_NAME_MAX + 2)
_ATTRIBUTE: Final = "SCHILY.xattr.user."


def asked(ask: Ask) -> Callable[[Ask], Awaitable[Reply]] | None:
    """What answers in place of the path's own handler: wherever a path leads in the account, its query decides."""
    if ask.method == "PUT" and ask.query("extract-archive") is not None:
        return extract
    if ask.method in ("POST", "DELETE") and ask.query("bulk-delete") is not None:
        return delete
    return None


async def extract(ask: Ask) -> Reply:
    """`PUT …?extract-archive=tar.gz`: below the account, a container, or a prefix in one."""
    form = (ask.query("extract-archive") or "").lower().strip(".")
    form = {"tgz": "tar.gz", "tbz2": "tar.bz2"}.get(form, form)
    if form not in FORMS:
        raise Invalid("object.archive_form", f"Unsupported archive format {form!r}", field="extract-archive")
    extraction = _Extraction(ask)
    try:
        await extraction.run(form)
    except Invalid as error:
        if error.code != "object.archive":
            raise
        extraction.report.status, extraction.report.body = "400 Bad Request", error.shown
    if not extraction.report.created and not extraction.report.errors and not extraction.report.body:
        extraction.report.status, extraction.report.body = "400 Bad Request", "Invalid Tar File: No Valid Files"
    return extraction.report.reply(reports.form_of(ask.headers))


class _Extraction:
    def __init__(self, ask: Ask) -> None:
        self._ask, self.report = ask, reports.Report("extract")
        self._prefix = "/".join(part for part in (ask.container, ask.name.strip("/")) if part)
        self._containers: set[str] = set()
        said = {name: ask.headers[name] for name in ("x-delete-at", "x-delete-after") if name in ask.headers}
        self._headers = object_headers(said, ask.now_s)

    async def run(self, form: str) -> None:
        events = self._events(form)
        async for event in events:
            if not isinstance(event, Entry) or event.is_directory:
                continue  # bytes of a file that was refused
            try:
                await self._keep(event, events)
                self.report.created += 1
            except Unauthenticated:
                raise
            except CloudError as error:
                if error.code == "object.archive":
                    raise
                self.report.failed(event.name.encode("utf-8", "replace").decode(), FAULTS.status(error))
                if len(self.report.errors) >= FAILURES_MAX:
                    raise Invalid("object.archive", f"Too many failures: {FAILURES_MAX}") from error

    async def _events(self, form: str) -> AsyncIterator[Event]:
        unpacker, parser = Unpacker(form), TarParser()
        async for chunk in self._ask.request.stream():
            for piece in unpacker.feed(chunk):
                for event in parser.feed(piece):
                    yield event
        unpacker.finish()
        parser.finish()

    async def _keep(self, entry: Entry, events: AsyncIterator[Event]) -> None:
        container, name = self._place(entry)
        if entry.size_bytes > OBJECT_BYTES_MAX:
            raise TooLarge("object.too_large", "Your request is too large.")
        await self._ensure(container, name)
        headers, content_type = dict(self._headers), content_type_of_name(name)
        for key, value in entry.pax.items():
            if key == _ATTRIBUTE + "mime_type":
                content_type = value
            elif key.startswith(_ATTRIBUTE + "meta."):
                headers["x-object-meta-" + key.removeprefix(_ATTRIBUTE + "meta.").lower()] = value
        check_metadata({key: value for key, value in headers.items() if key != "x-delete-at"}, "x-object-meta-")
        intent = Intent(self._ask.account, container, name, content_type, headers, entry.size_bytes)
        await self._ask.service.put(intent, _until_end(events))

    def _place(self, entry: Entry) -> tuple[str, str]:
        try:
            entry.name.encode()
        except UnicodeEncodeError as error:
            raise Invalid("object.name_encoding", "Invalid UTF8 or contains NULL") from error
        path = entry.name.removeprefix("./").lstrip("/")
        container, slash, name = (f"{self._prefix}/{path}" if self._prefix else path).partition("/")
        if not slash or not name or not container or "\0" in path:
            raise Invalid("object.name_encoding", "The archive's file is in no container")
        if len(container.encode()) > CONTAINER_NAME_MAX or len(name.encode()) > OBJECT_NAME_MAX:
            raise Invalid("object.name_length", "Name length too long")
        return container, name

    async def _ensure(self, container: str, name: str) -> None:
        """The container is there, and the caller may write this into it."""
        if container not in self._containers and len(self._containers) >= CONTAINERS_MAX:
            raise Invalid("object.archive", f"More than {CONTAINERS_MAX} containers to create from tar.")
        try:
            await self._ask.may(WRITE, self._ask.account, container, name)
        except NotFound:
            await self._ask.service.make_container(self._ask.account, container, {}, caller=self._ask.request.caller)
        self._containers.add(container)


async def _until_end(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    async for event in events:
        if isinstance(event, EntryEnd):
            return
        assert isinstance(event, bytes)
        yield event


async def delete(ask: Ask) -> Reply:
    """`POST` or `DELETE` of an account with `?bulk-delete`: one percent-encoded path on each line."""
    report = reports.Report("delete")
    for line in await _lines(ask):
        path = unquote_to_bytes(line.strip()).lstrip(b"/")
        if not path:
            continue
        try:
            container, _, name = path.decode().partition("/")
        except UnicodeDecodeError:
            report.errors.append((quote(path), "412 Precondition Failed"))
            continue
        if (
            "\0" in container + name
            or len(container.encode()) > CONTAINER_NAME_MAX
            or len(name.encode()) > OBJECT_NAME_MAX
        ):
            report.failed(f"/{container}/{name}" if name else f"/{container}", 400)
        elif name:
            await large.delete_one(ask, report, ask.account, container, name)
        else:
            await _delete_container(ask, report, container)
    if not (report.deleted or report.not_found or report.errors):
        report.status, report.body = "400 Bad Request", "Invalid bulk delete."
    return report.reply(reports.form_of(ask.headers))


async def _lines(ask: Ask) -> list[bytes]:
    lines = list[bytes]()
    held = b""
    async for chunk in ask.request.stream():
        *whole, held = (held + chunk).split(b"\n")
        if any(len(line) > _LINE_MAX for line in (*whole, held)):
            raise Invalid("object.bulk_line", "Invalid File Name")
        lines += whole
        if len(lines) > DELETES_MAX:
            raise TooLarge("object.bulk_deletes", f"Maximum Bulk Deletes: {DELETES_MAX} per request")
    return [*lines, held]


async def _delete_container(ask: Ask, report: reports.Report, container: str) -> None:
    try:
        await ask.may_delete(container)
        await ask.service.delete_container(ask.account, container)
        report.deleted += 1
    except NotFound:
        report.not_found += 1
    except CloudError as error:
        report.failed(f"/{container}", FAULTS.status(error))
