"""Delete: ends a running boot, wants every guest gone, gives everything back.  Forward only after the first wait."""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

from apus.kernel.caller import Caller
from apus.kernel.events import emit
from apus.kernel.flow import PENDING, Effect, Run, Saga, Step, Wait, live_flow, live_key
from apus.kernel.record import changed
from apus.kernel.world import Transaction
from apus.services.compute import store
from apus.services.compute.flows.tools import Tools
from apus.services.compute.store import INCARNATIONS, SERVERS

HANDED_OVER_AFTER_S: Final = 60.0
"""A host that has not answered for so long is taken as silent: the user is free of the server, and the sweep gives
its claim and ports back when the host returns and says that the guest is gone."""

NEVER_S: Final = 10 * 365 * 86400.0
"""The boot has deadlines of its own.  A deletion that was accepted is not given up because the clock jumped."""


class DeleteInput(msgspec.Struct, frozen=True):
    server_id: str
    caller: Caller


DeleteRun = Run[DeleteInput, Tools]


async def boot_is_over(run: DeleteRun) -> Any:
    key = live_key("server", run.input.server_id)
    flow = await run.world.store.read(lambda tx: live_flow(tx, key))
    return PENDING if flow is not None and flow.state.value != "stuck" else "over"


async def want_gone(run: DeleteRun) -> Any:
    def want(tx: Transaction) -> None:
        for incarnation in store.retire(tx, run.input.server_id):
            tx.after_commit(functools.partial(run.deps.kick, incarnation.host))

    return Effect(want)


async def is_gone(run: DeleteRun) -> Any:
    incarnations = await run.world.store.read(lambda tx: INCARNATIONS.find(tx, server_id=run.input.server_id))
    if all(incarnation.gone for incarnation in incarnations):
        return "gone"
    if run.world.clock.now_s() - run.started_at_s >= HANDED_OVER_AFTER_S:
        return "handed over"
    return PENDING


async def release_ports(run: DeleteRun) -> Any:
    if run.outputs["found_gone"] == "gone":
        await run.deps.network.release_ports(run.input.server_id)
    return None


async def release_claim(run: DeleteRun) -> Any:
    if run.outputs["found_gone"] == "gone":
        await run.deps.placement.release(run.input.server_id)
    return None


async def bury(run: DeleteRun) -> Any:
    def end(tx: Transaction) -> None:
        server = SERVERS.get(tx, run.input.server_id)
        if server is not None and not server.deleted:
            server = SERVERS.put(
                tx, changed(server, deleted=True, terminated_at_s=tx.now_s, updated_at_s=tx.now_s, deleting=False)
            )
            store.end_actions(tx, server)
            emit(
                tx, "compute.server.deleted", server.id, server.project_id,
                caller=run.input.caller, operation_id=run.flow.id,
            )  # fmt: skip
        if run.outputs["found_gone"] == "gone":
            INCARNATIONS.delete_where(tx, server_id=run.input.server_id)

    return Effect(end)


def let_go(tx: Transaction, run: DeleteRun, reason: str) -> None:
    """A boot that would not end: the server is as it was, and may be deleted again."""
    server = SERVERS.get(tx, run.input.server_id)
    if server is not None and not server.deleted:
        server = SERVERS.put(tx, changed(server, deleting=False, updated_at_s=tx.now_s))
        store.end_actions(tx, server, action="delete", error=reason[:1000])


DELETE: Final = Saga(
    "server.delete",
    version=1,
    input=DeleteInput,
    steps=(
        Wait("boot_over", until=boot_is_over, within_s=NEVER_S, wake_on=lambda run: f"server:{run.input.server_id}"),
        Step("want_gone", do=want_gone, pivot=True, within_s=3600),
        Wait("found_gone", until=is_gone, within_s=7200, wake_on=lambda run: f"server:{run.input.server_id}"),
        Step("release_ports", do=release_ports, within_s=3600),
        Step("release_claim", do=release_claim, within_s=3600),
        Step("bury", do=bury, within_s=3600),
    ),
    on_unwound=let_go,
)
