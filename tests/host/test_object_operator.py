"""`apus object` on a store that serves: what its operator sees and changes."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.cloud_process import CloudProcess, free_pair

pytestmark = pytest.mark.xdist_group("object_operator")


class Store(CloudProcess):
    def __init__(self, room: Path) -> None:
        super().__init__(room / "state", free_pair())
        self.drives = [room / "drives" / name for name in "abcd"]
        self.must_up("--only", "object", "--drives", ",".join(map(str, self.drives)), hosts=0)
        self.token, project_id = self.login("demo")
        self.path = f"/v1/AUTH_{project_id}/box"
        assert self.ask("PUT", self.path, token=self.token).status == 201

    def object(self, *words: str) -> Any:
        said = self.run("object", *words, "-f", "json")
        assert said.code == 0, said
        return json.loads(said.out)

    def fill(self, count: int, prefix: str = "o") -> None:
        for number in range(count):
            answer = self.ask("PUT", f"{self.path}/{prefix}{number}", b"x" * 4096, token=self.token)
            assert answer.status == 201, answer

    def until(self, what: Callable[[dict[str, Any]], bool], within_s: float = 30.0) -> dict[str, Any]:
        end_s = time.monotonic() + within_s
        while True:
            found: dict[str, Any] = self.object("repair", "status")
            if what(found):
                return found
            assert time.monotonic() < end_s, found

    def events(self, last: str) -> list[dict[str, Any]]:
        """All events so far, until one of kind `last` has come."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"X-Auth-Token": self.login("admin")[0]}
        connection.request("GET", "/apus/v1/events?after=0&all_projects=1", headers=headers)
        answer, found = connection.getresponse(), list[dict[str, Any]]()
        assert answer.status == 200
        while not found or found[-1]["kind"] != last:
            line = answer.readline()
            if line.startswith(b"data: "):
                found.append(json.loads(line[6:]))
        connection.close()
        return found

    def whole(self, prefix: str, count: int) -> None:
        for number in range(count):
            answer = self.ask("GET", f"{self.path}/{prefix}{number}", token=self.token)
            assert (answer.status, len(answer.body)) == (200, 4096), (number, answer)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(tmp_path_factory.mktemp("operator"))
    try:
        yield store
    finally:
        store.down()


def test_the_shards_of_a_container_are_shown(store: Store) -> None:
    store.fill(2, "shown")
    account = store.path.split("/")[2]
    (only,) = store.object("shards", account, "box")["shards"]
    assert (only["bound"], only["upto"], only["state"], len(only["drives"])) == ("", "", "settled", 3)
    assert only["totals"]["rows"] >= 2
    assert len(store.object("shards", account)["shards"]) == 1
    assert store.run("object", "shards", account, "none").code != 0


def test_a_container_of_more_names_than_the_operator_said_is_cut(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "apus.toml").write_text("shard_rows = 1000\n")
    store = Store(tmp_path)
    try:
        store.fill(1_001)
        end_s = time.monotonic() + 60
        while len(store.object("shards", store.path.split("/")[2], "box")["shards"]) < 2:
            assert time.monotonic() < end_s
    finally:
        store.down()


def test_repair_is_shown_told_paused_resumed_and_capped(store: Store) -> None:
    store.fill(30)
    store.until(lambda found: found["state"] == "idle")
    assert store.object("repair", "pause")["state"] in ("idle", "paused")
    away = store.drives[1].with_name("elsewhere")
    store.drives[1].rename(away)
    found = store.until(lambda found: found["copies_at_risk"] > 0)
    assert found["state"] == "paused"
    assert found["drives_away"] == ["drive2"]
    assert found["copies_at_risk"] == found["copies_to_make"]
    assert "paused" in store.run("object", "repair", "status").out
    assert store.object("repair", "cap", "8MiB")["cap_bytes_s"] == 8 << 20
    store.object("repair", "resume")
    found = store.until(lambda found: found["copies_at_risk"] == 0)
    assert found["copies_made"] > 0
    store.whole("o", 30)
    away.rename(store.drives[1])
    store.until(lambda found: found["state"] == "idle")
    assert store.object("repair", "cap", "none")["cap_bytes_s"] == 0
    metrics = store.ask("GET", "/metrics").text
    assert 'apus_object_copies_at_risk{room="objects"} 0' in metrics
    assert "apus_object_repair_copies_made" in metrics
    kinds = [event["kind"] for event in store.events("object.repair.ended")]
    assert {"object.drive.lost", "object.drive.returned"} <= set(kinds)
    assert kinds.index("object.repair.started") < kinds.index("object.repair.ended")


