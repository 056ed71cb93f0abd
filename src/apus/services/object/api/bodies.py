"""What Swift's requests say: names, metadata in headers, questions in the query.  Limits are Swift's defaults."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

from apus.kernel.errors import Invalid
from apus.services.object.model import ListingAsk
from apus.wire.route import ApiRequest

ACCOUNT_NAME_MAX: Final = 256
CONTAINER_NAME_MAX: Final = 256
OBJECT_NAME_MAX: Final = 1024
META_NAME_MAX: Final = 128
META_VALUE_MAX: Final = 256
META_COUNT_MAX: Final = 90
META_TOTAL_MAX: Final = 4096
LISTING_MAX: Final = 10_000
HEADER_BYTES_MAX: Final = 8192
DELETE_AT_MAX: Final = 9_999_999_999
"""Later times are this one, in the year 2286: Swift's have ten digits."""

KEPT_HEADERS: Final = ("content-encoding", "content-disposition", "content-language", "cache-control", "expires")
"""Besides metadata, these are kept with an object and given back."""

_TRUE: Final = {"true", "1", "yes", "on", "t", "y"}


def names_of(request: ApiRequest) -> tuple[str, str, str]:
    """Account, container and object from the path as it was sent; absent ones are empty."""
    parts = request.raw_path.split("/", 4)[2:]
    parts += [""] * (3 - len(parts))
    account, container, name = map(_decoded, parts) if "%" in request.raw_path else parts
    if len(request.raw_path) > ACCOUNT_NAME_MAX or not request.raw_path.isascii():  # else none can be too long
        for what, text, limit in (
            ("Account", account, ACCOUNT_NAME_MAX),
            ("Container", container, CONTAINER_NAME_MAX),
            ("Object", name, OBJECT_NAME_MAX),
        ):
            if len(text.encode()) > limit:
                raise Invalid(
                    "object.name_length",
                    f"{what} name length of {len(text.encode())} longer than {limit}",
                    field=what.lower(),
                )
    if not account or "/" in account or "/" in container:
        raise Invalid("object.name_encoding", "Account and container names cannot be empty or contain slashes")
    return account, container, name


def _decoded(part: str) -> str:
    try:
        text = unquote_to_bytes(part).decode()
    except UnicodeDecodeError as error:
        raise Invalid("object.name_encoding", "Invalid UTF8 or contains NULL") from error
    if "\0" in text:
        raise Invalid("object.name_encoding", "Invalid UTF8 or contains NULL")
    return text


def text_of(value: str, name: str) -> str:
    """A header's value, which HTTP gives as bytes, as the UTF-8 that Swift's clients send."""
    try:
        text = value.encode("latin-1").decode()
    except UnicodeDecodeError as error:
        raise Invalid("object.metadata_encoding", "Metadata must be valid UTF-8", field=name) from error
    if "\0" in text:
        raise Invalid("object.metadata_encoding", "Metadata must not contain NULL", field=name)
    return text


def metadata_of(headers: Mapping[str, str], kind: str) -> dict[str, str]:
    """`X-KIND-Meta-*`, with `X-Remove-KIND-Meta-*` as an empty value."""
    prefix, remove = f"x-{kind}-meta-", f"x-remove-{kind}-meta-"
    found: dict[str, str] = {}
    for name, value in headers.items():
        if name.startswith(remove):
            found.setdefault(prefix + name[len(remove) :], "")
        elif name.startswith(prefix):
            found[name] = text_of(value, name)
    check_metadata(found, prefix)
    return found


def check_kept(known: Mapping[str, str], said: Mapping[str, str], kind: str) -> None:
    """Raise Invalid when what is known and what is said now are past Swift's limits together."""
    prefix = f"x-{kind}-meta-"
    kept = {**known, **said}
    check_metadata({name: value for name, value in kept.items() if value and name.startswith(prefix)}, prefix)


def check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if len(name) + len(value) > HEADER_BYTES_MAX:
            shown = f"A header is longer than {HEADER_BYTES_MAX} bytes: {name[:META_NAME_MAX]}"
            raise Invalid("object.header_size", shown, field=name[:META_NAME_MAX])


def check_metadata(found: Mapping[str, str], prefix: str) -> None:
    """Raise Invalid past Swift's limits."""
    total = 0
    for name, value in found.items():
        short, size = name[len(prefix) :], len(value.encode())
        if not short:
            raise Invalid("object.metadata", "Metadata name cannot be empty", field=name)
        if len(short) > META_NAME_MAX:
            raise Invalid("object.metadata", f"Metadata name too long: {name}", field=name)
        if size > META_VALUE_MAX:
            raise Invalid("object.metadata", f"Metadata value longer than {META_VALUE_MAX}: {name}", field=name)
        total += len(short) + size
    if len(found) > META_COUNT_MAX:
        raise Invalid("object.metadata", f"Too many metadata items; max {META_COUNT_MAX}")
    if total > META_TOTAL_MAX:
        raise Invalid("object.metadata", f"Total metadata too large; max {META_TOTAL_MAX}")


