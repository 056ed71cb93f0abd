"""Containers as web sites: an index, pages for errors, and listings, for who comes without a token.

`X-Container-Meta-Web-Index`, `-Error`, `-Listings`, `-Listings-CSS`, `-Listings-Label`, `-Directory-Type`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from html import escape
from typing import Final
from urllib.parse import quote

import msgspec

from apus.kernel.errors import CloudError, Unauthenticated
from apus.services.object.api import reading, views
from apus.services.object.api.ask import LIST, Ask
from apus.services.object.api.bodies import is_true
from apus.services.object.api.faults import FAULTS, HTML, page
from apus.services.object.logic.listed import listed
from apus.services.object.logic.tempurl import TempUrl
from apus.services.object.model import ListingAsk, Row, Subdir
from apus.wire.route import Reply

_META: Final = "x-container-meta-web-"
_STYLE: Final = (
    "h1 {font-size: 1em; font-weight: bold;} th {text-align: left; padding: 0px 1em 0px 1em;}"
    " td {padding: 0px 1em 0px 1em;} a {text-decoration: none;}"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    index: str
    error: str
    listings: bool
    css: str
    label: str
    directory_type: str


def _site_of(metadata: Mapping[str, str]) -> Site | None:
    def said(name: str) -> str:
        return metadata.get(_META + name, "").strip()

    if not any(said(name) for name in ("index", "error", "listings")):
        return None
    kind = said("directory-type") or "application/directory"
    return Site(
        said("index"), said("error"), is_true(said("listings")), said("listings-css"), said("listings-label"), kind
    )


async def served(ask: Ask, handler: Callable[[Ask], Awaitable[Reply]], url: TempUrl | None) -> Reply | None:
    """The answer of the container's web site; None where there is none, or the caller is no visitor.

    A temporary URL of a prefix opens the directories below it too.
    """
    if ask.method not in ("GET", "HEAD") or not ask.container:
        return None
    if url is not None:
        return await _signed(ask, url)
    if ask.request.caller is not None and not is_true(ask.headers.get("x-web-mode")):
        return None
    known = await ask.service.directory.known(ask.account, ask.container)
    site = _site_of(known.metadata) if known is not None else None
    if site is None:
        return None
    visit = _Visit(ask, site)
    return await (visit.object() if ask.name else visit.container(handler))


async def _signed(ask: Ask, url: TempUrl) -> Reply | None:
    if url.prefix is None or (ask.name and not ask.name.endswith("/")):
        return None
    known = await ask.service.directory.known(ask.account, ask.container)
    site = _site_of(known.metadata) if known is not None else None
    if site is not None and (site.index or site.listings):
        # No page for errors: it lies beside the prefix.
        visit = _Visit(ask, dataclasses.replace(site, error=""), url)
        return await visit.directory(ask.name)
    if ask.name:
        return None
    raise Unauthenticated("object.temp_url", "401 Unauthorized: Temp URL invalid")


class _Visit:
    def __init__(self, ask: Ask, site: Site, url: TempUrl | None = None) -> None:
        self._ask, self._site, self._url = ask, site, url

    async def container(self, handler: Callable[[Ask], Awaitable[Reply]]) -> Reply:
        if not (self._site.index or self._site.listings):
            return await self._or_error(await _tried(handler, self._ask))
        return await self.directory("")

    async def object(self) -> Reply:
        reply = await _tried(reading.show_object, self._ask)
        name = self._ask.name
        if reply.status == 404 or self._is_directory(reply):
            if name.endswith("/"):
                return await self.directory(name)
            rows = await self._ask.service.listing(
                self._ask.account, self._ask.container, ListingAsk(limit=1, prefix=name + "/")
            )
            if rows and (self._site.index or self._site.listings):
                return self._with_slash()
        return await self._or_error(reply)

    async def directory(self, prefix: str) -> Reply:
        if not (prefix or self._ask.request.raw_path.endswith("/")):
            return self._with_slash()
        reply = page(404)
        if self._site.index:
            index = dataclasses.replace(self._ask, name=prefix + self._site.index)
            reply = await _tried(reading.show_object, index)
        if reply.status == 404 and self._site.listings:
            reply = await _tried(self._listing, dataclasses.replace(self._ask, name=prefix))
        return await self._or_error(reply)

    async def _listing(self, ask: Ask) -> Reply:
        head = await ask.service.container(ask.account, ask.container)
        await ask.require(head, LIST)
        wanted = ListingAsk(prefix=ask.name, delimiter="/")
        rows = await ask.service.listing(ask.account, ask.container, wanted)
        if ask.name and not rows:
            return page(404)
        data = _html(self._site, ask, rows, self._url)
        return Reply(data if ask.reading else b"", 200, {"content-length": str(len(data))}, content_type=HTML)

    async def _or_error(self, reply: Reply) -> Reply:
        """The site's own page for who was not let in, or found nothing."""
        if reply.status not in (401, 404) or not self._site.error:
            return reply
        found = await _tried(
            reading.show_object, dataclasses.replace(self._ask, name=f"{reply.status}{self._site.error}")
        )
        return msgspec.structs.replace(found, status=reply.status) if found.status == 200 else reply

    def _with_slash(self) -> Reply:
        request = self._ask.request
        signature = f"?{request.raw_query}" if self._url is not None else ""
        return page(301, {"location": f"{request.base_url}{request.raw_path}/{signature}"})

    def _is_directory(self, reply: Reply) -> bool:
        """An object that only stands for one."""
        small = reply.headers.get("content-length") in ("0", "1")
        return reply.status == 200 and small and reply.content_type == self._site.directory_type


