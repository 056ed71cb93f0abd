"""Plugs devices into a running QEMU and takes them out, from what QEMU itself says is there.

Every step looks first, so one that was cut off in the middle is finished by doing it again.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from apus.kernel.errors import Conflict, Invalid, Unavailable

from ..hypervisor import DiskSpec, DomainSpec, NicSpec
from .command_line import (
    Places,
    block_node,
    disk_device,
    disk_node,
    disk_qdev,
    net_backend,
    nic_device,
    nic_qdev,
)
from .qmp import Monitor, Refused

UNPLUG_TIMEOUT_S: Final = 15.0
"""The guest must agree to let a device go; one that has not booted yet does not, and is asked again later."""
ASK_AGAIN_S: Final = 3.0
"""A guest that was not listening (no driver yet) has forgotten the first question by then."""


@dataclasses.dataclass(frozen=True, slots=True)
class Present:
    disks: tuple[str, ...]
    nics: tuple[str, ...]


async def devices(qmp: Monitor) -> set[str]:
    return {item["name"] for item in await qmp.execute("qom-list", {"path": "/machine/peripheral"})}


async def present(qmp: Monitor, spec: DomainSpec) -> Present:
    """The devices there, by the ids of the spec; one the spec does not name any more appears by QEMU's own id."""
    names = await devices(qmp)
    disks = {disk_qdev(disk.id): disk.id for disk in spec.disks}
    nics = {nic_qdev(nic.port_id): nic.port_id for nic in spec.nics}
    return Present(
        tuple(sorted(disks.get(name, name) for name in names if name.startswith("disk-"))),
        tuple(sorted(nics.get(name, name) for name in names if name.startswith("nic-"))),
    )


async def plug_disk(qmp: Monitor, spec: DomainSpec, disk: DiskSpec, places: Places) -> None:
    if disk.bus == "ide" or (disk.bus == "scsi" and "scsi0" not in await devices(qmp)):
        raise Invalid(
            "compute.no_hot_plug", f"a disk on {disk.bus} cannot be attached while this server runs", field="bus"
        )
    nodes = await qmp.execute("query-named-block-nodes", {"flat": True})
    if not any(node.get("node-name") == disk_node(disk.id) for node in nodes):
        await qmp.execute("blockdev-add", block_node(disk, places))
    bus = None if disk.bus == "scsi" else await free_bus(qmp, spec)
    await qmp.execute("device_add", disk_device(disk, bus))


async def plug_nic(qmp: Monitor, spec: DomainSpec, nic: NicSpec, lent: Sequence[str]) -> None:
    """`lent`: what QEMU was given for it, by the names that `net_backend` says."""
    if nic.kind != "none":
        try:
            await qmp.execute("netdev_add", net_backend(nic, lent))
        except Refused as refusal:
            if "uplicate" not in str(refusal):
                raise
    await qmp.execute("device_add", nic_device(nic, await free_bus(qmp, spec)))


async def unplug_disk(qmp: Monitor, id: str) -> None:
    """`id` is the spec's, or QEMU's own when the spec has forgotten the disk."""
    qdev = id if id.startswith("disk-") else disk_qdev(id)
    await unplug(qmp, qdev)
    node = "node-" + qdev.removeprefix("disk-")
    nodes = await qmp.execute("query-named-block-nodes", {"flat": True})
    if any(found.get("node-name") == node for found in nodes):
        await qmp.execute("blockdev-del", {"node-name": node})


async def unplug_nic(qmp: Monitor, port_id: str) -> None:
    qdev = port_id if port_id.startswith("nic-") else nic_qdev(port_id)
    await unplug(qmp, qdev)
    try:
        await qmp.execute("netdev_del", {"id": "net-" + qdev.removeprefix("nic-")})
    except Refused as refusal:
        if "not found" not in str(refusal):
            raise


async def unplug(qmp: Monitor, qdev: str) -> None:
    """Ask the guest until it lets go.  Raises Conflict when it does not in time; the device is still there then."""
    with qmp.events("DEVICE_DELETED") as listener:
        try:
            async with asyncio.timeout(UNPLUG_TIMEOUT_S):
                while qdev in await devices(qmp):
                    try:
                        await qmp.execute("device_del", {"id": qdev})
                    except Refused as refusal:
                        if "unplug" not in str(refusal):
                            raise
                    await deleted(listener, qdev)
        except TimeoutError:
            raise Conflict(
                "compute.device_kept", "the guest does not let the device go; it may still be starting"
            ) from None


async def deleted(listener: Any, qdev: str) -> None:
    try:
        async with asyncio.timeout(ASK_AGAIN_S):
            while (await listener.get())["data"].get("device") != qdev:
                pass
    except TimeoutError:
        return


async def free_bus(qmp: Monitor, spec: DomainSpec) -> str | None:
    """A root port with nothing in it, on q35; anywhere on `pc`."""
    if spec.machine != "q35":
        return None
    for bus in await qmp.execute("query-pci"):
        for device in bus["devices"]:
            if device["qdev_id"].startswith("port") and not device.get("pci_bridge", {}).get("devices"):
                return str(device["qdev_id"])
    raise Unavailable("compute.no_slot", "the server has no room for another device until it is restarted")
