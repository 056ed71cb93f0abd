"""Actions of servers: the body's one key names what shall be done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from apus.kernel.errors import Conflict, Invalid
from apus.services.compute.api.bodies import number
from apus.services.compute.api.servers import compute_of
from apus.wire.route import ApiRequest, Reply


async def act(request: ApiRequest) -> Reply:
    """The body's one key names the action."""
    body = request.body
    names = list(body)
    if len(names) != 1:
        raise Invalid("compute.action_unknown", "The body of an action has exactly one key: its name.")
    name, argument = names[0], body[names[0]]
    handler = ACTIONS.get(name)
    if handler is None:
        server = await compute_of(request).server(request.who, request.params["id"])
        known = ", ".join(sorted(ACTIONS))
        if name in NOT_HERE:
            raise Conflict(
                "compute.not_supported",
                f"{name}: this cloud cannot do that with instance {server.id} yet; it can: {known}.",
            )
        raise Invalid("compute.action_unknown", f"There is no such action: {name[:60]}; possible: {known}.")
    return await handler(request, argument)


Act = Callable[[ApiRequest, Any], Awaitable[Reply]]

NOT_HERE: Final = frozenset({
    "createImage", "createBackup", "resize", "confirmResize", "revertResize", "rebuild", "rescue", "unrescue",
    "suspend", "resume", "shelve", "unshelve", "shelveOffload", "migrate", "os-migrateLive", "evacuate",
    "changePassword", "addFixedIp", "removeFixedIp", "addFloatingIp", "removeFloatingIp", "trigger_crash_dump",
    "os-getVNCConsole", "os-getSPICEConsole", "os-getSerialConsole", "os-getRDPConsole", "restore",
})  # fmt: skip


def _power(action: str) -> Act:
    async def do(request: ApiRequest, argument: Any) -> Reply:
        await compute_of(request).power(request.who, request.params["id"], action)
        return Reply()

    return do


async def _reboot(request: ApiRequest, argument: Any) -> Reply:
    kind = argument.get("type") if isinstance(argument, dict) else None
    if not isinstance(kind, str) or kind.upper() not in ("SOFT", "HARD"):
        raise Invalid("compute.reboot", "reboot.type: it is either SOFT or HARD.", field="reboot.type")
    action = "reboot_hard" if kind.upper() == "HARD" else "reboot"
    await compute_of(request).power(request.who, request.params["id"], action)
    return Reply()


async def _lock(request: ApiRequest, argument: Any) -> Reply:
    reason = argument.get("locked_reason") if isinstance(argument, dict) else None
    if reason is not None and (not isinstance(reason, str) or not 1 <= len(reason) <= 255):
        raise Invalid("compute.lock", "lock.locked_reason: a text of 1 to 255 characters.", field="lock.locked_reason")
    await compute_of(request).lock(request.who, request.params["id"], True, reason)
    return Reply()


async def _unlock(request: ApiRequest, argument: Any) -> Reply:
    await compute_of(request).lock(request.who, request.params["id"], False, None)
    return Reply()


async def _reset_state(request: ApiRequest, argument: Any) -> Reply:
    state = argument.get("state") if isinstance(argument, dict) else None
    if state not in ("active", "error"):
        raise Invalid(
            "compute.state", "os-resetState.state: it is either active or error.", field="os-resetState.state"
        )
    await compute_of(request).reset_state(request.who, request.params["id"], state == "error")
    return Reply()


async def _console_output(request: ApiRequest, argument: Any) -> Reply:
    lines = argument.get("length") if isinstance(argument, dict) else None
    if lines is not None:
        lines = number("os-getConsoleOutput.length", lines, -1)
        lines = None if lines == -1 else lines
    output = await compute_of(request).console_output(request.who, request.params["id"], lines)
    # so many lines and no more, for who splits at newlines, as Tempest does
    return Reply({"output": output if lines is None else output.removesuffix("\n")}, status=200)


async def _force_delete(request: ApiRequest, argument: Any) -> Reply:
    await compute_of(request).delete(request.who, request.params["id"])
    return Reply()


def _regroup(name: str, *, add: bool) -> Act:
    async def do(request: ApiRequest, argument: Any) -> Reply:
        group = argument.get("name") if isinstance(argument, dict) else None
        if not isinstance(group, str) or not 1 <= len(group) <= 255:
            raise Invalid("compute.group", f"{name}.name: the name or id of a security group.", field=f"{name}.name")
        await compute_of(request).regroup(request.who, request.params["id"], group, add=add)
        return Reply()

    return do


async def _network_info(request: ApiRequest, argument: Any) -> Reply:
    """Nova's libvirt driver has nothing to do for these two either: guests ask for their addresses themselves."""
    await compute_of(request).server(request.who, request.params["id"], "server:network_info")
    return Reply()


ACTIONS: Final[Mapping[str, Act]] = {
    "os-start": _power("start"),
    "os-stop": _power("stop"),
    "reboot": _reboot,
    "pause": _power("pause"),
    "unpause": _power("unpause"),
    "lock": _lock,
    "unlock": _unlock,
    "os-resetState": _reset_state,
    "os-getConsoleOutput": _console_output,
    "forceDelete": _force_delete,
    "addSecurityGroup": _regroup("addSecurityGroup", add=True),
    "removeSecurityGroup": _regroup("removeSecurityGroup", add=False),
    "injectNetworkInfo": _network_info,
    "resetNetwork": _network_info,
}
