"""State machines as tables: (state, event) -> state.  Tests walk them: every state reachable, every move named."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

from apus.kernel.errors import Conflict

S = TypeVar("S", bound=Hashable)
E = TypeVar("E", bound=Hashable)


class Machine(Generic[S, E]):
    def __init__(self, name: str, moves: Mapping[tuple[S, E], S]) -> None:
        self.name, self.moves = name, dict(moves)

    def move(self, state: S, event: E) -> S:
        """The next state; raise Conflict naming the states in which the event is possible."""
        try:
            return self.moves[state, event]
        except KeyError:
            possible = ", ".join(sorted(str(source) for source, known in self.moves if known == event)) or "never"
            raise Conflict(
                f"{self.name}.wrong_state",
                f"Cannot {event} a {self.name} that is {state}; that is possible when it is: {possible}.",
            ) from None

    def reachable(self, start: S) -> set[S]:
        seen, todo = {start}, [start]
        while todo:
            state = todo.pop()
            for (source, _), target in self.moves.items():
                if source == state and target not in seen:
                    seen.add(target)
                    todo.append(target)
        return seen
