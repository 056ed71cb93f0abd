"""The style of the house as tests: a rule that is not a test is a wish.

Debts are listed with their number, which may only fall; whoever pays one off takes it from the list.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "apus"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "versions" not in path.parts)
TESTS = sorted((ROOT / "tests").rglob("*.py"))

FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
LONG_FILES: dict[str, int] = {}
"""path -> lines"""
LONG_FUNCTIONS: dict[str, int] = {}
"""path:function -> lines"""
OUTSIDE: dict[str, set[str]] = {
    "kernel/log.py": {"time.time"},  # the stamp of a log line is nobody's business but the reader's
    "skins/s3/door.py": {"time.perf_counter"},
    "wire/app.py": {"time.perf_counter"},  # how long an answer took, for the log alone
}
"""path -> what of the outside it may use although it is not in one of the outside's rooms, with the reason."""
EXCEPT_EXCEPTION: dict[str, int] = {
    "services/object/drivers/indexes.py": 1,  # a group commit: whoever waits is told, whatever it was
    "services/compute/agent/agent.py": 1,  # a runner: one server's failure must not stop the others'
}
"""path -> how many `except Exception` beyond the rooms that may have them."""

RUNNERS = (
    "platform/",
    "sim/",
    "wire/",
    "node/",
    "kernel/flow/",
    "kernel/loop/",
    "kernel/remote.py",
    "skins/s3/door.py",
)
"""Who runs the work of others."""
FOREIGN_WORDS: dict[str, int] = {}
"""path -> how many of OpenStack's words are left inside, instead of at the door."""
IMPURITIES: dict[str, int] = {}
"""path -> how many impurities it has left."""
IMPURE = {"asyncio", "time", "random", "os", "socket", "uuid", "subprocess", "threading"}
PURE_PARTS = {("random", "Random"), ("uuid", "UUID"), ("uuid", "uuid5")}
"""What of these modules neither draws nor looks: a generator is given, a text is read."""
READS_CLOCK = {"time", "monotonic", "perf_counter", "sleep", "time_ns", "monotonic_ns", "localtime"}
OUTSIDE_ROOMS = {"platform", "cli", "node", "sim", "guest"}
"""`guest` builds images on a developer's machine; no part of the cloud runs it."""
VAGUE = {"utils", "util", "manager", "managers", "helper", "helpers", "base", "mixin", "mixins"}
LEGACY = re.compile(r"OS-[A-Z]|\bos-[a-z]+|[Mm]icroversion|flavorRef|InstanceId")


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of each import, wherever in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, node.module or "", alias.name) for alias in node.names)


def attributes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, "module.name") of each use like `time.time`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.lineno, f"{node.value.id}.{node.attr}"


def impurities(tree: ast.Module) -> list[str]:
    found = [
        f"line {node.lineno}: waits"
        for node in ast.walk(tree)
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
    ]
    for line, module, name in imported(tree):
        root = module.split(".")[0]
        if root in IMPURE and (module, name) not in PURE_PARTS:
            found.append(f"line {line}: imports {module}")
    return found


