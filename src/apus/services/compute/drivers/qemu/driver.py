"""Runs domains as QEMU processes that outlive us.

What is known about a domain is in its directory, written before anything is started:

    domains/ID/spec.json      the newest spec that was accepted, and the exact machine type of its first start
    domains/ID/started.json   the newest boot that is known to have been under way
    domains/ID/console.log    what the guest printed, over all its boots; console.old is what came before
    ROOM/pid                  QEMU's own, which it locks: two processes of one domain cannot be; beside its sockets

A process is recognised by that pid file together with its own command line, which names the file and the boot, so
a kill of ours between any two lines leaves nothing that `inventory` does not see.  QEMU removes the file when it
ends in good order; one that is left behind by a dead process means a crash.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.errors import Invalid, NotFound, Unavailable
from apus.kernel.log import get_logger
from apus.kernel.turns import Turns
from apus.kernel.world import ProcessRef, World

from ..hypervisor import CONSOLE_BYTES_MAX, Capabilities, DomainSpec, Found, NicSpec, Power
from ..plan import Pause, PlugDisk, PlugNic, Resume, Start, Stop, UnplugDisk, UnplugNic, check, plan
from . import disks, plug
from .accelerator import Accelerator
from .account import Accounts, as_user, device_groups, lend, make_room, own_file, rooms_dir, settle, why_not
from .command_line import Places, command_line, short
from .qmp import hand_over, monitor

START_TIMEOUT_S: Final = 20.0
"""From the process to its first answer; 0.1 s on an idle host, seconds when many start at once."""
END_TIMEOUT_S: Final = 5.0
"""For QEMU to flush its disks after `quit`; then it is killed."""
WATCH_EVERY_S: Final = 0.01
"""A process that is not our child can only be looked at; ten milliseconds is short against its start."""
KVM_DEVICES: Final = (Path("/dev/kvm"),)

_log = get_logger("apus.qemu")

POWERS: Final = {
    "running": Power.ON,
    "prelaunch": Power.STARTING,
    "inmigrate": Power.STARTING,
    "internal-error": Power.CRASHED,
    "guest-panicked": Power.CRASHED,
    "shutdown": Power.OFF,
}
"""QEMU's run states; every other one is a pause, with its name as the reason."""


class Kept(msgspec.Struct, frozen=True):
    spec: DomainSpec
    machine: str
    uid: int | None = None
    """Who the process is; None is who we are."""


class Started(msgspec.Struct, frozen=True):
    boot_count: int


