"""Writes the root disk: one ext4 file system on the whole disk, which the BIOS can start as it is.

There is no partition table, so growing into a larger disk is one call of resize2fs.  The file system leaves its
first 1,024 bytes free, and GRUB's boot sector fits there; it is told the block where the file boot/core.img
lies.  debugfs fills the file system from a sorted list, so no mount, no root and no loop device is needed, and
neither the order nor the clock of this machine shows in the result.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

from .contents import CharacterDevice, Contents, Directory, File, Link, with_parents
from .packages import BuildFailed, run

LABEL: Final = "apus-root"
UUID: Final = "6d696372-6f00-4170-8573-6170757367ff"
STAMP_S: Final = 1_735_689_600
"""2025-01-01: the time of everything in the image."""

BLOCK_BYTES: Final = 4096
SIZE_MIB: Final = 64
"""What the files need, and room to boot without growing; the file system grows into its disk at the first boot."""

JOURNAL_MIB: Final = 4


def write(contents: Contents, disk: Path, work_dir: Path) -> None:
    """Make `disk` (raw) with these contents."""
    environment = os.environ | {
        "E2FSPROGS_FAKE_TIME": str(STAMP_S),
        "SOURCE_DATE_EPOCH": str(STAMP_S),
        "MKE2FS_CONFIG": str(work_dir / "no-mke2fs.conf"),
        "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
        "DEBUGFS_PAGER": "cat",
    }
    (work_dir / "no-mke2fs.conf").write_text("[defaults]\n")
    disk.unlink(missing_ok=True)
    run(
        [
            "mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK_BYTES), "-I", "256", "-m", "1", "-i", "16384",
            "-O", "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,"
            "huge_file,dir_nlink,extra_isize,64bit",
            "-J", f"size={JOURNAL_MIB}", "-L", LABEL, "-U", UUID,
            "-E", f"hash_seed={UUID},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0",
            str(disk), f"{SIZE_MIB}M",
        ],
        env=environment,
    )  # fmt: skip
    script = fill_script(contents, work_dir / "files")
    said = run(["debugfs", "-w", "-f", "-", str(disk)], env=environment, stdin=script)
    for line in said.splitlines():
        if line.strip() and not line.startswith(("debugfs", "Allocated inode:")):
            raise BuildFailed("guest.program_failed", f"debugfs: {line}")


def fill_script(contents: Contents, files_dir: Path) -> str:
    """The debugfs commands that fill an empty file system."""
    files_dir.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for number, (path, entry) in enumerate(with_parents(contents)):
        lines.append(f"cd /{Path(path).parent}" if "/" in path else "cd /")
        name = Path(path).name
        match entry:
            case Directory(mode=mode):
                lines.append(f"mkdir {name}")
                kind = 0o040000
            case File(data=data, mode=mode):
                source = files_dir / str(number)
                source.write_bytes(data)
                source.chmod(0o600)
                lines.append(f"write {source} {name}")
                kind = 0o100000
            case Link(target=target):
                lines.append(f"symlink {name} {target}")
                kind, mode = 0o120000, 0o777
            case CharacterDevice(major=major, minor=minor, mode=mode):
                lines.append(f"mknod {name} c {major} {minor}")
                kind = 0o020000
        lines.append(f"sif {name} mode 0{kind | mode:o}")
        lines += [f"sif {name} {field} 0" for field in ("uid", "gid")] if isinstance(entry, File) else []
        lines += [f"sif {name} {field} @{STAMP_S}" for field in ("atime", "ctime", "mtime", "crtime")]
    return "\n".join(lines) + "\n"


def install_boot_sector(disk: Path, boot_sector: bytes, core_path: str, core_bytes: int) -> None:
    """Write GRUB's first sector, and the list of where the rest of it lies, into the free space of the disk.

    Offsets are those of GRUB's i386-pc: the boot sector holds the first sector of the core at 0x5c; the first
    sector of the core ends in one record (start, count, segment) of where the rest of the core is.
    """
    assert len(boot_sector) == 512
    said = run(
        ["debugfs", "-R", f"blocks {core_path}", str(disk)], env=os.environ | {"PATH": "/usr/sbin:/sbin:/usr/bin:/bin"}
    )
    blocks = [int(word) for word in said.split()]
    if not blocks or blocks != list(range(blocks[0], blocks[0] + len(blocks))):
        raise BuildFailed("guest.boot_loader", "the boot loader did not get consecutive blocks in the file system")
    first_sector = blocks[0] * (BLOCK_BYTES // 512)
    sectors = (core_bytes + 511) // 512
    with disk.open("r+b") as image:
        image.seek(first_sector * 512 + 512 - 12)
        image.write(struct.pack("<QHH", first_sector + 1, sectors - 1, 0x820))
        sector = bytearray(boot_sector)
        sector[0x5C:0x64] = struct.pack("<Q", first_sector)
        sector[0x66:0x68] = b"\x90\x90"  # not a floppy: keep the drive the BIOS started from
        image.seek(0)
        image.write(sector)
