"""Sagas as data: named steps with their undo, so that tests can list them and fail each one.

A step runs at least once, so it is idempotent: ids come from `run.child_id`, verbs are *ensure* and *absent*.
Undo means "make sure it is absent" and runs for every step that was ever *started*.  Raising a CloudError that says
`retry` (Unavailable), or anything unexpected, tries again until the step's deadline; any other CloudError refuses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from apus.kernel.flow.log import Flow
from apus.kernel.ids import child_id
from apus.kernel.world import Transaction, World

I = TypeVar("I")  # noqa: E741 - the saga's input
D = TypeVar("D")


@dataclasses.dataclass(frozen=True, slots=True)
class Run(Generic[I, D]):
    """What a step is given: the flow as it stands, its typed input, what earlier steps returned, and its tools."""

    flow: Flow
    input: I
    outputs: Mapping[str, Any]
    deps: D
    world: World
    started_at_s: float
    """When this step was first begun."""

    def child_id(self, what: str) -> str:
        """The same for every retry of this flow."""
        return child_id(self.flow.id, what)


@dataclasses.dataclass(frozen=True, slots=True)
class Effect:
    """A step's change to the local store, committed together with the mark that the step is done."""

    apply: Callable[[Transaction], Any]
    """Returns the step's output.  May raise a CloudError: the step is then refused."""


class Pending:
    """What a Wait returns while it still waits."""


PENDING: Final = Pending()

Do = Callable[[Run[Any, Any]], Awaitable[Any]]


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    name: str
    do: Do
    """Returns the step's output (JSON), or an Effect."""
    undo: Do | None = None
    pivot: bool = False
    """The point of no return: from here on only forward, no refusal allowed."""
    within_s: float = 120.0
    """Retries end after this time; then the step is refused (after the pivot: the flow is stuck)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """Wait until something is found.  Parked as a row; looked at when hinted, and at every scan."""

    name: str
    until: Do
    """Returns PENDING, or the output (or an Effect) when it has come true; raises a CloudError when it never can."""
    within_s: float
    wake_on: Callable[[Run[Any, Any]], str] | None = None
    """The key of the hint, e.g. `server:ID`."""
    undo: Do | None = None
    pivot: bool = False
    late: Callable[[Run[Any, Any]], Exception] | None = None
    """The refusal when the time is over."""


@dataclasses.dataclass(frozen=True, slots=True)
class Saga:
    name: str
    version: int
    input: type[msgspec.Struct]
    steps: Sequence[Step | Wait]
    on_unwound: Callable[[Transaction, Run[Any, Any], str], None] | None = None
    """Tells the resource, in the transaction that ends the flow, that it failed and why."""

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        assert len(set(names)) == len(names), f"{self.name}: step names must differ"
        assert sum(step.pivot for step in self.steps) <= 1, f"{self.name}: one point of no return"

    def step(self, name: str) -> Step | Wait:
        return next(step for step in self.steps if step.name == name)

    def past_pivot(self, flow: Flow) -> bool:
        """Whether the step of no return has been begun (it may have acted)."""
        return any(step.pivot and flow.last_mark(step.name) is not None for step in self.steps)
