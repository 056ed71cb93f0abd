"""Clients write, overwrite, delete, list and read while drives go, fill up, come back old or empty, rot, and the process
is killed: no acknowledged write is lost or replaced by an older one, no delete comes back, listings are complete, strong
reads are linearizable, a session reads its own writes.

`--history-s 3600` (`make history-long`) is the long run whose summary stands in docs/figures.md.
"""

from __future__ import annotations

import asyncio
import collections
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.history.clients import Clients, chapters, judge, live, sizes_of, told
from tests.history.drives import NAMES, Drives
from tests.history.healing import Healing, Status
from tests.host.cloud_process import CloudProcess, free_pair

OBJECTS = [f"name{number}" for number in range(16)]
CLIENTS = 6
PACE_S = 0.02
FAULT_S = 1.5
"""How long a drive is away, full or read-only."""

pytestmark = [pytest.mark.root, pytest.mark.timeout(7200)]


class Trouble:
    """The faults, one drive at a time; between two of them the store may heal."""

    def __init__(self, store: CloudProcess, drives: Drives, dice: Random) -> None:
        self._store, self._drives, self._dice = store, drives, dice
        self.token = ""
        self.counts = collections.Counter[str]()
        self.healing = Healing(lambda: sorted(store.state_dir.glob("log/*.log")), lambda: [self._status()])

    async def one(self) -> None:
        faults: list[Callable[[str], Awaitable[None]]] = [
            self._killed, self._away, self._old, self._emptied, self._full, self._read_only, self._rotten,
        ]  # fmt: skip
        fault, name = self._dice.choice(faults), self._dice.choice(NAMES)
        self.counts[fault.__name__.strip("_")] += 1
        await fault(name)
        await self.heal(f"{fault.__name__.strip('_')} {name}")

    async def heal(self, fault: str = "all") -> None:
        """All drives are in their places."""
        await self.healing.wait(fault, 2 * FAULT_S)

    def kill(self) -> None:
        supervisor = self._store.supervisor()
        for pid in self._store.pids():
            if pid != supervisor:
                os.kill(pid, signal.SIGKILL)

    async def _killed(self, name: str) -> None:
        self.kill()

    async def _away(self, name: str) -> None:
        self._drives.go_away(name)
        await asyncio.sleep(FAULT_S)
        self._drives.come_back(name)

    async def _old(self, name: str) -> None:
        """It comes back as it was a while ago, as a disk from a shelf."""
        before = await asyncio.to_thread(self._drives.snapshot, name)
        await asyncio.sleep(FAULT_S)
        self._exchange(name, before)

    async def _emptied(self, name: str) -> None:
        self._exchange(name, self._drives.empty(name))

    def _exchange(self, name: str, other: Path) -> None:
        self.kill()
        self._drives.go_away(name)
        self._drives.become(name, other)
        self._drives.come_back(name)
        self.kill()  # what the supervisor started meanwhile saw no drive there

    async def _full(self, name: str) -> None:
        await asyncio.to_thread(self._drives.fill, name)
        await asyncio.sleep(FAULT_S)
        self._drives.unfill(name)

    async def _read_only(self, name: str) -> None:
        while not self._drives.read_only(name, True):
            self.kill()
            await asyncio.sleep(0)
        await asyncio.sleep(FAULT_S)
        assert self._drives.read_only(name, False)

    async def _rotten(self, name: str) -> None:
        """Always the same drive: two that rot at once are more than three copies promise to bear."""
        self._drives.rot(NAMES[0], self._dice)

    def _status(self) -> Status | None:
        try:
            if not self.token:
                self.token, _ = self._store.login()
            answer = self._store.ask("GET", "/apus/v1/object/status", token=self.token)
        except (OSError, AssertionError):
            return None
        return dict(answer.json) if answer.status == 200 else None


@pytest.fixture
def drives(tmp_path: Path) -> Iterator[Drives]:
    drives = Drives(tmp_path)
    yield drives
    drives.close()


def test_nothing_acknowledged_is_lost(
    tmp_path: Path, drives: Drives, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    duration_s, seed = float(pytestconfig.getoption("--history-s")), int(pytestconfig.getoption("--history-seed"))
    store = CloudProcess(tmp_path / "state", free_pair())
    store.must_up("--only", "object", "--drives", drives.option, hosts=0)
    try:
        for number, chapter_s in enumerate(chapters(duration_s)):
            token, project_id = store.login("demo")
            path = f"/v1/AUTH_{project_id}/history{number}"
            for container in (path, f"{path}-own"):
                assert store.ask("PUT", container, token=token).status == 201
            dice = Random(f"{seed}/{number}")
            clients = Clients([f"http://127.0.0.1:{store.port}{path}"], token, OBJECTS, dice)
            trouble = Trouble(store, drives, dice)
            asyncio.run(story(clients, trouble, drives, chapter_s))
            with capsys.disabled():
                print(f"\n{told(clients, trouble.counts, trouble.healing)}", file=sys.stderr)
    finally:
        store.down()


async def story(clients: Clients, trouble: Trouble, drives: Drives, duration_s: float) -> None:
    await live(clients, trouble, duration_s, count=CLIENTS, pace_s=PACE_S)
    async with aiohttp.ClientSession(headers=clients.headers) as session:
        after = await judge(clients, session, OBJECTS)
        assert await clients.names(session) == sizes_of(after)
        for away in NAMES:  # whichever drive is away, the others say the same
            drives.go_away(away)
            try:
                for name in OBJECTS:
                    assert await clients.read(session, name, x_newest="true") == after[name], (away, name)
            finally:
                drives.come_back(away)
