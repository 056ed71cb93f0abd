"""Finds out whether KVM runs guests here, by running one.

A device that opens may still run nothing (nested and para-virtual hosts), so the question is put to a guest of two
instructions: its ROM writes to a port that ends QEMU with a known code.  The answer is kept with the identity of
the device, and asked again when that changes.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final, Literal

import msgspec

from apus.kernel.world import World

Accelerator = Literal["kvm", "tcg"]

PROBE_TIMEOUT_S: Final = 2.0
"""A working KVM answers within 0.1 s; one that hangs never does."""

ROM_BYTES: Final = 1 << 16
EXIT_PORT: Final = 0xF4
SAID: Final = 0x2A
EXIT_CODE: Final = SAID << 1 | 1


class Kept(msgspec.Struct, frozen=True):
    identity: str
    accelerator: Accelerator


def rom() -> bytes:
    """`mov al, SAID; out EXIT_PORT, al` at the reset vector, and a halt for whoever gets past it."""
    code = bytes((0xB0, SAID, 0xE6, EXIT_PORT, 0xF4))
    return bytes(ROM_BYTES - 16) + code + bytes(16 - len(code))


def identity(device: Path) -> str:
    """Changes when the device, the kernel or our right to use it does."""
    try:
        found = device.stat()
    except OSError:
        return "absent"
    kernel = os.uname()
    return f"{found.st_rdev}:{found.st_mode:o}:{found.st_uid}:{found.st_gid}:{os.geteuid()}:{kernel.release}:{kernel.version}"


async def probe(
    world: World, state_dir: Path, *, program: str = "qemu-system-x86_64", device: Path = Path("/dev/kvm")
) -> Accelerator:
    """The accelerator to use on this machine; the answer is kept under `state_dir`."""
    record, now = state_dir / "accelerator.json", identity(device)
    if now == "absent":
        return "tcg"
    with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
        kept = msgspec.json.decode(await world.disk.read(record), type=Kept)
        if kept.identity == now:
            return kept.accelerator
    accelerator: Accelerator = "kvm" if await runs(world, state_dir, program, "kvm") else "tcg"
    await world.disk.write_synced(record, msgspec.json.encode(Kept(now, accelerator)))
    return accelerator


async def runs(world: World, state_dir: Path, program: str, accelerator: str) -> bool:
    """Does the two-instruction guest come to its end?"""
    path = state_dir / "accelerator.rom"
    await world.disk.write_synced(path, rom())
    argv = [
        program, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-accel", accelerator, "-m", "1",
        "-bios", str(path), "-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1",
    ]  # fmt: skip
    try:
        done = await world.run.run(argv, timeout_s=PROBE_TIMEOUT_S)
    except (TimeoutError, FileNotFoundError):
        return False
    return done.exit_code == EXIT_CODE
