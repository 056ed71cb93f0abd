"""Writes QEMU's command line from a spec.  Pure: the same spec gives the same arguments.

Root disk and controllers sit on the root bus; whatever may come and go (volumes, network cards) sits behind PCIe
root ports, one each, since only there can q35 plug while it runs.  On `pc` any slot can.  Nothing is on the
machine that the spec does not name: no default devices, no user configuration.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from apus.kernel.errors import Invalid

from ..hypervisor import DiskSpec, DomainSpec, NicSpec

PORTS: Final = 24
"""Devices that can be plugged, those from the start included.  Each port costs the guest a little at boot."""
PORTS_FIRST_SLOT: Final = 0x10
SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """Where the domain's files are."""

    base: str
    """The process starts here, and names from here what is below: it may not be let through what is above."""
    directory: str
    room: str
    """For what the process makes itself: its sockets and its pid file."""

    @property
    def pid_file(self) -> str:
        return f"{self.room}/pid"

    @property
    def qmp_socket(self) -> str:
        return f"{self.room}/qmp"

    @property
    def console_socket(self) -> str:
        return f"{self.room}/tty"

    @property
    def console_log(self) -> str:
        return f"{self.directory}/console.log"

    def disk(self, disk: DiskSpec) -> str:
        return disk.path if disk.path.startswith("/") else f"{self.directory}/{disk.path}"

    def seen(self, path: str) -> str:
        """The path as the process says it."""
        return path.removeprefix(f"{self.base}/")


def command_line(
    spec: DomainSpec, places: Places, lent: Mapping[str, Sequence[str]], *, program: str, machine: str, accelerator: str
) -> list[str]:
    """`lent`: by port, the names of the open files for its network card; see `net_backend`."""
    kvm = accelerator == "kvm"
    argv = [
        program, "-name", boot_name(spec), "-nodefaults", "-no-user-config", "-display", "none",
        "-sandbox", SANDBOX, "-uuid", spec.server_id, "-pidfile", places.pid_file,
        "-machine", f"{machine},usb=off,vmport=off,dump-guest-core=off,graphics=off",
        "-accel", "kvm" if kvm else "tcg,thread=multi",
        "-cpu", spec.cpu or ("host" if kvm else "max"),
        "-smp", f"cpus={spec.vcpus},sockets=1,cores={spec.vcpus},threads=1", "-m", f"{spec.memory_mib}M",
        "-rtc", "base=utc", "-boot", "strict=on",
        "-chardev", f"socket,id=qmp,path={escape(places.qmp_socket)},server=on,wait=off",
        "-mon", "chardev=qmp,mode=control",
        "-chardev", f"socket,id=console,path={escape(places.console_socket)},server=on,wait=off,"
        f"logfile={escape(places.seen(places.console_log))},logappend=on",
        "-serial", "chardev:console",
        "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
    ]  # fmt: skip
    if spec.kernel_path:
        argv += ["-kernel", places.seen(spec.kernel_path)]
        argv += ["-initrd", places.seen(spec.initrd_path)] if spec.initrd_path else []
        argv += ["-append", spec.kernel_args] if spec.kernel_args else []
    buses = hot_plug_buses(spec)
    if spec.machine == "q35":
        argv += port_arguments()
    if any(disk.bus == "scsi" for disk in spec.disks):
        argv += ["-device", "virtio-scsi-pci,id=scsi0"]
    for disk in spec.disks:
        argv += ["-blockdev", json.dumps(block_node(disk, places), separators=(",", ":"))]
        argv += ["-device", json.dumps(disk_device(disk, buses.get(disk.id)), separators=(",", ":"))]
    for nic in spec.nics:
        if nic.kind != "none":
            argv += ["-netdev", json.dumps(net_backend(nic, lent.get(nic.port_id, ())), separators=(",", ":"))]
        argv += ["-device", json.dumps(nic_device(nic, buses.get(nic.port_id)), separators=(",", ":"))]
    return argv


def boot_name(spec: DomainSpec) -> str:
    """Which boot of which incarnation a process is: read back from its command line after a restart of ours."""
    return f"guest={spec.incarnation_id}/{spec.boot_count}"


def port_arguments() -> list[str]:
    argv = []
    for number in range(PORTS):
        slot, function = PORTS_FIRST_SLOT + number // 8, number % 8
        many = ",multifunction=on" if function == 0 else ""
        argv += [
            "-device",
            f"pcie-root-port,id=port{number},bus=pcie.0,chassis={number + 1},slot={number + 1},"
            f"addr={slot:#x}.{function:#x}{many}",
        ]
    return argv


