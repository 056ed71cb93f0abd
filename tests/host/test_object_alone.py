"""`apus up --only object` as a person meets it: one process, two tenants, both ways to log in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.host.cloud_process import Answer, CloudProcess, free_pair


def variables(state_dir: Path) -> dict[str, str]:
    words = shlex.split((state_dir / "object.env").read_text(), comments=True)
    return dict(word.split("=", 1) for word in words)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudProcess]:
    room = tmp_path_factory.mktemp("alone")
    store = CloudProcess(room / "state", free_pair())
    drives = ",".join(str(room / "drives" / name) for name in "abcd")
    store.must_up("--only", "object", "--drives", drives, hosts=0)
    try:
        yield store
    finally:
        store.down()


def log_in(store: CloudProcess, user: str, key: str, names: tuple[str, str] = ("X-Auth-User", "X-Auth-Key")) -> Answer:
    return store.ask("GET", "/auth/v1.0", headers={names[0]: user, names[1]: key})


def test_one_process_and_one_port_are_all_of_it(store: CloudProcess) -> None:
    assert len(store.pids()) == 2  # and its supervisor
    assert store.ask("GET", "/healthcheck").text == "OK"
    assert store.ask("GET", "/compute/v2.1").status == 404


def test_the_environment_file_is_for_its_owner_alone(store: CloudProcess) -> None:
    path = store.state_dir / "object.env"
    assert path.stat().st_mode & 0o777 == 0o600
    known = variables(store.state_dir)
    for prefix in ("", "ALT_"):
        for name in ("ST_USER", "ST_KEY", "STORAGE_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            assert known[prefix + name]
    assert known["AWS_ENDPOINT_URL"] != known["APUS_URL"]  # S3 has a port of its own


@pytest.mark.parametrize("names", [("X-Auth-User", "X-Auth-Key"), ("X-Storage-User", "X-Storage-Pass")])
def test_swifts_own_login_gives_a_token_and_the_accounts_url(store: CloudProcess, names: tuple[str, str]) -> None:
    known = variables(store.state_dir)
    answer = log_in(store, known["ST_USER"], known["ST_KEY"], names)
    assert answer.status == 200
    assert answer.headers["x-storage-url"] == known["STORAGE_URL"]
    assert answer.headers["x-storage-token"] == answer.headers["x-auth-token"]
    assert 0 < int(answer.headers["x-auth-token-expires"]) <= 3600
    path, token = urlsplit(known["STORAGE_URL"]).path, answer.headers["x-auth-token"]
    assert store.ask("PUT", f"{path}/box", token=token).status in (201, 202)
    assert store.ask("PUT", f"{path}/box/name", b"bytes", token=token).status == 201
    assert store.ask("GET", f"{path}/box/name", token=token).body == b"bytes"


@pytest.mark.parametrize(
    ("user", "key"),
    [("", ""), ("demo", "x"), ("demo:", "x"), (":demo", "x"), ("demo:demo", ""), ("demo:demo", "x"), ("no:body", "x")],
)
def test_a_wrong_login_is_refused(store: CloudProcess, user: str, key: str) -> None:
    assert log_in(store, user, key).status == 401


def test_keystones_login_reaches_the_same_account(store: CloudProcess) -> None:
    token, project_id = store.login("demo")
    known = variables(store.state_dir)
    assert known["STORAGE_URL"].endswith(f"/v1/AUTH_{project_id}")
    answer = store.ask("GET", "/identity/v3/auth/catalog", token=token)
    urls = [
        endpoint["url"]
        for service in answer.json["catalog"]
        if service["type"] == "object-store"
        for endpoint in service["endpoints"]
    ]
    assert set(urls) == {known["STORAGE_URL"]}


def test_one_tenant_does_not_see_the_other(store: CloudProcess) -> None:
    known = variables(store.state_dir)
    other = log_in(store, known["ALT_ST_USER"], known["ALT_ST_KEY"]).headers["x-auth-token"]
    assert store.ask("GET", urlsplit(known["ALT_STORAGE_URL"]).path, token=other).status in (200, 204)
    assert store.ask("GET", urlsplit(known["STORAGE_URL"]).path, token=other).status == 403


def test_an_access_key_stays_the_same_over_restarts(store: CloudProcess) -> None:
    before = variables(store.state_dir)
    store.down()
    store.must_up(hosts=0)
    assert variables(store.state_dir) == before


def test_status_doctor_and_logs_are_true(store: CloudProcess) -> None:
    shown = json.loads(store.run("status", "-f", "json").out)
    assert shown["running"]
    assert [drive["trouble"] for drive in shown["drives"]] == [None] * 4
    assert "network" not in shown
    found = store.run("doctor", "-f", "json")
    assert found.code == 0, found
    assert {one["about"] for one in json.loads(found.out)} == {"python", "disk", "running", "api"}
    assert '"event":"request"' in store.run("logs").out


def test_a_drive_that_goes_away_is_named(store: CloudProcess) -> None:
    mark = store.state_dir.parent / "drives" / "c" / "drive.json"
    kept = mark.rename(mark.with_suffix(".away"))
    try:
        store.down()
        store.must_up(hosts=0)
        found = store.run("doctor", "-f", "json")
        assert found.code == 1
        bad = [one for one in json.loads(found.out) if one["verdict"] == "bad"]
        assert [one["about"] for one in bad] == ["drive"]
        assert "drive3" in bad[0]["what"]
        assert "away: drive3" in store.run("status").out
    finally:
        kept.rename(mark)
