"""Which parts run here: the one place that knows every service's constructor and what is local or remote.

A node is a list of named coroutines.  `wire` makes them for the roles of this process:
control (the APIs and flows), identity (only that door), compute and network (the agents of a host), object.  Identity
and object together are an object store that stands alone; object-proxy and object-disk are one over many hosts.
"""

from __future__ import annotations

import socket
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from apus.kernel import loop as loops
from apus.kernel.settings import Settings
from apus.kernel.world import Clock
from apus.node.http import HttpServer, listen_on
from apus.node.stages import Stages
from apus.node.world import Opened, open_world
from apus.platform.sending import Sender
from apus.wire.metrics import Metrics

if TYPE_CHECKING:
    from apus.node.seams import ControlSeams
    from apus.services.compute.agent.image_cache import ReadImage

Part = tuple[str, Coroutine[Any, Any, None]]


class Wired(Protocol):
    """What one role adds to a node."""

    def parts(self) -> Sequence[Part]: ...

    async def begin(self) -> None:
        """Once all parts run: the first start's work."""
        ...

    async def close(self) -> None: ...


class Node:
    """All that runs in this process."""

    def __init__(self, opened: Opened, stages: Stages, name: str = "") -> None:
        """`name`: shown with the processes that it starts."""
        self.opened, self.stages = opened, stages
        self._sender = Sender(name)
        self.wired: list[Wired] = []
        self._servers: list[HttpServer] = []

    def serve(self, app: Any, listening: socket.socket) -> None:
        self._servers.append(HttpServer(app, listening, self._sender))

    def parts(self) -> Sequence[Part]:
        parts: list[Part] = []
        if self.opened.joined is not None:
            parts.append(("bus", self.opened.joined.run()))
        for wired in self.wired:
            parts.extend(wired.parts())
        parts.extend(("http", server.run()) for server in self._servers)
        return parts

    async def begin(self) -> None:
        for wired in self.wired:
            await wired.begin()

    def stop_serving(self) -> None:
        for server in self._servers:
            server.stop()

    async def close(self) -> None:
        for wired in reversed(self.wired):
            await wired.close()
        self._sender.close()
        await self.opened.close()


def looped(loop: loops.Loop, world_clock: Clock, metrics: Metrics, mailbox: loops.Mailbox | None = None) -> Part:
    """A loop as a part of a node, its rounds measured."""
    return loop.name, loops.drive(loop, mailbox or loops.Mailbox(), world_clock, measured=metrics.round)


async def wire(state_dir: Path, settings: Settings, roles: frozenset[str], stages: Stages) -> Node:
    """Open the world and make the parts.  Raise Unavailable when something that is needed cannot be used."""
    control = bool(roles & {"control", "identity"})
    listening = None
    if control:
        listening = listen_on(settings.bind, settings.port)
    opened = await open_world(state_dir, settings, with_store=control, with_bus=roles != {"object-disk"})
    node = Node(opened, stages, str(state_dir))
    seams: ControlSeams | None = None
    read_image: ReadImage | None = None
    if settings.alone and roles >= {"identity", "object"}:
        from apus.node.alone import wire_alone

        assert listening is not None
        control_part, objects_part, s3 = await wire_alone(state_dir, settings, opened.world, stages)
        node.wired += [control_part, objects_part]
        node.serve(control_part.app, listening)
        if s3 is not None:
            node.serve(s3, listen_on(settings.bind, settings.s3_port))
        return node
    if control:
        from apus.node.control import wire_control

        assert listening is not None
        stages.reached("store and bus opened")
        wired = await wire_control(state_dir, settings, roles, opened.world, stages)
        node.wired.append(wired)
        node.serve(wired.app, listening)
        seams, read_image = wired.seams, wired.read_image
    if "compute" in roles:
        from apus.node.host import image_reader, wire_host
        from apus.node.seams import ask_control

        if seams is None or read_image is None:
            seams = ask_control(opened.world.bus)
            read_image = image_reader(settings, seams)
        node.wired.append(wire_host(state_dir, settings, opened.world, seams, read_image, stages))
    if "object-disk" in roles:
        from apus.node.disks import wire_disks

        node.wired.append(await wire_disks(state_dir, settings, opened.world, stages))
    if roles & {"object", "object-proxy"}:
        from apus.node.objects import wire_objects

        objects = await wire_objects(
            state_dir, settings, opened.world, stages, here=bool({"control", "identity"} & set(settings.roles))
        )
        node.wired.append(objects)
        node.serve(objects.app, listen_on(settings.bind, settings.objects_at))
        if objects.s3 is not None:
            node.serve(objects.s3, listen_on(settings.bind, settings.s3_port))
    return node