async def _tried(handler: Callable[[Ask], Awaitable[Reply]], ask: Ask) -> Reply:
    try:
        return await handler(ask)
    except CloudError as error:
        status = FAULTS.status(error)
        if status >= 500:
            raise
        return Reply(FAULTS.render(status, error), status, content_type=HTML)


def _html(site: Site, ask: Ask, rows: Sequence[Row | Subdir], url: TempUrl | None) -> bytes:
    signature, top = (f"?{escape(url.query)}", url.prefix or "") if url is not None else ("", "")
    title = f"Listing of {escape(site.label)}/{escape(ask.name)}" if site.label else _title(ask)
    style = f'<style type="text/css">{_STYLE}</style>'
    if site.css:
        whole = site.css.startswith(("/", "http://", "https://"))
        href = site.css if whole else "../" * ask.name.count("/") + quote(site.css)
        style = f'<link rel="stylesheet" type="text/css" href="{escape(href)}" />'
    lines = [
        "<!DOCTYPE html>",
        f"<html>\n <head>\n  <title>{title}</title>\n  {style}\n </head>",
        f' <body>\n  <h1 id="title">{title}</h1>\n  <table id="listing">',
        '   <tr id="heading"><th class="colname">Name</th><th class="colsize">Size</th>'
        '<th class="coldate">Date</th></tr>',
    ]
    if len(ask.name) > len(top):
        lines.append(_line(f"../{signature}", "../", "subdir", "", "", name_id="parent"))
    for row in rows:
        shown = row.name[len(ask.name) :]
        if isinstance(row, Subdir):
            lines.append(_line(f"./{quote(shown)}{signature}", shown, "item subdir", "", ""))
        else:
            kinds = " ".join(f"type-{escape(part)}" for part in row.content_type.split(";")[0].split("/"))
            date = views.last_modified(max(row.stamp, row.told))
            href = f"./{quote(shown)}{signature}"
            lines.append(_line(href, shown, f"item {kinds}", str(listed(row).size_bytes), date))
    return ("\n".join(lines) + "\n  </table>\n </body>\n</html>\n").encode()


def _title(ask: Ask) -> str:
    return escape(f"Listing of /v1/{ask.account}/{ask.container}/{ask.name}")


def _line(href: str, name: str, kind: str, size: str, date: str, *, name_id: str = "") -> str:
    mark = f' id="{name_id}"' if name_id else ""
    return (
        f'   <tr{mark} class="{kind}"><td class="colname"><a href="{href}">{escape(name)}</a></td>'
        f'<td class="colsize">{size}</td><td class="coldate">{date}</td></tr>'
    )
