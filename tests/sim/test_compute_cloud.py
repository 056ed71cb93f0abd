"""Servers on simulated hosts in virtual time: their whole life, and what may go wrong in it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from apus.kernel.errors import Conflict, NotFound, OverQuota, Unavailable
from apus.services.compute.contract import Power, Wish
from apus.services.compute.loops.orphan_sweep import OrphanSweep
from apus.services.compute.loops.port_copies import PortCopies
from apus.services.compute.loops.purge import KEPT_S, Purge
from tests.flow.virtual import memory_world, run_virtual
from tests.sim.cloud import ALICE, BOB, Cloud


def in_cloud(story: Any, **kwargs: Any) -> None:
    async def run() -> None:
        async with Cloud(await memory_world(), **kwargs) as cloud:
            await story(cloud)

    run_virtual(run())


def test_a_server_boots_and_is_deleted_and_nothing_is_left() -> None:
    async def story(cloud: Cloud) -> None:
        server = await cloud.boot()
        active = await cloud.until(server.id, "ACTIVE")
        assert active.host in ("h1", "h2")
        assert active.ports[0].fixed_ips[0].address
        assert "is up" in await cloud.compute.console_output(ALICE, server.id, None)
        await cloud.compute.delete(ALICE, server.id)
        await cloud.until(server.id, "DELETED")
        await cloud.nothing_left()
        with pytest.raises(NotFound):
            await cloud.compute.server(ALICE, server.id)

    in_cloud(story)


def test_ports_that_the_network_changed_are_copied_once_the_server_is_at_rest() -> None:
    async def story(cloud: Cloud) -> None:
        copies = PortCopies(cloud.world, cloud.network)
        server = await cloud.boot()
        await cloud.until(server.id, "ACTIVE")
        assert list(await copies.keys()) == []
        await cloud.network.regroup(ALICE, server.id, "inner", add=True)
        assert list(await copies.keys()) == [server.id]
        await copies.settle(server.id)
        assert [port.security_group_names for port in (await cloud.row(server.id)).ports] == [("default", "inner")]
        assert list(await copies.keys()) == []
        await cloud.compute.delete(ALICE, server.id)
        await copies.settle(server.id)
        await cloud.until(server.id, "DELETED")
        await copies.settle(server.id)
        await copies.settle("no server at all")
        await cloud.nothing_left()

    in_cloud(story)


def test_servers_that_follow_each_other_on_a_host_wait_for_no_scan() -> None:
    async def story(cloud: Cloud) -> None:
        for _ in range(4):
            server = await cloud.boot()
            await cloud.until(server.id, "ACTIVE", within_s=1)
            await cloud.compute.delete(ALICE, server.id)
            await cloud.until(server.id, "DELETED", within_s=1)

    in_cloud(story, hosts=("h1",))


def test_delete_ends_a_boot_that_still_runs() -> None:
    async def story(cloud: Cloud) -> None:
        server = await cloud.boot()
        await asyncio.sleep(1)
        await cloud.compute.delete(ALICE, server.id)
        await cloud.compute.delete(ALICE, server.id)
        await cloud.until(server.id, "DELETED", within_s=60)
        await cloud.nothing_left()

    in_cloud(story, boot_s=300)


def test_power() -> None:
    async def story(cloud: Cloud) -> None:
        server = await cloud.boot()
        await cloud.until(server.id, "ACTIVE")
        with pytest.raises(Conflict, match="vm_state active"):
            await cloud.compute.power(ALICE, server.id, "start")
        for action, status in (
            ("stop", "SHUTOFF"), ("start", "ACTIVE"), ("reboot", "ACTIVE"), ("pause", "PAUSED"), ("unpause", "ACTIVE"),
            ("reboot_hard", "ACTIVE"), ("stop", "SHUTOFF"), ("reboot_hard", "ACTIVE"),
        ):  # fmt: skip
            await cloud.compute.power(ALICE, server.id, action)
            await cloud.until(server.id, status)
        row = await cloud.row(server.id)
        assert row.seen is not None
        assert row.seen.boots == 5
        actions = await cloud.compute.actions(ALICE, server.id)
        assert [action.action for action in actions][-1] == "create"
        assert all(action.finished for action in actions)

    in_cloud(story, stop_s=1.0)


def test_a_hard_reboot_interrupts_a_polite_stop_that_waits() -> None:
    async def story(cloud: Cloud) -> None:
        server = await cloud.boot()
        await cloud.until(server.id, "ACTIVE")
        await cloud.compute.power(ALICE, server.id, "stop")
        await asyncio.sleep(1)
        await cloud.compute.power(ALICE, server.id, "reboot_hard")
        await cloud.until(server.id, "ACTIVE", within_s=10)

    in_cloud(story, stop_s=1000.0)


def test_a_guest_that_ends_by_itself_is_shown_so_and_can_be_started() -> None:
    async def story(cloud: Cloud) -> None:
        server = await cloud.until((await cloud.boot()).id, "ACTIVE")
        cloud.guests[server.host or ""].die(server.incarnation_id or "")
        await cloud.until(server.id, "SHUTOFF", within_s=10)
        await cloud.compute.power(ALICE, server.id, "start")
        await cloud.until(server.id, "ACTIVE")

    in_cloud(story)


def test_a_host_that_fails_to_start_it_leaves_an_error_with_its_reason_and_nothing_else() -> None:
    def fail(verb: str, wish: Wish) -> None:
        if verb == "ensure":
            raise Conflict("test.broken", "the disk is full")

    async def story(cloud: Cloud) -> None:
        server = await cloud.until((await cloud.boot()).id, "ERROR")
        assert server.fault is not None
        assert "the disk is full" in server.fault.message
        await cloud.nothing_left()
        await cloud.compute.delete(ALICE, server.id)
        await cloud.until(server.id, "DELETED")

    in_cloud(story, mishap=fail)


def test_no_room_says_why() -> None:
    async def story(cloud: Cloud) -> None:
        from apus.services.compute.model import Flavor

        await cloud.compute.flavors.create(Flavor(id="9", name="huge", vcpus=1, memory_mib=1 << 20, disk_gib=1))
        server = await cloud.until((await cloud.boot(flavor_id="9")).id, "ERROR")
        assert server.fault is not None
        assert "No valid host was found" in server.fault.message
        assert "65536" in server.fault.message
        explained = await cloud.placement.explain(server.id)
        assert explained is not None
        assert [(refusal.filter, refusal.hosts) for refusal in explained.refusals] == [("MEMORY_MB", 2)]

    in_cloud(story)


def test_an_agent_that_restarts_adopts_its_guests_and_learns_what_it_missed() -> None:
    async def story(cloud: Cloud) -> None:
        server = await cloud.until((await cloud.boot()).id, "ACTIVE")
        host = server.host or ""
        await cloud.stop(host)
        cloud.start_agent(host)
        await asyncio.sleep(30)
        same = await cloud.until(server.id, "ACTIVE")
        assert same.seen is not None
        assert same.seen.boots == 1
        await cloud.stop(host)
        await cloud.compute.power(ALICE, server.id, "stop")
        cloud.journals[host].entries.clear()  # its disk is lost, too
        cloud.start_agent(host)
        await cloud.until(server.id, "SHUTOFF", within_s=60)

    in_cloud(story)


def test_a_silent_host_frees_the_user_at_once_and_the_claim_when_it_returns() -> None:
    async def story(cloud: Cloud) -> None:
        server = await cloud.until((await cloud.boot()).id, "ACTIVE")
        host = server.host or ""
        await cloud.stop(host)
        await cloud.compute.delete(ALICE, server.id)
        await cloud.until(server.id, "DELETED", within_s=200)
        assert len(await cloud.placement.claims()) == 1
        sweep = OrphanSweep(cloud.world, cloud.network, cloud.placement)
        for key in await sweep.keys():
            await sweep.settle(key)
        assert len(await cloud.placement.claims()) == 1
        cloud.start_agent(host)
        await asyncio.sleep(5)
        for key in await sweep.keys():
            await sweep.settle(key)
        await cloud.nothing_left()

    in_cloud(story)


def test_an_unavailable_moment_is_retried() -> None:
    failures = ["once", "twice"]

    def fail(verb: str, wish: Wish) -> None:
        if failures and wish.power is Power.ON:
            failures.pop()
            raise Unavailable("test.away", "the image store is away")

    async def story(cloud: Cloud) -> None:
        await cloud.until((await cloud.boot()).id, "ACTIVE", within_s=30)

    in_cloud(story, mishap=fail)


def test_quota_holds_in_the_creating_transaction() -> None:
    async def story(cloud: Cloud) -> None:
        await cloud.compute.quotas.set("p1", {"instances": 3}, force=True)
        results = await asyncio.gather(*(cloud.boot() for _ in range(6)), return_exceptions=True)
        assert sum(isinstance(result, OverQuota) for result in results) == 3
        assert (await cloud.compute.quotas.used("p1"))["instances"] == 3
        await cloud.boot(BOB)

    in_cloud(story)


def test_anti_affinity_spreads_and_refuses() -> None:
    async def story(cloud: Cloud) -> None:
        group = await cloud.compute.groups.create(ALICE, "apart", "anti-affinity", {})
        servers = []
        for _ in range(2):
            servers.append(await cloud.until((await cloud.boot(group_id=group.id)).id, "ACTIVE"))
        assert {server.host for server in servers} == {"h1", "h2"}
        third = await cloud.until((await cloud.boot(group_id=group.id)).id, "ERROR")
        assert third.fault is not None
        assert "No valid host was found" in third.fault.message

    in_cloud(story)


@pytest.mark.parametrize(("policy", "hosts"), [("affinity", 1), ("soft-affinity", 1), ("soft-anti-affinity", 2)])
def test_groups_keep_together_or_spread_softly(policy: str, hosts: int) -> None:
    async def story(cloud: Cloud) -> None:
        group = await cloud.compute.groups.create(ALICE, "g", policy, {})
        servers = []
        for _ in range(3):
            servers.append(await cloud.until((await cloud.boot(group_id=group.id)).id, "ACTIVE"))
        assert len({server.host for server in servers}) == hosts

    in_cloud(story)


def test_deleted_servers_are_kept_for_a_while_and_then_forgotten() -> None:
    async def story(cloud: Cloud) -> None:
        server = await cloud.until((await cloud.boot()).id, "ACTIVE")
        kept = await cloud.until((await cloud.boot()).id, "ACTIVE")
        await cloud.compute.delete(ALICE, server.id)
        await cloud.until(server.id, "DELETED")
        purge = Purge(cloud.world)
        await purge.settle("all")
        assert (await cloud.row(server.id)).deleted
        for name in list(cloud.tasks):
            await cloud.stop(name)
        await asyncio.sleep(KEPT_S + 60)
        await purge.settle("all")
        with pytest.raises(NotFound):
            await cloud.row(server.id)
        assert not (await cloud.row(kept.id)).deleted

    in_cloud(story)


def test_a_hundred_at_once() -> None:
    async def story(cloud: Cloud) -> None:
        servers = await asyncio.gather(*(cloud.boot(name=f"s{number}") for number in range(100)))
        for server in servers:
            await cloud.until(server.id, "ACTIVE")
        hosts = await cloud.placement.hosts()
        assert sum(host.used["VCPU"] for host in hosts) == 100
        await asyncio.gather(*(cloud.compute.delete(ALICE, server.id) for server in servers))
        for server in servers:
            await cloud.until(server.id, "DELETED")
        await cloud.nothing_left()

    in_cloud(story, hosts=tuple(f"h{number}" for number in range(10)))
