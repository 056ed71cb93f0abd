"""The image service's own SQL, and keyed requests, on PostgreSQL too."""

from __future__ import annotations

import asyncio

import pytest

from tests.doubles import run
from tests.image_cloud import image_cloud

pytestmark = pytest.mark.postgres


def test_life_and_keys(new_database: str) -> None:
    async def story() -> None:
        async with image_cloud({"http://web/x": b"data"}, postgres_url=new_database) as cloud:
            body, headers = {"name": "k", "disk_format": "raw", "container_format": "bare"}, {"idempotency-key": "one"}
            asks = [cloud.ask("POST", "/image/v2/images", body, headers=headers) for _ in range(4)]
            answers = await asyncio.gather(*asks)
            assert {one.status for one in answers} == {201}
            assert len({one.json["id"] for one in answers}) == 1
            image_id = answers[0].json["id"]
            assert (await cloud.upload(image_id, b"data" * 1000)).status == 204
            assert len((await cloud.ask("GET", "/image/v2/images?limit=5")).json["images"]) == 1
            assert (await cloud.ask("GET", "/image/v2/images/%00")).status == 400
            assert (await cloud.ask("GET", "/image/v2/tasks/%00", token="admin")).status < 500
            assert (await cloud.ask("GET", "/image/v2/images?owner=%00&marker=%00")).status == 400
            assert (await cloud.ask("GET", f"/image/v2/images/{image_id}/members/%00")).status == 400
            fetched = await cloud.image()
            method = {"method": {"name": "web-download", "uri": "http://web/x"}}
            assert (await cloud.ask("POST", f"/image/v2/images/{fetched}/import", method)).status == 202
            assert (await cloud.settled(fetched))["status"] == "active"
            for one in (image_id, fetched):
                assert (await cloud.ask("DELETE", f"/image/v2/images/{one}")).status == 204
            await cloud.sweep_once()
            assert not cloud.objects.objects

    run(story())
