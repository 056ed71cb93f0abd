"""What the proxies of one object store share: its layout, the secrets of what is encrypted, and who leads its loops.

The truth is in the control plane's store, sealed with the cluster's key; each proxy keeps a copy in its state directory
and serves with it while no control node answers.  No request of a client comes here.
"""

from __future__ import annotations

import lzma
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec

from apus.kernel.errors import Conflict, Unavailable
from apus.kernel.log import get_logger
from apus.kernel.sql import Column, Table, Taken
from apus.kernel.table import metadata
from apus.kernel.world import Store, Transaction, World
from apus.node.keys import ASK_EVERY_S, seal, unseal
from apus.node.secrets import load_root_secrets, write_private
from apus.services.object.layout import Layout, LayoutFile, layout_of

SUBJECT: Final = "object.shared"
LAYOUT_HINT: Final = "object.layout"
LEASE_S: Final = 15.0
RENEW_S: Final = 5.0
SEALED_BYTES_MAX: Final = 1 << 19
"""What crosses the bus in one message, with room to spare."""

SHARED: Final = metadata.add(
    Table("node_object_store", (Column("id", "text"), Column("number", "integer"), Column("body", "bytes")))
)
_log: Final = get_logger("apus.node")


class Kept(msgspec.Struct, frozen=True):
    number: int
    """Rises with every change."""
    sealed: bytes


class SharedStore(Protocol):
    """What object proxies ask of a control node."""

    async def kept(self, name: str, than: int) -> Kept | None:
        """What is kept under this name, if its number is higher."""
        ...

    async def keep(self, name: str, kept: Kept) -> bool:
        """False when there is one with as high a number."""
        ...

    async def lead(self, node: str, for_s: float) -> bool:
        """Whether this node leads from now on for so long.  Asked again in time, it goes on."""
        ...


class StoredShared:
    """Implements SharedStore."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def kept(self, name: str, than: int) -> Kept | None:
        found = await self._store.read(lambda tx: _row(tx, name))
        return found if found is not None and found.number > than else None

    async def keep(self, name: str, kept: Kept) -> bool:
        return await self._change(name, kept, lambda before: before.number < kept.number)

    async def lead(self, node: str, for_s: float) -> bool:
        def work(tx: Transaction) -> bool:
            until = Kept(int((tx.now_s + for_s) * 1000), node.encode())
            free = int(tx.now_s * 1000)
            return _put(tx, "lead", until, lambda before: before.sealed == node.encode() or before.number < free)

        return await self._write(work)

    async def _change(self, name: str, kept: Kept, may: Callable[[Kept], bool]) -> bool:
        return await self._write(lambda tx: _put(tx, name, kept, may))

    async def _write(self, work: Callable[[Transaction], bool]) -> bool:
        try:
            return await self._store.write(work)
        except Taken:  # another one was quicker with the first row
            return await self._store.write(work)


def _row(tx: Transaction, name: str) -> Kept | None:
    row = tx.execute("SELECT number, body FROM node_object_store WHERE id = :id", {"id": name}).first()
    return None if row is None else Kept(row[0], bytes(row[1]))


def _put(tx: Transaction, name: str, kept: Kept, may: Callable[[Kept], bool]) -> bool:
    before, values = _row(tx, name), {"id": name, "number": kept.number, "body": kept.sealed}
    if before is None:
        tx.execute(SHARED.insert(), values)
    elif may(before):
        tx.execute("UPDATE node_object_store SET number = :number, body = :body WHERE id = :id", values)
    else:
        return False
    return True


class SharedLayout:
    """Implements LayoutHome."""

    def __init__(self, world: World, path: Path, control: SharedStore, cluster_key: str) -> None:
        self._world, self._control, self._cluster_key = world, control, cluster_key
        self._path, self._file = path, LayoutFile(world, path)

    async def load(self) -> Layout | None:
        """Wait for a control node where there is no copy here.  Raise Invalid."""
        mine = await self._file.load()
        while True:
            try:
                theirs = await self.newer(mine.number if mine is not None else 0)
                return theirs or mine
            except Unavailable as error:
                _log.warning("no control node gives the layout", why=error.shown)
            if mine is not None:
                return mine
            await self._world.clock.sleep(ASK_EVERY_S)

    async def newer(self, than: int) -> Layout | None:
        kept = await self._control.kept("layout", than)
        if kept is None:
            return None
        written = lzma.decompress(unseal(kept.sealed, self._cluster_key)["layout"])
        layout = layout_of(written, "the layout that the proxies share")
        await self._file.save(layout)
        return layout

    async def save(self, layout: Layout) -> None:
        sealed = seal({"layout": lzma.compress(msgspec.json.encode(layout))}, self._cluster_key)
        if len(sealed) > SEALED_BYTES_MAX:
            shown = f"The layout takes {len(sealed):,} bytes, more than the bus carries."
            raise Conflict("object.layout_too_large", shown)
        if not await self._control.keep("layout", Kept(layout.number, sealed)):
            raise Conflict("object.layout_changed", "Another proxy changed the drives at the same time; ask again.")
        await self._file.save(layout)
        await self._world.bus.publish(LAYOUT_HINT)


class Lead:
    """Whether this proxy runs the loops that one is enough for.  Who led goes on while no control node answers: that
    two do so harms nobody."""

    name = "object.lead"
    period_s = RENEW_S

    def __init__(self, node: str, control: SharedStore) -> None:
        self._node, self._control = node, control
        self.is_held = False

    async def keys(self) -> tuple[str, ...]:
        return ("all",)

    async def settle(self, key: str) -> None:
        held = await self._control.lead(self._node, LEASE_S)
        if held != self.is_held:
            _log.info("leads the object store's loops" if held else "another proxy leads", node=self._node)
        self.is_held = held


async def agree_root_secrets(world: World, state_dir: Path, control: SharedStore, cluster_key: str) -> None:
    """Have the same `keys/object-root` as the other proxies: theirs, unless ours has all of it and more.

    Wait for a control node where there is no copy here.  Raise Invalid.
    """
    path = state_dir / "keys" / "object-root"
    while True:
        mine = path.read_text() if path.exists() else ""
        try:
            kept = await control.kept("root-secrets", 0)
            theirs = _text(unseal(kept.sealed, cluster_key)) if kept is not None else ""
            if not _lines(mine) > _lines(theirs):
                if theirs and theirs != mine:
                    path.parent.mkdir(mode=0o700, exist_ok=True)
                    write_private(path, theirs)
                return
            number = kept.number + 1 if kept is not None else 1
            if await control.keep("root-secrets", Kept(number, seal({"object-root": mine.encode()}, cluster_key))):
                return
        except Unavailable as error:
            _log.warning("no control node gives the root secrets", why=error.shown)
            if mine:
                return
            await world.clock.sleep(ASK_EVERY_S)


async def shared_root_secrets(
    world: World, state_dir: Path, control: SharedStore, cluster_key: str, *, make: bool
) -> None:
    """The same, and the first ones made if there are none and some are needed."""
    await agree_root_secrets(world, state_dir, control, cluster_key)
    if load_root_secrets(state_dir, make=make) is not None:
        await agree_root_secrets(world, state_dir, control, cluster_key)


def _text(files: Mapping[str, bytes]) -> str:
    return files["object-root"].decode()


def _lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")}
