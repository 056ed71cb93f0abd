"""Our own API, /apus/v1: what happened, what is under way, why it was decided so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, cast

import msgspec

from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from apus.kernel.flow import Flow, FlowRunner, FlowState, load_flow
from apus.kernel.flow.log import page_flows
from apus.kernel.policy import Policy, Rule, require_visible
from apus.kernel.world import Transaction, World
from apus.services.compute.contract import ComputeService
from apus.services.placement.contract import Explanation, PlacementService
from apus.skins.apus import views
from apus.skins.apus.events import EventStreams
from apus.skins.apus.status import StatusBoard
from apus.wire.app import Api
from apus.wire.faults import Faults, errors_fault
from apus.wire.listing import boolean, whole_number
from apus.wire.route import ApiRequest, Reply, Route

PREFIX: Final = "/apus"
_LIMIT_DEFAULT, _LIMIT_MAX = 100, 1000
_SEQ_MAX: Final = (1 << 63) - 1

POLICY: Final[Policy] = {
    "apus:versions": Rule.PUBLIC,
    "event:list": Rule.READER,
    "operation:list": Rule.READER,
    "operation:show": Rule.READER,
    "operation:settle": Rule.ADMIN,
    "explain:show": Rule.READER,
    "host:list": Rule.ADMIN,
    "access:show": Rule.READER,
    "status:show": Rule.ADMIN,
}


class EventsDoor:
    """What the handler of events needs: all there is where objects stand alone."""

    def __init__(self, world: World, streams: EventStreams | None = None) -> None:
        self.world, self.streams = world, streams or EventStreams(world)


class ApusDoor(EventsDoor):
    """What the handlers need."""

    def __init__(
        self,
        world: World,
        flows: FlowRunner,
        placement: PlacementService,
        compute: ComputeService,
        *,
        streams: EventStreams | None = None,
    ) -> None:
        super().__init__(world, streams)
        self.flows, self.placement, self.compute = flows, placement, compute
        self.board = StatusBoard(world, placement)


def apus_api(door: ApusDoor) -> Api:
    return Api(name="apus", prefix=PREFIX, routes=ROUTES, service=door, policy=POLICY, faults=Faults(errors_fault))


def events_api(world: World) -> Api:
    """The events alone, without a cloud."""
    door, faults = EventsDoor(world), Faults(errors_fault)
    return Api(name="apus", prefix=PREFIX, routes=(EVENTS,), service=door, policy=POLICY, faults=faults)


class AbandonBody(msgspec.Struct):
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


def _door(request: ApiRequest) -> ApusDoor:
    return cast(ApusDoor, request.service)


def _scope(request: ApiRequest) -> str | None:
    """The project whose things are shown; None for all: an administrator's wish (`all_projects=1`)."""
    caller = request.who
    if boolean("all_projects", request.query("all_projects") or "false"):
        if not caller.is_admin:
            raise Forbidden("apus.all_projects", "all_projects is for an administrator.")
        return None
    if caller.project_id is None:
        if caller.is_admin:
            return None
        raise Forbidden("apus.no_project", "This needs a token that is scoped to a project.")
    return caller.project_id


async def versions(request: ApiRequest) -> Reply:
    base = f"{request.base_url}{PREFIX}/v1"
    links = [{"rel": "self", "href": f"{base}/"}]
    resources = ("events", "operations", "explain", "hosts", "status")
    return Reply(
        {
            "versions": [{"id": "v1.0", "status": "CURRENT", "links": links}],
            "resources": {name: f"{base}/{name}" for name in resources},
        }
    )


async def events(request: ApiRequest) -> Reply:
    raw = request.headers.get("last-event-id") or request.query("after")
    after = None if raw is None else whole_number("after", raw, minimum=0, maximum=_SEQ_MAX)
    door: EventsDoor = request.service
    stream = await door.streams.open(request, after, _scope(request), request.query("resource_id"))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Reply(stream=stream, headers=headers, content_type="text/event-stream")


async def list_operations(request: ApiRequest) -> Reply:
    raw_state, raw_limit = request.query("state"), request.query("limit")
    try:
        state = None if raw_state is None else FlowState(raw_state)
    except ValueError:
        known = ", ".join(one.value for one in FlowState)
        raise Invalid("apus.state", f"state: {raw_state!r} is not one of: {known}.", field="state") from None
    limit = _LIMIT_DEFAULT if raw_limit is None else whole_number("limit", raw_limit, minimum=1, maximum=_LIMIT_MAX)
    project_id, resource_id, door = _scope(request), request.query("resource_id"), _door(request)

    def work(tx: Transaction) -> Sequence[Flow]:
        return page_flows(tx, project_id=project_id, state=state, resource_id=resource_id, limit=limit)

    found = await door.world.store.read(work)
    return Reply(
        {"operations": [views.operation_view(flow, door.flows.saga_of(flow), steps=False) for flow in found]}
    )  # fmt: skip


