"""The import flows: killed at every write, refused and repeated at every step, taken over; nothing is left behind."""

from __future__ import annotations

import dataclasses
from typing import Any

from apus.kernel.flow import Flow, FlowRunner, FlowState, Saga
from apus.kernel.record import changed
from apus.kernel.world import World
from apus.services.image import limits
from apus.services.image.flows.import_image import IMPORT_STAGED, IMPORT_URL, ImportInput, ImportTools
from apus.services.image.intake import Intake
from apus.services.image.loops.sweep_debris import SweepDebris
from apus.services.image.model import Image, Status
from apus.services.image.store import DEBRIS, IMAGES, put_debris
from tests.doubles import MemoryObjects
from tests.flow.harness import check_saga
from tests.flow.virtual import memory_world
from tests.image_cloud import WrittenPages

DATA = b"a small disk" * 100
ID = "11111111-2222-4333-8444-555555555555"


@dataclasses.dataclass
class ImageTrial:
    world: World
    deps: ImportTools
    flow_id: str
    objects: MemoryObjects

    async def stir(self) -> None: ...

    async def check(self, flow: Flow) -> None:
        await self.world.clock.sleep(limits.DOWNLOAD_WITHIN_S + limits.STAGED_FOR_S)
        sweep = SweepDebris(self.world, self.objects)
        for key in await sweep.keys():
            await sweep.settle(key)
        image = await self.world.store.read(lambda tx: IMAGES.require(tx, ID))
        assert await self.world.store.read(lambda tx: DEBRIS.count(tx)) == 0
        if flow.state is FlowState.SUCCEEDED:
            assert image.status is Status.ACTIVE
            assert image.data is not None
            assert list(self.objects.objects.values()) == [DATA]
            assert next(iter(self.objects.objects))[2].startswith(image.data.object)
        else:
            assert (image.status, image.data, image.staged, image.incoming) == (Status.QUEUED, None, None, None)
            assert image.failure
            assert not self.objects.objects


async def _prepare(saga: Saga, method: str) -> ImageTrial:
    world, objects = await memory_world(), MemoryObjects()
    tools = ImportTools(Intake(world, objects, limits.Settings()), WrittenPages({"http://web/x": DATA}))
    runner = FlowRunner(world, "starter")
    runner.register(saga, tools)

    def write(tx: Any) -> Image:
        put_debris(tx, "staged", ID, tx.now_s + limits.STAGED_FOR_S)
        image = Image(
            id=ID, project_id="p", created_at_s=0.0, updated_at_s=0.0, disk_format="raw", container_format="bare"
        )
        return IMAGES.insert(tx, changed(image, status=Status.IMPORTING))

    image = await world.store.write(write)
    if method == "glance-direct":

        async def chunks() -> Any:
            yield DATA

        staged = await tools.intake.keep(ID, "staged", chunks())
        await world.store.write(lambda tx: IMAGES.put(tx, changed(image, staged=staged)))
    flow = await world.store.write(
        lambda tx: runner.start(
            tx, saga, ImportInput(image_id=ID, method=method, uri="http://web/x"), resource_type="image",
            resource_id=ID, project_id="p",
        )
    )  # fmt: skip
    return ImageTrial(world, tools, flow.id, objects)


def test_import_staged() -> None:
    assert check_saga(IMPORT_STAGED, lambda saga: _prepare(saga, "glance-direct")) > 10


def test_import_url() -> None:
    assert check_saga(IMPORT_URL, lambda saga: _prepare(saga, "web-download")) > 25
