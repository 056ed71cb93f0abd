"""`kill -9` at random moments of a cloud under load: it converges, forgets nothing that it acknowledged, and leaves
nothing without an owner; guests that run do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from apus.guest.build import MicroImage
from apus.services.network.drivers.flat.driver import PORT_CHAIN
from apus.services.network.drivers.flat.names import Names
from apus.services.network.drivers.flat.ruleset import table_name
from tests.host.live_cloud import LiveCloud, Refused, live_cloud

CONVERGED_S = 120.0
AWAY = (aiohttp.ClientError, TimeoutError, OSError)
SERVERS = "/compute/v2.1/servers"


class Load:
    """Users that boot, reboot and delete, and put objects; they remember what was acknowledged."""

    def __init__(self, cloud: LiveCloud, dice: random.Random, *, users: int, servers_each: int, pause_s: float) -> None:
        self.cloud, self.dice, self.pause_s, self.servers_each = cloud, dice, pause_s, servers_each
        self.made: set[str] = set()
        self.deleted: set[str] = set()
        self.maybe_deleted: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.count: Counter[str] = Counter()
        self._asks: dict[str, Any] = {}
        self._users = users

    async def begin(self) -> None:
        images = (await self.cloud.call("GET", "/image/v2/images?name=micro"))["images"]
        networks = (await self.cloud.call("GET", "/network/v2.0/networks?name=default"))["networks"]
        self._asks = {"imageRef": images[0]["id"], "flavorRef": "1", "networks": [{"uuid": networks[0]["id"]}]}
        await self.cloud.call("PUT", f"/v1/AUTH_{self.cloud.project_id}/load")

    async def boot(self, name: str) -> str:
        made = await self.cloud.call("POST", SERVERS, {"server": {"name": name, **self._asks}})
        id = str(made["server"]["id"])
        self.made.add(id)
        self.count["boot"] += 1
        return id

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._users):
                tasks.create_task(self._user(number))
            tasks.create_task(self._put_objects())

    async def _user(self, number: int) -> None:
        mine: list[str] = []
        while True:
            await asyncio.sleep(self.dice.uniform(0, self.pause_s))
            try:
                if len(mine) < self.servers_each:
                    mine.append(await self.boot(f"user{number}"))
                elif self.dice.random() < 0.5:
                    await self._delete(mine)
                else:
                    await self._reboot(self.dice.choice(mine))
            except AWAY:
                self.count["no answer"] += 1
                await asyncio.sleep(0.1)
            except Refused as refused:
                if refused.status not in (404, 409):  # busy, or a delete that was not acknowledged
                    raise
                mine = [id for id in mine if id not in self.maybe_deleted]
                self.count["refused"] += 1

    async def _delete(self, mine: list[str]) -> None:
        id = self.dice.choice(mine)
        self.maybe_deleted.add(id)
        await self.cloud.call("DELETE", f"{SERVERS}/{id}")
        self.deleted.add(id)
        mine.remove(id)
        self.count["delete"] += 1

    async def _reboot(self, id: str) -> None:
        kind = self.dice.choice(("HARD", "HARD", "SOFT"))
        await self.cloud.call("POST", f"{SERVERS}/{id}/action", {"reboot": {"type": kind}})
        self.count["reboot"] += 1

    async def _put_objects(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(self.dice.uniform(0, self.pause_s))
            number += 1
            path, data = f"/v1/AUTH_{self.cloud.project_id}/load/{number}", self.dice.randbytes(20_000)
            with contextlib.suppress(*AWAY):
                await self.cloud.call("PUT", path, data=data)
                self.objects[path] = data
                self.count["object"] += 1


async def kill(cloud: LiveCloud, dice: random.Random, names: tuple[str, ...], times: int, gap_s: float) -> None:
    """Now and then while it is still starting; mostly when it works."""
    done = 0
    while done < times:
        await asyncio.sleep(dice.uniform(0.05, gap_s))
        done += await asyncio.to_thread(cloud.kill, dice.choice(names))
        if dice.random() < 0.8:
            await cloud.read("/healthcheck")
            await cloud.read("/compute/v2.1/flavors")


async def converged(cloud: LiveCloud) -> dict[str, Any]:
    """Until nothing is under way; returns the servers that there are."""
    ends_s = time.monotonic() + CONVERGED_S
    while True:
        servers: dict[str, Any] = {}
        try:
            servers = await cloud.servers()
            busy = [f"{id} is {s['status']} {s['OS-EXT-STS:task_state']}" for id, s in servers.items() if _busy(s)]
            left = [*busy, *cloud.left()]
        except AWAY as error:
            left = [repr(error)]
        if not left:
            return servers
        assert time.monotonic() < ends_s, "\n".join(left)
        await asyncio.sleep(0.5)


def _busy(server: Any) -> bool:
    return bool(server["OS-EXT-STS:task_state"]) or server["status"] in ("BUILD", "REBOOT", "HARD_REBOOT")


async def nothing_is_lost(load: Load, servers: dict[str, Any]) -> None:
    lost = load.made - set(servers) - load.maybe_deleted
    assert not lost, f"acknowledged, and not there: {lost}"
    back = load.deleted & set(servers)
    assert not back, f"deleted, and there: {back}"
    failed = {id: server["fault"]["message"] for id, server in servers.items() if server["status"] == "ERROR"}
    assert not failed, failed
    for path, data in load.objects.items():
        assert await load.cloud.read(path) == data, f"{path} is not what was put"


async def all_deleted(cloud: LiveCloud) -> None:
    """Also what was asked for at the very end, and came to be after everybody had gone."""
    while servers := await converged(cloud):
        for id in servers:
            with contextlib.suppress(Refused):  # of a deletion that has ended since it was listed
                await cloud.call("DELETE", f"{SERVERS}/{id}")
        await asyncio.sleep(0.2)


async def under_load(cloud: LiveCloud, load: Load, killing: Any) -> None:
    await load.begin()
    running = asyncio.create_task(load.run())
    await killing
    await asyncio.sleep(1)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    print(f"{dict(load.count)}")


@pytest.mark.timeout(7200)
def test_kills_of_a_simulated_cloud(tmp_path: Path, micro: MicroImage, request: pytest.FixtureRequest) -> None:
    times, dice = request.config.getoption("--kills"), random.Random(time.time())

    async def story() -> None:
        async with live_cloud(tmp_path / "cloud", "--sim-hosts", "5") as cloud:
            load = Load(cloud, dice, users=6, servers_each=4, pause_s=0.3)
            await under_load(cloud, load, kill(cloud, dice, ("control", "control", "object"), times, 1.5))
            servers = await converged(cloud)
            await nothing_is_lost(load, servers)
            await all_deleted(cloud)

    asyncio.run(story())


@pytest.mark.qemu
@pytest.mark.root
@pytest.mark.timeout(7200)
def test_kills_beside_real_guests(tmp_path: Path, micro: MicroImage, request: pytest.FixtureRequest) -> None:
    times, dice = request.config.getoption("--real-kills"), random.Random(time.time())

    async def story() -> None:
        async with live_cloud(tmp_path / "cloud", "--network", "flat") as cloud:
            load = Load(cloud, dice, users=2, servers_each=2, pause_s=2.0)
            await load.begin()
            await load.boot("witness")
            await converged(cloud)
            witness = cloud.guests()
            assert len(witness) == 1
            await under_load(cloud, load, kill(cloud, dice, ("control",), times, 6.0))
            servers = await converged(cloud)
            await nothing_is_lost(load, servers)
            assert witness.items() <= cloud.guests().items(), "a guest noticed"
            assert len(cloud.guests()) == len(servers)
            await all_deleted(cloud)
            assert not cloud.guests()
            assert not cloud.domains(), "overlays without an owner"
            no_taps(cloud)
            no_filters(cloud)

    asyncio.run(story())


def no_taps(cloud: LiveCloud) -> None:
    """None of this cloud on this machine: a port is unplugged before its server is gone, and stays so."""
    names = [path.parent.name for path in Path("/sys/class/net").glob(f"{_prefix(cloud)}*/tun_flags")]
    assert not names, f"taps without an owner: {names}"


def no_filters(cloud: LiveCloud) -> None:
    """The rules of a port go with it."""
    listed = subprocess.run(["nft", "-j", "list", "chains"], capture_output=True, check=True).stdout
    chains = [item["chain"] for item in json.loads(listed)["nftables"] if "chain" in item]
    ours = [chain["name"] for chain in chains if chain["table"] == table_name(Names(_prefix(cloud)))]
    left = [name for name in ours if PORT_CHAIN.fullmatch(name)]
    assert not left, f"filters without an owner: {left}"


def _prefix(cloud: LiveCloud) -> str:
    return cloud.cloud.settings().network_prefix