def test_the_same_is_told_as_swift_tells_it(store: Store) -> None:
    token, _ = store.login("admin")
    store.until(lambda found: found["state"] == "idle")
    found = store.ask("GET", "/recon/replication/object", token=token).json
    assert found["replication_stats"]["failure"] == found["replication_stats"]["copies_at_risk"] == 0
    assert abs(found["object_replication_last"] - time.time()) < 120
    assert found["replication_time"] > 0
    assert store.ask("GET", "/recon/replication/none", token=token).status == 404
    assert store.ask("GET", "/recon/replication", token=store.token).status == 403
    said = store.run("status")
    assert said.code == 0
    assert "repair           idle" in said.out


def test_a_wrong_word_is_refused_with_a_reason(store: Store) -> None:
    said = store.run("object", "repair", "cap", "fast")
    assert said.code == 1
    assert "'fast' is not a size" in said.err
    token, _ = store.login("admin")
    answer = store.ask("PATCH", "/apus/v1/object/repair", {"cap_bytes_s": -1}, token=token)
    assert answer.status == 400
    assert "cap_bytes_s" in answer.text
    assert store.ask("PATCH", "/apus/v1/object/repair", {"paused": True}, token=store.token).status == 403


def test_a_drive_joins_is_drained_and_leaves_while_it_serves(store: Store) -> None:
    store.fill(40, "m")
    added = store.object("drive", "add", str(store.drives[0].with_name("e")), "--zone", "zone2")[0]
    assert (added["id"], added["zone"], added["state"]) == ("drive5", "zone2", "in use")
    store.whole("m", 40)
    store.until(lambda found: found["state"] == "idle")
    drives = {one["id"]: one for one in store.object("drive", "list")}
    assert drives["drive5"]["versions"] > 0
    said = store.run("object", "drive", "remove", "drive1")
    assert said.code == 1
    assert "drain drive1" in said.err
    assert store.object("drive", "drain", "drive1")[0]["weight"] == 0
    store.until(lambda found: found["state"] == "idle" and store.object("drive", "list")[0]["state"] == "empty")
    assert store.run("object", "drive", "remove", "drive1").code == 0
    store.whole("m", 40)
    assert "drive1" not in store.run("object", "drive", "list").out
    store.down()
    store.must_up(hosts=0)
    assert [one["id"] for one in store.object("drive", "list")] == ["drive2", "drive3", "drive4", "drive5"]
    store.whole("m", 40)


def test_an_emptied_drive_is_adopted_by_the_command_and_not_by_itself(store: Store) -> None:
    store.fill(20, "a")
    path = store.drives[2]
    path.rename(path.with_name("old"))
    path.mkdir()
    store.until(lambda found: found["drives_away"] == ["drive3"])
    assert not list(path.iterdir())
    store.object("drive", "adopt", "drive3")
    store.until(lambda found: found["state"] == "idle")
    assert {one["id"]: one for one in store.object("drive", "list")}["drive3"]["versions"] > 0
    said = store.run("object", "drive", "adopt", "drive3", "--path", str(store.drives[1]))
    assert said.code == 1
    assert "is drive2" in said.err
    assert store.run("object", "drive", "adopt", "drive9").code == 1


def test_the_ring_grows_while_it_serves(store: Store) -> None:
    store.fill(40, "g")
    store.until(lambda found: found["state"] == "idle" and not store.object("ring", "show")["changes_under_way"])
    before = store.object("ring", "show")["partitions"]
    assert store.object("ring", "grow")["partitions"] == 2 * before
    store.whole("g", 40)
    assert store.ask("PUT", f"{store.path}/after", b"x", token=store.token).status == 201
    said = store.run("object", "ring", "grow")
    assert said.code == 1
    assert "possible when their copies have moved" in said.err
    store.until(lambda found: not store.object("ring", "show")["changes_under_way"])
    listed = store.ask("GET", f"{store.path}?prefix=g", token=store.token).text.split()
    assert len(listed) == 40


def test_bad_drives_are_refused_with_the_field(store: Store) -> None:
    token, _ = store.login("admin")
    path = "/apus/v1/object/drives"
    for body, field in (
        ({}, "path"), ({"path": "/x", "weight": -1}, "weight"), ({"path": "/x", "zone": ""}, "zone"), ({"path": 7}, "path"),
        ({"path": "relative"}, "path"), ({"path": "/x", "colour": "red"}, "colour"), ({"path": "/proc/self/x"}, "path"),
    ):  # fmt: skip
        answer = store.ask("POST", path, body, token=token)
        assert answer.status == 400, (body, answer)
        assert field in answer.text, (body, answer)
    assert store.ask("DELETE", f"{path}/none", token=token).status == 404
    assert store.ask("PATCH", f"{path}/drive2", {"weight": "x"}, token=token).status == 400
    assert store.ask("POST", path, {"path": "/x"}, token=store.token).status == 403
