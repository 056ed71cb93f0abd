"""Token keys of a cloud on many machines: the same files below every control and object node's state directory.

The first control node's keys are kept in the store, and object nodes ask for them over the bus: in both places sealed
with the cluster key of `secrets.json`, which the operator copies to the nodes that must tell a token.  Hosts have no
such file, so that whoever takes one over can seal no token.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec
from cryptography.fernet import Fernet, InvalidToken

from apus.kernel.errors import Invalid, Unavailable
from apus.kernel.log import get_logger
from apus.kernel.sql import Column, Table, Taken
from apus.kernel.table import metadata
from apus.kernel.world import Disk, Store, Transaction, World
from apus.services.identity.drivers.keys import TokenKeys

SUBJECT: Final = "identity.keys"
SIGNING_KEYS: Final = "identity.signing_keys"
PRINCIPALS: Final = "identity.principals"
ASK_EVERY_S: Final = 1.0
SEALED: Final = metadata.add(Table("node_sealed_keys", (Column("id", "text"), Column("body", "bytes"))))

_log = get_logger("apus.node")
_Files = dict[str, bytes]


class SealedKeys(Protocol):
    """What object nodes ask of a control node."""

    async def token_keys(self) -> bytes: ...


class StoredKeys:
    """The keys in the store.  Implements SealedKeys."""

    def __init__(self, store: Store, cluster_key: str) -> None:
        self._store, self._cluster_key = store, cluster_key

    async def token_keys(self) -> bytes:
        sealed = await self._sealed("tokens")
        if sealed is None:
            raise Unavailable("identity.no_keys", "The control plane has no token keys yet.")
        return sealed

    async def agree(self, disk: Disk, directory: Path) -> None:
        """Put the cloud's keys into this directory; the first node of a cloud makes them.  Raise Invalid."""
        for name in ("tokens", "vault"):
            sealed = await self._sealed(name)
            if sealed is None:
                await TokenKeys.ensure(disk, directory / name)
                sealed = await self._keep(name, seal(await _files(disk, directory / name), self._cluster_key))
            await _write(disk, directory / name, unseal(sealed, self._cluster_key))

    async def _sealed(self, name: str) -> bytes | None:
        return await self._store.read(lambda tx: _body(tx, name))

    async def _keep(self, name: str, sealed: bytes) -> bytes:
        """Returns what is kept: another node may have been quicker."""

        def work(tx: Transaction) -> bytes:
            known = _body(tx, name)
            if known is None:
                tx.execute(SEALED.insert(), {"id": name, "body": sealed})
            return known or sealed

        try:
            return await self._store.write(work)
        except Taken:
            return await self._store.write(work)


async def fetch_token_keys(world: World, directory: Path, control: SealedKeys, cluster_key: str) -> TokenKeys:
    """The cloud's token keys, from a control node; those of the last start when none answers.  Raise Invalid."""
    while True:
        try:
            await _write(world.disk, directory, unseal(await control.token_keys(), cluster_key))
        except Unavailable as error:
            _log.warning("no control node gives the token keys", why=error.shown)
        if await world.disk.names(directory):
            return await TokenKeys.load(world.disk, directory)
        await world.clock.sleep(ASK_EVERY_S)


def _body(tx: Transaction, name: str) -> bytes | None:
    body = tx.execute("SELECT body FROM node_sealed_keys WHERE id = :id", {"id": name}).scalar()
    return None if body is None else bytes(body)


def _fernet(cluster_key: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(cluster_key.encode()).digest()))


def seal(files: Mapping[str, bytes], cluster_key: str) -> bytes:
    return _fernet(cluster_key).encrypt(msgspec.msgpack.encode(files))


def unseal(sealed: bytes, cluster_key: str) -> _Files:
    try:
        return msgspec.msgpack.decode(_fernet(cluster_key).decrypt(sealed), type=_Files)
    except InvalidToken:
        raise Invalid(
            "node.other_secrets",
            "secrets.json of this node is not that of the cloud that it joins: copy it from the cloud's first control"
            " node (apus node --secrets-file).",
        ) from None


async def _files(disk: Disk, directory: Path) -> _Files:
    return {name: await disk.read(directory / name) for name in await disk.names(directory) if name.isdigit()}


async def _write(disk: Disk, directory: Path, files: Mapping[str, bytes]) -> None:
    there = await _files(disk, directory)
    for name, body in files.items():
        if there.get(name) != body:
            await disk.write_synced(directory / name, body, mode=0o600)
    for name in there.keys() - files.keys():
        await disk.remove(directory / name)
