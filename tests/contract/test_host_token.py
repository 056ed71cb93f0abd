"""What a host can ask the cloud for, whoever it is that speaks for it: the bytes of images, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.contract.planted import PASSWORD, add_person
from tests.contract.whole_cloud import whole_cloud

OCTETS = {"content-type": "application/octet-stream"}


def test_a_host_reads_images_and_nothing_else(tmp_path: Path) -> None:
    async def story() -> None:
        async with whole_cloud(tmp_path, sim_hosts=1) as cloud:
            admin = await cloud.login("admin", cloud.password, "admin")
            project = await cloud.made("POST", "/identity/v3/projects", {"project": {"name": "theirs"}}, admin)
            await add_person(cloud, admin, "dave", project["project"]["id"], "member")
            dave = await cloud.login("dave", PASSWORD, "theirs")
            body = {"name": "private", "disk_format": "raw", "container_format": "bare", "visibility": "private"}
            image = (await cloud.made("POST", "/image/v2/images", body, dave))["id"]
            path = f"/image/v2/images/{image}"
            stored = await cloud.ask("PUT", f"{path}/file", b"disk" * 100, dave, OCTETS)
            assert stored is not None
            assert stored.status == 204

            assert cloud.control.seams is not None
            token = await cloud.control.seams.tokens.image_token()
            read = await cloud.ask("GET", f"{path}/file", None, token)
            assert read is not None
            assert (read.status, read.body) == (200, b"disk" * 100)
            for method, other in (
                ("GET", path), ("DELETE", path), ("PUT", f"{path}/file"), ("GET", "/image/v2/images"),
                ("GET", "/identity/v3/users"), ("GET", "/compute/v2.1/servers"), ("GET", "/network/v2.0/networks"),
                ("GET", f"/v1/AUTH_{project['project']['id']}"), ("GET", "/apus/v1/operations"),
            ):  # fmt: skip
                answer = await cloud.ask(method, other, b"x" if method == "PUT" else None, token, OCTETS)
                assert answer is not None
                assert answer.status in (401, 403), (method, other, answer.status, answer.body)
            again = {
                "auth": {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": {"system": {"all": True}}}
            }
            answer = await cloud.ask("POST", "/identity/v3/auth/tokens", again)
            assert answer is not None
            assert answer.status in (401, 403), answer.body

    asyncio.run(story())