def outside(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, what) of each clock, die, thread or process that should have come from World."""
    found = []
    for line, module, name in imported(tree):
        root = module.split(".")[0]
        if root in {"threading", "subprocess", "multiprocessing"}:
            found.append((line, root))
        if (root == "random" and name != "Random") or (root == "time" and name in READS_CLOCK):
            found.append((line, f"{root}.{name}"))
        if root == "uuid" and name in {"uuid1", "uuid4"}:
            found.append((line, f"uuid.{name}"))
    drawn = {"uuid.uuid1", "uuid.uuid4", *(f"time.{name}" for name in READS_CLOCK)}
    found += [(line, use) for line, use in attributes(tree) if use in drawn]
    return found


def is_pure_room(path: Path) -> bool:
    return "logic" in path.parts or path.stem == "logic"


@pytest.mark.parametrize("path", [path for path in MODULES if is_pure_room(path)], ids=name_of)
def test_logic_is_pure(path: Path) -> None:
    found = impurities(tree_of(path))
    assert len(found) == IMPURITIES.get(name_of(path), 0), found


@pytest.mark.parametrize(
    "path", [path for path in MODULES if name_of(path).split("/")[0] not in OUTSIDE_ROOMS], ids=name_of
)
def test_time_dice_threads_and_processes_come_from_the_world(path: Path) -> None:
    allowed = OUTSIDE.get(name_of(path), set())
    assert [(line, what) for line, what in outside(tree_of(path)) if what not in allowed] == []


def test_files_are_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in MODULES}
    ratchet({name: lines for name, lines in lengths.items() if lines > FILE_LINES_MAX}, LONG_FILES)


def test_functions_are_short() -> None:
    long = {}
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    long[f"{name_of(path)}:{node.name}"] = lines
    ratchet(long, LONG_FUNCTIONS)


def test_exceptions_are_named() -> None:
    """Only who runs the work of others, and the HTTP edge, may catch whatever comes: there it is logged."""
    found: dict[str, int] = {}
    for path in MODULES:
        if name_of(path).startswith(RUNNERS):
            continue
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ExceptHandler) and catches_all(node):
                found[name_of(path)] = found.get(name_of(path), 0) + 1
    ratchet(found, EXCEPT_EXCEPTION)


def catches_all(handler: ast.ExceptHandler) -> bool:
    """And keeps it: to tidy up and raise again is fine."""
    everything = handler.type is None or (
        isinstance(handler.type, ast.Name) and handler.type.id in {"Exception", "BaseException"}
    )
    last = handler.body[-1]
    return everything and not (isinstance(last, ast.Raise) and last.exc is None)


def ratchet(found: dict[str, int], debts: dict[str, int]) -> None:
    grown = {name: count for name, count in found.items() if count > debts.get(name, 0)}
    paid = {name: count for name, count in debts.items() if found.get(name, 0) < count}
    assert grown == {}, f"over the limit: {grown}"
    assert paid == {}, f"better than listed, so lower the list: {paid}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_names_say_what_is_in_it(path: Path) -> None:
    words = {part.removesuffix(".py") for part in path.relative_to(SOURCE).parts}
    assert not words & VAGUE


@pytest.mark.parametrize("path", [p for p in MODULES if p.read_text().strip()], ids=name_of)
def test_a_module_says_why_it_is_there(path: Path) -> None:
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_patches_our_names(path: Path) -> None:
    modules = {module for _, module, _ in imported(tree_of(path))}
    assert "unittest.mock" not in modules
    assert "mock" not in modules


@pytest.mark.parametrize(
    "path",
    [p for p in MODULES if name_of(p).startswith("services/") and "api" not in p.relative_to(SOURCE).parts],
    ids=name_of,
)
def test_openstack_words_stay_at_the_door(path: Path) -> None:
    tree = tree_of(path)
    docs = {id(node) for node in docstrings(tree)}
    found = [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in docs
        and LEGACY.search(node.value)
    ]
    names = [
        (node.lineno, word)
        for node in ast.walk(tree)
        for word in [getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", None)]
        if isinstance(word, str) and LEGACY.search(word)
    ]
    assert len(found + names) == FOREIGN_WORDS.get(name_of(path), 0), found + names


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    """Strings that stand alone: documentation, where the foreign word may be explained."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("async def f(): pass", 1),
        ("import time", 1),
        ("from random import Random", 0),
        ("from random import choice", 1),
        ("import os.path", 1),
        ("x = 1", 0),
    ],
)
def test_the_lint_knows_what_is_impure(code: str, count: int) -> None:
    assert len(impurities(ast.parse(code))) == count


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("import time\ntime.time()", 1),
        ("import time\ntime.gmtime(at)", 0),
        ("from time import time", 1),
        ("import random", 1),
        ("from random import Random", 0),
        ("from uuid import uuid4", 1),
        ("import uuid\nuuid.uuid4()", 1),
        ("import uuid\nuuid.uuid5(a, b)", 0),
        ("import subprocess", 1),
    ],
)
def test_the_lint_knows_the_outside(code: str, count: int) -> None:
    assert len(outside(ast.parse(code))) == count
