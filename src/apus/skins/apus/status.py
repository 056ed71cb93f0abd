"""How the cloud feels, for an operator, in one answer: hosts and since when they are silent, operations by state, and
each stuck one with its reason.  `apus status` and `apus doctor` show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from apus import __version__
from apus.kernel.flow import Flow, FlowState
from apus.kernel.flow.log import count_flows, page_flows
from apus.kernel.world import Transaction, World
from apus.services.placement.contract import PlacementService
from apus.skins.apus.views import host_view, time_of

STUCK_SHOWN_MAX: Final = 100
"""More are counted in `operations`, and listed by /v1/operations?state=stuck."""


class StatusBoard:
    def __init__(self, world: World, placement: PlacementService) -> None:
        self._world, self._placement = world, placement
        self._began_s = world.clock.now_s()

    async def view(self) -> Mapping[str, Any]:
        def work(tx: Transaction) -> tuple[dict[str, int], Sequence[Flow]]:
            counts = {state.value: count_flows(tx, state) for state in FlowState}
            stuck = page_flows(
                tx, project_id=None, state=FlowState.STUCK, resource_id=None, limit=STUCK_SHOWN_MAX
            )
            return counts, stuck

        counts, stuck = await self._world.store.read(work)
        now_s = self._world.clock.now_s()
        hosts = sorted(await self._placement.hosts(), key=lambda host: host.name)
        shown = [host_view(host, now_s) for host in hosts]
        return {
            "version": __version__,
            "started_at": time_of(self._began_s),
            "up_s": round(max(0.0, now_s - self._began_s), 3),
            "hosts": [{key: host[key] for key in ("name", "up", "enabled", "heard_at", "silent_s")} for host in shown],
            "operations": counts,
            "stuck": [_stuck_view(flow) for flow in stuck],
        }


def _stuck_view(flow: Flow) -> Mapping[str, Any]:
    return {
        "id": flow.id,
        "kind": flow.saga,
        "resource_type": flow.resource_type,
        "resource_id": flow.resource_id,
        "project_id": flow.project_id,
        "since": time_of(flow.log[-1].at_s if flow.log else flow.created_at_s),
        "reason": flow.reason,
    }
