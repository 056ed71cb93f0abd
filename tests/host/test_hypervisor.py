"""The driver contract: the same tests on the simulated hypervisor and on real QEMU with the micro guest."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, cast

import msgspec
import pytest

from apus.guest.build import MicroImage
from apus.kernel.errors import Conflict, NotFound, Unavailable
from apus.kernel.world import World
from apus.platform.clock import SystemClock
from apus.platform.disk import LocalDisk
from apus.platform.process import LocalRunner
from apus.services.compute.drivers.config_drive import ConfigDrive, build
from apus.services.compute.drivers.fake import FakeHypervisor, FakeMachine, Mishaps
from apus.services.compute.drivers.hypervisor import DiskSpec, DomainSpec, Found, Hypervisor, NicSpec, Power
from apus.services.compute.drivers.qemu.driver import QemuHypervisor

ID = "inc-1"
BOOT_TIMEOUT_S = 60.0
VOLUME_BYTES = 16 << 20


def changed(spec: DomainSpec, **fields: Any) -> DomainSpec:
    return msgspec.structs.replace(spec, generation=spec.generation + 1, **fields)


async def until(true: Callable[[], Awaitable[bool]], timeout_s: float = BOOT_TIMEOUT_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not await true():
            await asyncio.sleep(0.1)


class FakeBench:
    def __init__(self) -> None:
        self.machine = FakeMachine()
        self.hypervisor: Hypervisor = self.restarted()

    def restarted(self) -> Hypervisor:
        self.hypervisor = FakeHypervisor(SystemClock(), Mishaps(boot_s=0.01, shutdown_s=0.01), self.machine)
        return self.hypervisor

    def spec(self) -> DomainSpec:
        return DomainSpec(
            incarnation_id=ID, server_id="10000000-0000-4000-8000-000000000001", name="web", generation=1, vcpus=1,
            memory_mib=128, disks=(DiskSpec(id="root", path="root.qcow2", kind="root"),),
            nics=(NicSpec(port_id="port-1", mac="52:54:00:00:00:01", kind="none"),),
        )  # fmt: skip

    async def crash(self, found: Found) -> None:
        self.machine.crash(found.incarnation_id)

    async def booted(self, boot_count: int) -> None:
        await until(lambda: self._printed("login:", boot_count))

    async def _printed(self, text: str, times: int) -> bool:
        return (await self.hypervisor.console_output(ID)).count(text) >= times

    async def close(self) -> None:
        return None


class QemuBench(FakeBench):
    def __init__(self, directory: Path, micro: MicroImage) -> None:
        # images are where they are on a host, beside the domains: a guest that is a user of its own gets there
        images = directory / "state" / "images"
        images.mkdir(parents=True)
        kernel, initrd, disk = (Path(shutil.copy(path, images)) for path in (micro.kernel, micro.initrd, micro.disk))
        self.directory, self.micro = directory, dataclasses.replace(micro, kernel=kernel, initrd=initrd, disk=disk)
        self.disk, self.runner = LocalDisk(), LocalRunner()
        none = cast(Any, None)
        self.world = World(SystemClock(), Random(1), none, none, self.disk, self.runner)
        self.hypervisor = self.restarted()
        drive = ConfigDrive(
            meta_data={
                "uuid": "10000000-0000-4000-8000-000000000001", "hostname": "web.example",
                "files": [{"path": "/etc/injected", "content_path": "/content/0000"}],
            },
            user_data=b"#!/bin/sh\necho user-data on $(hostname): $(cat /etc/injected)\n",
            content={"0000": b"seen by the guest"},
        )  # fmt: skip
        config = directory / "state" / "config"
        config.mkdir()
        (config / "config.iso").write_bytes(build(drive))

    def restarted(self) -> Hypervisor:
        self.hypervisor = QemuHypervisor(self.world, self.directory / "state", "tcg")
        return self.hypervisor

    def spec(self) -> DomainSpec:
        root = DiskSpec(
            id="root", path="root.qcow2", kind="root", boot_index=1, backing_path=str(self.micro.disk),
            backing_format="qcow2", size_bytes=1 << 30,
        )  # fmt: skip
        drive = DiskSpec(
            id="config",
            path=str(self.directory / "state" / "config" / "config.iso"),
            format="raw",
            kind="config_drive",
            read_only=True,
        )
        return msgspec.structs.replace(
            super().spec(), disks=(root, drive), kernel_path=str(self.micro.kernel),
            initrd_path=str(self.micro.initrd), kernel_args=self.micro.kernel_args,
        )  # fmt: skip

    async def crash(self, found: Found) -> None:
        assert found.process is not None
        await self.runner.kill(found.process, signal.SIGKILL)
        await until(self._dead(found))

    def _dead(self, found: Found) -> Callable[[], Awaitable[bool]]:
        async def dead() -> bool:
            assert found.process is not None
            return not self.runner.alive(found.process)

        return dead

    async def booted(self, boot_count: int) -> None:
        await until(lambda: self._printed("boot finished", boot_count))

    async def close(self) -> None:
        for found in await self.hypervisor.inventory():
            await self.hypervisor.absent(found.incarnation_id)
        self.disk.close()
        self.runner.close()


@pytest.fixture(params=["fake", pytest.param("qemu", marks=pytest.mark.qemu)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    @asynccontextmanager
    async def open_bench() -> AsyncIterator[FakeBench]:
        if request.param == "fake":
            opened: FakeBench = FakeBench()
        else:
            opened = QemuBench(tmp_path, request.getfixturevalue("micro"))
        try:
            yield opened
        finally:
            await opened.close()

    return open_bench


class TestHypervisorContract:
    def test_life(self, bench: Callable[[], Any]) -> None:
        """Boot, hot plug, pause, adoption, reboot, stop: on one guest, since real boots cost seconds."""

        async def scenario() -> None:
            async with bench() as on:
                spec = on.spec()
                started = await on.hypervisor.ensure(spec)
                assert (started.power, started.boot_count) == (Power.ON, 1)
                again = await on.hypervisor.ensure(spec)
                assert (again.process, again.boot_count) == (started.process, 1), "the same spec twice has no effect"
                await on.booted(1)
                spec = await self.hot_plug(on, spec)
                spec = await self.pause(on, spec)
                (adopted,) = await on.restarted().inventory()
                assert (adopted.process, adopted.power) == (started.process, Power.ON)
                spec = changed(spec, boot_count=2, reboot_kind="soft", stop_grace_s=20.0)
                assert (await on.hypervisor.ensure(spec)).boot_count == 2
                await on.booted(2)
                spec = changed(spec, power="off")
                stopped = await on.hypervisor.ensure(spec)
                assert (stopped.power, stopped.process) == (Power.OFF, None)
                assert (await on.hypervisor.console_output(ID)).count("login:") >= 2, "history is kept over boots"
                assert len((await on.hypervisor.console_output(ID, lines=2)).splitlines()) == 2
                await on.hypervisor.absent(ID)
                await on.hypervisor.absent(ID)
                assert await on.hypervisor.inventory() == []

        asyncio.run(scenario())

    async def hot_plug(self, on: Any, spec: DomainSpec) -> DomainSpec:
        before = spec
        volume = DiskSpec(id="volume-1", path="volume.raw", format="raw", serial="volume-1", size_bytes=VOLUME_BYTES)
        nic = NicSpec(port_id="port-2", mac="52:54:00:00:00:02", kind="none")
        spec = changed(spec, disks=(*spec.disks, volume), nics=(*spec.nics, nic))
        for _ in range(2):
            found = await on.hypervisor.ensure(spec)
            assert "volume-1" in found.disks
            assert found.nics == ("port-1", "port-2")
        spec = changed(spec, disks=before.disks, nics=before.nics)
        for _ in range(2):
            found = await on.hypervisor.ensure(spec)
            assert found.disks == tuple(sorted(disk.id for disk in before.disks))
            assert found.nics == ("port-1",)
        return spec

    async def pause(self, on: Any, spec: DomainSpec) -> DomainSpec:
        spec = changed(spec, power="paused")
        assert (await on.hypervisor.ensure(spec)).power is Power.PAUSED
        spec = changed(spec, power="on")
        assert (await on.hypervisor.ensure(spec)).power is Power.ON
        return spec

    def test_a_killed_guest_is_reported_and_not_restarted(self, bench: Callable[[], Any]) -> None:
        async def scenario() -> None:
            async with bench() as on:
                spec = on.spec()
                await on.crash(await on.hypervisor.ensure(spec))
                (found,) = await on.hypervisor.inventory()
                assert found.power is Power.CRASHED
                assert found.reason
                assert (await on.hypervisor.ensure(spec)).power is Power.CRASHED
                restarted = await on.hypervisor.ensure(changed(spec, boot_count=2))
                assert (restarted.power, restarted.boot_count, restarted.reason) == (Power.ON, 2, "")
                hard = await on.hypervisor.ensure(msgspec.structs.replace(spec, generation=3, boot_count=3))
                assert (hard.power, hard.boot_count) == (Power.ON, 3)

        asyncio.run(scenario())

    def test_an_older_generation_is_refused(self, bench: Callable[[], Any]) -> None:
        async def scenario() -> None:
            async with bench() as on:
                spec = changed(on.spec(), power="off")
                assert (await on.hypervisor.ensure(spec)).power is Power.OFF
                with pytest.raises(Conflict):
                    await on.hypervisor.ensure(msgspec.structs.replace(spec, generation=1))

        asyncio.run(scenario())

    def test_unknown_domains(self, bench: Callable[[], Any]) -> None:
        async def scenario() -> None:
            async with bench() as on:
                assert await on.hypervisor.inventory() == []
                await on.hypervisor.absent("nobody")
                with pytest.raises(NotFound):
                    await on.hypervisor.console_output("nobody")
                assert (await on.hypervisor.capabilities()).hot_plug

        asyncio.run(scenario())


@pytest.mark.qemu
def test_guest_reads_its_config_drive(tmp_path: Path, micro: MicroImage) -> None:
    async def scenario() -> None:
        on = QemuBench(tmp_path, micro)
        try:
            await on.hypervisor.ensure(on.spec())
            await on.booted(1)
            assert "user-data on web: seen by the guest" in await on.hypervisor.console_output(ID)
        finally:
            await on.close()

    asyncio.run(scenario())


@pytest.mark.qemu
def test_host_without_the_program(tmp_path: Path, micro: MicroImage) -> None:
    async def story() -> None:
        bench = QemuBench(tmp_path, micro)
        hypervisor = QemuHypervisor(bench.world, tmp_path / "state", "tcg", program=str(tmp_path / "no-qemu"))
        with pytest.raises(Unavailable) as refused:
            await hypervisor.ensure(bench.spec())
        assert refused.value.code == "compute.no_program"
        await hypervisor.absent(ID)
        assert list((tmp_path / "state" / "domains").glob("*")) == []

    asyncio.run(story())


@pytest.mark.root
@pytest.mark.qemu
def test_a_guest_is_a_user_of_its_own(tmp_path: Path, micro: MicroImage) -> None:
    """Not root, and not the guest beside it: neither its disks nor what we wrote down about it are open to it."""

    async def story() -> None:
        on = QemuBench(tmp_path, micro)
        try:
            spec = on.spec()
            other = msgspec.structs.replace(spec, incarnation_id="inc-2")
            users = []
            for one in (spec, other):
                process = (await on.hypervisor.ensure(one)).process
                assert process is not None
                said = dict(
                    line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                )
                assert {said[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
                assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
                uids, gids = set(said["Uid"].split()), set(said["Groups"].split())
                assert len(uids) == 1
                users.append((uids.pop(), gids))
            assert users[0][0] != users[1][0]
            assert "0" not in {user for user, _ in users}
            mine, theirs = (tmp_path / "state" / "domains" / name for name in (ID, "inc-2"))
            room = mine.stat().st_uid, (mine / "spec.json").stat().st_uid
            assert room == (0, 0), "an escaped guest must not rewrite its own spec"
            for path, allowed in (
                (f"domains/{ID}/root.qcow2", True), (f"images/{on.micro.disk.name}", True),
                (f"domains/{ID}/console.log", True), (f"domains/{theirs.name}/root.qcow2", False),
                (f"domains/{theirs.name}/console.log", False), (f"domains/{ID}/spec.json", False),
            ):  # fmt: skip
                assert _may_read(tmp_path / "state", path, *users[0]) is allowed, path
        finally:
            await on.close()

    asyncio.run(story())


@pytest.mark.root
@pytest.mark.qemu
def test_a_card_s_device_is_handed_to_a_running_guest(tmp_path: Path, micro: MicroImage) -> None:
    """It cannot open one itself: that needs rights over the machine's network."""
    tap = f"apt{os.getpid()}"
    subprocess.run(["ip", "tuntap", "add", "dev", tap, "mode", "tap"], check=True)

    async def story() -> None:
        on = QemuBench(tmp_path, micro)
        try:
            spec = on.spec()
            await on.hypervisor.ensure(spec)
            await on.booted(1)
            card = NicSpec(port_id="port-2", mac="52:54:00:00:00:02", kind="tap", tap_name=tap)
            found = await on.hypervisor.ensure(changed(spec, nics=(*spec.nics, card)))
            assert found.nics == ("port-1", "port-2")
            subprocess.run(["ip", "link", "set", tap, "up"], check=True)
            assert "LOWER_UP" in subprocess.check_output(["ip", "link", "show", tap], text=True)
        finally:
            await on.close()

    try:
        asyncio.run(story())
    finally:
        subprocess.run(["ip", "link", "delete", tap], check=True)


def _may_read(base: Path, path: str, user: str, groups: set[str]) -> bool:
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", f"--groups={','.join(sorted(groups))}", "--"]
    return subprocess.run([*become, "head", "-c1", path], cwd=base, capture_output=True, check=False).returncode == 0


@pytest.mark.root
@pytest.mark.qemu
def test_full_disk(tmp_path: Path, micro: MicroImage) -> None:
    domains = tmp_path / "state" / "domains"
    domains.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(domains)], check=True)

    async def story() -> None:
        bench = QemuBench(tmp_path, micro)
        with pytest.raises(Unavailable) as refused:
            await bench.hypervisor.ensure(bench.spec())
        assert refused.value.code == "compute.disk_full"
        await bench.hypervisor.absent(ID)
        assert list(domains.iterdir()) == []

    try:
        asyncio.run(story())
    finally:
        subprocess.run(["umount", str(domains)], check=True)
