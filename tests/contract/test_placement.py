"""The Placement API: each route, what differs between versions, and that nothing is ever given out twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import pytest

from apus.kernel.caller import Caller
from apus.kernel.errors import NoRoom, Unauthenticated
from apus.kernel.sql import Schema
from apus.kernel.table import metadata
from apus.kernel.world import World
from apus.platform.bus_local import LocalBus
from apus.platform.clock import SystemClock
from apus.platform.disk import LocalDisk
from apus.platform.process import LocalRunner
from apus.services.placement.api.routes import placement_api
from apus.services.placement.contract import HostReport, Inventory, Need
from apus.services.placement.inventory import Inventories
from apus.services.placement.service import Placement
from apus.wire.app import App
from tests.stores import open_store

assert Schema


class Admin:
    def verify(self, token: str) -> Caller:
        if token != "admin":
            raise Unauthenticated("identity.bad_token", "no")
        return Caller(user_id="a", project_id="p", roles=frozenset({"admin"}))


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.data = status, headers, body

    @property
    def body(self) -> Any:
        return json.loads(self.data)


class Door:
    """The API, asked without sockets."""

    def __init__(self, world: World) -> None:
        self.placement = Placement(world)
        self.app = App([placement_api(Inventories(world, self.placement))], Admin(), dice=Random(1))

    async def ask(self, method: str, path: str, body: Any = None, version: str = "1.39") -> Answer:
        target, _, query = path.partition("?")
        data = b"" if body is None else json.dumps(body).encode()
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"x-auth-token", b"admin"), (b"openstack-api-version", f"placement {version}".encode())]
        scope = {
            "type": "http", "method": method, "raw_path": b"/placement" + target.encode(), "headers": headers,
            "query_string": query.encode(),
        }  # fmt: skip
        await self.app(scope, receive, send)
        named = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], named, b"".join(message.get("body", b"") for message in sent[1:]))


def with_door(story: Callable[[Door], Awaitable[None]]) -> None:
    async def run() -> None:
        clock = SystemClock()
        store = open_store(None, clock)
        await store.create_schema(metadata)
        try:
            await story(Door(World(clock, Random(7), LocalBus(), store, LocalDisk(), LocalRunner())))
        finally:
            await store.close()

    asyncio.run(run())


A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")
CONSUMER = "11111111-0000-4000-8000-000000000000"


async def provider(door: Door, id: str, name: str, total: int = 4, **more: Any) -> None:
    assert (await door.ask("POST", "/resource_providers", {"name": name, "uuid": id, **more})).status == 200
    inventories = {"VCPU": {"total": total}, "MEMORY_MB": {"total": 1024}}
    body = {"resource_provider_generation": 1, "inventories": inventories}
    assert (await door.ask("PUT", f"/resource_providers/{id}/inventories", body)).status == 200


def test_providers() -> None:
    async def story(door: Door) -> None:
        made = await door.ask("POST", "/resource_providers", {"name": "a", "uuid": A})
        assert (made.status, made.body["uuid"], made.body["root_provider_uuid"]) == (200, A, A)
        assert (await door.ask("POST", "/resource_providers", {"name": "a", "uuid": B})).status == 409
        older = await door.ask("POST", "/resource_providers", {"name": "b", "uuid": B}, "1.19")
        assert (older.status, older.data) == (201, b"")
        assert older.headers["location"].endswith(f"/placement/resource_providers/{B}")
        for wrong in ({}, {"name": ""}, {"name": "c", "uuid": "x"}, {"name": "c", "else": 1}, {"name": "x" * 300}):
            assert (await door.ask("POST", "/resource_providers", wrong)).status == 400
        listed = (await door.ask("GET", "/resource_providers")).body["resource_providers"]
        assert [item["name"] for item in listed] == ["a", "b"]
        assert len((await door.ask("GET", "/resource_providers?name=a")).body["resource_providers"]) == 1
        assert "root_provider_uuid" not in (await door.ask("GET", f"/resource_providers/{A}", version="1.13")).body
        assert (await door.ask("GET", f"/resource_providers/{C}")).status == 404
        assert (await door.ask("DELETE", f"/resource_providers/{A}")).status == 204
        assert (await door.ask("DELETE", f"/resource_providers/{A}")).status == 404

    with_door(story)


def test_trees_stay_trees() -> None:
    async def story(door: Door) -> None:
        await door.ask("POST", "/resource_providers", {"name": "a", "uuid": A})
        child = await door.ask("POST", "/resource_providers", {"name": "b", "uuid": B, "parent_provider_uuid": A})
        assert child.body["root_provider_uuid"] == A
        await door.ask("POST", "/resource_providers", {"name": "c", "uuid": C, "parent_provider_uuid": B})
        renamed = await door.ask("PUT", f"/resource_providers/{B}", {"name": "b2"})
        assert (renamed.body["name"], renamed.body["parent_provider_uuid"]) == ("b2", A)
        assert (await door.ask("DELETE", f"/resource_providers/{A}")).status == 409
        for nonsense in (A, C, "99999999-0000-4000-8000-000000000000"):
            moved = await door.ask("PUT", f"/resource_providers/{A}", {"name": "a", "parent_provider_uuid": nonsense})
            assert moved.status == 400
        tree = (await door.ask("GET", f"/resource_providers?in_tree={C}")).body["resource_providers"]
        assert len(tree) == 3
        freed = await door.ask("PUT", f"/resource_providers/{B}", {"name": "b", "parent_provider_uuid": None})
        assert freed.body["root_provider_uuid"] == B
        assert (await door.ask("GET", f"/resource_providers/{C}")).body["root_provider_uuid"] == B
        older = await door.ask("PUT", f"/resource_providers/{C}", {"name": "c", "parent_provider_uuid": A}, "1.36")
        assert older.status == 400

    with_door(story)


def test_inventories_traits_and_aggregates_check_the_generation() -> None:
    async def story(door: Door) -> None:
        await provider(door, A, "a")
        one = f"/resource_providers/{A}"
        known = (await door.ask("GET", one + "/inventories")).body
        assert known["resource_provider_generation"] == 2
        assert known["inventories"]["VCPU"]["total"] == 4
        stale = {"resource_provider_generation": 1, "inventories": {}}
        refused = await door.ask("PUT", one + "/inventories", stale)
        assert (refused.status, refused.body["errors"][0]["code"]) == (409, "placement.concurrent_update")
        for wrong in (
            {"resource_provider_generation": 2, "inventories": {"NONE": {"total": 1}}},
            {"resource_provider_generation": 2, "inventories": {"VCPU": {"total": 0}}},
            {"resource_provider_generation": 2, "inventories": {"VCPU": {"total": 1, "reserved": 2}}},
            {"inventories": {}},
        ):
            assert (await door.ask("PUT", one + "/inventories", wrong)).status == 400
        put = await door.ask("PUT", one + "/inventories/VCPU", {"total": 8, "resource_provider_generation": 2})
        assert (put.status, put.body["total"], put.body["resource_provider_generation"]) == (200, 8, 3)
        assert (await door.ask("PUT", one + "/inventories/VCPU", {"total": 8})).status == 400
        assert (await door.ask("GET", one + "/inventories/DISK_GB")).status == 404
        assert (await door.ask("DELETE", one + "/inventories/MEMORY_MB")).status == 204
        assert (await door.ask("DELETE", one + "/inventories/MEMORY_MB")).status == 404
        traits = await door.ask(
            "PUT", one + "/traits", {"resource_provider_generation": 4, "traits": ["HW_CPU_X86_VMX"]}
        )
        assert (traits.status, traits.body["traits"]) == (200, ["HW_CPU_X86_VMX"])
        assert (
            await door.ask("PUT", one + "/traits", {"resource_provider_generation": 5, "traits": ["NO"]})
        ).status == 400
        assert (await door.ask("DELETE", one + "/traits")).status == 204
        assert (await door.ask("GET", one + "/traits")).body["traits"] == []
        groups = await door.ask("PUT", one + "/aggregates", {"resource_provider_generation": 6, "aggregates": [B]})
        assert (groups.status, groups.body["aggregates"]) == (200, [B])
        assert (await door.ask("PUT", one + "/aggregates", [C], "1.18")).body == {"aggregates": [C]}
        member = await door.ask("GET", f"/resource_providers?member_of=in:{B},{C}")
        assert len(member.body["resource_providers"]) == 1
        assert (await door.ask("DELETE", one + "/inventories")).status == 204
        assert (await door.ask("DELETE", one + "/inventories", version="1.4")).status in (404, 405)

    with_door(story)


def test_allocations_are_all_or_nothing_and_check_the_consumers_generation() -> None:
    async def story(door: Door) -> None:
        await provider(door, A, "a")
        await provider(door, B, "b", total=1)
        where = f"/allocations/{CONSUMER}"

        def body(amount: int, generation: int | None, on: str = A) -> dict[str, Any]:
            return {
                "allocations": {on: {"resources": {"VCPU": amount}}}, "project_id": "p", "user_id": "u",
                "consumer_generation": generation, "consumer_type": "INSTANCE",
            }  # fmt: skip

        assert (await door.ask("PUT", where, body(3, None))).status == 204
        assert (await door.ask("PUT", where, body(2, None))).status == 409
        assert (await door.ask("PUT", where, body(5, 1))).status == 409
        held = (await door.ask("GET", where)).body
        assert (held["allocations"][A]["resources"], held["consumer_generation"]) == ({"VCPU": 3}, 1)
        assert "consumer_generation" not in (await door.ask("GET", where, version="1.27")).body
        usages = (await door.ask("GET", f"/resource_providers/{A}/usages")).body["usages"]
        assert usages == {"VCPU": 3, "MEMORY_MB": 0}
        assert list((await door.ask("GET", f"/resource_providers/{A}/allocations")).body["allocations"]) == [CONSUMER]
        assert (await door.ask("GET", "/usages?project_id=p", version="1.37")).body == {"usages": {"VCPU": 3}}
        assert (await door.ask("GET", "/usages?project_id=p")).body["usages"]["INSTANCE"]["consumer_count"] == 1
        assert (await door.ask("DELETE", f"/resource_providers/{A}")).status == 409
        assert (await door.ask("DELETE", f"/resource_providers/{A}/inventories")).status == 409
        moved = {CONSUMER: body(1, 1, B), C: body(4, None, A)}
        assert (await door.ask("POST", "/allocations", {**moved, B: body(9, None, B)})).status == 409
        assert (await door.ask("GET", where)).body["allocations"][A]["resources"] == {"VCPU": 3}
        assert (await door.ask("POST", "/allocations", moved)).status == 204
        assert list((await door.ask("GET", where)).body["allocations"]) == [B]
        old = {"allocations": [{"resource_provider": {"uuid": A}, "resources": {"MEMORY_MB": 1}}]}
        assert (await door.ask("PUT", where, old, "1.7")).status == 204
        for wrong in ({"allocations": 5}, {"allocations": [5]}, {"allocations": [{"resource_provider": 1}]}, {}):
            assert (await door.ask("PUT", where, wrong, "1.7")).status == 400
        assert (await door.ask("PUT", where, body(1, 2, "99999999-0000-4000-8000-000000000000"))).status in (400, 409)
        assert (await door.ask("DELETE", where)).status == 204
        assert (await door.ask("DELETE", where)).status == 404
        assert (await door.ask("GET", where)).body == {"allocations": {}}

    with_door(story)


def test_candidates() -> None:
    async def story(door: Door) -> None:
        for id, name, total in ((A, "a", 4), (B, "b", 8), (C, "c", 1)):
            await provider(door, id, name, total)
        asked = await door.ask("GET", "/allocation_candidates?resources=VCPU:2,MEMORY_MB:64")
        assert len(asked.body["allocation_requests"]) == 2
        assert set(asked.body["provider_summaries"]) == {A, B}
        assert (
            len((await door.ask("GET", "/allocation_candidates?resources=VCPU:2&limit=1")).body["allocation_requests"])
            == 1
        )
        old = (await door.ask("GET", "/allocation_candidates?resources=VCPU:8", version="1.10")).body
        assert old["allocation_requests"][0]["allocations"] == [
            {"resource_provider": {"uuid": B}, "resources": {"VCPU": 8}}
        ]
        assert "traits" not in old["provider_summaries"][B]
        assert (await door.ask("GET", "/allocation_candidates?resources=VCPU:2", version="1.9")).status == 404
        for wrong in (
            "",
            "resources=VCPU",
            "resources=VCPU:0",
            "resources=VCPU:x",
            "resources=:1",
            "resources=VCPU:1&limit=0",
        ):
            assert (await door.ask("GET", f"/allocation_candidates?{wrong}")).status == 400
        # what is taken shows at once
        allocations = {B: {"resources": {"VCPU": 8}}}
        body = {
            "allocations": allocations,
            "project_id": "p",
            "user_id": "u",
            "consumer_generation": None,
            "consumer_type": "X",
        }
        assert (await door.ask("PUT", f"/allocations/{CONSUMER}", body)).status == 204
        left = (await door.ask("GET", "/allocation_candidates?resources=VCPU:2")).body
        assert list(left["provider_summaries"]) == [A]
        forbidden = await door.ask("GET", "/allocation_candidates?resources=VCPU:1&required=HW_CPU_X86_VMX")
        assert forbidden.body["allocation_requests"] == []

    with_door(story)


def test_groups_of_a_request_and_since_when_they_may_be_written() -> None:
    async def story(door: Door) -> None:
        await provider(door, A, "host")
        await provider(door, B, "numa1", parent_provider_uuid=A)
        await provider(door, C, "numa2", parent_provider_uuid=A)
        body = {"resource_provider_generation": 2, "traits": ["HW_CPU_X86_AVX"]}
        assert (await door.ask("PUT", f"/resource_providers/{B}/traits", body)).status == 200

        async def ways(query: str, version: str = "1.39") -> list[dict[str, list[str]]]:
            answer = await door.ask("GET", f"/allocation_candidates?{query}", version=version)
            assert answer.status == 200, answer.data
            return [request.get("mappings", request) for request in answer.body["allocation_requests"]]

        assert await ways("resources1=VCPU:3&required1=HW_CPU_X86_AVX&resources2=VCPU:3&group_policy=isolate") == [
            {"1": [B], "2": [A]}, {"1": [B], "2": [C]},
        ]  # fmt: skip
        assert len(await ways("resources1=VCPU:1&resources2=VCPU:1&group_policy=none")) == 6
        assert await ways(f"resources_X=VCPU:1&in_tree_X={B}&required_X=!HW_CPU_X86_AVX&limit=1") == [{"_X": [A]}]
        assert len(await ways("resources=VCPU:1", "1.28")) == 1  # trees came with 1.29
        assert (await ways("resources=VCPU:1&root_required=HW_CPU_X86_AVX")) == []
        assert len(await ways("resources=VCPU:1&required=in:HW_CPU_X86_AVX,HW_CPU_X86_VMX")) == 1
        for query, version in (
            ("resources1=VCPU:1&resources2=VCPU:1", "1.39"),
            ("resources1=VCPU:1&resources2=VCPU:1&group_policy=x", "1.39"),
            ("resources1=VCPU:1", "1.24"), ("resources_A=VCPU:1", "1.32"), ("resources=VCPU:1&required=HW_CPU_X86_AVX", "1.16"),
            ("resources=VCPU:1&required=!HW_CPU_X86_AVX", "1.21"), (f"resources=VCPU:1&member_of={A}", "1.20"),
            (f"resources=VCPU:1&member_of=!{A}", "1.31"), (f"resources=VCPU:1&in_tree={A}", "1.30"),
            ("resources=VCPU:1&root_required=HW_CPU_X86_AVX", "1.34"), ("resources=VCPU:1&limit=1", "1.15"),
            ("resources=VCPU:1&required=in:HW_CPU_X86_AVX,HW_CPU_X86_VMX", "1.38"), ("resources=VCPU:1&in_tree=x", "1.39"),
            ("resources=VCPU:1&required=HW_NOT_THERE", "1.39"), ("resources=NO_SUCH:1", "1.39"), ("required1=HW_CPU_X86_AVX", "1.39"),
            ("resources1=VCPU:1&same_subtree=1,2", "1.39"), ("resources=VCPU:1&else=1", "1.39"),
            ("resources=VCPU:1&member_of=x", "1.39"), ("resources=VCPU:1&required=", "1.39"),
        ):  # fmt: skip
            answer = await door.ask("GET", f"/allocation_candidates?{query}", version=version)
            assert answer.status == 400, (query, version, answer.data)
        listed = (await door.ask("GET", "/resource_providers?required=HW_CPU_X86_AVX&resources=VCPU:4")).body
        assert [item["uuid"] for item in listed["resource_providers"]] == [B]
        assert (await door.ask("GET", "/resource_providers?required=HW_CPU_X86_AVX", version="1.17")).status == 400

    with_door(story)


def test_inventory_moves_together_with_what_is_held_of_it() -> None:
    async def story(door: Door) -> None:
        await provider(door, A, "host")
        assert (
            await door.ask("POST", "/resource_providers", {"name": "child", "uuid": B, "parent_provider_uuid": A})
        ).status == 200
        held = {
            "allocations": {A: {"resources": {"VCPU": 2, "MEMORY_MB": 64}}}, "project_id": "p", "user_id": "u",
            "consumer_generation": None, "consumer_type": "INSTANCE",
        }  # fmt: skip
        assert (await door.ask("PUT", f"/allocations/{CONSUMER}", held)).status == 204
        generation = (await door.ask("GET", f"/resource_providers/{A}")).body["generation"]
        moved: dict[str, Any] = {
            "inventories": {
                A: {"resource_provider_generation": generation, "inventories": {"MEMORY_MB": {"total": 1024}}},
                B: {"resource_provider_generation": 1, "inventories": {"VCPU": {"total": 4}}},
            },
            "allocations": {},
        }
        refused = await door.ask("POST", "/reshaper", moved)
        assert (refused.status, refused.body["errors"][0]["code"]) == (409, "placement.inventory.inuse")
        after = {A: {"resources": {"MEMORY_MB": 64}}, B: {"resources": {"VCPU": 2}}}
        moved["allocations"] = {CONSUMER: {**held, "consumer_generation": 1, "allocations": after}}
        stale = {
            **moved,
            "inventories": {**moved["inventories"], B: {**moved["inventories"][B], "resource_provider_generation": 9}},
        }
        assert (await door.ask("POST", "/reshaper", stale)).status == 409
        shown = (await door.ask("GET", f"/allocations/{CONSUMER}")).body
        assert list(shown["allocations"]) == [A]  # a refusal changed nothing
        assert (await door.ask("POST", "/reshaper", moved, "1.29")).status == 404
        assert (await door.ask("POST", "/reshaper", moved)).status == 204
        shown = (await door.ask("GET", f"/allocations/{CONSUMER}")).body
        assert {id: item["resources"] for id, item in shown["allocations"].items()} == {
            A: {"MEMORY_MB": 64},
            B: {"VCPU": 2},
        }
        assert (await door.ask("GET", f"/resource_providers/{A}/usages")).body["usages"] == {"MEMORY_MB": 64}
        assert (await door.ask("GET", f"/resource_providers/{B}/usages")).body["usages"] == {"VCPU": 2}
        nowhere = {**moved, "inventories": {C: moved["inventories"][B]}}
        assert (await door.ask("POST", "/reshaper", nowhere)).status == 400

    with_door(story)


def test_consumers_have_types_since_1_38() -> None:
    async def story(door: Door) -> None:
        await provider(door, A, "host")
        body = {"allocations": {A: {"resources": {"VCPU": 1}}}, "project_id": "p", "user_id": "u"}
        assert (await door.ask("POST", "/allocations", {CONSUMER: body}, "1.27")).status == 204
        typed = {**body, "consumer_generation": None, "consumer_type": "MIGRATION"}
        assert (await door.ask("PUT", f"/allocations/{B}", {**body, "consumer_generation": None})).status == 400
        assert (await door.ask("PUT", f"/allocations/{B}", typed)).status == 204
        usages = (await door.ask("GET", "/usages?project_id=p")).body["usages"]
        assert usages == {
            "MIGRATION": {"VCPU": 1, "consumer_count": 1}, "unknown": {"VCPU": 1, "consumer_count": 1},
        }  # fmt: skip
        assert list((await door.ask("GET", "/usages?project_id=p&consumer_type=MIGRATION")).body["usages"]) == [
            "MIGRATION"
        ]
        everything = (await door.ask("GET", "/usages?project_id=p&consumer_type=all")).body["usages"]
        assert everything == {"all": {"VCPU": 2, "consumer_count": 2}}
        assert (await door.ask("GET", "/usages?project_id=p", version="1.37")).body["usages"] == {"VCPU": 2}

    with_door(story)


def test_one_inventory_is_added() -> None:
    async def story(door: Door) -> None:
        assert (await door.ask("POST", "/resource_providers", {"name": "a", "uuid": A})).status == 200
        body = {"resource_class": "VCPU", "total": 4, "resource_provider_generation": 1}
        made = await door.ask("POST", f"/resource_providers/{A}/inventories", body)
        assert (made.status, made.body["total"]) == (201, 4)
        assert made.headers["location"].endswith(f"/resource_providers/{A}/inventories/VCPU")
        body["resource_provider_generation"] = made.body["resource_provider_generation"]
        assert (await door.ask("POST", f"/resource_providers/{A}/inventories", body)).status == 409

    with_door(story)


def test_classes_and_traits() -> None:
    async def story(door: Door) -> None:
        assert (await door.ask("POST", "/resource_classes", {"name": "CUSTOM_GOLD"})).status == 201
        assert (await door.ask("POST", "/resource_classes", {"name": "CUSTOM_GOLD"})).status == 409
        assert (await door.ask("POST", "/resource_classes", {"name": "gold"})).status == 400
        assert (await door.ask("PUT", "/resource_classes/CUSTOM_GOLD")).status == 204
        assert (await door.ask("PUT", "/resource_classes/CUSTOM_TIN")).status == 201
        assert (await door.ask("PUT", "/resource_classes/nope%0d%0a")).status == 400
        names = [item["name"] for item in (await door.ask("GET", "/resource_classes")).body["resource_classes"]]
        assert {"VCPU", "CUSTOM_GOLD", "CUSTOM_TIN"} <= set(names)
        assert (await door.ask("GET", "/resource_classes/CUSTOM_TIN")).status == 200
        assert (await door.ask("DELETE", "/resource_classes/CUSTOM_TIN")).status == 204
        assert (await door.ask("DELETE", "/resource_classes/CUSTOM_TIN")).status == 404
        assert (await door.ask("DELETE", "/resource_classes/VCPU")).status == 400
        assert (await door.ask("PUT", "/traits/CUSTOM_FAST")).status == 201
        assert (await door.ask("PUT", "/traits/CUSTOM_FAST")).status == 204
        assert (await door.ask("PUT", "/traits/fast")).status == 400
        assert (await door.ask("GET", "/traits/CUSTOM_FAST")).status == 204
        assert (await door.ask("GET", "/traits?name=startswith:CUSTOM_")).body == {"traits": ["CUSTOM_FAST"]}
        await provider(door, A, "a")
        body = {"resource_provider_generation": 2, "traits": ["CUSTOM_FAST"]}
        assert (await door.ask("PUT", f"/resource_providers/{A}/traits", body)).status == 200
        assert (await door.ask("DELETE", "/traits/CUSTOM_FAST")).status == 409
        assert (await door.ask("GET", "/traits", version="1.5")).status == 404
        assert (await door.ask("GET", "/")).body["versions"][0]["max_version"] == "1.39"

    with_door(story)


def report(name: str, vcpus: int) -> HostReport:
    return HostReport(host=name, host_id=f"id-{name}", inventories={"VCPU": Inventory(total=vcpus)})


def test_concurrent_claims_never_overcommit() -> None:
    async def story(door: Door) -> None:
        for name in ("h1", "h2", "h3"):
            await door.placement.report_host(report(name, 40))

        async def claim(number: int) -> bool:
            try:
                await door.placement.claim(f"c{number}", Need(resources={"VCPU": 1}), "p", "u", ())
            except NoRoom:
                return False
            return True

        won = await asyncio.gather(*(claim(number) for number in range(200)))
        assert sum(won) == 120
        hosts = await door.placement.hosts()
        assert [host.used["VCPU"] for host in hosts] == [40, 40, 40]
        await asyncio.gather(*(door.placement.release(f"c{number}") for number in range(200)))
        assert [host.used.get("VCPU", 0) for host in await door.placement.hosts()] == [0, 0, 0]

    with_door(story)


def test_concurrent_claims_keep_together_and_apart() -> None:
    async def story(door: Door) -> None:
        for name in ("h1", "h2", "h3"):
            await door.placement.report_host(report(name, 40))

        async def hosts(ids: tuple[str, ...], need: Need) -> set[str]:
            claims = await asyncio.gather(*(door.placement.claim(id, need, "p", "u", ()) for id in ids))
            return {claim.host for claim in claims}

        together, apart = ("a1", "a2", "a3", "a4"), ("b1", "b2", "b3")
        assert len(await hosts(together, Need(resources={"VCPU": 1}, same_host_as=together))) == 1
        assert len(await hosts(apart, Need(resources={"VCPU": 1}, different_host_from=apart))) == 3

    with_door(story)


def test_a_refusal_is_explained() -> None:
    async def story(door: Door) -> None:
        await door.placement.report_host(report("h1", 2))
        with pytest.raises(NoRoom, match="VCPU"):
            await door.placement.claim("c", Need(resources={"VCPU": 3}), "p", "u", ())
        said = await door.placement.explain("c")
        assert said is not None
        assert (said.chosen, said.would_fit, said.refusals[0].filter) == (None, "VCPU ≤ 2", "VCPU")
        await door.placement.claim("c", Need(resources={"VCPU": 2}), "p", "u", ())
        said = await door.placement.explain("c")
        assert said is not None
        assert said.chosen == "h1"

    with_door(story)
