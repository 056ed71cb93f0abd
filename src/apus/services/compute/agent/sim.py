"""Guests that are not there: for `--sim-hosts`, the simulator and the tests.  Cheap: a thousand hosts in a process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from apus.kernel.errors import NotFound
from apus.kernel.world import Clock
from apus.services.compute.agent.guests import State
from apus.services.compute.contract import Power, Wish
from apus.services.network.contract import HostPlugs, Plug, ServerPort


class SimPlugs:
    """A host's network, pretended."""

    def __init__(self) -> None:
        self.plugged: dict[str, ServerPort] = {}

    async def plug(self, port: ServerPort) -> Plug:
        self.plugged[port.id] = port
        return Plug(port_id=port.id, kind="none", mtu=port.mtu)

    async def unplug(self, port_id: str) -> None:
        self.plugged.pop(port_id, None)


def _console(wish: Wish) -> tuple[str, ...]:
    """What a boot writes: some lines, so that "the last two" and "all" differ."""
    spec = wish.spec
    return (
        f"simulated boot {wish.boots}",
        f"memory {spec.memory_mib} MiB, {spec.vcpus} processors",
        f"network ports: {len(spec.ports)}",
        f"simulated guest {spec.name} is up",
    )


class SimGuests:
    """`mishap(verb, wish)` may raise before `ensure` or `absent` acts.  Survives its agent."""

    def __init__(
        self,
        clock: Clock,
        plugs: HostPlugs | None = None,
        *,
        boot_s: float = 0.0,
        stop_s: float = 0.0,
        mishap: Callable[[str, Wish], None] | None = None,
    ) -> None:
        self._clock, self._plugs, self._boot_s, self._stop_s = clock, plugs, boot_s, stop_s
        self.mishap = mishap
        self.states: dict[str, State] = {}
        self.said: dict[str, list[str]] = {}

    async def inventory(self) -> Mapping[str, State]:
        return dict(self.states)

    async def ensure(self, wish: Wish) -> State:
        if self.mishap is not None:
            self.mishap("ensure", wish)
        now = self.states.get(wish.id, State(Power.OFF, 0))
        runs = now.power in (Power.ON, Power.PAUSED)
        if runs and (wish.power is Power.OFF or now.boots < wish.boots):
            if self._stop_s and not wish.hard:
                await self._clock.sleep(self._stop_s)
            now = self.states[wish.id] = State(Power.OFF, now.boots)
        if wish.power is not Power.OFF and now.power is Power.OFF and now.boots < wish.boots:
            if self._plugs is not None:
                for port in wish.spec.ports:
                    await self._plugs.plug(port)
            if self._boot_s:
                await self._clock.sleep(self._boot_s)
            self.said.setdefault(wish.id, []).extend(_console(wish))
            now = State(Power.ON, wish.boots)
        if wish.power is not Power.OFF and now.power is not Power.OFF:
            now = State(wish.power, now.boots)
        self.states[wish.id] = now
        return now

    async def absent(self, wish: Wish, taken: Callable[[str], bool]) -> None:
        if self.mishap is not None:
            self.mishap("absent", wish)
        self.states.pop(wish.id, None)
        self.said.pop(wish.id, None)
        if self._plugs is not None:
            for port in wish.spec.ports:
                if not taken(port.id):
                    await self._plugs.unplug(port.id)

    async def console_log(self, incarnation_id: str, lines: int | None) -> str:
        if incarnation_id not in self.said:
            raise NotFound("compute.no_console", "The guest has not written anything.")
        said = self.said[incarnation_id]
        return "".join(f"{line}\n" for line in (said if lines is None else said[len(said) - min(lines, len(said)) :]))

    def die(self, incarnation_id: str) -> None:
        """The guest ends by itself."""
        self.states[incarnation_id] = State(Power.OFF, self.states[incarnation_id].boots, "it ended by itself")
