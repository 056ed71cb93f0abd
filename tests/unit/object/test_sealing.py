"""Encryption: what is on the drives is not what clients read, from anywhere, with any mechanism around it."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.errors import CloudError, Forbidden, Invalid, Unavailable
from apus.node.secrets import load_root_secrets
from apus.services.object.assembly import drives_in, open_store
from apus.services.object.engine import Intent
from apus.services.object.logic.sealing import DRAWN_BYTES, Keyring, new_key, parse_keyring, unwrap, wrap
from apus.services.object.logic.versions import version_of
from apus.services.object.model import ListingAsk, Row
from apus.services.object.service import Objects, Options
from tests.object_store import all_of, awaited, chunks, drive_paths, make_world

KEYS = Keyring({"1": b"a" * 32, "2": b"b" * 32})
BIG = bytes(range(256)) * 9_000


async def open_objects(root: Path, options: Options) -> Objects:
    store = await open_store(make_world(), drives_in(drive_paths(root, 3)), root / "layout.json", options=options)
    await store.service.make_container("AUTH_a", "c", {})
    return store.service


def intent(name: str, etag: str | None = None) -> Intent:
    return Intent("AUTH_a", "c", name, "text/plain", {"x-object-meta-k": "v"}, etag=etag)


async def read(objects: Objects, name: str, **more: bytes) -> bytes:
    found = await objects.find("AUTH_a", "c", name)
    assert found is not None
    opened = await objects.open_parts(found, **more)  # type: ignore[arg-type]
    whole = await all_of(opened.stream(0, opened.size_bytes))
    assert opened.data in (None, whole)
    assert await all_of(opened.stream(3, 21)) == whole[3:24]
    return whole


@given(st.binary(max_size=200), st.integers(0, 200), st.binary(min_size=DRAWN_BYTES, max_size=DRAWN_BYTES))
def test_any_range_alone(data: bytes, offset: int, drawn: bytes) -> None:
    seal = wrap(KEYS.keys["2"], "2", new_key(drawn), drawn)
    key = unwrap(seal, KEYS, None)
    stored = key.cipher(0).update(data)
    assert key.cipher(offset).update(stored[offset:]) == data[offset:]


@awaited
@pytest.mark.filterwarnings("error")
async def test_everything_is_encrypted(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path, Options(keyring=KEYS, encrypt=True))
    for name, data in (("small", b"plain text, small"), ("empty", b""), ("big", BIG)):
        etag = hashlib.md5(data).hexdigest()
        head = await objects.put(intent(name, etag), chunks(data))
        assert (head.shown_etag, head.shown_size_bytes) == (etag, len(data))
        assert await read(objects, name) == data
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("objects/*/*"))
    assert b"plain text" not in kept
    assert BIG[:256] not in kept
    rows = await objects.listing("AUTH_a", "c", ListingAsk())
    assert [row.etag for row in rows if isinstance(row, Row)][2] == hashlib.md5(b"plain text, small").hexdigest()
    with pytest.raises(Invalid):
        await objects.put(intent("wrong", "0" * 32), chunks(b"x"))
    assert await objects.find("AUTH_a", "c", "wrong") is None
    segments, problems = await objects.segmented.resolve([])
    assert not problems
    await objects.put_manifest(intent("list"), segments)
    assert await read(objects, "list") == b""
    await objects.describe("AUTH_a", "c", "small", None, {"x-object-meta-k": "w"})
    await objects.set_versioning("AUTH_a", "c", "enabled")
    second = await objects.put(intent("small"), chunks(b"second"))
    assert await read(objects, "small") == b"second"
    assert version_of(second) != "null"
    old = await objects.find("AUTH_a", "c", "small", version_id="null")
    assert old is not None
    opened = await objects.open_parts(old)
    assert await all_of(opened.stream(0, opened.size_bytes)) == b"plain text, small"


@awaited
async def test_old_and_missing_secrets(tmp_path: Path) -> None:
    old = Keyring({"1": KEYS.keys["1"]})
    objects = await open_objects(tmp_path, Options(keyring=old, encrypt=True))
    await objects.put(intent("o"), chunks(b"data"))
    objects = await open_objects(tmp_path, Options(keyring=KEYS))
    assert await read(objects, "o") == b"data"
    await objects.put(intent("asked"), chunks(b"asked"), sealed=True)
    await objects.put(intent("plain"), chunks(b"plain"))
    objects = await open_objects(tmp_path, Options(keyring=old))
    assert await read(objects, "plain") == b"plain"
    for options in (Options(keyring=old), Options(), Options(keyring=Keyring({"2": b"c" * 32}))):
        objects = await open_objects(tmp_path, options)
        with pytest.raises(Unavailable):
            await read(objects, "asked")
    with pytest.raises(Unavailable):
        await (await open_objects(tmp_path, Options())).put(intent("o"), chunks(b"data"), sealed=True)


@awaited
async def test_a_key_of_the_clients_own(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path, Options())
    await objects.put(intent("o"), chunks(b"data" * 10), customer_key=b"k" * 32)
    assert await read(objects, "o", customer_key=b"k" * 32) == b"data" * 10
    for more in ({}, {"customer_key": b"x" * 32}):
        with pytest.raises(Forbidden):
            await read(objects, "o", **more)


def test_the_file_of_secrets(tmp_path: Path) -> None:
    assert load_root_secrets(tmp_path, make=False) is None
    made = load_root_secrets(tmp_path, make=True)
    assert made is not None
    path = tmp_path / "keys" / "object-root"
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_root_secrets(tmp_path, make=True) == made
    path.write_text(path.read_text() + "2 " + base64.b64encode(b"b" * 32).decode() + "\n")
    both = load_root_secrets(tmp_path, make=False)
    assert both is not None
    assert (both.newest, list(both.keys)) == ("2", ["1", "2"])
    for bad in ("", "# nothing", "1", "1 x", "1 " + base64.b64encode(b"short").decode(), "a.b " + "A" * 43 + "="):
        with pytest.raises(Invalid):
            parse_keyring(bad)
    assert dataclasses.is_dataclass(both)


@given(st.text(max_size=60))
def test_any_file_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(CloudError):
        assert parse_keyring(text).keys