def hot_plug_buses(spec: DomainSpec) -> dict[str, str]:
    """The root port of each device that can be unplugged, in the order of the spec."""
    if spec.machine != "q35":
        return {}
    ids = [disk.id for disk in spec.disks if can_unplug(disk) and disk.bus == "virtio"]
    ids += [nic.port_id for nic in spec.nics]
    if len(ids) > PORTS:
        raise Invalid(
            "compute.too_many_devices", f"{len(ids)} disks and network cards were asked for; {PORTS} are possible",
            field="disks",
        )  # fmt: skip
    return {id: f"port{number}" for number, id in enumerate(ids)}


def can_unplug(disk: DiskSpec) -> bool:
    return disk.kind in ("volume", "cdrom")


def short(id: str) -> str:
    """A node name of QEMU has at most 31 characters and few kinds of them; a hash always fits."""
    return hashlib.sha256(id.encode()).hexdigest()[:16]


def disk_node(id: str) -> str:
    return f"node-{short(id)}"


def disk_qdev(id: str) -> str:
    return f"disk-{short(id)}"


def nic_qdev(port_id: str) -> str:
    return f"nic-{short(port_id)}"


def net_node(port_id: str) -> str:
    return f"net-{short(port_id)}"


def block_node(disk: DiskSpec, places: Places) -> dict[str, Any]:
    """What it stands on is said here too: the path in the overlay's header is for people."""
    node = {
        "driver": disk.format,
        "node-name": disk_node(disk.id),
        "read-only": disk.read_only,
        "discard": "unmap",
        "file": {"driver": "file", "filename": places.seen(places.disk(disk)), "read-only": disk.read_only},
    }
    if disk.backing_path is not None:
        node["backing"] = {
            "driver": disk.backing_format,
            "read-only": True,
            "file": {"driver": "file", "filename": places.seen(disk.backing_path), "read-only": True},
        }
    return node


def disk_device(disk: DiskSpec, bus: str | None) -> dict[str, Any]:
    cdrom = disk.kind == "cdrom" or (disk.kind == "config_drive" and disk.bus != "virtio")
    device: dict[str, Any] = {"id": disk_qdev(disk.id), "drive": disk_node(disk.id)}
    match disk.bus:
        case "virtio":
            device["driver"] = "virtio-blk-pci"
        case "scsi":
            device |= {"driver": "scsi-cd" if cdrom else "scsi-hd", "bus": "scsi0.0"}
        case "ide":
            device["driver"] = "ide-cd" if cdrom else "ide-hd"
    if bus:
        device["bus"] = bus
    if disk.serial:
        device["serial"] = disk.serial[:20] if disk.bus == "virtio" else disk.serial[:36]
    if disk.boot_index is not None:
        device["bootindex"] = disk.boot_index
    return device


def net_backend(nic: NicSpec, lent: Sequence[str]) -> dict[str, Any]:
    """`lent`: what QEMU knows the open TAP device by, and maybe the kernel's own end of it."""
    node = net_node(nic.port_id)
    if nic.kind == "tap":
        tap: dict[str, Any] = {"type": "tap", "id": node, "fd": lent[0]}
        return tap | ({"vhost": True, "vhostfd": lent[1]} if len(lent) > 1 else {})
    forwards = [{"str": f"{f.protocol}:{f.host_address}:{f.host_port}-:{f.guest_port}"} for f in nic.host_forwards]
    user: dict[str, Any] = {"type": "user", "id": node, "hostfwd": forwards}
    if nic.user is not None:
        net = nic.user
        user |= {"net": net.cidr, "host": net.gateway, "dns": net.dns, "dhcpstart": net.guest, "ipv6": False}
        user |= {} if net.outside else {"restrict": True}
    return user


def nic_device(nic: NicSpec, bus: str | None) -> dict[str, Any]:
    device: dict[str, Any] = {"driver": "virtio-net-pci", "id": nic_qdev(nic.port_id), "mac": nic.mac, "romfile": ""}
    if nic.kind != "none":
        device["netdev"] = net_node(nic.port_id)
    if nic.mtu:
        device["host_mtu"] = nic.mtu
    if bus:
        device["bus"] = bus
    return device


def escape(value: str) -> str:
    """In QEMU's option lists a comma is written twice."""
    return value.replace(",", ",,")
