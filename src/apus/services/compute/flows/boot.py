"""Boot: a host, ports, a wish; then the host makes it so.

Before the pivot everything unwinds.  A guest that a host may still run is never forgotten: when its host does not
say "gone" soon, the claim and the ports stay for the sweep, which frees them when it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, NoRoom, Unavailable
from apus.kernel.events import emit
from apus.kernel.flow import PENDING, Effect, Run, Saga, Step, Wait
from apus.kernel.record import changed
from apus.kernel.world import Transaction
from apus.services.compute import store
from apus.services.compute.contract import GuestSpec, Power
from apus.services.compute.flows.tools import Tools
from apus.services.compute.model import Fault, Group, Incarnation, Server
from apus.services.compute.store import INCARNATIONS, SERVERS
from apus.services.placement.contract import Need

BOOT_WITHIN_S: Final = 600.0
"""Most of it for the first download of a large image."""
GONE_TRIES: Final = 6
"""Undo waits some seconds for the host's "gone", then leaves the rest to the sweep."""


class BootInput(msgspec.Struct, frozen=True):
    server_id: str
    caller: Caller


BootRun = Run[BootInput, Tools]


async def _server(run: BootRun) -> Server:
    return await run.world.store.read(lambda tx: SERVERS.require(tx, run.input.server_id))


