"""Finds out whether KVM runs guests here, and quickly, by running one.

A device that opens may still run nothing, or run it by emulating every instruction at a microsecond each (nested and
para-virtual hosts do: they pass a test of two instructions, and boot nothing in minutes).  So the question is put to
a guest that counts down from twenty million and then writes to a port that ends QEMU with a known code: 0.01 s on
real KVM, 0.1 s without KVM, half a minute on such a host.  The answer is kept with the identity of the device, and
asked again when that changes.
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
"""A KVM that is not done by then is slower than none."""

LOOPS: Final = 20_000_000

ROM_BYTES: Final = 1 << 16
EXIT_PORT: Final = 0xF4
SAID: Final = 0x2A
EXIT_CODE: Final = SAID << 1 | 1


class Kept(msgspec.Struct, frozen=True):
    identity: str
    accelerator: Accelerator


def rom() -> bytes:
    """At the reset vector, in 16-bit code: count down from LOOPS, then write SAID to EXIT_PORT."""
    count_down = b"\x66\xb9" + LOOPS.to_bytes(4, "little") + b"\x66\x49\x75\xfc"  # mov ecx, N; dec ecx; jnz -4
    code = count_down + bytes((0xB0, SAID, 0xE6, EXIT_PORT, 0xF4))  # mov al, SAID; out EXIT_PORT, al; hlt
    return bytes(ROM_BYTES - 16) + code + bytes(16 - len(code))


def identity(device: Path) -> str:
    """Changes when the device, the kernel or our right to use it does."""
    try:
        found = device.stat()
    except OSError:
        return "absent"
    kernel = os.uname()
    parts = (found.st_rdev, found.st_mode, found.st_uid, found.st_gid, os.geteuid(), kernel.release, kernel.version)
    return ":".join(str(part) for part in parts)


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
    """Does the guest come to its end in time?"""
    path = state_dir / "accelerator.rom"
    await world.disk.write_synced(path, rom())
    argv = [
        program, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "pc", "-accel", accelerator,
        "-m", "1", "-bios", str(path), "-device", f"isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1",
    ]  # fmt: skip
    try:
        done = await world.run.run(argv, timeout_s=PROBE_TIMEOUT_S)
    except (TimeoutError, FileNotFoundError):
        return False
    return done.exit_code == EXIT_CODE