def object_headers(headers: Mapping[str, str], now_s: float) -> dict[str, str]:
    """All that is kept with an object besides its type; an empty value of its metadata is a value, as in Swift."""
    kept = {name: value for name, value in metadata_of(headers, "object").items() if name in headers}
    kept |= {name: text_of(headers[name], name) for name in KEPT_HEADERS if headers.get(name)}
    delete_at = delete_at_of(headers, now_s)
    return kept | ({"x-delete-at": str(delete_at)} if delete_at is not None else {})


def dynamic_manifest(headers: Mapping[str, str]) -> str | None:
    """`X-Object-Manifest` as it was sent; raise Invalid unless it is `CONTAINER/PREFIX`."""
    value = headers.get("x-object-manifest")
    if value is None:
        return None
    said = text_of(value, "X-Object-Manifest").lstrip("/")
    text = unquote(said)
    container, slash, prefix = text.partition("/")
    if not (container and slash and prefix) or "?" in value or "&" in value or "\0" in text:
        shown = "X-Object-Manifest must be in the format container/prefix"
        raise Invalid("object.dynamic_manifest", shown, field="X-Object-Manifest")
    return said


def path_header(headers: Mapping[str, str], name: str) -> tuple[str, str]:
    """A header that names an object: (container, object)."""
    text = unquote(text_of(headers.get(name, ""), name)).lstrip("/")
    container, slash, rest = text.partition("/")
    if not container or not slash or not rest or len(rest.encode()) > OBJECT_NAME_MAX or "\0" in text:
        raise Invalid("object.destination", f"{name.title()} header must be of the form <container name>/<object name>")
    return container, rest


def delete_at_of(headers: Mapping[str, str], now_s: float) -> int | None:
    after, at = headers.get("x-delete-after"), headers.get("x-delete-at")
    if after:
        if not re.fullmatch(r"-?[0-9]{1,12}", after.strip()):
            raise Invalid("object.delete_at", "Non-integer X-Delete-After", field="X-Delete-After")
        if int(after) < 0:
            raise Invalid("object.delete_at", "X-Delete-After in past", field="X-Delete-After")
        return min(int(now_s) + int(after), DELETE_AT_MAX)
    if not at:
        return None
    delete_at = delete_at_in(at)
    if delete_at is None:
        raise Invalid("object.delete_at", "Non-integer X-Delete-At", field="X-Delete-At")
    if delete_at <= now_s:
        raise Invalid("object.delete_at", "X-Delete-At in past", field="X-Delete-At")
    return delete_at


def delete_at_in(text: str) -> int | None:
    """The seconds that a header names; None when it names none."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) if len(digits) <= 10 else DELETE_AT_MAX


def content_length_of(request: ApiRequest, *, needed: bool) -> int | None:
    """The announced size; None for a chunked body."""
    text = request.headers.get("content-length")
    if text is not None:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise Invalid("object.content_length", "Invalid Content-Length header value", field="Content-Length")
        return int(text)
    if needed and "chunked" not in request.headers.get("transfer-encoding", "").lower():
        raise Invalid("object.length_required", "Missing Content-Length header.", field="Content-Length")
    return None


def listing_ask(request: ApiRequest) -> ListingAsk:
    limit_text = request.query("limit") or ""
    limit = LISTING_MAX
    if limit_text.isascii() and limit_text.isdigit():
        limit = int(limit_text[:12])
        if limit > LISTING_MAX:
            raise Invalid("object.listing_limit", f"Maximum limit is {LISTING_MAX}", field="limit")
    texts = {}
    for name in ("marker", "end_marker", "prefix", "delimiter"):
        text = request.query(name) or ""
        if "\ufffd" in text and "%EF%BF%BD" not in request.raw_query.upper():
            raise Invalid("object.query_encoding", f'"{name}" parameter not valid UTF-8', field=name)
        texts[name] = text
    return ListingAsk(
        limit=limit,
        reverse=is_true(request.query("reverse")),
        path=request.query("path"),
        **texts,
    )


def listing_format(request: ApiRequest) -> str:
    """`plain`, `json` or `xml`: the query decides, else the first type accepted that we have."""
    asked = (request.query("format") or "").lower()
    if asked in ("json", "xml", "plain"):
        return asked
    for item in request.headers.get("accept", "").split(","):
        kind = item.partition(";")[0].strip().lower()
        if kind in ("application/json", "application/xml", "text/xml", "text/plain", "text/*", "*/*"):
            return {"application/json": "json", "application/xml": "xml", "text/xml": "xml"}.get(kind, "plain")
    return "plain"


def versions_format(request: ApiRequest) -> str:
    """A listing of versions is JSON; raise Invalid (406) for who wants none."""
    asked = (request.query("format") or "json").lower()
    kinds = [item.partition(";")[0].strip().lower() for item in request.headers.get("accept", "*/*").split(",")]
    if asked != "json" or not {"application/json", "application/*", "*/*"} & set(kinds):
        raise Invalid("object.versions_format", "Versions are listed as application/json alone.", field="format")
    return "json"


def content_type_of_name(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def is_true(text: str | None) -> bool:
    return text is not None and text.strip().lower() in _TRUE
