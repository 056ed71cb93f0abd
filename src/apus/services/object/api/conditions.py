"""`If-*` of writes, and `X-If-Delete-At`."""

from __future__ import annotations

from functools import partial
from typing import Final

from apus.kernel.errors import Conflict, Invalid, NotFound
from apus.services.object.api import views
from apus.services.object.api.ask import Ask
from apus.services.object.api.bodies import delete_at_in
from apus.services.object.condition import Condition
from apus.services.object.engine import Found
from apus.services.object.logic.conditions import check

_HEADERS: Final = {"if-match", "if-none-match", "if-unmodified-since", "x-if-delete-at"}


def condition_of(ask: Ask) -> Condition:
    asked = bool(ask.headers.keys() & _HEADERS)
    return Condition(ask.service, ask.place, partial(_check, ask) if asked else None)


def _check(ask: Ask, found: Found | None) -> None:
    if ask.method == "PUT" and ask.headers.get("if-none-match", "*").strip() != "*":
        raise Invalid("object.if_none_match", "If-None-Match only supports *", field="If-None-Match")
    etag, changed_s = (found.head.shown_etag, views.last_modified_s(found.head.changed)) if found else (None, 0)
    if check(ask.headers, etag, changed_s, reading=False) is not None:
        raise _unmet()
    if ask.method == "DELETE" and "x-if-delete-at" in ask.headers:
        _check_delete_at(ask.headers["x-if-delete-at"], found)


def _check_delete_at(text: str, found: Found | None) -> None:
    """Whoever deletes what is due means no object that was given more time since."""
    wanted = delete_at_in(text)
    if wanted is None:
        raise Invalid("object.delete_at", "Bad X-If-Delete-At header value", field="X-If-Delete-At")
    if found is None:
        raise NotFound("object.absent", "The resource could not be found.")
    if found.head.shown_headers.get("x-delete-at") != str(wanted):
        raise _unmet()


def _unmet() -> Conflict:
    return Conflict("object.condition", "A precondition for this request was not met.")
