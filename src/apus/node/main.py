"""One process of a node: opens its world, wires the parts that its roles ask for, runs them until told to stop.

python -m apus.node.main STATE_DIR --roles control,compute,network --name control
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
import time
from pathlib import Path

from apus.kernel.errors import CloudError
from apus.kernel.log import get_logger, set_level
from apus.kernel.settings import load_settings
from apus.node.stages import Stages
from apus.node.wiring import Node, wire

_log = get_logger("apus.node")
_ORPHAN_LOOK_S = 1.0
_COLLECT_AFTER = 50_000
"""Containers made before the cycle collector looks at the young ones.  At Python's 700 a long list of servers spends
half its time in collections that find nothing: our records are frozen trees."""
_HANDLES = 1 << 16
"""Connections, volumes, index files.  A login's soft limit is 1,024, for programs that call select(2): we do not."""


def main(state_dir: Path, roles: str, name: str, parent: int = 0) -> int:
    """Run until SIGTERM or SIGINT, or until `parent` is not our parent.  Exit code 0 after a clean stop, 1 when a part
    failed.
    """
    stages = Stages(state_dir, name, time.monotonic())
    try:
        settings = load_settings(state_dir / "apus.toml")
        set_level(settings.log_level)
        with node_runner() as runner:
            return runner.run(_run(state_dir, frozenset(roles.split(",")), parent, stages))
    except CloudError as error:
        _log.error("cannot start", code=error.code, why=error.shown)
        print(f"apus: {error.shown}", file=sys.stderr, flush=True)
        return 1


def node_runner() -> asyncio.Runner:
    """What a node runs in; the process is tuned for it."""
    gc.set_threshold(_COLLECT_AFTER, 20, 20)
    allow_handles(_HANDLES)
    return asyncio.Runner(loop_factory=_loop)


def allow_handles(count: int) -> None:
    """Raise the soft limit of open files to this, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _loop() -> asyncio.AbstractEventLoop:
    import uvloop

    return uvloop.new_event_loop()


async def _run(state_dir: Path, roles: frozenset[str], parent: int, stages: Stages) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    node = await _wired(state_dir, roles, stages, stop)
    if node is None:
        return 0
    failed = False
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(part, name=part_name) for part_name, part in node.parts()]
            if parent:
                running.append(tasks.create_task(_watch_parent(parent, stop), name="parent"))
            running.append(tasks.create_task(_begin(node, stages), name="begin"))
            await stop.wait()
            _log.info("stopping")
            node.stop_serving()
            serving = [task for task in running if task.get_name() == "http"]
            if serving:
                await asyncio.wait(serving)  # what is being answered is answered (see node/http.py for how long)
            for task in running:
                task.cancel()
    except* CloudError as errors:
        _log.error("a part failed", why=[str(error) for error in errors.exceptions])
        failed = True
    finally:
        await node.close()
    return int(failed)


async def _wired(state_dir: Path, roles: frozenset[str], stages: Stages, stop: asyncio.Event) -> Node | None:
    """The node; None when it was told to stop while it waited for the others."""
    wiring = asyncio.ensure_future(wire(state_dir, load_settings(state_dir / "apus.toml"), roles, stages))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((wiring, stopping), return_when=asyncio.FIRST_COMPLETED)
        return wiring.result() if wiring.done() else None
    finally:
        stopping.cancel()
        wiring.cancel()


async def _begin(node: Node, stages: Stages) -> None:
    """What is done once the APIs answer: the first start's images and networks; then say that we are ready."""
    await node.begin()
    stages.reached("ready")


async def _watch_parent(parent: int, stop: asyncio.Event) -> None:
    """Without our supervisor we end: the next one starts its own processes."""
    while os.getppid() == parent:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ORPHAN_LOOK_S):
                await stop.wait()
                return
    _log.warning("the supervisor is gone")
    stop.set()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("state_dir", type=Path)
    parser.add_argument("--roles", required=True)
    parser.add_argument("--name", default="node")
    parser.add_argument("--parent", type=int, default=0)
    given = parser.parse_args()
    sys.exit(main(given.state_dir, given.roles, given.name, given.parent))
