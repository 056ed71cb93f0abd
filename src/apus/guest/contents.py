"""What is in the guest: a sorted list of files, directories, links and devices, the same for every build.

Both the initial RAM disk and the root disk are written from such a list, so neither depends on the file system,
the user or the clock of the machine that builds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final


@dataclasses.dataclass(frozen=True, slots=True)
class Directory:
    mode: int = 0o755


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    data: bytes
    mode: int = 0o644


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    target: str


@dataclasses.dataclass(frozen=True, slots=True)
class CharacterDevice:
    major: int
    minor: int
    mode: int = 0o600


Entry = Directory | File | Link | CharacterDevice
Contents = dict[str, Entry]
"""By path without a leading slash; parents are added by `with_parents`."""

FILES: Final = Path(__file__).parent / "files"

ROOT_MODULES: Final = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci")
"""Everything virtio hangs on these, and virtio itself on virtio_ring: the order matters."""

DISK_MODULES: Final = (
    "virtio_mmio",
    "virtio_blk",
    "scsi_common",
    "scsi_mod",
    "sd_mod",
    "virtio_scsi",
    "libata",
    "ata_piix",
)
NET_MODULES: Final = ("failover", "net_failover", "virtio_net")
LATER_MODULES: Final = (
    "button", "evdev", "rng-core", "virtio-rng", "8021q", "cdrom", "sr_mod", "isofs", "fat", "vfat", "nls_utf8",
    "nls_ascii", "nls_cp437", "nls_iso8859-1", "crc16", "mrp", "garp", "stp", "llc", "virtio_console", "virtio_balloon",
    "crct10dif_common", "crc-t10dif", "crct10dif_generic", "t10-pi", "bsg", "uhci-hcd",
)  # fmt: skip

PROGRAMS: Final = (
    "usr/sbin/dropbear", "usr/bin/dropbearkey", "usr/bin/dbclient", "bin/toybox", "bin/nc.traditional",
    "sbin/resize2fs", "sbin/mke2fs", "usr/lib/openssh/sftp-server", "usr/bin/scp",
)  # fmt: skip

LIBRARIES: Final = (
    "libc.so.6", "libm.so.6", "libcrypt.so.1", "libtomcrypt.so.1", "libtommath.so.1", "libz.so.1", "libgmp.so.10",
    "libe2p.so.2", "libext2fs.so.2", "libcom_err.so.2", "libblkid.so.1", "libuuid.so.1", "libnss_files.so.2",
    "libpthread.so.0", "libresolv.so.2",
)  # fmt: skip


def with_parents(entries: Mapping[str, Entry]) -> Iterator[tuple[str, Entry]]:
    """In an order that names every directory before what is in it."""
    full: Contents = dict(entries)
    for path in entries:
        for parent in Path(path).parents:
            if str(parent) != ".":
                full.setdefault(str(parent), Directory())
    yield from sorted(full.items())


def module_files(tree: Path, names: Sequence[str]) -> Contents:
    """The modules of these names that this kernel has as modules; the others are built in, or not there."""
    wanted = set(names)
    found = sorted(path for path in tree.glob("lib/modules/*/kernel/**/*.ko") if path.stem in wanted)
    return {str(path.relative_to(tree)): File(path.read_bytes()) for path in found}


def initrd_contents(tree: Path, static_busybox: Path) -> Contents:
    entries: Contents = {
        "init": File((FILES / "initrd/init").read_bytes(), 0o755),
        "bin/busybox": File(static_busybox.read_bytes(), 0o755),
        "modules.rest": File(" ".join(DISK_MODULES).encode()),
        "dev/console": CharacterDevice(5, 1),
    }
    entries |= {name: Directory() for name in ("proc", "sys", "root")}
    return entries | modules_and_index(tree, (*ROOT_MODULES, *DISK_MODULES))


def with_needs(tree: Path, names: Sequence[str]) -> list[str]:
    """The modules and what they need, each after what it needs.  A module names its needs in its own file."""
    files = {path.stem.replace("-", "_"): path for path in tree.glob("lib/modules/*/kernel/**/*.ko")}
    ordered: list[str] = []

    def add(name: str) -> None:
        path = files.get(name.replace("-", "_"))
        if path is None or path.stem in ordered:
            return
        for need in needs(path.read_bytes()):
            add(need)
        ordered.append(path.stem)

    for name in names:
        add(name)
    return ordered


def needs(module: bytes) -> list[str]:
    start = module.find(b"\0depends=")
    if start < 0:
        return []
    listed = module[start + len(b"\0depends=") : module.index(b"\0", start + 1)].decode()
    return [name for name in listed.split(",") if name]


def root_contents(tree: Path, applets: Sequence[str]) -> Contents:
    """The root file system.  Its busybox is the dynamic one: the static one's shell never looks for a program that it
    has an applet for, and so would not find our nc and mke2fs."""
    entries: Contents = {}
    for name in ("boot", "dev", "mnt", "proc", "run", "sys", "root/.ssh", "var/lib/apus", "etc/dropbear", "var/log"):
        entries[name] = Directory(0o700 if name.startswith("root") else 0o755)
    entries |= {"root": Directory(0o700), "tmp": Directory(0o1777), "var/tmp": Directory(0o1777)}
    entries |= {"var/run": Link("/run"), "etc/mtab": Link("/proc/mounts"), "lib64": Link("lib")}
    entries["bin/busybox"] = File((tree / "bin/busybox").read_bytes(), 0o755)
    entries |= {f"bin/{name}": Link("busybox") for name in applets if name != "busybox"}
    for name in (
        "init",
        "ip",
        "udhcpc",
        "getty",
        "reboot",
        "poweroff",
        "halt",
        "modprobe",
        "insmod",
        "mkdosfs",
        "sysctl",
    ):
        entries[f"sbin/{name}"] = Link("../bin/busybox")
    for name in PROGRAMS:
        entries[name] = File((tree / name).resolve().read_bytes(), 0o755)
    entries |= {
        "usr/lib/sftp-server": Link("openssh/sftp-server"),
        "usr/libexec/sftp-server": Link("../lib/openssh/sftp-server"),
    }
    entries |= {f"lib/{path.name}": File(path.read_bytes(), 0o755) for path in library_files(tree)}
    entries |= modules_and_index(tree, (*ROOT_MODULES, *DISK_MODULES, *NET_MODULES, *LATER_MODULES))
    for path in sorted(p for p in (FILES / "root").rglob("*") if p.is_file()):
        name = str(path.relative_to(FILES / "root"))
        program = path.read_bytes().startswith(b"#!") or name.endswith("default.script")
        entries[name] = File(path.read_bytes(), 0o755 if program else 0o600 if name == "etc/shadow" else 0o644)
    for name in [name for name, entry in entries.items() if isinstance(entry, File) and entry.mode & 0o100]:
        if isinstance(entries.get(f"bin/{Path(name).name}"), Link):
            del entries[f"bin/{Path(name).name}"]  # /bin comes first in the path, and ours must win
    entries["usr/sbin/blkid"] = Link("../../sbin/blkid")
    entries["usr/bin/nc"] = Link("../../bin/nc")
    return entries


def modules_and_index(tree: Path, wanted: Sequence[str]) -> Contents:
    """Modules with all they need, and the index from which busybox's modprobe knows what each needs."""
    files = module_files(tree, with_needs(tree, wanted))
    paths = {Path(path).stem: f"kernel/{path.partition('/kernel/')[2]}" for path in files}
    lines = []
    for name, path in sorted(paths.items()):
        *before, _ = with_needs(tree, [name])
        # Nearest first: modprobe loads a line from its end.
        lines.append(" ".join([f"{path}:", *(paths[need] for need in reversed(before))]) + "\n")
    room = next(iter(files)).partition("/kernel/")[0]
    return files | {f"{room}/modules.dep": File("".join(lines).encode())}


def library_files(tree: Path) -> list[Path]:
    found: dict[str, Path] = {}
    for name in (*LIBRARIES, "ld-linux-x86-64.so.2"):
        for room in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"):
            if (tree / room / name).exists():
                found[name] = tree / room / name
    return [found[name] for name in sorted(found)]