async def _operation(request: ApiRequest) -> Flow:
    flow_id, caller = request.params["id"], request.who
    flow = await _door(request).world.store.read(lambda tx: load_flow(tx, flow_id))
    require_visible(caller, flow.project_id, NotFound("operation.not_found", f"There is no operation {flow_id}."))
    return flow


async def show_operation(request: ApiRequest) -> Reply:
    flow = await _operation(request)
    return Reply({"operation": views.operation_view(flow, _door(request).flows.saga_of(flow))})


async def resume_operation(request: ApiRequest) -> Reply:
    door, before = _door(request), await _operation(request)
    flow = await door.flows.resume(before.id)
    return Reply({"operation": views.operation_view(flow, door.flows.saga_of(flow))})


async def abandon_operation(request: ApiRequest) -> Reply:
    door, before = _door(request), await _operation(request)
    if door.flows.saga_of(before) is None:
        raise Conflict("apus.unknown_saga", f"{before.saga} version {before.version} is not run by this process.")
    flow = await door.flows.abandon(before.id, request.body.reason)
    return Reply({"operation": views.operation_view(flow, door.flows.saga_of(flow))})


async def explain(request: ApiRequest) -> Reply:
    subject_id, door, caller = request.params["id"], _door(request), request.who
    missing = NotFound("apus.no_explanation", f"No decision about {subject_id[:80]} is known.")
    found: list[Explanation] = []
    for one in await _subjects(door, caller, subject_id):
        explanation = await door.placement.explain(one)
        if explanation is not None and (caller.is_admin or explanation.project_id == caller.project_id):
            found.append(explanation)
    if not found:
        raise missing
    shown = [views.explanation_view(one, names=caller.is_admin) for one in found]
    return Reply({"explanation": shown[0], "explanations": shown})


async def _subjects(door: ApusDoor, caller: Caller, subject_id: str) -> Sequence[str]:
    """A request stands for what its operations are about (among the newest thousand of the caller's)."""
    if not subject_id.startswith("req-"):
        return (subject_id,)
    project_id = None if caller.is_admin else caller.project_id
    if project_id is None and not caller.is_admin:
        return ()

    def work(tx: Transaction) -> Sequence[str]:
        flows = page_flows(tx, project_id=project_id, state=None, resource_id=None, limit=_LIMIT_MAX)
        return list(dict.fromkeys(flow.resource_id for flow in flows if flow.request_id == subject_id))

    return (subject_id, *await door.world.store.read(work))


async def list_hosts(request: ApiRequest) -> Reply:
    door = _door(request)
    hosts, now_s = sorted(await door.placement.hosts(), key=lambda host: host.name), door.world.clock.now_s()
    return Reply({"hosts": [views.host_view(host, now_s) for host in hosts]})


async def show_status(request: ApiRequest) -> Reply:
    return Reply(await _door(request).board.view())


async def access(request: ApiRequest) -> Reply:
    """How the machine that this cloud runs on reaches a server: at its own address, or through a port of the host."""
    ssh = await _door(request).compute.ssh_address(request.who, request.params["id"])
    return Reply({"access": {"ssh": {"address": ssh.address, "port": ssh.port}}})


EVENTS: Final = Route("GET", "/v1/events", to=events, may="event:list")
ROUTES: Final = (
    Route("GET", "", to=versions, may="apus:versions"),
    Route("GET", "/", to=versions, may="apus:versions"),
    Route("GET", "/v1", to=versions, may="apus:versions"),
    Route("GET", "/v1/", to=versions, may="apus:versions"),
    EVENTS,
    Route("GET", "/v1/operations", to=list_operations, may="operation:list"),
    Route("GET", "/v1/operations/{id}", to=show_operation, may="operation:show"),
    Route("POST", "/v1/operations/{id}/resume", to=resume_operation, may="operation:settle"),
    Route("POST", "/v1/operations/{id}/abandon", to=abandon_operation, may="operation:settle", takes=AbandonBody),
    Route("GET", "/v1/explain/{id}", to=explain, may="explain:show"),
    Route("GET", "/v1/servers/{id}/access", to=access, may="access:show"),
    Route("GET", "/v1/hosts", to=list_hosts, may="host:list"),
    Route("GET", "/v1/status", to=show_status, may="status:show"),
)
