"""A real guest through the cloud, and the same guest by hand: how much the cloud adds."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import statistics
import subprocess
import time
from pathlib import Path

from bench.cloud import BenchCloud, bench_cloud

LOGIN_TIMEOUT_S = 120.0


def measure_guests(port: int, rounds: int) -> dict[str, float]:
    """Medians: accepted_to_qemu_ms, ssh_cloud_s, ssh_by_hand_s."""
    started, through, by_hand = [], [], []
    with bench_cloud(port) as cloud:
        cloud.up()
        key = cloud.state_dir.parent / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(key)], check=True)
        api = _Api(cloud)
        api.prepare(key.with_suffix(".pub").read_text())
        api.boot_and_delete(key)  # the image is cached from here on
        for _ in range(rounds):
            qemu_ms, login_s, argv, address = api.boot(key)
            started.append(qemu_ms)
            through.append(login_s)
            by_hand.append(_again_by_hand(api, argv, address, key))
            api.delete()
    return {
        "accepted_to_qemu_ms": statistics.median(started),
        "ssh_cloud_s": statistics.median(through),
        "ssh_by_hand_s": statistics.median(by_hand),
    }


class _Api:
    """The few calls that are needed, through openstacksdk."""

    def __init__(self, cloud: BenchCloud) -> None:
        import openstack

        os.environ["OS_CLIENT_CONFIG_FILE"] = cloud.env["OS_CLIENT_CONFIG_FILE"]
        self.cloud = cloud
        self.sdk = openstack.connect(cloud="apus")
        self.server = None

    def prepare(self, public_key: str) -> None:
        self.sdk.compute.create_keypair(name="bench", public_key=public_key)
        group = self.sdk.network.create_security_group(name="bench")
        for protocol in ("tcp", "icmp"):
            self.sdk.network.create_security_group_rule(
                security_group_id=group.id, direction="ingress", ethertype="IPv4", protocol=protocol
            )
        self.image = self.sdk.image.find_image("micro").id
        self.flavor = self.sdk.compute.find_flavor("m1.micro").id

    def boot(self, key: Path) -> tuple[float, float, list[str], str]:
        """(ms from accepted to QEMU running, s from the request to the login, QEMU's command line, the address)."""
        asked_s = time.monotonic()
        self.server = self.sdk.compute.create_server(
            name="bench", image_id=self.image, flavor_id=self.flavor, key_name="bench",
            security_groups=[{"name": "bench"}], networks="auto",
        )  # fmt: skip
        accepted_s = time.monotonic()
        argv: list[str] = []
        while not argv:
            argv = _qemu_of(self.server.id)
        running_s = time.monotonic()
        address = ""
        while not address:
            found = self.sdk.compute.get_server(self.server.id)
            assert found.status != "ERROR", found.fault
            address = next((item["addr"] for items in (found.addresses or {}).values() for item in items), "")
        _login(address, key)
        return (running_s - accepted_s) * 1000, time.monotonic() - asked_s, argv, address

    def delete(self) -> None:
        assert self.server is not None
        self.sdk.compute.delete_server(self.server)
        self.sdk.compute.wait_for_delete(self.server, interval=0.2)

    def boot_and_delete(self, key: Path) -> None:
        self.boot(key)
        self.delete()


def _qemu_of(server_id: str) -> list[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                argv = (entry / "cmdline").read_bytes().decode().rstrip("\0").split("\0")
                if server_id in argv and "qemu-system" in argv[0]:
                    return argv
    return []


def _pid_of(server_id: str) -> int:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                argv = (entry / "cmdline").read_bytes().decode().split("\0")
                if server_id in argv and "qemu-system" in argv[0]:
                    return int(entry.name)
    return 0


def _again_by_hand(api: _Api, argv: list[str], address: str, key: Path) -> float:
    """The same command line, the same network, on a fresh overlay: what nobody can take away.

    By root, who opens the port's device by its name: it was handed to the cloud's own process as an open file.
    """
    pid = _pid_of(api.server.id)
    base = Path(f"/proc/{pid}/cwd").resolve()
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}").exists():
        time.sleep(0.005)
    (spec_file,) = [path for path in base.glob("domains/*/spec.json") if api.server.id in path.read_text()]
    disk = spec_file.with_name("root.qcow2")
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", str(disk)]))
    backing, size = info["full-backing-filename"], str(info["virtual-size"])
    disk.unlink()
    make = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "qcow2", str(disk), size]
    subprocess.run(make, check=True)
    (nic,) = json.loads(spec_file.read_text())["spec"]["nics"]
    argv = [_by_name(word, nic["tap_name"]) for word in argv]
    began_s = time.monotonic()
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=base)
    try:
        _login(address, key)
        return time.monotonic() - began_s
    finally:
        process.kill()
        process.wait()


def _by_name(word: str, tap_name: str) -> str:
    if not word.startswith('{"type":"tap"'):
        return word
    backend = json.loads(word)
    kept = {name: value for name, value in backend.items() if name not in ("fd", "vhostfd")}
    return json.dumps(kept | {"ifname": tap_name, "script": "no", "downscript": "no"})


def _login(address: str, key: Path) -> None:
    command = (
        f"ssh -i {shlex.quote(str(key))} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        f" -o ConnectTimeout=1 -o BatchMode=yes root@{address} true"
    )
    end_s = time.monotonic() + LOGIN_TIMEOUT_S
    while subprocess.run(shlex.split(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        if time.monotonic() > end_s:
            raise SystemExit(f"{address} did not let us in within {LOGIN_TIMEOUT_S:g} s")
        time.sleep(0.05)
