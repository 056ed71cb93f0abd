"""Sagas: work that must be all or nothing, as named steps with undo, a log and a lease."""

from apus.kernel.flow.fence import FencedStore
from apus.kernel.flow.log import Flow, FlowState, LogEntry, Mark, flows_of, live_flow, live_flows, load_flow
from apus.kernel.flow.run import FlowRunner, live_key
from apus.kernel.flow.step import PENDING, Effect, Pending, Run, Saga, Step, Wait

__all__ = [
    "PENDING",
    "Effect",
    "FencedStore",
    "Flow",
    "FlowRunner",
    "FlowState",
    "LogEntry",
    "Mark",
    "Pending",
    "Run",
    "Saga",
    "Step",
    "Wait",
    "flows_of",
    "live_flow",
    "live_flows",
    "live_key",
    "load_flow",
]
