"""Each route of each API says who may, or is known to look for itself."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from apus.kernel.policy import Rule
from apus.wire.route import Route

SOURCE = Path(__file__).parents[2] / "src"


def tables() -> Iterator[tuple[str, list[Route], set[str]]]:
    """(module, its routes, all policy actions of its room)."""
    places = [*SOURCE.glob("apus/services/*/api"), *SOURCE.glob("apus/skins/*")]
    for room in sorted(places):
        modules = []
        for path in sorted(room.rglob("*.py")):
            if "Route(" in path.read_text() or "Rule." in path.read_text():
                name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
                modules.append(importlib.import_module(name))
        actions = {
            action
            for module in modules
            for value in vars(module).values()
            if isinstance(value, dict) and value and all(isinstance(rule, Rule) for rule in value.values())
            for action in value
        }
        for module in modules:
            for value in vars(module).values():
                if isinstance(value, (tuple, list)) and value and all(isinstance(item, Route) for item in value):
                    yield module.__name__, list(value), actions


TABLES = list(tables())


@pytest.mark.parametrize(("module", "routes", "actions"), TABLES, ids=[item[0] for item in TABLES])
def test_each_route_has_a_policy_action_or_says_that_its_handler_checks(
    module: str, routes: list[Route], actions: set[str]
) -> None:
    for route in routes:
        if route.may is None:
            what = f"{module}: {route.method} {route.path} has no policy action"
            assert route.to.__doc__, f"{what}: its handler's docstring says how it checks"
        elif actions:
            assert route.may in actions, f"{module}: {route.method} {route.path} names {route.may}, which has no rule"


@pytest.mark.parametrize(("module", "routes", "actions"), TABLES, ids=[item[0] for item in TABLES])
def test_no_route_hides_another(module: str, routes: list[Route], actions: set[str]) -> None:
    seen: dict[tuple[str, str], list[Route]] = {}
    for route in routes:
        shape = "/".join("{}" if part.startswith("{") else part for part in route.path.split("/"))
        for other in seen.setdefault((route.method, shape), []):
            apart = (route.since or (0, 0)) > (other.until or (999, 999)) or (other.since or (0, 0)) > (
                route.until or (999, 999)
            )
            assert apart, f"{module}: {route.method} {route.path} twice in the same version"
        seen[route.method, shape].append(route)
