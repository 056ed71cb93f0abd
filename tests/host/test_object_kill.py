"""`kill -9` of the object process while clients write, delete, read and list through its door: what was acknowledged
stays, what was deleted stays away, and once all is healed the listing is complete."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.history.checker import ABSENT, never_written, survivors
from tests.history.clients import Clients
from tests.host.cloud_process import CloudProcess, free_pair

OBJECTS = [f"name{number}" for number in range(12)]
CLIENTS = 4
PACE_S = 0.02
GAP_S = 6.0
"""Between two kills, at most: it is killed in its start, soon after it, and when it has worked for a while."""
HEALED_WITHIN_S = 90.0


def kill(store: CloudProcess) -> int:
    """How many there were to kill: none while the supervisor waits before it starts the next."""
    pids = [pid for pid in store.pids() if pid != store.supervisor()]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


async def kills(store: CloudProcess, times: int, dice: Random) -> None:
    done = 0
    while done < times:
        await asyncio.sleep(dice.uniform(0, GAP_S))
        done += bool(await asyncio.to_thread(kill, store))


async def healed(clients: Clients) -> None:
    """The listing says what reads say, size by size, and reads say what may stand."""
    ends_s = time.monotonic() + HEALED_WITHIN_S
    async with aiohttp.ClientSession(headers=clients.headers) as session:
        while True:
            try:
                after = {name: await clients.read(session, name, x_newest="true") for name in OBJECTS}
                listed = await clients.names(session)
                wanted = {name: int(value.split("-")[-1]) for name, value in after.items() if value != ABSENT}
                wrong = "" if listed == wanted else f"listed {listed}, there {wanted}"
            except (aiohttp.ClientError, TimeoutError) as error:
                wrong = repr(error)
            if not wrong:
                break
            assert time.monotonic() < ends_s, wrong
            await asyncio.sleep(0.5)
    for name in OBJECTS:
        operations = [operation for operation in clients.history if operation.name == name]
        assert after[name] in survivors(operations), (name, after[name], operations[-20:])
        assert not never_written(operations)


@pytest.mark.timeout(5400)
def test_kills_of_the_object_process(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    times, dice = request.config.getoption("--object-kills"), Random(time.time())
    store = CloudProcess(tmp_path / "state", free_pair())
    store.must_up("--only", "object", hosts=0)

    async def story(clients: Clients) -> None:
        running = asyncio.create_task(clients.run(CLIENTS, PACE_S))
        await kills(store, times, dice)
        assert not running.done(), running
        clients.stop()
        await running
        await healed(clients)

    try:
        token, project_id = store.login("demo")
        path = f"/v1/AUTH_{project_id}/history"
        assert store.ask("PUT", path, token=token).status == 201
        clients = Clients([f"http://127.0.0.1:{store.port}{path}"], token, OBJECTS, dice)
        asyncio.run(story(clients))
        acknowledged = sum(operation.known for operation in clients.history)
        print(f"{times} kills, {acknowledged} acknowledged, {clients.refused} refused, {clients.listings} listings")
    finally:
        store.down()