def _need(server: Server, members: tuple[str, ...], group: Group | None) -> Need:
    flavor = server.flavor
    resources = {"VCPU": flavor.vcpus, "MEMORY_MB": flavor.memory_mib}
    disk_gib = flavor.disk_gib + flavor.ephemeral_gib + -(-flavor.swap_mib // 1024)
    if disk_gib:
        resources["DISK_GB"] = disk_gib
    traits = {key[6:]: value for key, value in flavor.extra_specs.items() if key.startswith("trait:")}
    for key, value in flavor.extra_specs.items():
        if key.startswith("resources:") and value.isdigit():
            resources[key[10:]] = int(value)
    policy = "" if group is None else group.policy
    rule = policy.removeprefix("soft-")
    return Need(
        resources={name: amount for name, amount in resources.items() if amount},
        required_traits=tuple(sorted(name for name, value in traits.items() if value == "required")),
        forbidden_traits=tuple(sorted(name for name, value in traits.items() if value == "forbidden")),
        availability_zone=server.availability_zone,
        host=server.wanted_host,
        same_host_as=(*server.same_host, *(members if rule == "affinity" else ())),
        different_host_from=server.different_host,
        spread_from=members if rule == "anti-affinity" else (),
        spread_max=1 if group is None else group.rules.get("max_server_per_host", 1),
        soft=policy.startswith("soft-"),
    )


async def claim_host(run: BootRun) -> Any:
    def ask(tx: Transaction) -> tuple[Server, tuple[str, ...], Group | None]:
        server = SERVERS.require(tx, run.input.server_id)
        if server.group_id is None:
            return server, (), None
        group = store.GROUPS.get(tx, server.group_id)
        members = SERVERS.find(tx, group_id=server.group_id, deleted=False)
        ids = tuple(member.id for member in members if member.id != server.id)
        return server, ids, group

    server, members, group = await run.world.store.read(ask)
    need = _need(server, members, group)
    try:
        claim = await run.deps.placement.claim(server.id, need, server.project_id, server.user_id, ())
    except NoRoom as error:
        # Room may come, but whoever asked wants to know now.
        raise Conflict(error.code, f"No valid host was found. {error.shown}", details=error.details) from error

    def placed(tx: Transaction) -> dict[str, str]:
        now = SERVERS.require(tx, server.id)
        if now.host != claim.host:
            SERVERS.put(tx, changed(now, host=claim.host, updated_at_s=tx.now_s))
        return {"host": claim.host}

    return Effect(placed)


async def release_host(run: BootRun) -> Any:
    if not await _handed_over(run):
        await run.deps.placement.release(run.input.server_id)
    return Effect(_server_change(run, host=None))


async def bind_ports(run: BootRun) -> Any:
    server = await _server(run)
    host = run.outputs["claim_host"]["host"]
    try:
        ports = tuple(
            await run.deps.network.ensure_ports(
                server.id, server.name, run.input.caller, server.port_asks, server.security_groups, host
            )
        )
    except NoRoom as error:
        raise Conflict(error.code, error.shown) from error
    return Effect(_server_change(run, ports=ports))


async def unbind_ports(run: BootRun) -> Any:
    if not await _handed_over(run):
        await run.deps.network.release_ports(run.input.server_id)
    return Effect(_server_change(run, ports=()))


async def write_wish(run: BootRun) -> Any:
    id = run.child_id("incarnation")

    def want(tx: Transaction) -> str:
        server = SERVERS.require(tx, run.input.server_id)
        host: str = run.outputs["claim_host"]["host"]
        known = INCARNATIONS.get(tx, id)
        if known is None:
            seq = store.next_seq(tx, host)
            known = INCARNATIONS.insert(
                tx, Incarnation(id=id, server_id=server.id, host=host, seq=seq, power=Power.ON, spec=_spec(server))
            )
            SERVERS.put(tx, changed(server, incarnation_id=id, wanted=Power.ON, wanted_seq=seq, updated_at_s=tx.now_s))
        tx.after_commit(lambda: run.deps.kick(host))
        return id

    return Effect(want)


async def retire_wish(run: BootRun) -> Any:
    """Want it gone, and give the host some seconds to say that it is."""
    host = run.outputs["claim_host"]["host"]

    def want_gone(tx: Transaction) -> bool:
        left = store.retire(tx, run.input.server_id)
        tx.after_commit(lambda: run.deps.kick(host))
        return not left

    gone = await run.world.store.write(want_gone)
    if not gone and run.flow.attempts < GONE_TRIES:
        raise Unavailable("compute.not_gone_yet", "The host has not said yet that the guest is gone.")

    def forget(tx: Transaction) -> None:
        if gone:
            INCARNATIONS.delete_where(tx, server_id=run.input.server_id)
        _server_change(run, incarnation_id=None)(tx)

    return Effect(forget)


async def is_on(run: BootRun) -> Any:
    def look(tx: Transaction) -> Incarnation | None:
        return INCARNATIONS.get(tx, run.outputs["want_on"])

    incarnation = await run.world.store.read(look)
    found = incarnation.found if incarnation is not None else None
    if incarnation is None or found is None or found.seq < incarnation.seq:
        return PENDING
    if found.error is not None:
        raise Conflict("compute.boot_failed", f"The host {incarnation.host} could not start it: {found.error}")
    if found.power not in (Power.ON, Power.PAUSED):
        raise Conflict("compute.boot_failed", f"The guest ended as soon as it was started on {incarnation.host}.")
    return "on"


async def activate(run: BootRun) -> Any:
    def point(tx: Transaction) -> None:
        server = SERVERS.require(tx, run.input.server_id)
        if server.launched_at_s is None:
            server = SERVERS.put(tx, changed(server, launched_at_s=tx.now_s, updated_at_s=tx.now_s))
            store.end_actions(tx, server, action="create")
            emit(
                tx, "compute.server.active", server.id, server.project_id,
                caller=run.input.caller, operation_id=run.flow.id, host=server.host,
            )  # fmt: skip
        tx.after_commit(lambda: run.deps.runner.wake(f"server:{server.id}"))

    return Effect(point)


def tell_failure(tx: Transaction, run: BootRun, reason: str) -> None:
    server = SERVERS.get(tx, run.input.server_id)
    if server is not None and not server.deleted:
        fault = Fault(code=500, message=reason[:1000], at_s=tx.now_s)
        server = SERVERS.put(tx, changed(server, error=True, fault=fault, updated_at_s=tx.now_s))
        store.end_actions(tx, server, action="create", error=reason[:1000])
        emit(
            tx, "compute.server.failed", server.id, server.project_id,
            caller=run.input.caller, operation_id=run.flow.id, reason=reason,
        )  # fmt: skip
    tx.after_commit(lambda: run.deps.runner.wake(f"server:{run.input.server_id}"))


async def _handed_over(run: BootRun) -> bool:
    """Whether the host did not say in time that the guest is gone: then the orphan sweep gives back ports and claim.

    It is decided once, in `retire_wish`: were each undo to ask the host's newest word, it could come between two of
    them, and what the first left would be nobody's.
    """
    return bool(await run.world.store.read(lambda tx: INCARNATIONS.find(tx, server_id=run.input.server_id)))


def _server_change(run: BootRun, **fields: Any) -> Callable[[Transaction], None]:
    def change(tx: Transaction) -> None:
        server = SERVERS.get(tx, run.input.server_id)
        if server is not None:
            SERVERS.put(tx, changed(server, updated_at_s=tx.now_s, **fields))

    return change


def _spec(server: Server) -> GuestSpec:
    return GuestSpec(
        name=server.hostname,
        vcpus=server.flavor.vcpus,
        memory_mib=server.flavor.memory_mib,
        disk_gib=server.flavor.disk_gib,
        ephemeral_gib=server.flavor.ephemeral_gib,
        swap_mib=server.flavor.swap_mib,
        image=server.image,
        kernel=server.kernel,
        ramdisk=server.ramdisk,
        kernel_args=server.image.properties.get("os_command_line", "") if server.image else "",
        ports=server.ports,
        config_drive=server.config_drive,
        extra_specs=server.flavor.extra_specs,
    )


BOOT: Final = Saga(
    "server.boot",
    version=1,
    input=BootInput,
    steps=(
        Step("claim_host", do=claim_host, undo=release_host),
        Step("bind_ports", do=bind_ports, undo=unbind_ports),
        Step("want_on", do=write_wish, undo=retire_wish),
        Wait(
            "found_on",
            until=is_on,
            within_s=BOOT_WITHIN_S,
            wake_on=lambda run: f"server:{run.input.server_id}",
            late=lambda run: Conflict(
                "compute.boot_late", f"The host {run.outputs['claim_host']['host']} did not start it in time."
            ),
        ),
        Step("activate", do=activate, pivot=True),
    ),
    on_unwound=tell_failure,
)
