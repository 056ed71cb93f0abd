"""The keys that seal tokens: a directory of files that only their owner may read, as Keystone's key repository.

File `0` is the next key, the highest number is the one that seals, the rest still open.  A new key is in every
process's hands (as `0`) before it first seals, so that rotating asks nothing of the others but to reload now and then.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from apus.kernel.errors import Unavailable
from apus.kernel.world import Disk

KEYS_MAX: Final = 4
"""The next one, the one in use, and two that still open: tokens live shorter than two rotations."""


class TokenKeys:
    """Seals and opens.  The same directory gives the same keys in every process of a cloud."""

    def __init__(self, keys: Sequence[bytes], *, disk: Disk | None = None, directory: Path | None = None) -> None:
        self._disk, self._directory = disk, directory
        self._use(keys)

    @classmethod
    def in_memory(cls) -> TokenKeys:
        """For tests and simulations: lost with the process."""
        return cls([Fernet.generate_key()])

    @classmethod
    async def load(cls, disk: Disk, directory: Path) -> TokenKeys:
        """Raise Unavailable when there are none: the control process makes them with `ensure`."""
        keys = await _read(disk, directory)
        if not keys:
            raise Unavailable("identity.no_keys", f"There are no token keys in {directory}: start the control node.")
        return cls(keys, disk=disk, directory=directory)

    @classmethod
    async def ensure(cls, disk: Disk, directory: Path) -> TokenKeys:
        """Load the keys; make them first when there are none.  Only one process of a cloud may do this."""
        if not await _read(disk, directory):
            await disk.write_synced(directory / "1", Fernet.generate_key(), mode=0o600)
            await disk.write_synced(directory / "0", Fernet.generate_key(), mode=0o600)
        return await cls.load(disk, directory)

    async def reload(self) -> None:
        """Take what another process rotated."""
        if self._disk is not None and self._directory is not None:
            keys = await _read(self._disk, self._directory)
            if keys:
                self._use(keys)

    async def rotate(self, *, keep: int | None = KEYS_MAX) -> None:
        """The next key seals from now on; the oldest are dropped (none when `keep` is None)."""
        disk, directory = self._disk, self._directory
        if disk is None or directory is None:
            self._use([Fernet.generate_key(), *self._keys][:keep])
            return
        numbers = await _numbers(disk, directory)
        await disk.rename_synced(directory / "0", directory / str(numbers[-1] + 1))
        await disk.write_synced(directory / "0", Fernet.generate_key(), mode=0o600)
        numbers = await _numbers(disk, directory)
        if keep is not None:
            for number in numbers[1 : len(numbers) - keep + 1]:
                await disk.remove(directory / str(number))
        await self.reload()

    def seal(self, data: bytes, now_s: float) -> str:
        """Without the padding: tokens travel in headers and URLs."""
        return self._seals.encrypt_at_time(data, int(now_s)).rstrip(b"=").decode("ascii")

    def open(self, text: str) -> bytes | None:
        """None when it was not sealed by one of our keys."""
        try:
            return self._opens.decrypt(text + "=" * (-len(text) % 4))
        except (InvalidToken, ValueError):
            return None

    def _use(self, keys: Sequence[bytes]) -> None:
        self._keys = list(keys)
        self._seals = Fernet(keys[0])
        self._opens = MultiFernet([Fernet(key) for key in keys])


async def _numbers(disk: Disk, directory: Path) -> list[int]:
    return sorted(int(name) for name in await disk.names(directory) if name.isascii() and name.isdigit())


async def _read(disk: Disk, directory: Path) -> list[bytes]:
    """The sealing key first; empty when there is none."""
    numbers = await _numbers(disk, directory)
    newest_first = sorted(numbers, reverse=True)
    return [(await disk.read(directory / str(number))).strip() for number in newest_first]
