"""A hostile machine: no space, no rights, no port, no QEMU, no supervisor; two clouds on it.  Each case ends in a clear
word or a finished undo, with real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from apus.cli.places import Cloud
from tests.host.cloud_process import CloudProcess, alive, apus, environment, kill, until

pytestmark = [pytest.mark.timeout(240), pytest.mark.xdist_group("environment")]
KEY = "/compute/v2.1/os-keypairs"
IMAGES = "/image/v2/images"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[CloudProcess]:
    """Down again whatever happens."""
    made = CloudProcess(tmp_path / "cloud")
    yield made
    if made.state_dir.exists():
        made.run("down")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudProcess]:
    """A cloud that the tests which do not hurt it share."""
    made = CloudProcess(tmp_path_factory.mktemp("shared") / "cloud")
    made.must_up(hosts=2)
    yield made
    made.down()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, as small as one can be that still takes objects."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=288m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


# ------------------------------------------------------------------------------------------------------ disk
def fill(place: Path, leave_bytes: int = 0) -> Path:
    filler = place / "filler"
    with filler.open("wb", buffering=0) as out:
        try:
            while shutil.disk_usage(place).free > leave_bytes:
                out.write(b"\0" * min(1 << 20, max(1, shutil.disk_usage(place).free - leave_bytes)))
        except OSError:
            pass
    return filler


@pytest.mark.root
def test_a_full_disk_refuses_writes_answers_reads_and_recovers(small_disk: Path) -> None:
    cloud = CloudProcess(small_disk / "cloud")
    try:
        cloud.must_up("--network", "simulated")
        token, project = cloud.login("demo")
        container = f"/v1/AUTH_{project}/c"
        assert cloud.ask("PUT", container, token=token).status == 201
        filler = fill(small_disk)
        refused = [
            cloud.ask("POST", "/network/v2.0/networks", {"network": {"name": f"n{number}"}}, token)
            for number in range(200)
        ]
        told = [answer for answer in refused if answer.status != 201]
        assert told, "the disk never filled"
        assert {answer.status for answer in told} == {503}
        assert "disk is full" in told[0].text or "full" in told[0].text, told[0].text
        assert told[0].headers["retry-after"]
        assert cloud.ask("GET", "/network/v2.0/networks", token=token).status == 200
        assert cloud.ask("GET", "/compute/v2.1/servers/detail", token=token).status == 200
        assert cloud.ask("GET", container, token=token).status in (200, 204)
        answer = cloud.ask("PUT", f"{container}/o", b"x" * 100_000, token)
        assert answer.status == 507, answer.text
        assert "full" in answer.text
        filler.unlink()
        until(lambda: cloud.ask("PUT", f"{container}/o", b"x" * 100_000, token).status == 201)
        assert cloud.ask("POST", "/network/v2.0/networks", {"network": {"name": "again"}}, token).status == 201
        listed = cloud.ask("GET", "/network/v2.0/networks", token=token).json["networks"]
        assert len([one for one in listed if one["name"].startswith("n")]) == 200 - len(told)
        assert all(alive(pid) for pid in cloud.pids())
    finally:
        cloud.run("down")


@pytest.mark.root
def test_a_start_on_a_full_disk_says_so(small_disk: Path) -> None:
    cloud = CloudProcess(small_disk / "cloud")
    (small_disk / "cloud").mkdir()
    fill(small_disk)
    said = cloud.up()
    assert said.code == 1
    assert "No space left on device" in said.err
    assert "Traceback" not in said.err
    assert cloud.pids() == []


@pytest.mark.root
def test_a_read_only_state_directory_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    cloud = CloudProcess(small_disk / "cloud")
    said = cloud.up()
    assert said.code == 1
    assert str(small_disk / "cloud") in said.err
    assert "Read-only file system" in said.err
    assert "--state-dir" in said.err
    assert cloud.pids() == []


def test_a_corrupt_database_is_named_and_nothing_is_left_running(cloud: CloudProcess) -> None:
    cloud.must_up()
    cloud.down()
    database = cloud.state_dir / "store" / "apus.sqlite"
    whole = database.read_bytes()
    database.write_bytes(b"this is no database at all " * 4000)
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    said = cloud.up()
    assert said.code == 1
    assert "apus.sqlite" in said.err, said.err
    assert "Traceback" not in said.err
    until(lambda: cloud.pids() == [])
    database.write_bytes(whole)
    cloud.must_up()


# ------------------------------------------------------------------------------------------------------ ports, processes
@pytest.mark.parametrize("which", [0, 1], ids=["api", "objects"])
def test_a_taken_port_is_named(cloud: CloudProcess, which: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", cloud.port + which))
        taken.listen()
        said = cloud.up()
    assert said.code == 1
    assert str(cloud.port + which) in said.err
    assert "--port" in said.err
    assert cloud.pids() == []


def test_up_twice(cloud: CloudProcess) -> None:
    cloud.must_up()
    before = cloud.pids()
    said = cloud.up()
    assert said.code == 1
    assert "runs already" in said.err
    assert sorted(cloud.pids()) == sorted(before)
    assert cloud.ask("GET", "/identity/v3").status == 200


def test_the_supervisor_is_killed_and_up_works_again(cloud: CloudProcess) -> None:
    cloud.must_up()
    old = cloud.pids()
    kill(cloud.supervisor())
    until(lambda: not any(alive(pid) for pid in old))  # its processes see that they are orphans
    cloud.must_up()
    assert cloud.ask("GET", "/identity/v3").status == 200
    cloud.down()
    assert cloud.pids() == []


def test_up_at_once_after_the_supervisor_was_killed(cloud: CloudProcess) -> None:
    """Its processes still hold the ports for a second: `up` works, or says which port is taken."""
    cloud.must_up()
    kill(cloud.supervisor())
    said = cloud.up()
    if said.code:
        assert str(cloud.port) in said.err or str(cloud.port + 1) in said.err, said
        until(lambda: cloud.pids() == [])
        cloud.must_up()
    assert cloud.ask("GET", "/identity/v3").status == 200


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_ends_all(cloud: CloudProcess, number: signal.Signals) -> None:
    words = [
        sys.executable,
        "-m",
        "apus",
        "up",
        "--state-dir",
        str(cloud.state_dir),
        "--port",
        str(cloud.port),
        "--sim-hosts",
        "1",
    ]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a shell's background job inherits "ignore"
    )
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "logs  " in line:
            break
    assert any("ready" in line for line in seen), seen
    assert cloud.ask("GET", "/identity/v3").status == 200
    process.send_signal(number)
    rest = process.communicate(timeout=40)[0]
    assert "Traceback" not in rest, rest
    assert process.returncode == 0
    assert cloud.pids() == []


def test_two_clouds_side_by_side(cloud: CloudProcess, shared: CloudProcess) -> None:
    cloud.must_up()
    token, _ = cloud.login("demo")
    other, _ = shared.login("demo")
    assert cloud.ask("POST", "/network/v2.0/networks", {"network": {"name": "mine"}}, token).status == 201
    assert "mine" not in shared.ask("GET", "/network/v2.0/networks", token=other).text
    assert shared.ask("GET", "/network/v2.0/networks", token=token).status == 401
    theirs = shared.pids()
    cloud.down()
    assert cloud.pids() == []
    assert sorted(shared.pids()) == sorted(theirs)
    assert shared.ask("GET", "/network/v2.0/networks", token=other).status == 200


@pytest.mark.root
def test_two_clouds_with_flat_networks(cloud: CloudProcess, tmp_path: Path) -> None:
    other = CloudProcess(tmp_path / "other")

    def marked(of: CloudProcess) -> list[str]:
        """What bears the cloud's mark on this machine: links, tables, namespaces."""
        settings = (of.state_dir / "apus.toml").read_text()
        prefix = "a" + settings.partition('cloud_id = "')[2][:4]
        asked = (["ip", "-o", "link"], ["ip", "netns"], ["nft", "list", "tables"])
        lines = [
            line
            for words in asked
            for line in subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
        ]
        return [line for line in lines if prefix in line]

    try:
        cloud.must_up("--network", "flat", hosts=0)
        other.must_up("--network", "flat", hosts=0)
        until(lambda: bool(marked(cloud)) == bool(marked(other)))
        theirs = len(marked(other))
        cloud.down()
        assert marked(cloud) == []
        assert cloud.pids() == []
        assert len(marked(other)) == theirs
        assert other.ask("GET", "/identity/v3").status == 200
    finally:
        other.down()
    assert marked(other) == []


