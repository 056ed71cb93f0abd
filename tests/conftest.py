"""Servers that several tests share: started at the first need, in a directory of their own, ended at the end."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sysconfig
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import settings

from apus.platform.process import LocalRunner
from apus.platform.servers import Server, start_nats, start_postgres, stop_server

settings.register_profile("busy", deadline=None)  # a machine that is busy is no failure
settings.load_profile("busy")

PROGRAMS: Final = ("aws", "s3cmd", "rclone", "restic")
"""Clients of others that tests run as they are (`@pytest.mark.program`)."""
LEFT_OUT: Final = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=200, help="histories of the simulated cluster")
    parser.addoption("--kills", type=int, default=20, help="kills of a cloud of simulated hosts")
    parser.addoption("--object-kills", type=int, default=6, help="kills of an object process under load")
    parser.addoption("--real-kills", type=int, default=3, help="kills of a cloud of real guests")
    parser.addoption("--history-s", type=float, default=20, help="how long drives fail under clients")
    parser.addoption("--history-seed", type=int, default=1, help="which faults, and when")


def program(name: str) -> str | None:
    """Where it is: beside this Python, or on the path."""
    return shutil.which(name, path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]))


def missing() -> list[str]:
    """What tests may need and this machine does not have."""
    return [*(["root"] if os.geteuid() else []), *(name for name in PROGRAMS if program(name) is None)]


def needs(item: pytest.Item) -> set[str]:
    named = {str(name) for marker in item.iter_markers("program") for name in marker.args}
    assert named <= set(PROGRAMS), f"{item.nodeid} needs a program that PROGRAMS does not list"
    return named | ({"root"} if item.get_closest_marker("root") else set())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What cannot run here is left out, and the summary says so."""
    lacking = set(missing())
    left_out = [item for item in items if needs(item) & lacking]
    items[:] = [item for item in items if not needs(item) & lacking]
    config.stash[LEFT_OUT] = sorted({item.nodeid.partition("[")[0] for item in left_out})


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    needing = config.stash.get(LEFT_OUT, None)
    if not missing() or needing == []:
        return
    terminalreporter.section("not run")
    lacking = ", ".join(missing())
    if needing is None:  # xdist: the processes beside this one collected them
        terminalreporter.write_line(f"the tests that need: {lacking}")
    else:
        terminalreporter.write_line(f"tests that need what is not here ({lacking}): {len(needing)}")
        for name in needing:
            terminalreporter.write_line(f"  {name}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def runner() -> Iterator[LocalRunner]:
    runner = LocalRunner()
    yield runner
    runner.close()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory, runner: LocalRunner) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("postgres")
    server = asyncio.run(start_postgres(directory, free_port(), runner))
    yield server
    asyncio.run(stop_server(server, directory, runner))


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory, runner: LocalRunner) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("nats")
    server = asyncio.run(start_nats(directory, free_port(), runner))
    yield server
    asyncio.run(stop_server(server, directory, runner))


@pytest.fixture
def new_database(request: pytest.FixtureRequest, postgres: Server) -> str:
    """The URL of an empty database of the test's own."""
    import asyncpg

    name = f"t{abs(hash(request.node.nodeid)):x}"

    async def create() -> None:
        connection = await asyncpg.connect(postgres.url)
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await connection.execute(f'CREATE DATABASE "{name}"')
        # a test's rows need not outlive a power cut
        await connection.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
        await connection.close()

    asyncio.run(create())
    return postgres.url.rsplit("/", 1)[0] + f"/{name}"
