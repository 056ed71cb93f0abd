"""Guests for real: a wish becomes a domain out of a cached image, plugs and a config drive, run by the hypervisor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from apus.kernel.errors import Invalid
from apus.kernel.world import World
from apus.services.compute.agent.guests import State
from apus.services.compute.agent.image_cache import ImageCache
from apus.services.compute.contract import GuestSpec, HostForward, HostWork, Power, Wish
from apus.services.compute.drivers import config_drive, hypervisor
from apus.services.compute.drivers.hypervisor import DiskSpec, DomainSpec, Hypervisor, NicSpec
from apus.services.image.contract import BootImage
from apus.services.network.contract import HostPlugs, Plug

STOP_GRACE_S: Final = 60.0
"""What a guest has to shut down by itself, as Nova's `shutdown_timeout`."""
DIRECT_BOOT_ARGS: Final = "root=/dev/vda console=tty0 console=ttyS0"
_BUSES: Final[Mapping[str, Literal["virtio", "scsi", "ide"]]] = {"virtio": "virtio", "scsi": "scsi", "ide": "ide"}
_FOUND: Final = {
    hypervisor.Power.ON: Power.ON,
    hypervisor.Power.STARTING: Power.ON,
    hypervisor.Power.PAUSED: Power.PAUSED,
}


class HypervisorGuests:
    """Implements `Guests`."""

    def __init__(
        self,
        world: World,
        driver: Hypervisor,
        *,
        images: ImageCache,
        plugs: HostPlugs,
        work: HostWork,
        config_dir: Path,
    ) -> None:
        self._world, self._driver, self._images, self._plugs, self._work = world, driver, images, plugs, work
        self._config_dir = config_dir
        self._bases: dict[str, str] = {}
        """Cached images by `incarnation:image`: those that something of a guest stands on."""

    async def inventory(self) -> Mapping[str, State]:
        return {found.incarnation_id: _state(found) for found in await self._driver.inventory()}

    async def ensure(self, wish: Wish) -> State:
        domain = await self._domain(wish)
        forwards = tuple(forward for nic in domain.nics for forward in nic.host_forwards)
        return _state(await self._driver.ensure(domain))._replace(forwards=forwards)

    async def absent(self, wish: Wish, taken: Callable[[str], bool]) -> None:
        await self._driver.absent(wish.id)
        for port in wish.spec.ports:
            if not taken(port.id):
                await self._plugs.unplug(port.id)
        await self._world.disk.remove(self._drive_path(wish))
        for key in [key for key in self._bases if key.startswith(wish.id)]:
            del self._bases[key]

    async def console_log(self, incarnation_id: str, lines: int | None) -> str:
        return await self._driver.console_output(incarnation_id, lines=lines)

    async def _domain(self, wish: Wish) -> DomainSpec:
        spec = wish.spec
        plugs = [await self._plugs.plug(port) for port in spec.ports]
        nics = [_nic(plug, port.mac) for plug, port in zip(plugs, spec.ports, strict=True)]
        disks = await self._disks(wish)
        if spec.config_drive or any(plug.needs_config_drive for plug in plugs):
            disks.append(await self._config_drive(wish))
        kernel = None if spec.kernel is None else await self._cached(wish, spec.kernel)
        ramdisk = None if spec.ramdisk is None else await self._cached(wish, spec.ramdisk)
        return DomainSpec(
            incarnation_id=wish.id,
            server_id=wish.server_id,
            name=spec.name,
            generation=wish.seq,
            vcpus=spec.vcpus,
            memory_mib=spec.memory_mib,
            disks=tuple(disks),
            nics=tuple(nics),
            kernel_path=kernel,
            initrd_path=ramdisk,
            kernel_args=(spec.kernel_args or DIRECT_BOOT_ARGS) if kernel else None,
            power="paused" if wish.power is Power.PAUSED else "off" if wish.power is Power.OFF else "on",
            boot_count=wish.boots,
            reboot_kind="hard" if wish.hard else "soft",
            stop_grace_s=0.0 if wish.hard else STOP_GRACE_S,
        )

    async def _disks(self, wish: Wish) -> list[DiskSpec]:
        spec = wish.spec
        if spec.image is None:
            raise Invalid("compute.no_image", "The server has no image to boot from.")
        base = await self._cached(wish, spec.image)
        bus = _BUSES.get(spec.image.properties.get("hw_disk_bus", "virtio"), "virtio")
        size = spec.disk_gib << 30 or spec.image.virtual_size_bytes
        if spec.image.disk_format == "iso":
            cdrom = DiskSpec(id="cdrom", path=base, format="raw", kind="cdrom", bus="ide", read_only=True, boot_index=0)
            blank = DiskSpec(id="root", path="root.qcow2", kind="root", bus=bus, size_bytes=size, boot_index=1)
            return [blank, cdrom, *_blank_disks(spec)]
        root = DiskSpec(
            id="root",
            path="root.qcow2",
            kind="root",
            bus=bus,
            boot_index=None if spec.kernel else 0,  # a kernel that is given comes first, and QEMU numbers it so
            backing_path=base,
            backing_format="qcow2" if spec.image.disk_format == "qcow2" else "raw",
            size_bytes=max(size, spec.image.virtual_size_bytes),
        )
        return [root, *_blank_disks(spec)]

    async def _config_drive(self, wish: Wish) -> DiskSpec:
        # SCSI: cloud kernels have no AHCI, and on virtio it would take the name that the first volume expects.
        """Written once per incarnation: what a guest was told at its birth stays what it can read again."""
        path = self._drive_path(wish)
        if await self._world.disk.stat(path) is None:
            files = await self._work.drive_files(wish.id)
            data = await self._world.run.in_thread(lambda: config_drive.iso(files))
            await self._world.disk.write_synced(path, data)
        return DiskSpec(id="config", path=str(path), format="raw", kind="config_drive", bus="scsi", read_only=True)

    async def _cached(self, wish: Wish, image: BootImage) -> str:
        self._bases[f"{wish.id}:{image.id}"] = str(self._images.path_of(image))
        return str(await self._images.ensure(image, frozenset(self._bases.values())))

    def _drive_path(self, wish: Wish) -> Path:
        return self._config_dir / f"{wish.id}.iso"


