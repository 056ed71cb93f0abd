"""Images over the real object store, in a process's distance: what is kept, what a refusal leaves."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apus.services.image.intake import ACCOUNT, CONTAINER
from apus.services.image.limits import Settings
from apus.services.object.client import ObjectClient
from apus.wire.client import HttpClient
from tests.contract.swift_server import SwiftServer
from tests.doubles import run
from tests.image_cloud import image_cloud

DATA = bytes(range(256)) * 12_000


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    server = SwiftServer(tmp_path_factory.mktemp("drives"))
    yield server
    server.stop()


async def _token() -> str:
    return "boss"


def _listed(swift: SwiftServer) -> list[str]:
    status, _, body = swift.ask("GET", f"/v1/{ACCOUNT}/{CONTAINER}", token="boss")
    return body.decode().split() if status == 200 else []


def test_kept_read_and_removed(swift: SwiftServer, tmp_path: Path) -> None:
    async def story() -> None:
        http = HttpClient("127.0.0.1", swift.port)
        objects = ObjectClient(http, _token)
        async with image_cloud(objects=objects, settings=Settings(segment_bytes=1_000_000)) as cloud:
            for headers in ({}, {"x-openstack-image-size": str(len(DATA))}):
                image_id = await cloud.image()
                assert (await cloud.upload(image_id, DATA, **headers)).status == 204
                shown = await cloud.show(image_id)
                assert shown["os_hash_value"] == hashlib.sha512(DATA).hexdigest()
                path = f"/image/v2/images/{image_id}/file"
                assert (await cloud.ask("GET", path)).body == DATA
                part = await cloud.ask("GET", path, headers={"range": "bytes=999990-1000009"})
                assert part.body == DATA[999_990:1_000_010]
                assert len([name for name in await asyncio.to_thread(_listed, swift) if image_id in name]) == 4
                assert (await cloud.ask("DELETE", f"/image/v2/images/{image_id}")).status == 204
            for wrong in (len(DATA) + 1, len(DATA) - 1, 1_000_000):
                image_id = await cloud.image()
                refused = await cloud.upload(image_id, DATA, **{"x-openstack-image-size": str(wrong)})
                assert refused.status == 400, refused.body
            lying = await cloud.image(disk_format="qcow2")
            assert (await cloud.upload(lying, DATA)).status == 400
            cut = await cloud.image()
            await cloud.upload(cut, DATA, cut=True)
            assert (await cloud.show(cut))["status"] == "queued"
            await cloud.sweep_once()
            assert await asyncio.to_thread(_listed, swift) == []
            assert not swift.uploads_left()
            file = tmp_path / "root"
            file.write_bytes(bytes(range(256)) * (20 << 12))
            began = time.perf_counter()
            image_id = await cloud.images.import_file(file, "micro")
            print(f"20 MB into the real store in {(time.perf_counter() - began) * 1000:.0f} ms")
            got = hashlib.sha512()
            async for chunk in cloud.images.read(image_id):
                got.update(chunk)
            assert got.hexdigest() == hashlib.sha512(file.read_bytes()).hexdigest()
        http.close()

    run(story())
