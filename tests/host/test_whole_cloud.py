"""The main job on a real machine: `apus up`, unmodified SDK, a QEMU guest on the flat network, a login over SSH.

One cloud for all that is asked here: its start costs as much as a guest.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openstack
import pytest

from apus.guest.build import MicroImage
from apus.kernel.settings import load_settings

pytestmark = [pytest.mark.root, pytest.mark.qemu, pytest.mark.timeout(600), pytest.mark.xdist_group("whole_cloud")]

BOOT_S = 90
"""A guest without KVM on a machine that has other work."""
USER_DATA = "#!/bin/sh\necho user data ran on $(hostname)\n"
BREAKABLE = """#!/bin/sh
if [ -e {mark} ] && [ "$1" = -name ]; then echo broken on purpose >&2; exit 1; fi
exec {program} "$@"
"""


def until(what: str, true: Callable[[], Any], within_s: float = BOOT_S) -> Any:
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        found = true()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what}: not within {within_s} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cloud:
    """One cloud in a directory, and what of this machine is its."""

    def __init__(self, directory: Path, micro: MicroImage) -> None:
        self.state_dir, self.key = directory / "state", directory / "key"
        source = Path(__file__).parents[2] / "src"
        programs = Path(tempfile.mkdtemp(prefix="apus-test-"))
        programs.chmod(0o755)  # guests are users of their own, and pytest's directories are root's alone
        self.broken = programs / "broken"
        """While it is there, QEMU ends as soon as it is started."""
        program = programs / "qemu-system-x86_64"
        program.write_text(BREAKABLE.format(mark=self.broken, program=shutil.which(program.name)))
        program.chmod(0o755)
        path = f"{program.parent}:{os.environ['PATH']}"
        self.environment = os.environ | {
            "PYTHONPATH": str(source), "APUS_MICRO_DIR": str(micro.disk.parent), "PATH": path,
        }  # fmt: skip
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)

    def apus(self, *argv: str) -> str:
        argv = (sys.executable, "-m", "apus", *argv, "--state-dir", str(self.state_dir))
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self, network: str) -> None:
        self.apus("up", "--detach", "--port", str(free_port()), "--network", network)

    def connect(self) -> Any:
        config = openstack.config.OpenStackConfig(config_files=[str(self.state_dir / "clouds.yaml")])
        return openstack.connection.Connection(config=config.get_one("apus"))

    def ssh(self, name: str, command: str) -> str | None:
        """What the command printed on the server; None when nobody could log in."""
        address, port = self.apus("server-address", name).split()
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"]
        options += ["ConnectTimeout=10", "IdentitiesOnly=yes"]
        argv = ["ssh", "-i", str(self.key), "-p", port, *[word for one in options for word in ("-o", one)]]
        done = subprocess.run([*argv, f"root@{address}", command], capture_output=True, text=True, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else None

    def prefix(self) -> str:
        return load_settings(self.state_dir / "apus.toml").network_prefix

    def left(self) -> list[str]:
        """Processes, devices, namespaces and tables of this cloud that are on the machine now."""
        found = [line for line in _said("ps", "-eo", "pid,args", "-ww") if f"{self.state_dir}/" in line]
        found += [
            line
            for line in _said("sh", "-c", 'pwdx "$@" 2>/dev/null || true', "sh", *_pids())
            if f"{self.state_dir}/" in line
        ]  # guests start inside of it
        name = re.compile(rf"\b(apus_)?{re.escape(self.prefix())}\w*")
        for argv in (("ip", "-br", "link"), ("ip", "netns", "list"), ("nft", "list", "tables")):
            found += [line for line in _said(*argv) if name.search(line)]
        return found


def _pids() -> list[str]:
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _said(*argv: str) -> list[str]:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, micro: MicroImage) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path_factory.mktemp("cloud"), micro)
    try:
        cloud.up("flat")
        sdk = cloud.connect()
        sdk.compute.create_keypair(name="key", public_key=cloud.key.with_suffix(".pub").read_text())
        group = sdk.network.create_security_group(name="ssh")
        sdk.network.create_security_group_rule(
            security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22
        )
        yield cloud
    finally:
        cloud.apus("down")
    assert cloud.left() == []


def create(sdk: Any, name: str, **more: Any) -> Any:
    return sdk.compute.create_server(
        name=name,
        image_id=sdk.image.find_image("micro").id,
        flavor_id=sdk.compute.find_flavor("m1.micro").id,
        networks=[{"uuid": sdk.network.find_network("default").id}],
        security_groups=[{"name": "ssh"}],
        key_name="key",
        user_data=base64.b64encode(USER_DATA.encode()).decode(),
        **more,
    )


@pytest.mark.parametrize("config_drive", [False, True])
def test_life_of_a_server(cloud: Cloud, config_drive: bool) -> None:
    sdk = cloud.connect()
    name = f"life-{config_drive}".lower()
    server = create(sdk, name, config_drive=config_drive)
    sdk.compute.wait_for_server(server, wait=BOOT_S)

    def logged_in() -> str | None:
        return cloud.ssh(name, "hostname; cat /proc/sys/kernel/random/boot_id")

    host_name, first_boot = until("login", logged_in).split()
    assert host_name == name
    assert server.id in (cloud.ssh(name, "curl -s http://169.254.169.254/openstack/latest/meta_data.json") or "")
    until("user data", lambda: f"user data ran on {name}" in sdk.compute.get_server_console_output(server)["output"])
    assert bool(cloud.ssh(name, "test -b /dev/sr0 && echo yes")) is config_drive

    boots = {first_boot}
    for kind in ("SOFT", "HARD"):
        sdk.compute.reboot_server(server, kind)
        until(f"login after {kind}", lambda: (seen := logged_in()) and seen.split()[1] not in boots)
        boots.add((logged_in() or "").split()[1])
        sdk.compute.wait_for_server(server, wait=BOOT_S)
    sdk.compute.stop_server(server)
    sdk.compute.wait_for_server(server, status="SHUTOFF", wait=BOOT_S)
    assert logged_in() is None
    sdk.compute.start_server(server)
    sdk.compute.wait_for_server(server, wait=BOOT_S)
    until("login after start", logged_in)
    said = sdk.compute.get_server_console_output(server)["output"]
    assert said.count(f"user data ran on {name}") == 1  # once in the life of the server

    sdk.compute.delete_server(server)
    sdk.compute.wait_for_delete(server, wait=BOOT_S)
    assert not [line for line in cloud.left() if "qemu" in line or f"{cloud.state_dir}/compute/config" in line]
    assert list((cloud.state_dir / "compute" / "domains").iterdir()) == []


def nothing_of_guests(cloud: Cloud) -> None:
    assert not [line for line in cloud.left() if "qemu" in line]
    assert list((cloud.state_dir / "compute" / "domains").iterdir()) == []


def test_hypervisor_that_does_not_start(cloud: Cloud) -> None:
    sdk = cloud.connect()
    cloud.broken.touch()
    try:
        server = create(sdk, "broken")
        until("a fault", lambda: sdk.compute.get_server(server).status == "ERROR")
        assert "the hypervisor did not start the server" in sdk.compute.get_server(server).fault["message"]
    finally:
        cloud.broken.unlink()
    until("unwound", lambda: not list((cloud.state_dir / "compute" / "domains").iterdir()))
    assert not list(sdk.network.ports(device_id=server.id))
    sdk.compute.delete_server(server)
    sdk.compute.wait_for_delete(server, wait=BOOT_S)
    nothing_of_guests(cloud)


def test_hypervisor_that_is_killed(cloud: Cloud) -> None:
    sdk = cloud.connect()
    server = create(sdk, "killed")
    sdk.compute.wait_for_server(server, wait=BOOT_S)
    asked = ["pgrep", "-f", f"^[^ ]*qemu-system[^ ]* .*{server.id}"]
    os.kill(int(subprocess.check_output(asked, text=True)), signal.SIGKILL)
    until("seen as off", lambda: sdk.compute.get_server(server).status == "SHUTOFF")
    sdk.compute.start_server(server)
    sdk.compute.wait_for_server(server, wait=BOOT_S)
    sdk.compute.delete_server(server)
    sdk.compute.wait_for_delete(server, wait=BOOT_S)
    nothing_of_guests(cloud)
