"""Host aggregates through the door, and where servers then go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.contract.compute_door import serving
from tests.sim.cloud import IMAGE_ID, TINY


class Door:
    def __init__(self, url: str) -> None:
        self.url = f"{url}/compute/v2.1"

    def __call__(self, method: str, path: str, body: Any = None, *, token: str = "admin") -> tuple[int, Any]:
        headers = {"X-Auth-Token": token, "OpenStack-API-Version": "compute 2.90"}
        answer = requests.request(method, self.url + path, json=body, headers=headers, timeout=20)
        return answer.status_code, answer.json() if answer.content else None

    def act(self, number: int, **body: Any) -> int:
        return self("POST", f"/os-aggregates/{number}/action", body)[0]

    def aggregate(self, name: str, zone: str | None = None) -> int:
        status, made = self("POST", "/os-aggregates", {"aggregate": {"name": name, "availability_zone": zone}})
        assert status == 200, made
        return int(made["aggregate"]["id"])

    def boot(self, **fields: Any) -> dict[str, Any]:
        server = {"name": "x", "flavorRef": TINY.id, "imageRef": IMAGE_ID, "networks": "none", **fields}
        status, made = self("POST", "/servers", {"server": server}, token="alice")
        assert status == 202, made
        for _ in range(200):
            shown = self("GET", f"/servers/{made['server']['id']}")[1]["server"]
            if shown["status"] != "BUILD":
                return dict(shown)
            time.sleep(0.03)
        raise AssertionError(shown)


@pytest.fixture
def door() -> Iterator[Door]:
    with serving() as (url, _):
        yield Door(url)


def test_a_host_is_in_one_zone_and_stays_while_it_has_servers(door: Door) -> None:
    north, south, plain = door.aggregate("north", "n"), door.aggregate("south", "s"), door.aggregate("plain")
    assert door.act(north, add_host={"host": "h1"}) == 200
    assert door.act(north, add_host={"host": "h1"}) == 409
    assert door.act(south, add_host={"host": "h1"}) == 409
    assert door.act(plain, add_host={"host": "h1"}) == 200
    assert door.act(plain, set_metadata={"metadata": {"availability_zone": "other"}}) == 409
    assert door.act(north, add_host={"host": "nowhere"}) == 404
    assert door.act(north, remove_host={"host": "h2"}) == 404
    assert door("DELETE", f"/os-aggregates/{north}")[0] == 400

    shown = door.boot(availability_zone="n")
    assert (shown["status"], shown["OS-EXT-SRV-ATTR:host"], shown["OS-EXT-AZ:availability_zone"]) == (
        "ACTIVE",
        "h1",
        "n",
    )
    assert door.act(north, remove_host={"host": "h1"}) == 409
    assert door("PUT", f"/os-aggregates/{north}", {"aggregate": {"availability_zone": "m"}})[0] == 409
    assert door("PUT", f"/os-aggregates/{north}", {"aggregate": {"name": "renamed"}})[0] == 200


def test_names_and_bodies(door: Door) -> None:
    one = door.aggregate("one")
    door.aggregate("two")
    assert door("POST", "/os-aggregates", {"aggregate": {"name": "one"}})[0] == 409
    assert door("PUT", f"/os-aggregates/{one}", {"aggregate": {"name": "two"}})[0] == 409
    assert door("PUT", f"/os-aggregates/{one}", {"aggregate": {}})[0] == 400
    assert door.act(one, dance={}) == 400
    assert door.act(one, set_metadata={"metadata": {"a": "b", "c": "d"}}) == 200
    assert door.act(one, set_metadata={"metadata": {"a": None}}) == 200
    shown = door("GET", f"/os-aggregates/{one}")[1]["aggregate"]
    assert (shown["metadata"], shown["hosts"], shown["availability_zone"]) == ({"c": "d"}, [], None)
    assert door("GET", "/os-aggregates/x")[0] == door("GET", "/os-aggregates/99")[0] == 404
    assert door("GET", "/os-aggregates", token="alice")[0] == 403
    assert door("DELETE", f"/os-aggregates/{one}")[0] == 200
    assert [item["name"] for item in door("GET", "/os-aggregates")[1]["aggregates"]] == ["two"]


def test_a_host_that_left_for_good_is_removed(door: Door) -> None:
    number = door.aggregate("both", "z")
    for host in ("h1", "h2"):
        assert door.act(number, add_host={"host": host}) == 200
    host = door.boot()["OS-EXT-SRV-ATTR:host"]
    services = {row["host"]: row["id"] for row in door("GET", "/os-services")[1]["services"]}
    (other,) = set(services) - {host}
    assert door("DELETE", f"/os-services/{services[host]}")[0] == 409
    assert door("DELETE", f"/os-services/{services[other]}")[0] == 204
    assert door("DELETE", f"/os-services/{services[other]}")[0] == 404
    assert [row["hypervisor_hostname"] for row in door("GET", "/os-hypervisors")[1]["hypervisors"]] == [host]
    assert door("GET", f"/os-aggregates/{number}")[1]["aggregate"]["hosts"] == [host]
