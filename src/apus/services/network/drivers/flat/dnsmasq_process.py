"""One network's dnsmasq: started, told, adopted after a restart of ours, stopped."""

from __future__ import annotations

from pathlib import Path

import msgspec.structs

from apus.kernel.log import get_logger
from apus.kernel.world import Disk, ProcessRef, Runner
from apus.services.network.drivers.driver import NetworkSpec
from apus.services.network.drivers.flat import netns
from apus.services.network.drivers.flat.commands import KILL, RELOAD, STOP, ended, process_with_config
from apus.services.network.drivers.flat.dnsmasq import (
    DnsmasqFiles,
    files,
    kept_leases,
    leased_elsewhere,
    wants_dnsmasq,
)

_log = get_logger("apus.network.dnsmasq")


def _without_port_options(network: NetworkSpec) -> NetworkSpec:
    plain = tuple(msgspec.structs.replace(reservation, options=()) for reservation in network.reservations)
    return msgspec.structs.replace(network, reservations=plain)


class DnsmasqProcess:
    def __init__(self, run: Runner, disk: Disk, directory: Path, namespace: str, upstream: tuple[str, ...]) -> None:
        self._run, self._disk, self._directory, self._namespace = run, disk, directory, namespace
        self._upstream = upstream
        self._process: ProcessRef | None = None
        self._told: DnsmasqFiles | None = None

    async def ensure(self, network: NetworkSpec) -> None:
        if not wants_dnsmasq(network):
            await self.stop()
            return
        wanted = files(network, self._directory, self._upstream)
        told = self._told or await self._read()
        if wanted.config != told.config and not await self._takes(network, wanted.config):
            wanted = files(_without_port_options(network), self._directory, self._upstream)
        process = self._find()
        leases = await self._text("leases")
        restart = process is None or told.config != wanted.config or leased_elsewhere(leases, network.reservations)
        if restart and process is not None:
            await self._end(process)
        if wanted != told:
            await self._write(told, wanted)
        if restart:
            await self._disk.write_synced(
                self._directory / "leases", kept_leases(leases, network.reservations).encode(), mode=0o644
            )
            await self._start()
        elif process is not None and wanted != told:
            await self._run.kill(process, RELOAD)
        self._told = wanted

    async def _takes(self, network: NetworkSpec, config: str) -> bool:
        """Would dnsmasq start with it?  One port's option with a senseless value must not end DHCP for all."""
        if not any(reservation.options for reservation in network.reservations):
            return True
        trial = self._directory / "trial.conf"
        await self._disk.write_synced(trial, config.encode(), mode=0o644)
        done = await self._run.run(["dnsmasq", "--test", f"--conf-file={trial}"], timeout_s=10)
        if done.exit_code != 0:
            said = done.stderr.decode(errors="replace").strip()
            _log.warning("extra DHCP options left out", network=network.id, why=said)
        return done.exit_code == 0

    async def stop(self) -> None:
        process = self._find()
        if process is not None:
            await self._run.kill(process, STOP)
        self._process, self._told = None, None

    def _find(self) -> ProcessRef | None:
        if self._process is not None and self._run.alive(self._process):
            return self._process
        self._process = process_with_config(self._directory / "dnsmasq.pid", self._config)
        return self._process

    @property
    def _config(self) -> Path:
        return self._directory / "dnsmasq.conf"

    async def _start(self) -> None:
        self._process = await self._run.spawn(
            [
                "nsenter",
                f"--net={netns.NAMESPACES / self._namespace}",
                "dnsmasq",
                f"--conf-file={self._config}",
            ],
            log_path=self._directory / "log",
        )

    async def _end(self, process: ProcessRef) -> None:
        """Ended for sure, for the next one needs its ports."""
        await self._run.kill(process, STOP)
        if not await self._run.in_thread(lambda: ended(process.pid, within_s=2)):
            await self._run.kill(process, KILL)
            await self._run.in_thread(lambda: ended(process.pid, within_s=2))

    async def _text(self, name: str) -> str:
        try:
            return (await self._disk.read(self._directory / name)).decode(errors="replace")
        except FileNotFoundError:
            return ""

    async def _read(self) -> DnsmasqFiles:
        return DnsmasqFiles(
            config=await self._text("dnsmasq.conf"),
            hosts=await self._text("hosts"),
            names=await self._text("names"),
        )

    async def _write(self, told: DnsmasqFiles, wanted: DnsmasqFiles) -> None:
        await self._disk.make_directory(self._directory)
        for name, old, new in (
            ("dnsmasq.conf", told.config, wanted.config),
            ("hosts", told.hosts, wanted.hosts),
            ("names", told.names, wanted.names),
        ):
            if old != new or self._told is None:
                await self._disk.write_synced(self._directory / name, new.encode(), mode=0o644)
