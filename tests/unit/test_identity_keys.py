"""Key files: made once, rotated without anybody noticing, and readable by their owner alone; the view follows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apus.kernel.errors import Unavailable
from apus.platform.disk import LocalDisk
from apus.services.identity.agent.verifier import RevocationView
from apus.services.identity.contract import Revocations
from apus.services.identity.drivers.keys import KEYS_MAX, TokenKeys
from apus.services.identity.loops.follow import FollowRevocations


def test_keys_of_one_directory(tmp_path: Path) -> None:
    async def work() -> None:
        disk, directory = LocalDisk(), tmp_path / "keys"
        with pytest.raises(Unavailable):
            await TokenKeys.load(disk, directory)
        first = await TokenKeys.ensure(disk, directory)
        other = await TokenKeys.load(disk, directory)
        assert all(path.stat().st_mode & 0o077 == 0 for path in directory.iterdir())
        old = first.seal(b"x", 1.0)
        await first.rotate()
        assert other.open(first.seal(b"y", 1.0)) == b"y"  # it had the next key already
        assert first.open(old) == b"x"
        for _ in range(KEYS_MAX):
            await first.rotate()
        assert len(list(directory.iterdir())) == KEYS_MAX
        assert first.open(old) is None
        assert other.open(first.seal(b"z", 1.0)) is None
        await other.reload()
        assert other.open(first.seal(b"z", 1.0)) == b"z"
        disk.close()

    asyncio.run(work())


class Source:
    def __init__(self) -> None:
        self.news: list[tuple[float, dict[str, int]]] = []
        self.asked: list[float] = []

    async def revocations(self, since_s: float) -> Revocations:
        self.asked.append(since_s)
        found: dict[str, int] = {}
        for stamp_s, epochs in self.news:
            if stamp_s >= since_s:
                found |= epochs
        return Revocations(epochs=found, horizon_s=1000.0)


class Still:
    def now_s(self) -> float:
        return 1000.0

    def monotonic_s(self) -> float:
        return 1000.0

    async def sleep(self, duration_s: float) -> None: ...


def test_a_view_follows_its_source() -> None:
    async def work() -> None:
        source, view = Source(), RevocationView()
        loop = FollowRevocations(source, view, TokenKeys.in_memory(), Still(), 3600.0)
        source.news.append((10.0, {"u:a": 5}))
        await loop.settle("all")
        assert view.epochs == {"u:a": 5}
        source.news.append((990.0, {"u:a": 4, "u:b": 9}))  # late and older news change nothing
        await loop.settle("all")
        assert view.epochs == {"u:a": 5, "u:b": 9}
        assert source.asked == [0.0, 970.0]

    asyncio.run(work())
