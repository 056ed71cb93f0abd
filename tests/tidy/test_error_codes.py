"""Error codes are for ever: programs match on them.  `error_codes.txt` lists them once.

A new code is added by `python -m tests.tidy.test_error_codes`; one that is listed may neither change nor vanish.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
LISTED = Path(__file__).with_name("error_codes.txt")
FAMILY = {
    "CloudError", "NotFound", "Conflict", "Invalid", "TooLarge", "Forbidden", "Unauthenticated", "OverQuota", "NoRoom",
    "Unavailable",
}  # fmt: skip


def trees() -> list[ast.Module]:
    return [ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))]


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def families(parsed: list[ast.Module]) -> set[str]:
    """The family, and what services derive from it."""
    classes = [node for tree in parsed for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    known: set[str] = set()
    more = set(FAMILY)
    while more - known:
        known |= more
        more = {node.name for node in classes if any(name_of(parent) in known for parent in node.bases)}
    return known


def codes() -> Iterator[str]:
    parsed = trees()
    known = families(parsed)
    for tree in parsed:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and name_of(node.func) in known and node.args:
                first = node.args[0]
                for part in (first.body, first.orelse) if isinstance(first, ast.IfExp) else (first,):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def test_error_codes_neither_change_nor_vanish() -> None:
    listed = LISTED.read_text().split()
    assert listed == sorted(set(listed))
    assert not set(listed) - set(codes()), "a code that clients may match on is gone; bring it back"


def test_error_codes_are_listed() -> None:
    unlisted = set(codes()) - set(LISTED.read_text().split())
    assert not unlisted, "list them: python -m tests.tidy.test_error_codes"


def test_error_codes_say_where_and_what() -> None:
    for code in set(codes()):
        assert all(part and part.replace("_", "").isalnum() for part in code.split(".")), code
        assert "." in code, code


if __name__ == "__main__":
    known_codes = LISTED.read_text().split() if LISTED.exists() else []
    LISTED.write_text("\n".join(sorted({*known_codes, *codes()})) + "\n")
