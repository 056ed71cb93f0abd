"""What a new cloud begins with, besides its people: two flavors, a network that all may use, the micro image.

Run at every start; what is there stays as it is, and what an operator deleted is not put back (a mark in the state
directory says that it was made once).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from apus.guest.build import KERNEL_ARGS
from apus.guest.places import micro_dir
from apus.kernel.caller import the_system
from apus.kernel.errors import Unavailable
from apus.kernel.log import get_logger
from apus.kernel.settings import Settings
from apus.kernel.world import World
from apus.node import first_marks
from apus.services.compute.model import Flavor
from apus.services.compute.service import Compute
from apus.services.image.service import Images
from apus.services.network.service.service import NetworkService

FLAVORS: Final = (
    Flavor(id="1", name="m1.micro", vcpus=1, memory_mib=128, disk_gib=1),
    Flavor(id="2", name="m1.small", vcpus=1, memory_mib=512, disk_gib=8),
)
NETWORK: Final = "default"
IMAGE: Final = "micro"
OBJECTS_TRIES: Final = 600
OBJECTS_PAUSE_S: Final = 0.05
STORE_PAUSE_S: Final = 1.0

_log = get_logger("apus.node")


class FirstStart:
    def __init__(
        self,
        state_dir: Path,
        settings: Settings,
        world: World,
        *,
        compute: Compute,
        images: Images,
        network: NetworkService,
        project_id: str,
    ) -> None:
        self._state_dir, self._settings, self._world = state_dir, settings, world
        self._compute, self._images, self._network = compute, images, network
        self._admin = msgspec.structs.replace(the_system(), project_id=project_id)

    async def make(self) -> None:
        for what, make in (("flavors", self._flavors), ("network", self._networks), ("image", self._image)):
            mark = self._state_dir / "made" / what
            while await self._world.disk.stat(mark) is None:
                try:
                    if await self._make_once(what, make):
                        await self._world.disk.write_synced(mark, b"")
                    break
                except Unavailable as error:
                    _log.warning("the first start waits", what=what, why=error.shown)
                    await self._world.clock.sleep(STORE_PAUSE_S)

    async def _make_once(self, what: str, make: Callable[[], Awaitable[bool]]) -> bool:
        store, node = self._world.store, self._settings.node
        if not await first_marks.claim(store, what, node):
            return False
        made = await make()
        await (first_marks.done if made else first_marks.release)(store, what, node)
        return made

    async def _flavors(self) -> bool:
        for flavor in FLAVORS:
            await self._compute.flavors.ensure(flavor)
        return True

    async def _networks(self) -> bool:
        known = [network for network, _ in await self._network.networks(self._admin) if network.name == NETWORK]
        if not known:
            known = await self._network.create_networks(
                self._admin, [{"name": NETWORK, "shared": True, "is_default": True, "host_reachable": True}]
            )
        if not [subnet for subnet in await self._network.subnets(self._admin) if subnet.network_id == known[0].id]:
            fields = {
                "network_id": known[0].id,
                "name": NETWORK,
                "cidr": self._settings.first_network_cidr,
                "ip_version": 4,
            }
            await self._network.create_subnets(self._admin, [fields])
        return True

    async def _image(self) -> bool:
        directory = Path(self._settings.micro_image_dir) if self._settings.micro_image_dir else micro_dir()
        if await self._world.disk.stat(directory / "micro.qcow2") is None:
            _log.warning("there is no micro image; `apus image build micro` makes it", looked_in=str(directory))
            return False
        why = ""
        for _ in range(OBJECTS_TRIES):
            try:
                await self._import(directory)
                return True
            except Unavailable as error:  # the object process is still starting
                why = error.shown
                if error.code == "object.full":
                    break
                await self._world.clock.sleep(OBJECTS_PAUSE_S)
        _log.warning("the micro image is not imported; the next start tries again", why=why)
        return False

    async def _import(self, directory: Path) -> None:
        """The disk starts by itself too; with its kernel beside it the guest is up four seconds sooner."""

        async def add(file: str, name: str, form: str, container: str, **properties: str) -> str:
            return await self._images.import_file(
                directory / file,
                name,
                disk_format=form,
                container_format=container,
                properties=properties,
                project_id=self._admin.project_id,
            )

        kernel = await add("micro-vmlinuz", f"{IMAGE}-kernel", "aki", "aki")
        ramdisk = await add("micro-initrd", f"{IMAGE}-ramdisk", "ari", "ari")
        await add(
            "micro.qcow2", IMAGE, "qcow2", "bare", kernel_id=kernel, ramdisk_id=ramdisk, os_command_line=KERNEL_ARGS
        )
