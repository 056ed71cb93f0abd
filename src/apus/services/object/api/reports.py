"""Reports of requests that do many things: bulk uploads and deletes, large objects.  200 says no more than "tried"."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote
from xml.sax.saxutils import escape

import msgspec

from apus.wire.route import Reply

TYPES: Final = {
    "plain": "text/plain; charset=utf-8",
    "json": "application/json; charset=utf-8",
    "xml": "application/xml; charset=utf-8",
}


def form_of(headers: Mapping[str, str]) -> str:
    """`plain`, `json` or `xml`, as the client accepts it."""
    for item in headers.get("accept", "").split(","):
        kind = item.partition(";")[0].strip().lower()
        if kind == "application/json":
            return "json"
        if kind in ("application/xml", "text/xml"):
            return "xml"
    return "plain"


def status_line(status: int) -> str:
    return "498 Rate Limited" if status == 498 else f"{status} {HTTPStatus(status).phrase}"


@dataclasses.dataclass(slots=True)
class Report:
    root: str
    """The element around it in XML."""
    errors: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """(path, status)"""
    deleted: int = 0
    not_found: int = 0
    created: int = 0
    status: str = "200 OK"
    body: str = ""

    def failed(self, path: str, status: int) -> None:
        self.errors.append((quote(path), status_line(status)))

    def reply(self, form: str, *, status: int = 200) -> Reply:
        """`status` other than 200: the request failed as a whole."""
        if status != 200:
            return Reply(self.render(form, only_errors=True), status, content_type=TYPES[form])
        return Reply(self.render(form), 200, content_type=TYPES[form])

    def render(self, form: str, more: Mapping[str, Any] | None = None, *, only_errors: bool = False) -> bytes:
        values: dict[str, Any] = {}
        if not only_errors:
            values = {"Response Status": self._status, "Response Body": self.body, **(more or {})}
            if self.root == "delete":
                values |= {"Number Deleted": self.deleted, "Number Not Found": self.not_found}
            elif self.root == "extract":
                values["Number Files Created"] = self.created
        if form == "json":
            return msgspec.json.encode({**values, "Errors": [list(error) for error in self.errors]})
        if form == "xml":
            return self._xml(values)
        lines = [f"{key}: {value}" for key, value in sorted(values.items())]
        return "\n".join([*lines, "Errors:", *(f"{path}, {status}" for path, status in self.errors), ""]).encode()

    @property
    def _status(self) -> str:
        """One failure makes the whole a failure, unless it was said otherwise."""
        return "400 Bad Request" if self.errors and self.status == "200 OK" else self.status

    def _xml(self, values: Mapping[str, Any]) -> bytes:
        inside = "".join(f"<{_tag(key)}>{escape(str(value))}</{_tag(key)}>" for key, value in sorted(values.items()))
        errors = "".join(
            f"<object><name>{escape(path)}</name><status>{escape(status)}</status></object>"
            for path, status in self.errors
        )
        root = self.root
        return f"<{root}>\n{inside}<errors>{errors}</errors>\n</{root}>\n".encode()


def _tag(key: str) -> str:
    return key.lower().replace(" ", "_")