def _blank_disks(spec: GuestSpec) -> list[DiskSpec]:
    """What the flavor gives beside the root disk."""
    disks = []
    if spec.ephemeral_gib:
        size = spec.ephemeral_gib << 30
        disks.append(DiskSpec(id="ephemeral", path="ephemeral.qcow2", kind="ephemeral", size_bytes=size))
    if spec.swap_mib:
        disks.append(DiskSpec(id="swap", path="swap.qcow2", kind="swap", size_bytes=spec.swap_mib << 20))
    return disks


def _state(found: hypervisor.Found) -> State:
    return State(_FOUND.get(found.power, Power.OFF), found.boot_count, found.reason)


def _nic(plug: Plug, mac: str) -> NicSpec:
    kind: Literal["tap", "user", "none"] = "tap" if plug.kind == "tap" else "user" if plug.kind == "user" else "none"
    return NicSpec(
        port_id=plug.port_id,
        mac=mac,
        kind=kind,
        tap_name=plug.tap_name,
        host_forwards=_forwards(plug.host_forwards),
        user=plug.user,
        mtu=plug.mtu if kind == "tap" else None,
    )


def _forwards(rules: Sequence[str]) -> tuple[HostForward, ...]:
    """`tcp:127.0.0.1:2201-:22`, as slirp writes it."""
    made = []
    for rule in rules:
        outside, _, inside = rule.partition("-")
        protocol, address, port = outside.split(":")
        made.append(
            HostForward(
                host_port=int(port),
                guest_port=int(inside.rpartition(":")[2]),
                protocol="udp" if protocol == "udp" else "tcp",
                host_address=address,
            )
        )
    return tuple(made)
