"""What the services' own tests tell on SQLite holds on PostgreSQL: the same stories, on a database of their own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from random import Random

import pytest

from apus.kernel.caller import Caller
from apus.kernel.world import World
from apus.services.network.service.service import NetworkService
from tests.contract import test_compute_sdk, test_network_api, test_network_service, test_placement
from tests.contract.compute_door import serving
from tests.contract.network_server import network_world
from tests.stores import on_postgres
from tests.unit import test_identity_service

pytestmark = pytest.mark.postgres

SLOW = {"test_the_openstack_command", "test_too_many_passwords_at_once_are_told_to_come_back"}
"""They test the client, or time."""


def stories(*modules: object) -> list[Callable[[], None]]:
    found = [
        value
        for module in modules
        for name, value in vars(module).items()
        if name.startswith("test_") and callable(value) and name not in SLOW
    ]
    return [story for story in found if not inspect.signature(story).parameters]


@pytest.mark.parametrize(
    "story",
    stories(test_identity_service, test_network_service, test_network_api, test_placement),
    ids=lambda story: f"{story.__module__.rpartition('.')[2]}-{story.__name__}",
)
def test_story(story: Callable[[], None], new_database: str) -> None:
    with on_postgres(new_database):
        story()


def test_compute(new_database: str) -> None:
    with on_postgres(new_database), serving() as (url, _):
        for name, story in vars(test_compute_sdk).items():
            if name.startswith("test_") and list(inspect.signature(story).parameters) == ["url"]:
                story(url)


def test_first_requests_of_a_project_at_once(new_database: str) -> None:
    """Each would make the project's default security group."""

    async def story() -> None:
        async with network_world() as world:
            services = [NetworkService(one) for one in (world, _beside(world))]
            caller = Caller(user_id="u", project_id="fresh", roles=frozenset({"member", "reader"}))
            asks = [service.security_groups(caller) for _ in range(4) for service in services]
            found = await asyncio.gather(*asks)
            assert {tuple(group.name for group, *_ in answer) for answer in found} == {("default",)}

    with on_postgres(new_database):
        asyncio.run(story())


def _beside(world: World) -> World:
    """As another process on the same database sees it."""
    return World(world.clock, Random(5), world.bus, world.store, world.disk, world.run)
