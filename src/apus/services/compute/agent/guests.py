"""What the agent needs of the machine it runs on: guests by incarnation, every verb repeatable.

`HypervisorGuests` makes it of images, plugs and the hypervisor driver; `SimGuests` pretends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

from apus.services.compute.contract import HostForward, Power, Wish


class State(NamedTuple):
    """What there is of one guest."""

    power: Power
    boots: int
    reason: str = ""
    """Why it ended, when nobody asked for it."""
    forwards: tuple[HostForward, ...] = ()
    """Known when it is made so; nothing else asks the network."""


class Guests(Protocol):
    async def inventory(self) -> Mapping[str, State]:
        """Every guest that is here, by incarnation: what survived our restart, too."""
        ...

    async def ensure(self, wish: Wish) -> State:
        """Make it so, with all that it needs.  So already: no effect.  A guest that ended by itself stays off until
        a wish has more `boots`.  Raise Unavailable to be called again, any other CloudError when it can never be.
        May be cancelled and called again.
        """
        ...

    async def absent(self, wish: Wish, taken: Callable[[str], bool]) -> None:
        """Nothing of it is left: process, disks, plugs.  Ports that are `taken` stay plugged: another guest of this
        host has them by now, for a user may give a port of his to one server after the other.
        """
        ...

    async def console_log(self, incarnation_id: str, lines: int | None) -> str: ...