# ------------------------------------------------------------------------------------------------------ what is missing
def test_without_qemu_the_cloud_is_up_and_says_what_is_missing(cloud: CloudProcess, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("ip", "nft", "dnsmasq", "sh"):
        found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        if found:
            (tools / name).symlink_to(found)
    cloud.must_up("--network", "user", hosts=0, PATH=str(tools))
    assert cloud.ask("GET", "/identity/v3").status == 200
    said = cloud.run("doctor", PATH=str(tools))
    assert said.code == 1
    assert "apt-get install qemu-system-x86" in said.out
    assert "apt-get install qemu-utils" in said.out
    token, _ = cloud.login("demo")
    image = _image(cloud, token, "raw", b"\0" * 4096)
    body = {"server": {"name": "s", "flavorRef": "1", "imageRef": image, "networks": "none"}}
    made = cloud.ask("POST", "/compute/v2.1/servers", body, token, {"OpenStack-API-Version": "compute 2.90"})
    assert made.status == 202, made.text
    place = f"/compute/v2.1/servers/{made.json['server']['id']}"

    def fault() -> str:
        return str(cloud.ask("GET", place, token=token).json["server"].get("fault", {}).get("message", ""))

    until(lambda: bool(fault()), 60)
    assert "qemu" in fault().lower() or "No valid host" in fault(), fault()


def _image(cloud: CloudProcess, token: str, form: str, data: bytes) -> str:
    made = cloud.ask("POST", IMAGES, {"name": "i", "disk_format": form, "container_format": "bare"}, token)
    assert made.status == 201, made.text
    octets = {"Content-Type": "application/octet-stream"}
    answer = cloud.ask("PUT", f"{IMAGES}/{made.json['id']}/file", data, token, octets)
    assert answer.status == 204, answer.text
    return str(made.json["id"])


# ------------------------------------------------------------------------------------------------------ images that lie
@pytest.fixture(scope="module")
def token(shared: CloudProcess) -> str:
    return shared.login("demo")[0]


def queued(cloud: CloudProcess, token: str, form: str = "raw") -> str:
    made = cloud.ask("POST", IMAGES, {"name": "i", "disk_format": form, "container_format": "bare"}, token)
    return f"{IMAGES}/{made.json['id']}"


def kept(cloud: CloudProcess) -> set[str]:
    """Objects that hold image data, and what is on its way."""
    drives = cloud.state_dir / "drives"
    return {str(path) for path in drives.glob("*/objects/**/*") if path.is_file()} | {
        str(path) for path in drives.glob("*/tmp/*")
    }


@pytest.mark.parametrize("sent_bytes", [0, 70_000, 3_000_000])
def test_a_truncated_upload_leaves_nothing(shared: CloudProcess, token: str, sent_bytes: int) -> None:
    place, before = queued(shared, token), kept(shared)
    with socket.create_connection(("127.0.0.1", shared.port)) as wire:
        head = f"PUT {place}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\nContent-Type: application/octet-stream\r\n"
        wire.sendall(f"{head}Content-Length: 4000000\r\n\r\n".encode() + b"x" * sent_bytes)
    kind = {"Content-Type": "application/octet-stream"}
    until(lambda: shared.ask("PUT", f"{place}/file", b"whole", token, kind).status == 204)  # 409 while it is saving
    until(lambda: not _live(kept(shared) - before))
    assert shared.ask("GET", f"{place}/file", token=token).body == b"whole"


def _live(paths: set[str]) -> set[str]:
    """Tombstones are small and stay for a while; data does not."""
    return {path for path in paths if os.path.exists(path) and os.path.getsize(path) > 50_000}


def test_an_upload_longer_than_it_said_is_cut_at_its_word(shared: CloudProcess, token: str) -> None:
    place = queued(shared, token)
    with socket.create_connection(("127.0.0.1", shared.port)) as wire:
        head = f"PUT {place}/file HTTP/1.1\r\nHost: x\r\nX-Auth-Token: {token}\r\nContent-Type: application/octet-stream\r\n"
        wire.sendall(
            f"{head}Content-Length: 10\r\nConnection: close\r\n\r\n".encode() + b"0123456789" + b"more and more"
        )
        wire.settimeout(10)
        answer = wire.recv(4096)
    assert b" 204 " in answer.splitlines()[0]
    assert shared.ask("GET", f"{place}/file", token=token).body == b"0123456789"


def _qemu_img(*words: str) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


@pytest.mark.parametrize("lie", ["backing", "data_file", "size", "is_raw", "vmdk"])
def test_an_image_that_lies_is_refused_and_queued_again(
    shared: CloudProcess, token: str, tmp_path: Path, lie: str
) -> None:
    made, form = tmp_path / "image", "qcow2"
    if lie == "backing":
        (tmp_path / "secret").write_bytes(b"\0" * 65536)
        _qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", str(tmp_path / "secret"), str(made))
    elif lie == "data_file":
        _qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'},data_file_raw=on", str(made), "1M")
    elif lie == "size":
        _qemu_img("create", "-f", "qcow2", str(made), "1M")
        data = bytearray(made.read_bytes())
        data[24:32] = (1 << 60).to_bytes(8, "big")
        made.write_bytes(data)
    elif lie == "vmdk":
        _qemu_img("create", "-f", "vmdk", str(made), "1M")
        form = "raw"
    else:
        made.write_bytes(b"this is not a qcow2 image" * 1000)
    place = queued(shared, token, form)
    answer = shared.ask("PUT", f"{place}/file", made.read_bytes(), token, {"Content-Type": "application/octet-stream"})
    assert 400 <= answer.status < 500, (answer.status, answer.text)
    assert len(answer.text) > 40
    assert shared.ask("GET", place, token=token).json["status"] == "queued"
    assert shared.ask("GET", f"{place}/file", token=token).status in (204, 404)


# ------------------------------------------------------------------------------------------------------ what the command shows
def test_status_and_hosts(shared: CloudProcess) -> None:
    shown = json.loads(shared.run("status", "-f", "json").out)
    assert shown["running"] is True
    assert shown["supervisor_pid"] == shared.supervisor()
    assert [host["up"] for host in shown["hosts"]] == [True, True]
    assert shown["stuck"] == []
    assert set(shown["operations"]) == {"running", "waiting", "succeeded", "unwound", "stuck"}
    text = shared.run("status").out
    assert "hosts            2 up" in text
    hosts = json.loads(shared.run("host", "list", "-f", "json").out)
    assert [host["name"] for host in hosts] == ["apus-1-sim-1", "apus-1-sim-2"]
    assert "vCPU" in shared.run("host", "list").out


def test_doctor_of_a_healthy_cloud(shared: CloudProcess) -> None:
    said = shared.run("doctor", "-f", "json")
    findings = {finding["about"]: finding for finding in json.loads(said.out)}
    assert findings["api"]["verdict"] == "good"
    assert findings["running"]["verdict"] == "good"
    assert all(finding["sure"] in ("certain", "likely", "a guess") for finding in findings.values())
    assert "api" in shared.run("doctor").out


def test_doctor_of_what_is_wrong(tmp_path: Path) -> None:
    said = apus("doctor", "--state-dir", str(tmp_path / "none"))
    assert "there is no cloud" in said.out
    assert "apus up" in said.out
    cloud = CloudProcess(tmp_path / "cloud")
    cloud.state_dir.mkdir()
    (cloud.state_dir / "apus.toml").write_text("port = 1\n")
    (cloud.state_dir / "secrets.json").write_text("{}")
    (cloud.state_dir / "secrets.json").chmod(0o644)
    said = cloud.run("doctor")
    assert said.code == 1
    assert "chmod 600" in said.out
    assert "the cloud is down" in said.out


def test_a_cloud_whose_settings_somebody_wrote_gets_an_id(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path)
    cloud.settings_path.write_text("port = 1\n")
    first, second = cloud.first_settings(), cloud.first_settings()
    assert first.port == 1
    assert len(first.cloud_id) == 8
    assert first.cloud_id != second.cloud_id
    cloud.settings_path.write_text('cloud_id = "abcd"\n')
    assert cloud.first_settings().cloud_id == "abcd"


def test_status_and_logs_of_no_cloud(tmp_path: Path, shared: CloudProcess) -> None:
    for words in (("status",), ("host", "list")):
        said = apus(*words, "--state-dir", str(tmp_path / "none"))
        assert said.code == 1
        assert "apus up" in said.err
    said = shared.run("logs", "nothing")
    assert said.code == 1
    assert "control" in said.err
    lines = shared.run("logs", "control", "-n", "3").out.splitlines()
    assert len(lines) == 3
    assert all(json.loads(line)["log"] for line in lines)


def test_status_of_a_cloud_that_is_down(cloud: CloudProcess) -> None:
    cloud.must_up()
    cloud.down()
    said = cloud.run("status", "-f", "json")
    assert said.code == 3
    assert json.loads(said.out)["running"] is False
    said = cloud.run("host", "list")
    assert said.code == 1
    assert "does not answer" in said.err
