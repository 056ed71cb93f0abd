"""Operations, explanations and hosts as our own API shows them."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from apus.kernel.flow import Flow, FlowState, Mark, Saga, Step, Wait
from apus.services.placement.contract import SILENT_S, Explanation, Host


def time_of(at_s: float | None) -> str | None:
    if at_s is None:
        return None
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s)) + f".{int(at_s % 1 * 1000):03d}Z"


def operation_view(flow: Flow, saga: Saga | None, *, steps: bool = True) -> dict[str, Any]:
    """Where it is, what it waits for and until when; with each step's times if wanted."""
    view: dict[str, Any] = {
        "id": flow.id,
        "kind": flow.saga,
        "resource_type": flow.resource_type,
        "resource_id": flow.resource_id,
        "project_id": flow.project_id,
        "user_id": flow.user_id,
        "request_id": flow.request_id,
        "state": "cancelling" if flow.cancelled and flow.state.live else flow.state.value,
        "direction": "undo" if flow.unwinding else "do",
        "created_at": time_of(flow.created_at_s),
        "finished_at": time_of(flow.finished_at_s),
        "reason": flow.reason,
        "waiting_for": _waiting_for(flow, saga),
    }
    if steps:
        names = [step.name for step in saga.steps] if saga else list(dict.fromkeys(entry.step for entry in flow.log))
        view["steps"] = [_step_view(flow, name, saga) for name in names]
    return view


def _waiting_for(flow: Flow, saga: Saga | None) -> dict[str, Any] | None:
    if not flow.state.live or saga is None:
        return None
    if flow.state is FlowState.STUCK:
        return {"what": "an operator: resume or abandon", "step": None, "deadline": None, "next_look": None}
    step = _current(flow, saga)
    if step is None:
        return None
    return {
        "what": step.name,
        "step": step.name,
        "deadline": time_of(flow.began_at_s(step.name) + step.within_s) if not flow.unwinding else None,
        "next_look": time_of(flow.wake_at_s),
        "attempts": flow.attempts,
    }


def _current(flow: Flow, saga: Saga) -> Step | Wait | None:
    if flow.unwinding:
        touched = [step for step in saga.steps if flow.last_mark(step.name) not in (None, Mark.UNDONE)]
        return touched[-1] if touched else None
    return next((step for step in saga.steps if flow.last_mark(step.name) is not Mark.DONE), None)


def _step_view(flow: Flow, name: str, saga: Saga | None) -> dict[str, Any]:
    entries = [entry for entry in flow.log if entry.step == name]
    step = saga.step(name) if saga else None
    last = entries[-1] if entries else None
    ended = last is not None and last.mark is not Mark.STARTED and last.mark is not Mark.UNDOING
    began_s, ended_s = (entries[0].at_s if entries else None), (last.at_s if last is not None and ended else None)
    return {
        "name": name,
        "kind": "wait" if isinstance(step, Wait) else "step",
        "point_of_no_return": bool(step and step.pivot),
        "state": last.mark.value if last else "pending",
        "started_at": time_of(began_s),
        "finished_at": time_of(ended_s),
        "seconds": None if began_s is None or ended_s is None else round(max(0.0, ended_s - began_s), 6),
        "reason": next((entry.reason for entry in reversed(entries) if entry.reason), None),
    }


def explanation_view(explanation: Explanation, *, names: bool) -> dict[str, Any]:
    """Counts for everybody; names of hosts for operators."""
    view: dict[str, Any] = {
        "subject_id": explanation.subject_id,
        "at": time_of(explanation.at_s),
        "asked": msgspec.to_builtins(explanation.need),
        "hosts_seen": explanation.hosts_seen,
        "placed": explanation.chosen is not None,
        "would_fit": explanation.would_fit,
        "refusals": [],
    }
    for refusal in explanation.refusals:
        one: dict[str, Any] = {"filter": refusal.filter, "hosts": refusal.hosts, "hint": refusal.hint}
        if names:
            one["names"] = list(refusal.names)
        view["refusals"].append(one)
    if names:
        view["chosen"], view["project_id"] = explanation.chosen, explanation.project_id
    else:
        view["asked"].pop("host", None)
    return view


def host_view(host: Host, now_s: float) -> dict[str, Any]:
    return {
        "id": host.id,
        "name": host.name,
        "availability_zone": host.availability_zone,
        "enabled": host.enabled,
        "disabled_reason": host.disabled_reason,
        "up": host.heard_at_s >= now_s - SILENT_S,
        "heard_at": time_of(host.heard_at_s) if host.heard_at_s else None,
        "silent_s": round(max(0.0, now_s - host.heard_at_s), 3) if host.heard_at_s else None,
        "traits": sorted(host.traits),
        "resources": {
            name: {
                "total": one.total,
                "reserved": one.reserved,
                "allocation_ratio": one.allocation_ratio,
                "capacity": one.capacity,
                "used": host.used.get(name, 0),
            }
            for name, one in sorted(host.inventories.items())
        },
    }
