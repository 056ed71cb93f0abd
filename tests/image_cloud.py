"""A cloud of the image service alone, for tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from apus.kernel.errors import Invalid, Unavailable
from apus.kernel.flow import FlowRunner
from apus.kernel.once import OnceStore
from apus.kernel.world import World
from apus.services.image.api.routes import image_api
from apus.services.image.limits import Settings
from apus.services.image.loops.sweep_debris import SweepDebris
from apus.services.image.service import Images
from apus.wire.app import App
from apus.wire.idempotency import StoreReplays
from tests.doubles import Answer, Client, KnownTokens, MemoryObjects, memory_world


class WrittenPages:
    """A Fetcher over a dictionary."""

    def __init__(self, pages: Mapping[str, bytes]) -> None:
        self.pages = dict(pages)

    def check(self, url: str) -> None:
        if not url.startswith("http://web/"):
            raise Invalid("image.uri", "refused", field="method.uri")

    async def fetch(self, url: str) -> AsyncIterator[bytes]:
        if url == "http://web/silent":
            raise Unavailable("image.no_answer", f"{url} could not be fetched: no answer.")
        if url not in self.pages:
            raise Invalid("image.uri", f"{url} answers 404")
        yield self.pages[url]


class Cloud:
    def __init__(self, world: World, objects: MemoryObjects, images: Images, flows: FlowRunner, app: App) -> None:
        self.world, self.objects, self.images, self.flows, self.app = world, objects, images, flows, app
        self.sweep = SweepDebris(world, objects)
        self.ask = Client(app)

    async def sweep_once(self) -> None:
        for key in await self.sweep.keys():
            await self.sweep.settle(key)

    async def image(self, data: bytes | None = None, token: str = "alice", **fields: Any) -> str:
        body = {"name": "one", "disk_format": "raw", "container_format": "bare", **fields}
        made = await self.ask("POST", "/image/v2/images", body, token=token)
        assert made.status == 201, made.body
        if data is not None:
            assert (await self.upload(made.json["id"], data, token=token)).status == 204
        return str(made.json["id"])

    async def upload(
        self, image_id: str, data: bytes, *, token: str = "alice", to: str = "file", cut: bool = False, **headers: str
    ) -> Answer:
        chunks = [data[at : at + 5000] for at in range(0, len(data), 5000)] or [b""]
        sent = {"content-type": "application/octet-stream", **headers}
        path = f"/image/v2/images/{image_id}/{to}"
        return await self.ask("PUT", path, token=token, headers=sent, chunks=chunks, cut=cut)

    async def show(self, image_id: str, token: str = "alice") -> dict[str, Any]:
        return dict((await self.ask("GET", f"/image/v2/images/{image_id}", token=token)).json)

    async def settled(self, image_id: str, token: str = "alice") -> dict[str, Any]:
        """The image once it is no longer importing."""
        async with asyncio.timeout(10):
            while (shown := await self.show(image_id, token))["status"] == "importing":
                await asyncio.sleep(0.005)
        return shown


@contextlib.asynccontextmanager
async def image_cloud(
    pages: Mapping[str, bytes] | None = None,
    settings: Settings | None = None,
    fetcher: Any = None,
    objects: Any = None,
    postgres_url: str | None = None,
) -> AsyncIterator[Cloud]:
    async with memory_world(wrap=OnceStore, postgres_url=postgres_url) as world:
        objects, flows = objects or MemoryObjects(), FlowRunner(world, "test")
        images = Images(world, flows, objects, settings=settings, fetcher=fetcher or WrittenPages(pages or {}))
        app = App([image_api(images)], KnownTokens(), dice=world.dice, replays=StoreReplays(world.store))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(flows.run())
            await asyncio.sleep(0)
            yield Cloud(world, objects, images, flows, app)
            running.cancel()


@contextlib.asynccontextmanager
async def image_app() -> AsyncIterator[App]:
    async with image_cloud() as cloud:
        yield cloud.app


def fixture_file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
