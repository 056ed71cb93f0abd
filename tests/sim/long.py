"""`python -m tests.sim.long FIRST LAST`: histories by the thousand, in as many processes as there are cores.

It goes on after a failure, and writes each seed that fails into seeds/cluster.txt, where it is told again with every
commit; whoever finds out what it teaches says so there.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from typing import Final

from tests.sim.history import history
from tests.sim.test_cluster import KEPT, kept

SAID_EVERY_S: Final = 60.0


def failure_of(seed: int) -> tuple[int, str]:
    """The seed, and in a line what went wrong: nothing, mostly."""
    try:
        history(seed)
    except Exception as error:  # whatever it is: it is told, and the next one begins
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        return seed, (str(first).splitlines() or [type(first).__name__])[0][:300]
    return seed, ""


def main(arguments: Sequence[str]) -> int:
    first, last = int(arguments[0]), int(arguments[1])
    done = failed = 0
    said_s = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for seed, why in pool.imap_unordered(failure_of, range(first, last), chunksize=8):
            done += 1
            if why:
                failed += 1
                print(f"seed {seed}: {why}", flush=True)
                keep(seed, why)
            if time.monotonic() - said_s > SAID_EVERY_S:
                said_s = time.monotonic()
                print(f"{done} of {last - first} told, {failed} failed", flush=True)
    print(f"{done} told, {failed} failed")
    return min(failed, 1)


def keep(seed: int, why: str) -> None:
    if seed not in kept():
        with KEPT.open("a") as seeds:
            seeds.write(f"{seed}   ? {why}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
