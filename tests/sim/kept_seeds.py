"""Seeds of histories that failed once, and what each taught: `SEED  what it taught`, a line each.  They run for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Final

KEPT: Final = Path(__file__).parent / "seeds"


def kept(kind: str) -> list[int]:
    lines = (KEPT / f"{kind}.txt").read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def keep(kind: str, seed: int, why: str) -> None:
    """Whoever finds out what it teaches says so there."""
    if seed not in kept(kind):
        with (KEPT / f"{kind}.txt").open("a") as seeds:
            seeds.write(f"{seed}   ? {why}\n")