class QemuHypervisor:
    def __init__(
        self, world: World, state_dir: Path, accelerator: Accelerator, *, program: str = "qemu-system-x86_64"
    ) -> None:
        self._world, self._program, self._accelerator = world, program, accelerator
        self._base = state_dir.absolute()
        self._domains_dir = self._base / "domains"
        self._rooms_dir = rooms_dir(self._base)
        self._accounts = Accounts()
        self._as_us = why_not(KVM_DEVICES if accelerator == "kvm" else ())
        if self._as_us and os.geteuid() == 0:
            _log.warning("guests are not users of their own", why=self._as_us)
        self._turns = Turns()
        self._capabilities: Capabilities | None = None

    async def ensure(self, wanted: DomainSpec) -> Found:
        async with self._turns.of(wanted.incarnation_id):
            kept = await self._kept(wanted.incarnation_id)
            check(wanted, kept.spec if kept else None)
            if kept is None or kept.spec != wanted:
                machine = kept.machine if kept else await self._machine(wanted.machine)
                kept = Kept(wanted, machine, await self._uid(wanted.incarnation_id))
                await self._world.disk.write_synced(self._file(wanted, "spec.json"), msgspec.json.encode(kept))
            actions = plan(wanted, await self._found(kept))
            for action in actions:
                match action:
                    case Stop(grace_s=grace_s):
                        await self._stop(wanted.incarnation_id, grace_s)
                    case Start():
                        await self._start(kept)
                    case _:
                        await self._change(kept, action)
            return await self._found(kept)

    async def absent(self, incarnation_id: str, *, graceful_s: float = 0.0) -> None:
        async with self._turns.of(incarnation_id):
            directory = self._directory(incarnation_id)
            if await self._world.disk.stat(directory) is not None:
                await self._stop(incarnation_id, graceful_s)
            await self._leave(incarnation_id)
            await self._world.disk.remove(directory)
        self._accounts.forget(incarnation_id)

    async def halt(self, incarnation_id: str) -> None:
        """End its process and keep the rest: the end of the whole cloud on this host, not of the server."""
        async with self._turns.of(incarnation_id):
            await self._stop(incarnation_id, 0.0)
            await self._leave(incarnation_id)

    async def inventory(self) -> Sequence[Found]:
        found = []
        for incarnation_id in await self._world.disk.names(self._domains_dir):
            kept = await self._kept(incarnation_id)
            if kept is not None:
                await self._rotate_console(incarnation_id)
                found.append(await self._found(kept))
            elif await self._process(incarnation_id) is None:
                found.append(Found(incarnation_id=incarnation_id, power=Power.OFF, reason="no record of it is left"))
        return found

    async def console_output(self, incarnation_id: str, *, lines: int | None = None) -> str:
        if await self._kept(incarnation_id) is None:
            raise NotFound("compute.no_domain", f"there is no domain {incarnation_id} on this host")
        parts = []
        for name in ("console.old", "console.log"):
            with contextlib.suppress(FileNotFoundError):
                parts.append(await self._world.disk.read(self._directory(incarnation_id) / name))
        text = b"".join(parts)[-CONSOLE_BYTES_MAX:].decode(errors="replace")
        if lines is None:
            return text
        return "".join(text.splitlines(keepends=True)[-lines:]) if lines else ""

    async def capabilities(self) -> Capabilities:
        if self._capabilities is None:
            version = (
                (await disks.run(self._world, [self._program, "--version"])).decode().split("version ")[1].split()[0]
            )
            listed = (await disks.run(self._world, [self._program, "-machine", "help"])).decode()
            machines = tuple(line.split()[0] for line in listed.splitlines()[1:] if line.strip())
            self._capabilities = Capabilities(
                hypervisor="qemu", version=version, accelerator=self._accelerator, machines=machines
            )
        return self._capabilities

    # -- what is there

    async def _found(self, kept: Kept) -> Found:
        spec = kept.spec
        process = await self._process(spec.incarnation_id)
        console = await self._world.disk.stat(self._file(spec, "console.log"))
        found = Found(
            incarnation_id=spec.incarnation_id,
            power=Power.OFF,
            generation=spec.generation,
            boot_count=await self._boot_count(spec.incarnation_id, process),
            process=process,
            console_bytes=console.size_bytes if console else 0,
        )
        if process is None:
            if await self._world.disk.stat(Path(self._places(spec.incarnation_id).pid_file)) is None:
                return found
            return msgspec.structs.replace(
                found, power=Power.CRASHED, reason=await self._last_words(spec.incarnation_id)
            )
        try:
            async with monitor(self._places(spec.incarnation_id).qmp_socket) as qmp:
                status = (await qmp.execute("query-status"))["status"]
                present = await plug.present(qmp, spec)
        except Unavailable as silence:
            return msgspec.structs.replace(found, power=Power.STARTING, reason=str(silence))
        power = POWERS.get(status, Power.PAUSED)
        reason = "" if status in ("running", "paused") else status
        return msgspec.structs.replace(found, power=power, reason=reason, disks=present.disks, nics=present.nics)

    async def _process(self, incarnation_id: str) -> ProcessRef | None:
        """The running QEMU of this domain, whoever started it."""
        pid_file = self._places(incarnation_id).pid_file
        try:
            pid = int(await self._world.disk.read(Path(pid_file)))
            stat = await self._world.disk.read(Path(f"/proc/{pid}/stat"))
            arguments = (await self._world.disk.read(Path(f"/proc/{pid}/cmdline"))).split(b"\0")
        except (FileNotFoundError, ProcessLookupError, ValueError):
            return None
        # The name, field 2, may hold anything but ends at the last parenthesis.
        process = ProcessRef(pid, int(stat[stat.rindex(b")") + 2 :].split()[19]))
        return process if pid_file.encode() in arguments and self._world.run.alive(process) else None

    async def _boot_count(self, incarnation_id: str, process: ProcessRef | None) -> int:
        known = 0
        with contextlib.suppress(FileNotFoundError):
            started = await self._world.disk.read(self._directory(incarnation_id) / "started.json")
            known = msgspec.json.decode(started, type=Started).boot_count
        if process is None:
            return known
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            arguments = (await self._world.disk.read(Path(f"/proc/{process.pid}/cmdline"))).split(b"\0")
            return max(known, int(arguments[arguments.index(b"-name") + 1].rpartition(b"/")[2]))
        return known

    async def _last_words(self, incarnation_id: str) -> str:
        log = self._directory(incarnation_id) / "qemu.log"
        with contextlib.suppress(FileNotFoundError):
            words = (await self._world.disk.read(log)).decode(errors="replace").strip().splitlines()
            if words:
                return f"QEMU ended: {words[-1][:500]}"
        return "the QEMU process ended without a word, as after a kill or a power cut"

    # -- what is done

    async def _start(self, kept: Kept) -> None:
        spec, places = kept.spec, self._places(kept.spec.incarnation_id)
        for disk in spec.disks:
            await disks.ensure_disk(self._world, disk, Path(places.disk(disk)))
        await self._rotate_console(spec.incarnation_id)
        for stale in (places.pid_file, places.qmp_socket, places.console_socket):
            await self._world.disk.remove(Path(stale))
        log = self._file(spec, "qemu.log")
        await (await self._world.disk.create(log)).close()
        prefix = await self._world.run.in_thread(lambda: self._let_in(kept))
        kvm = self._accelerator == "kvm"
        with contextlib.ExitStack() as devices:
            taps = [nic for nic in spec.nics if nic.kind == "tap"]
            lent = {nic.port_id: devices.enter_context(lend(nic, vhost=kvm)) for nic in taps}
            names = {port_id: [str(handle) for handle in handles] for port_id, handles in lent.items()}
            argv = command_line(
                spec, places, names, program=self._program, machine=kept.machine, accelerator=self._accelerator
            )
            handles = [handle for each in lent.values() for handle in each]
            process = await self._spawned([*prefix, *argv], log, handles)
        await self._answers(process, spec)
        started = msgspec.json.encode(Started(spec.boot_count))
        await self._world.disk.write_synced(self._file(spec, "started.json"), started)

    async def _spawned(self, argv: Sequence[str], log: Path, handles: Sequence[int]) -> ProcessRef:
        try:
            if shutil.which(self._program) is None:
                raise FileNotFoundError(self._program)
            return await self._world.run.spawn(argv, log_path=log, cwd=self._base, handles=handles)
        except FileNotFoundError:
            raise Unavailable("compute.no_program", f"{self._program} is not installed on this host") from None

    def _let_in(self, kept: Kept) -> list[str]:
        """Make what the process needs its own; what its command line begins with."""
        places = self._places(kept.spec.incarnation_id)
        make_room(Path(places.room))
        if kept.uid is None:
            return []
        devices = KVM_DEVICES if self._accelerator == "kvm" else ()
        return as_user(kept.uid, settle(kept.spec, places, kept.uid) | device_groups(devices))

    async def _answers(self, process: ProcessRef, spec: DomainSpec) -> None:
        """Wait until the process listens for us, or has ended."""
        socket, deadline_s = (
            self._places(spec.incarnation_id).qmp_socket,
            self._world.clock.monotonic_s() + START_TIMEOUT_S,
        )
        while self._world.run.alive(process):
            if await self._process(spec.incarnation_id) and await self._world.disk.stat(Path(socket)):
                with contextlib.suppress(Unavailable):  # it may listen and die at once: its last words say why
                    async with monitor(socket) as qmp:
                        await qmp.execute("query-status")
                    return
            if self._world.clock.monotonic_s() > deadline_s:
                await self._world.run.kill(process, signal.SIGKILL)
                raise Unavailable("compute.start_slow", f"QEMU did not answer within {START_TIMEOUT_S:g} s")
            await self._world.clock.sleep(WATCH_EVERY_S)
        words = await self._last_words(spec.incarnation_id)
        raise Unavailable("compute.start_failed", "the hypervisor did not start the server", hidden=words)

    async def _stop(self, incarnation_id: str, grace_s: float) -> None:
        """Ask the guest for `grace_s`, then QEMU, then the kernel."""
        process = await self._process(incarnation_id)
        socket = self._places(incarnation_id).qmp_socket
        if process is not None and grace_s > 0:
            with contextlib.suppress(Unavailable):
                async with monitor(socket) as qmp:
                    await qmp.execute("cont")  # a paused guest hears no power button
                    await qmp.execute("system_powerdown")
                await self._ended(process, grace_s)
        if process is not None and self._world.run.alive(process):
            with contextlib.suppress(Unavailable):
                async with monitor(socket, timeout_s=END_TIMEOUT_S) as qmp:
                    await qmp.execute("quit")
            if not await self._ended(process, END_TIMEOUT_S):
                await self._world.run.kill(process, signal.SIGKILL)
                if not await self._ended(process, END_TIMEOUT_S):
                    raise Unavailable("compute.stop_failed", "the hypervisor process does not end, even when killed")
        await self._world.disk.remove(Path(self._places(incarnation_id).pid_file))

    async def _leave(self, incarnation_id: str) -> None:
        """The room of a process that has ended goes, and with the last one what they are in."""
        await self._world.disk.remove(Path(self._places(incarnation_id).room))
        with contextlib.suppress(OSError):
            self._rooms_dir.rmdir()

    async def _ended(self, process: ProcessRef, timeout_s: float) -> bool:
        deadline_s = self._world.clock.monotonic_s() + timeout_s
        while self._world.run.alive(process):
            if self._world.clock.monotonic_s() >= deadline_s:
                return False
            await self._world.clock.sleep(WATCH_EVERY_S)
        return True

    async def _change(self, kept: Kept, action: object) -> None:
        spec, places = kept.spec, self._places(kept.spec.incarnation_id)
        if isinstance(action, PlugDisk):
            path, uid = Path(places.disk(action.disk)), kept.uid
            await disks.ensure_disk(self._world, action.disk, path)
            if uid is not None:
                read_only = action.disk.read_only
                await self._world.run.in_thread(lambda: own_file(path, uid, read_only=read_only))
        lent = await self._hand_over(action.nic, places) if isinstance(action, PlugNic) else ()
        async with monitor(places.qmp_socket) as qmp:
            match action:
                case Pause():
                    await qmp.execute("stop")
                case Resume():
                    await qmp.execute("cont")
                case PlugDisk(disk=disk):
                    await plug.plug_disk(qmp, spec, disk, places)
                case PlugNic(nic=nic):
                    await plug.plug_nic(qmp, spec, nic, lent)
                case UnplugDisk(id=id):
                    await plug.unplug_disk(qmp, id)
                case UnplugNic(port_id=port_id):
                    await plug.unplug_nic(qmp, port_id)
                case _:
                    raise AssertionError(action)

    async def _hand_over(self, nic: NicSpec, places: Places) -> Sequence[str]:
        """Give the running process the devices of a network card; the names it knows them by."""
        if nic.kind != "tap":
            return ()
        with lend(nic, vhost=self._accelerator == "kvm") as handles:
            names = [f"{kind}-{short(nic.port_id)}" for kind in ("tap", "vhost")[: len(handles)]]
            given = dict(zip(names, handles, strict=True))
            await self._world.run.in_thread(lambda: hand_over(places.qmp_socket, given))
        return names

    async def _rotate_console(self, incarnation_id: str) -> None:
        """QEMU appends, so a file that is emptied under it goes on from its start."""
        log = self._directory(incarnation_id) / "console.log"
        found = await self._world.disk.stat(log)
        if found is None or found.size_bytes <= CONSOLE_BYTES_MAX:
            return
        tail = await self._world.disk.read(log, offset=found.size_bytes - CONSOLE_BYTES_MAX)
        await self._world.disk.write_synced(log.with_name("console.old"), tail[-CONSOLE_BYTES_MAX:])
        await (await self._world.disk.create(log)).close()

    # -- where things are

    def _directory(self, incarnation_id: str) -> Path:
        if not incarnation_id or "/" in incarnation_id or incarnation_id.startswith("."):
            raise Invalid("compute.domain_id", f"{incarnation_id!r} cannot name a domain", field="incarnation_id")
        return self._domains_dir / incarnation_id

    def _file(self, spec: DomainSpec, name: str) -> Path:
        return self._directory(spec.incarnation_id) / name

    def _places(self, incarnation_id: str) -> Places:
        directory = self._directory(incarnation_id)
        name = hashlib.sha256(str(directory).encode()).hexdigest()[:16]
        return Places(str(self._base), str(directory), f"{self._rooms_dir}/{name}")

    async def _uid(self, incarnation_id: str) -> int | None:
        """The guest's own user, the same for all its life; the first time, after a look at who has which."""
        if self._as_us:
            return None
        if not self._accounts.known:
            for name in await self._world.disk.names(self._domains_dir):
                kept = await self._kept(name)
                if kept is not None and kept.uid is not None:
                    self._accounts.know(name, kept.uid)
            self._accounts.known = True
        return self._accounts.give(incarnation_id)

    async def _kept(self, incarnation_id: str) -> Kept | None:
        try:
            return msgspec.json.decode(
                await self._world.disk.read(self._directory(incarnation_id) / "spec.json"), type=Kept
            )
        except FileNotFoundError:
            return None

    async def _machine(self, kind: str) -> str:
        """The exact machine type behind a name, so that the guest sees the same one after an upgrade of QEMU."""
        machines = (await self.capabilities()).machines
        prefix = "pc-q35-" if kind == "q35" else "pc-i440fx-"
        exact = [name for name in machines if name.startswith(prefix)]
        return max(exact, key=version_of, default=kind)


def version_of(machine: str) -> tuple[int, ...]:
    return tuple(int(part) for part in machine.rpartition("-")[2].split(".") if part.isdigit())
