"""Swift's statuses, and its little pages for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from apus.kernel.errors import CloudError
from apus.wire.faults import Faults
from apus.wire.route import Reply

HTML: Final = "text/html; charset=UTF-8"

CODES: Final = {
    "object.etag": 422,
    "object.too_large": 413,
    "object.length_required": 411,
    "object.listing_limit": 412,
    "object.name_encoding": 412,
    "object.destination": 412,
    "object.full": 507,
    "object.manifest_size": 413,
    "object.quota": 413,
    "object.slow_down": 498,
    "object.no_archive": 412,
    "object.condition": 412,
    "object.versions_format": 406,
}

_REASONS: Final = {
    200: ("OK", ""),
    201: ("Created", ""),
    202: ("Accepted", "The request is accepted for processing."),
    204: ("No Content", ""),
    301: ("Moved Permanently", "The resource has moved."),
    304: ("Not Modified", ""),
    400: ("Bad Request", "The server could not comply with the request since it is either malformed or otherwise"
                         " incorrect."),
    401: ("Unauthorized", "This server could not verify that you are authorized to access the document you"
                          " requested."),
    403: ("Forbidden", "Access was denied to this resource."),
    404: ("Not Found", "The resource could not be found."),
    405: ("Method Not Allowed", "The method is not allowed for this resource."),
    409: ("Conflict", "There was a conflict when trying to complete your request."),
    411: ("Length Required", "Content-Length header required."),
    412: ("Precondition Failed", "A precondition for this request was not met."),
    413: ("Request Entity Too Large", "The body of your request was too large for this server."),
    416: ("Requested Range Not Satisfiable", "The Range requested is not available."),
    422: ("Unprocessable Entity", "Unable to process the contained instructions"),
    503: ("Service Unavailable", "The server is currently unavailable. Please try again at a later time."),
}  # fmt: skip


def page(status: int, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer without a body of its own."""
    title, text = _REASONS.get(status, ("Error", ""))
    body = f"<html><h1>{title}</h1><p>{text}</p></html>".encode() if text else b""
    extra = {"content-length": "0"} if status == 204 else {}
    return Reply(body, status, {**extra, **(headers or {})}, content_type=HTML)


def words(status: int) -> str:
    """The same in a report."""
    title, text = _REASONS.get(status, ("Error", ""))
    return f"{title}\n{text}"


TOLD: Final = {
    "object.listing_limit",
    "object.name_encoding",
    "object.destination",
    "object.no_archive",
    "object.symlink_loop",
    "object.symlink_etag",
    "object.segment",
    "object.etag",
    "object.temp_url",
    "object.slow_down",
    "object.recon",
}
"""Errors whose own words are shown in place of a page's: a client cannot guess them."""


def render(status: int, error: CloudError) -> bytes:
    if status in (400, 406, 413, 503, 507) or error.code in TOLD:
        return error.shown.encode()
    title, text = _REASONS.get(status, ("Error", error.shown))
    return f"<html><h1>{title}</h1><p>{text}</p></html>".encode()


FAULTS: Final = Faults(render, codes=CODES, content_type=HTML)
