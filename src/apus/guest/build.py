"""Builds the micro guest: `python -m apus.guest.build OUT`.

One disk image does both: the BIOS starts it by itself, and a hypervisor that is given the kernel and the initial
RAM disk starts it without a boot loader.  The same packages give the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from . import ramdisk, root_disk
from .contents import Contents, File, initrd_contents, root_contents
from .packages import kernel_package, run, unpack

PACKAGES: Final = (
    "busybox", "dropbear-bin", "libtomcrypt1", "libtommath1", "libgmp10", "zlib1g", "libc6", "libcrypt1",
    "netcat-traditional", "toybox", "e2fsprogs", "libcom-err2", "libext2fs2", "libuuid1", "libblkid1",
    "openssh-client", "openssh-sftp-server", "grub-pc-bin", "grub-common", "libdevmapper1.02.1",
)  # fmt: skip

KERNEL_ARGS: Final = (
    "console=tty0 console=ttyS0 quiet tsc=reliable no_timer_check noreplace-smp mitigations=off "
    "cryptomgr.notests random.trust_cpu=on i8042.noaux i8042.nokbd=1 nomodeset panic=5"
)

BOOT_MODULES: Final = ("biosdisk", "ext2", "linux", "boot", "minicmd")


@dataclasses.dataclass(frozen=True, slots=True)
class MicroImage:
    kernel: Path
    initrd: Path
    disk: Path
    """qcow2: the root file system, and bootable by itself."""
    kernel_args: str = KERNEL_ARGS


def build_micro(out_dir: Path, work_dir: Path, report: Callable[[str], None]) -> MicroImage:
    """Build the guest into `out_dir`; `work_dir` keeps the packages, so that the next build fetches nothing."""
    work_dir.mkdir(parents=True, exist_ok=True)
    out_dir.mkdir(parents=True, exist_ok=True)
    report("fetching packages")
    tree = unpack([kernel_package(), *PACKAGES], work_dir, "tree")
    static = unpack(["busybox-static"], work_dir, "static-tree")
    image = MicroImage(out_dir / "micro-vmlinuz", out_dir / "micro-initrd", out_dir / "micro.qcow2")
    kernel = next(tree.glob("boot/vmlinuz-*")).read_bytes()
    initrd = ramdisk.pack(initrd_contents(tree, static / "bin/busybox"))
    report("writing the root disk")
    applets = run([str(tree / "bin/busybox"), "--list"]).split()
    core = boot_core(tree, work_dir)
    contents: Contents = root_contents(tree, applets)
    contents |= {"boot/vmlinuz": File(kernel), "boot/initrd": File(initrd), "boot/core.img": File(core)}
    raw = work_dir / "micro.raw"
    root_disk.write(contents, raw, work_dir)
    boot_sector = (tree / "usr/lib/grub/i386-pc/boot.img").read_bytes()
    root_disk.install_boot_sector(raw, boot_sector, "/boot/core.img", len(core))
    report("compressing")
    fresh = out_dir / "micro.qcow2.new"
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-m", "1", str(raw), str(fresh)])
    image.kernel.write_bytes(kernel)
    image.initrd.write_bytes(initrd)
    os.replace(fresh, image.disk)
    raw.unlink()
    shutil.rmtree(work_dir / "files", ignore_errors=True)
    report(f"{image.disk}: {image.disk.stat().st_size >> 10} KiB, sha256 {sha256(image.disk)}")
    return image


def boot_core(tree: Path, work_dir: Path) -> bytes:
    """GRUB with what it takes to load one kernel from one file system, and the commands to do so."""
    commands = work_dir / "grub.cfg"
    commands.write_text(f"set root=hd0\nlinux /boot/vmlinuz {KERNEL_ARGS}\ninitrd /boot/initrd\nboot\n")
    core = work_dir / "core.img"
    run(
        [
            str(tree / "usr/bin/grub-mkimage"), "-O", "i386-pc", "-d", str(tree / "usr/lib/grub/i386-pc"),
            "-p", "(hd0)/boot", "-c", str(commands), "-o", str(core), *BOOT_MODULES,
        ],
        env=os.environ | {"LD_LIBRARY_PATH": str(tree / "lib/x86_64-linux-gnu/")},
    )  # fmt: skip
    data = core.read_bytes()
    return data + bytes(-len(data) % 512)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    out_dir = Path(sys.argv[1] if len(sys.argv) == 2 else ".")
    with tempfile.TemporaryDirectory(prefix="apus-guest-") as work_dir:
        build_micro(out_dir, Path(work_dir), lambda line: print(line, flush=True))


if __name__ == "__main__":
    main()
