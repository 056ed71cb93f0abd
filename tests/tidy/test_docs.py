"""The documents are true where a machine can tell: links, names of code, settings, dependencies, routes, commands.

`python -m tests.tidy.test_docs` writes the table of routes into docs/guide/api.md.
"""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main

from apus.cli.main import app
from apus.kernel.settings import Settings
from apus.services.compute.api import routes as compute
from apus.services.identity.api import routes as identity
from apus.services.image.api import routes as image
from apus.services.network.api import routes as network
from apus.services.object.api import operator
from apus.services.object.api import routes as objects
from apus.services.placement.api import changes as placement_changes
from apus.services.placement.api import routes as placement
from apus.skins.apus import routes as ours
from apus.skins.swift_auth import door as swift_auth
from apus.wire.route import Route
from apus.wire.versions import VersionChain, text_of

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "apus"
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / "news").glob("*.md")])
API = DOCS / "guide" / "api.md"

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`((?:cli|guest|kernel|node|platform|services|sim|skins|wire)/[\w/]+\.py)(?::([\w.]+))?`")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
COMMAND = re.compile(r"(?:^\$ (?:sudo )?|`)(apus [^`#\n]+)", re.MULTILINE)
OPTION = re.compile(r"(?<!\S)--[a-z0-9-]+")

TABLES: Sequence[tuple[str, str, Sequence[Route], VersionChain | None]] = (
    ("identity (Keystone v3)", identity.PREFIX, identity.ROUTES, None),
    ("image (Glance v2)", "/image", image.ROUTES, None),
    ("placement", "/placement", placement.ROUTES, placement_changes.VERSIONS),
    ("compute (Nova v2.1)", "/compute", compute.ROUTES, compute.VERSIONS),
    ("network (Neutron v2.0)", "/network", network.ROUTES, None),
    ("object (Swift v1)", "/v1", objects.ROUTES, None),
    ("Swift's own login", swift_auth.PREFIX, swift_auth.ROUTES, None),
    ("Apus's own", ours.PREFIX, ours.ROUTES, None),
    ("object storage's operator", operator.PREFIX, operator.ROUTES, None),
)


def slug(heading: str) -> str:
    """As code hosts make an anchor of a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(line.lstrip("#")) for line in page.read_text().splitlines() if line.startswith("#")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if target.startswith(("http:", "https:")):
            continue
        place, _, anchor = target.partition("#")
        there = (page.parent / place).resolve() if place else page
        assert there.exists(), f"{page.name}: {target} is not there"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}: no such heading"


@cache
def names_in(path: Path) -> frozenset[str]:
    """Functions, classes, methods (`Class.method`) and constants of a module."""

    def walk(body: Sequence[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield prefix + node.name
            elif isinstance(node, ast.ClassDef):
                yield prefix + node.name
                yield from walk(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))

    return frozenset(walk(ast.parse(path.read_text()).body, ""))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_that_is_named_exists(page: Path) -> None:
    for file, name in CODE.findall(page.read_text()):
        path = SOURCE / file
        assert path.exists(), f"{page.name}: there is no {file}"
        assert not name or name in names_in(path), f"{page.name}: there is no {name} in {file}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_are_named_exist(page: Path) -> None:
    for place, name in TEST.findall(page.read_text()):
        assert (ROOT / place).exists(), f"{page.name}: {place} is not there"
        assert re.search(rf"^ *(async )?def {name}\b", (ROOT / place).read_text(), re.MULTILINE), f"{page.name}: {name}"


def test_the_way_of_a_request_names_its_stations() -> None:
    assert len(CODE.findall((DOCS / "how-a-request-travels.md").read_text())) > 50


def test_settings_are_listed_with_their_defaults() -> None:
    listed = re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", (DOCS / "guide" / "settings.md").read_text(), re.MULTILINE)
    there = Settings()
    assert listed == [(name, json.dumps(getattr(there, name))) for name in Settings.__struct_fields__]


def section(text: str, heading: str) -> set[str]:
    return set(ROW.findall(text.partition(f"## {heading}")[2].partition("\n## ")[0]))


def test_dependencies_are_listed() -> None:
    text = (DOCS / "dependencies.md").read_text()
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for heading, wanted in (
        ("At run time", project["dependencies"]),
        ("For a cluster", extras["cluster"]),
        ("Servers from wheels", extras["bundled"]),
        ("For development", extras["dev"]),
    ):
        names = {re.split(r"[>=\[]", item)[0] for item in wanted} - {"apus-cloud"}
        assert section(text, heading) == names, heading


def test_debian_packages_are_listed() -> None:
    script = (ROOT / "tools" / "debian-packages").read_text()
    found = re.search(r'^packages="([^"]+)"', script, re.MULTILINE)
    assert found is not None
    assert section((DOCS / "dependencies.md").read_text(), "Debian packages") == set(found[1].split())


def route_table() -> str:
    lines = ["| API | below | versions | routes |", "| --- | --- | --- | --- |"]
    for name, prefix, routes, versions in TABLES:
        shown = f"{text_of(versions.minimum)} to {text_of(versions.maximum)}" if versions else ""
        count = len({(route.method, route.path.rstrip("/")) for route in routes})
        lines.append(f"| {name} | `{prefix}` | {shown} | {count} |")
    return "\n".join(lines)


def with_table(text: str) -> str:
    return re.sub(r"(?s)<!-- routes -->.*<!-- /routes -->", f"<!-- routes -->\n{route_table()}\n<!-- /routes -->", text)


def test_the_table_of_routes_is_of_today() -> None:
    text = API.read_text()
    assert text == with_table(text), "write it: python -m tests.tidy.test_docs"


def commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for line in COMMAND.findall(page.read_text()):
            yield page.name, line


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_commands_and_their_options_exist(page: str, line: str) -> None:
    command: click.Command = typer.main.get_command(app)
    for word in line.split()[1:]:
        commands_below = getattr(command, "commands", None)
        if commands_below is None or word.startswith("-"):
            break
        assert word in commands_below, f"{page}: {line}: there is no {word}"
        command = commands_below[word]
    known = {option for item in command.params for option in (*item.opts, *item.secondary_opts)}
    assert not set(OPTION.findall(line)) - known - {"--help"}, f"{page}: {line}"


def test_news_fragments_are_named_as_their_readme_says() -> None:
    for path in (ROOT / "news").iterdir():
        assert path.name == "README.md" or re.fullmatch(r"\d{4}\.(feature|bugfix|removal)\.md", path.name), path.name
        assert path.read_text().strip(), path.name


if __name__ == "__main__":
    API.write_text(with_table(API.read_text()))
