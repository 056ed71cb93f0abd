"""XML in and out.  What comes in is plain elements: no document types, no entities, so nothing grows or is fetched."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final
from xml.parsers import expat
from xml.sax.saxutils import escape

from apus.skins.s3.errors import S3Error

NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
CONTENT_TYPE: Final = "application/xml"
NODES_MAX: Final = 50_000
"""Ten thousand parts or a thousand keys, with all that may be said of each."""
DEPTH_MAX: Final = 16

_CONTROLS: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\r]")


@dataclasses.dataclass(slots=True)
class Node:
    """An element; namespaces are left off its name."""

    name: str
    attributes: dict[str, str]
    text: str = ""
    children: list[Node] = dataclasses.field(default_factory=list)

    def all(self, name: str) -> Iterator[Node]:
        return (child for child in self.children if child.name == name)

    def find(self, name: str) -> Node | None:
        return next(self.all(name), None)

    def get(self, name: str) -> str | None:
        """The text of a child; None without one."""
        child = self.find(name)
        return None if child is None else child.text.strip()

    def need(self, name: str) -> str:
        """Raise S3Error without it."""
        text = self.get(name)
        if text is None:
            raise malformed(f"{self.name} has no {name}.")
        return text

    def only(self, *names: str) -> None:
        """Raise S3Error when it has other children than these."""
        for child in self.children:
            if child.name not in names:
                raise malformed(f"{child.name} is no part of {self.name}.")


def malformed(shown: str = "") -> S3Error:
    said = "The XML you provided was not well-formed or did not validate against our published schema"
    return S3Error("MalformedXML", f"{said}: {shown}" if shown else said + ".")


class _Builder:
    def __init__(self) -> None:
        self.root: Node | None = None
        self._open: list[Node] = []
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > NODES_MAX or len(self._open) >= DEPTH_MAX:
            raise malformed("It is too large or too deep.")
        local = {key.rpartition(":")[2]: value for key, value in attributes.items()}
        node = Node(name.rpartition(":")[2], local)
        if self._open:
            self._open[-1].children.append(node)
        else:
            self.root = node
        self._open.append(node)

    def end(self, name: str) -> None:
        self._open.pop()

    def text(self, data: str) -> None:
        if self._open:
            self._open[-1].text += data

    def refuse(self, *_: Any) -> int:
        raise malformed("Document types and entities are not allowed.")


def parse(data: bytes, root: str) -> Node:
    """Raise S3Error (MalformedXML) for all that is not one element of this name with plain ones inside."""
    builder, parser = _Builder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = builder.refuse
    parser.ExternalEntityRefHandler = builder.refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError) as error:
        raise malformed(str(error)) from None
    if builder.root is None or builder.root.name != root:
        raise malformed(f"A {root} was expected.")
    return builder.root


Value = str | int | bool | None | Sequence["Field"]
Field = tuple[str, Any]
"""A name with a text, a number, a truth, further fields; None leaves the field out."""


def document(name: str, fields: Sequence[Field], *, namespace: str = NAMESPACE) -> bytes:
    belongs = f' xmlns="{namespace}"' if namespace else ""
    parts = [f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}{belongs}>']
    _write(parts, fields)
    parts.append(f"</{name}>")
    return "".join(parts).encode("utf-8", "replace")


def _write(parts: list[str], fields: Sequence[Field]) -> None:
    for name, value in fields:
        if value is None:
            continue
        if isinstance(value, str):
            parts.append(f"<{name}>{text_of(value)}</{name}>" if value else f"<{name}/>")
        elif isinstance(value, bool):
            parts.append(f"<{name}>{'true' if value else 'false'}</{name}>")
        elif isinstance(value, int):
            parts.append(f"<{name}>{value}</{name}>")
        else:
            parts.append(f"<{name}>")
            _write(parts, value)
            parts.append(f"</{name.partition(' ')[0]}>")


def text_of(value: str) -> str:
    """Escaped; what XML 1.0 cannot say is a numbered reference, as in S3."""
    escaped = escape(value)
    return _CONTROLS.sub(lambda match: f"&#{ord(match[0])};", escaped) if not escaped.isprintable() else escaped


def written(node: Node) -> list[Field]:
    """A parsed element's children as fields again."""
    return [(child.name, written(child) if child.children else child.text) for child in node.children]
