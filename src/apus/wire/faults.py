"""From the closed family of errors to HTTP: status and body, in the shape of each OpenStack service."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from apus.kernel import errors
from apus.kernel.errors import CloudError
from apus.wire.versions import NotAcceptable

STATUSES: Final[Mapping[type[CloudError], int]] = {
    NotAcceptable: 406,
    errors.TooLarge: 413,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Invalid: 400,
    errors.Forbidden: 403,
    errors.Unauthenticated: 401,
    errors.OverQuota: 403,
    errors.NoRoom: 409,
    errors.Unavailable: 503,
}


class MethodNotAllowed(CloudError):
    """The path exists, the method on it does not: 405."""


class KeyReused(errors.Invalid):
    """An Idempotency-Key that was used for another request: 422 (IETF draft "The Idempotency-Key HTTP Header")."""


@dataclasses.dataclass(frozen=True, slots=True)
class Faults:
    """How one service says no: `render(status, error) -> JSON body`, and where its statuses differ."""

    render: Callable[[int, CloudError], Any]
    statuses: Mapping[type[CloudError], int] = dataclasses.field(default_factory=dict)
    codes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Statuses by error code, where one kind of error has several."""
    content_type: str = "text/plain; charset=UTF-8"
    """Of a body that is bytes; others are JSON."""

    def status(self, error: CloudError) -> int:
        if error.code in self.codes:
            return self.codes[error.code]
        if isinstance(error, MethodNotAllowed):
            return 405
        if isinstance(error, KeyReused):
            return 422
        for family in type(error).__mro__:
            for table in (self.statuses, STATUSES):
                if family in table:
                    return table[family]
        return 500


def keystone_fault(status: int, error: CloudError) -> Any:
    """`{"error": {...}}`: Keystone."""
    return {"error": {"code": status, "message": error.shown, "title": HTTPStatus(status).phrase}}


_NOVA_NAMES: Final = {
    400: "badRequest", 401: "unauthorized", 403: "forbidden", 404: "itemNotFound", 405: "badMethod",
    406: "computeFault", 409: "conflictingRequest", 413: "overLimit", 415: "badMediaType", 429: "overLimit",
    501: "notImplemented", 503: "serviceUnavailable",
}  # fmt: skip


def nova_fault(status: int, error: CloudError) -> Any:
    """`{"itemNotFound": {...}}`: Nova and Cinder."""
    return {_NOVA_NAMES.get(status, "computeFault"): {"code": status, "message": error.shown}}


def neutron_fault(status: int, error: CloudError) -> Any:
    """`{"NeutronError": {...}}`: `type` is the class name that clients match on."""
    kind = str(error.details.get("type") or type(error).__name__)
    return {"NeutronError": {"type": kind, "message": error.shown, "detail": ""}}


def errors_fault(status: int, error: CloudError) -> Any:
    """`{"errors": [...]}`: Placement and our own API (the API-SIG guideline "Errors")."""
    item = {"status": status, "code": error.code, "title": HTTPStatus(status).phrase, "detail": error.shown}
    if isinstance(error, errors.Invalid) and error.field:
        item["field"] = error.field
    if error.details:
        item["details"] = dict(error.details)
    return {"errors": [item]}


def plain_fault(status: int, error: CloudError) -> Any:
    """A line of plain text: Swift."""
    return f"{status} {HTTPStatus(status).phrase}\n\n{error.shown}\n".encode()


def html_fault(status: int, error: CloudError) -> Any:
    """Glance: openstacksdk shows the text of an error only when it is JSON or HTML (exceptions.raise_from_response)."""
    title = f"{status} {HTTPStatus(status).phrase}"
    shown = html.escape(error.shown)
    page = (
        f"<html>\n <head>\n  <title>{title}</title>\n </head>\n"
        f" <body>\n  <h1>{title}</h1>\n  {shown}<br /><br />\n </body>\n</html>\n"
    )
    return page.encode()
