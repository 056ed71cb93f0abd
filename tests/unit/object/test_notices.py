"""Notifications in virtual time: nothing is lost while a target is away, and none of it goes where it may not."""

from __future__ import annotations

import contextlib
import ipaddress
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.errors import Invalid, Unavailable
from apus.services.object.assembly import ObjectStore, drives_in, open_store
from apus.services.object.contract import ObjectEvent
from apus.services.object.drivers.webhook import HttpWebhooks
from apus.services.object.engine import Intent
from apus.services.object.logic.addresses import check_url, may_reach, parse_networks
from apus.services.object.logic.lifecycle import DAY_S, LIFECYCLE
from apus.services.object.logic.lifecycle import Rule as LifecycleRule
from apus.services.object.logic.lifecycle import rules_text as lifecycle_text
from apus.services.object.logic.notices import NOTICES, STREAM, Rule, rules_text
from tests.object_store import FixedClock, awaited, chunks, drive_paths, make_world

EVENTS = ("ObjectCreated:*", "ObjectRemoved:*", "LifecycleExpiration:*")


class Targets:
    """Takes what is sent, or does not."""

    def __init__(self) -> None:
        self.away: set[str] = set()
        self.tried = 0
        self.got: list[tuple[str, str]] = []

    async def send(self, url: str, body: bytes) -> int:
        self.tried += 1
        if url in self.away:
            raise OSError("away")
        self.got.append((url, json.loads(body)["Records"][0]["s3"]["object"]["key"]))
        return 204

    async def announce(self, event: ObjectEvent) -> None:
        if STREAM in self.away:
            raise Unavailable("test.away", "away")
        self.got.append((event.name, event.key))

    def take(self) -> list[tuple[str, str]]:
        got, self.got = self.got, []
        return got


@contextlib.asynccontextmanager
async def opened(root: Path, targets: Targets, clock: FixedClock) -> AsyncIterator[ObjectStore]:
    store = await open_store(
        make_world(clock=clock), drives_in(drive_paths(root, 3)), root / "layout.json", webhooks=targets, events=targets
    )
    await store.service.make_container("AUTH_a", "c", {})
    yield store
    await store.close()


async def put(store: ObjectStore, name: str) -> None:
    await store.service.put(Intent("AUTH_a", "c", name, "text/plain", {}), chunks(b"x"))


@awaited
async def test_targets_that_are_away(tmp_path: Path) -> None:
    targets, clock = Targets(), FixedClock(2e9)
    async with opened(tmp_path, targets, clock) as store:
        rules = [Rule("1", "http://one", EVENTS), Rule("2", "http://two", EVENTS)]
        await store.service.describe_container("AUTH_a", "c", {NOTICES: rules_text(rules)})
        targets.away = {"http://one"}
        for name in ("a", "b", "c"):
            await put(store, name)
        await store.notifier.run_once()
        assert targets.take() == [("http://two", name) for name in ("a", "b", "c")]
        tried = targets.tried
        await store.notifier.run_once()
        assert targets.tried == tried, "it is not tried again at once"
        for _ in range(8):
            clock.at_s += 400
            await store.notifier.run_once()
        assert targets.tried == tried + 8, "and then one event at a time"
    targets.away = set()
    async with opened(tmp_path, targets, clock) as store:
        await store.notifier.run_once()
        assert targets.take() == [("http://one", name) for name in ("a", "b", "c")], "another process goes on, in order"
        await store.notifier.run_once()
        assert targets.take() == []


@awaited
async def test_after_a_day_it_is_too_late(tmp_path: Path) -> None:
    targets, clock = Targets(), FixedClock(2e9)
    async with opened(tmp_path, targets, clock) as store:
        await store.service.describe_container("AUTH_a", "c", {NOTICES: rules_text([Rule("1", "http://one", EVENTS)])})
        targets.away = {"http://one"}
        await put(store, "a")
        clock.at_s += 2 * DAY_S
        await put(store, "b")
        await store.notifier.run_once()
        targets.away = set()
        clock.at_s += 3600
        await store.notifier.run_once()
        assert targets.take() == [("http://one", "b")]


@awaited
async def test_the_stream(tmp_path: Path) -> None:
    targets, clock = Targets(), FixedClock(2e9)
    async with opened(tmp_path, targets, clock) as store:
        rules = lifecycle_text([LifecycleRule("old", prefix="a", days=1)])
        fields = {NOTICES: rules_text([Rule("1", STREAM, EVENTS)]), LIFECYCLE: rules}
        await store.service.describe_container("AUTH_a", "c", fields)
        targets.away = {STREAM}
        await put(store, "a")
        await put(store, "b")
        await store.notifier.run_once()
        assert targets.take() == []
        targets.away = set()
        clock.at_s += 2 * DAY_S
        await store.lifecycle.run_once()
        await store.service.delete("AUTH_a", "c", "b")
        clock.at_s += 400
        await store.notifier.run_once()
        assert targets.take() == [
            ("ObjectCreated:Put", "a"), ("ObjectCreated:Put", "b"), ("LifecycleExpiration:Delete", "a"), ("ObjectRemoved:Delete", "b"),
        ]  # fmt: skip


CLOSED = (
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254", "224.0.0.1", "240.0.0.1", "100.100.100.200", "::1", "::", "fe80::1",
    "fe80::1%eth0", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "fd00:ec2::254", "ff02::1",
    "::7f00:1", "no-address",
)  # fmt: skip


@pytest.mark.parametrize("address", CLOSED)
def test_addresses_that_are_closed(address: str) -> None:
    assert not may_reach(address, ())


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "10.1.2.3", "192.168.1.1", "2a00:1450::1", "fd12::1", "64:ff9b::808:808"]
)
def test_addresses_that_are_open(address: str) -> None:
    assert may_reach(address, ())


def test_what_the_operator_opens() -> None:
    allowed = parse_networks(["169.254.0.0/16", "::1/128"])
    assert may_reach("169.254.169.254", allowed)
    assert may_reach("::ffff:169.254.169.254", allowed)
    assert may_reach("::1", allowed)
    assert not may_reach("127.0.0.1", allowed)
    for wrong in ("localhost", "10.0.0.1/8", "x"):
        with pytest.raises(Invalid):
            parse_networks([wrong])


@given(st.integers(0, 2**32 - 1))
def test_an_address_is_as_open_in_either_version(number: int) -> None:
    plain = ipaddress.IPv4Address(number)
    assert may_reach(str(plain), ()) == may_reach(f"::ffff:{plain}", ()) == may_reach(f"64:ff9b::{plain}", ())


@pytest.mark.parametrize("url", ["", "x", "http://", "http://a b/", "http://x:0/", "http://x:y/", "http://[::1", "file:///etc", "http://é/",
                                 "http://127.0.0.1/", "https://x/" + "y" * 2_000, "http://x/\n"])  # fmt: skip
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(Invalid):
        check_url(url, ())


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://localhost:1/", "no address that is open"),
        ("http://2130706433:1/", "canonical"),
        ("http://127.1:1/", "canonical"),
    ],
)
@awaited
async def test_names_are_looked_at_when_they_are_resolved(url: str, why: str) -> None:
    check_url(url, ())
    with pytest.raises(OSError, match=why):
        await HttpWebhooks().send(url, b"{}")
