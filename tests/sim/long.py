"""`python -m tests.sim.long [--processes N] KIND FIRST LAST`: histories by the thousand, in as many processes as there
are cores.

It goes on after a failure, and writes each seed that fails into seeds/KIND.txt, where it is told again with every
commit; whoever finds out what it teaches says so there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from apus.kernel.log import set_level
from tests.sim.history import history
from tests.sim.kept_seeds import keep
from tests.sim.test_object_consistency import in_fragments, on_drives
from tests.sim.test_object_hosts import through_either_proxy
from tests.sim.test_object_turns import in_turns

SAID_EVERY_S: Final = 60.0
KINDS: Final[Mapping[str, Callable[[int], object]]] = {
    "cluster": history,
    "drives": on_drives,
    "fragments": in_fragments,
    "hosts": through_either_proxy,
    "turns": in_turns,
}


def failure_of(kind: str, seed: int) -> tuple[int, str]:
    """The seed, and in a line what went wrong: nothing, mostly."""
    try:
        KINDS[kind](seed)
    except Exception as error:  # whatever it is: it is told, and the next one begins
        first: BaseException = error
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        return seed, (str(first).splitlines() or [type(first).__name__])[0][:300]
    return seed, ""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    asked = parser.parse_args(arguments)
    total, done, failed = asked.last - asked.first, 0, 0
    said_s = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(asked.processes, set_level, ["error"]) as pool:
        tell = partial(failure_of, asked.kind)
        for seed, why in pool.imap_unordered(tell, range(asked.first, asked.last), chunksize=8):
            done += 1
            if why:
                failed += 1
                print(f"seed {seed}: {why}", flush=True)
                keep(asked.kind, seed, why)
            if time.monotonic() - said_s > SAID_EVERY_S:
                said_s = time.monotonic()
                print(f"{done} of {total} told, {failed} failed", flush=True)
    print(f"{done} told, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
