"""The image door in process: statuses, shapes, rights, and what is left behind."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from apus.kernel.errors import Conflict, NotFound
from apus.services.image import limits
from apus.services.image.api.bodies import METHODS, PATCH_2_1
from apus.services.image.intake import segment
from apus.services.image.limits import Settings
from apus.services.image.model import MOVES, Status
from tests.doubles import ALICE, BOB, run
from tests.image_cloud import image_cloud

RAW = b"\x01disk bytes" * 30_000
QCOW2 = (
    b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(12) + (16).to_bytes(4, "big") + (1 << 20).to_bytes(8, "big") + bytes(4)
    + (1).to_bytes(4, "big") + (65536).to_bytes(8, "big") + bytes(24) + bytes(28) + (104).to_bytes(4, "big")
    + bytes(65536)
)  # fmt: skip


def test_status_table() -> None:
    assert MOVES.reachable(Status.QUEUED) == set(Status)
    for state in (Status.SAVING, Status.UPLOADING, Status.IMPORTING):
        assert any(source is state and target is Status.QUEUED for (source, _), target in MOVES.moves.items())


def test_life_of_an_image() -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            made = await cloud.ask(
                "POST", "/image/v2/images",
                {"name": "a", "disk_format": "raw", "container_format": "bare", "os_distro": "debian", "tags": ["x"]},
            )  # fmt: skip
            assert made.status == 201
            assert made.headers["location"].endswith(f"/image/v2/images/{made.json['id']}")
            assert made.headers["openstack-image-import-methods"] == ",".join(METHODS)
            assert made.json["status"] == "queued"
            assert made.json["os_distro"] == "debian"
            image_id = made.json["id"]
            assert (await cloud.ask("GET", f"/image/v2/images/{image_id}/file")).status == 204
            assert (await cloud.upload(image_id, RAW)).status == 204
            shown = await cloud.show(image_id)
            assert shown["status"] == "active"
            assert shown["size"] == shown["virtual_size"] == len(RAW)
            assert shown["checksum"] == hashlib.md5(RAW).hexdigest()
            assert shown["os_hash_value"] == hashlib.sha512(RAW).hexdigest()
            got = await cloud.ask("GET", f"/image/v2/images/{image_id}/file")
            assert (got.status, got.body, got.headers["content-md5"]) == (200, RAW, shown["checksum"])
            assert (await cloud.upload(image_id, RAW)).status == 409
            assert (await cloud.ask("DELETE", f"/image/v2/images/{image_id}")).status == 204
            assert (await cloud.ask("GET", f"/image/v2/images/{image_id}")).status == 404
            assert cloud.objects.objects
            await cloud.sweep_once()
            assert not cloud.objects.objects
            assert not await cloud.sweep.keys()

    run(story())


@pytest.mark.parametrize(
    ("header", "status", "part"),
    [
        ("bytes=0-9", 206, RAW[:10]),
        ("bytes=5-", 206, RAW[5:]),
        ("bytes=-7", 206, RAW[-7:]),
        (f"bytes=10-{len(RAW) * 2}", 206, RAW[10:]),
        (f"bytes={len(RAW)}-", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=9-3", 200, RAW),
        ("lines=1-2", 200, RAW),
        ("bytes=" + "9" * 19 + "-", 416, None),
    ],
)
def test_ranges(header: str, status: int, part: bytes | None) -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            image_id = await cloud.image(RAW)
            got = await cloud.ask("GET", f"/image/v2/images/{image_id}/file", headers={"range": header})
            assert got.status == status
            assert part is None or got.body == part

    run(story())


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"id": "no-uuid"}, 400),
        ({"id": 5}, 400),
        ({"name": "x" * 256}, 400),
        ({"name": None}, 201),
        ({"name": "a\0"}, 400),
        ({"custom": "\0"}, 400),
        ({"tags": ["\0"]}, 400),
        ({"disk_format": "floppy"}, 400),
        ({"disk_format": None}, 201),
        ({"container_format": "box"}, 400),
        ({"disk_format": "aki", "container_format": "ari"}, 400),
        ({"min_disk": -1}, 400),
        ({"min_ram": "much"}, 400),
        ({"protected": "yes"}, 400),
        ({"visibility": "public"}, 403),
        ({"visibility": "community"}, 201),
        ({"visibility": "everybody"}, 400),
        ({"status": "active"}, 403),
        ({"locations": []}, 403),
        ({"os_glance_x": "1"}, 403),
        ({"owner": "somebody"}, 403),
        ({"number": 5}, 400),
        ({"kernel_id": None}, 201),
        ({"tags": ["a", "a"]}, 201),
        ({"tags": [""]}, 400),
        ({"tags": [str(i) for i in range(200)]}, 413),
        ({f"p{i}": "x" for i in range(200)}, 413),
        ([], 400),
        (None, 400),
    ],
    ids=str,
)
def test_create_bodies(body: Any, status: int) -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            got = await cloud.ask("POST", "/image/v2/images", body)
            assert got.status == status, got.body

    run(story())


def test_client_given_id() -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            wanted = "11111111-2222-4333-8444-555555555555"
            assert await cloud.image(id=wanted) == wanted
            assert (await cloud.ask("POST", "/image/v2/images", {"id": wanted}, token="bob")).status == 409

    run(story())


@pytest.mark.parametrize(
    ("ops", "status"),
    [
        ([{"op": "replace", "path": "/name", "value": "new"}], 200),
        ([{"op": "add", "path": "/fresh", "value": "1"}], 200),
        ([{"op": "replace", "path": "/old", "value": "2"}], 200),
        ([{"op": "remove", "path": "/old"}], 200),
        ([{"op": "replace", "path": "/absent", "value": "2"}], 409),
        ([{"op": "remove", "path": "/absent"}], 409),
        ([{"op": "remove", "path": "/name"}], 403),
        ([{"op": "replace", "path": "/status", "value": "active"}], 403),
        ([{"op": "add", "path": "/os_glance_stuff", "value": "x"}], 403),
        ([{"op": "replace", "path": "/visibility", "value": "public"}], 403),
        ([{"op": "replace", "path": "/tags", "value": ["t"]}], 200),
        ([{"op": "replace", "path": "/disk_format", "value": "qcow2"}], 403),
        ([{"op": "replace", "path": "/min_disk", "value": 3}], 200),
        ([{"op": "replace", "path": "/os_hidden", "value": True}], 200),
        ([{"op": "replace", "path": "name", "value": "x"}], 400),
        ([{"op": "replace", "path": "/a/b", "value": "x"}], 400),
        ([{"op": "add", "path": "/stores", "value": "object"}], 200),
        ([{"op": "add", "path": "/stores", "value": "elsewhere"}], 403),
        ([{"op": "replace", "path": "/locations/0", "value": "x"}], 403),
        ([{"op": "replace", "path": "/a~2", "value": "x"}], 400),
        ([{"op": "move", "path": "/a"}], 400),
        ([{"op": "add", "path": "/a"}], 400),
        (["x"], 400),
        ({}, 400),
    ],
    ids=str,
)
def test_patch(ops: Any, status: int) -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            image_id = await cloud.image(RAW, old="1")
            path = f"/image/v2/images/{image_id}"
            got = await cloud.ask("PATCH", path, ops, headers={"content-type": PATCH_2_1})
            assert got.status == status, got.body
            assert (await cloud.ask("PATCH", path, ops)).status == 415

    run(story())


def test_refused_uploads_leave_nothing() -> None:
    async def story() -> None:
        async with image_cloud(settings=Settings(image_size_max_bytes=1 << 20)) as cloud:
            lying = await cloud.image(disk_format="qcow2")
            refused = await cloud.upload(lying, RAW)
            assert refused.status == 400
            assert b"declared as qcow2" in refused.body
            disguised = await cloud.image(disk_format="raw")
            assert (await cloud.upload(disguised, QCOW2)).status == 400
            short = await cloud.image(min_disk=0)
            assert (await cloud.upload(short, RAW, **{"x-openstack-image-size": "12"})).status == 400
            large = await cloud.image()
            assert (await cloud.upload(large, bytes((1 << 20) + 1))).status == 413
            cut = await cloud.image()
            await cloud.upload(cut, RAW, cut=True)
            broken = await cloud.image()
            cloud.objects.broken_after = 0
            assert (await cloud.upload(broken, RAW)).status == 503
            cloud.objects.broken_after = None
            typed = await cloud.image()
            assert (await cloud.upload(typed, RAW, **{"content-type": "text/plain"})).status == 415
            bare = await cloud.image(disk_format=None)
            assert (await cloud.upload(bare, RAW)).status == 400
            for image_id in (lying, disguised, short, large, cut, broken, typed, bare):
                shown = await cloud.show(image_id)
                assert (shown["status"], shown["size"]) == ("queued", None)
            await cloud.sweep_once()
            assert not cloud.objects.objects
            assert not await cloud.sweep.keys()
            good = await cloud.image(disk_format="qcow2")
            assert (await cloud.upload(good, QCOW2)).status == 204
            assert (await cloud.show(good))["virtual_size"] == 1 << 20

    run(story())


def test_min_disk_is_a_promise() -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            big = bytearray(QCOW2)
            big[24:32] = (5 << 30).to_bytes(8, "big")
            image_id = await cloud.image(disk_format="qcow2", min_disk=4)
            refused = await cloud.upload(image_id, bytes(big))
            assert refused.status == 400
            assert b"it needs min_disk 5" in refused.body

    run(story())


def test_dead_writer_is_found() -> None:
    """The process is killed midway: nothing of its own cleaning up runs."""

    async def story() -> None:
        async with image_cloud() as cloud:
            image_id = await cloud.image()
            name = await cloud.images._announce(ALICE, image_id, _upload_event())
            cloud.objects.objects["AUTH_image", "images", segment(name, 0)] = b"half"
            await cloud.sweep_once()
            assert (await cloud.show(image_id))["status"] == "saving"
            cloud.world.clock.ahead_s = limits.WRITER_LEASE_S + 1  # type: ignore[attr-defined]
            await cloud.sweep_once()
            assert (await cloud.show(image_id))["status"] == "queued"
            assert not cloud.objects.objects
            assert (await cloud.upload(image_id, RAW)).status == 204

    run(story())


def _upload_event() -> Any:
    from apus.services.image.model import Event

    return Event.UPLOAD


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("size", [0, 1, 99_999, 100_000, 100_001, 250_000])
def test_segments(size: int, declared: bool) -> None:
    async def story() -> None:
        async with image_cloud(settings=Settings(segment_bytes=100_000)) as cloud:
            data = (RAW * 2)[:size]
            image_id = await cloud.image()
            headers = {"x-openstack-image-size": str(size)} if declared else {}
            assert (await cloud.upload(image_id, data, **headers)).status == 204
            assert len(cloud.objects.objects) == max(1, -(-size // 100_000))
            path = f"/image/v2/images/{image_id}/file"
            assert (await cloud.ask("GET", path)).body == data
            if size == 250_000:
                got = await cloud.ask("GET", path, headers={"range": "bytes=99990-200009"})
                assert got.body == data[99_990:200_010]
                cloud.objects.objects.popitem()
            await cloud.images.delete(ALICE, image_id)
            await cloud.sweep_once()
            assert not cloud.objects.objects
            for wrong in (size + 1, max(0, size - 1)):
                if wrong != size:
                    image_id = await cloud.image()
                    refused = await cloud.upload(image_id, data, **{"x-openstack-image-size": str(wrong)})
                    assert refused.status == 400

    run(story())


def test_deleted_while_uploading() -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            image_id = await cloud.image()

            async def chunks() -> Any:
                yield RAW
                await cloud.images.delete(ALICE, image_id)
                yield RAW

            with pytest.raises(Conflict, match="deleted while"):
                await cloud.images.upload(ALICE, image_id, chunks())
            await cloud.sweep_once()
            assert not cloud.objects.objects

    run(story())


def test_store_away_while_sweeping() -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            image_id = await cloud.image(RAW)
            await cloud.images.delete(ALICE, image_id)
            cloud.objects.away = True
            with pytest.raises(Exception, match="no copy"):
                await cloud.sweep_once()
            cloud.objects.away = False
            await cloud.sweep_once()
            assert not cloud.objects.objects

    run(story())


def test_data_missing_is_503_not_a_cut_reply() -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            image_id = await cloud.image(RAW)
            cloud.objects.away = True
            assert (await cloud.ask("GET", f"/image/v2/images/{image_id}/file")).status == 503

    run(story())


def test_imports() -> None:
    async def story() -> None:
        pages = {"http://web/good": RAW, "http://web/bad": QCOW2}
        async with image_cloud(pages) as cloud:
            staged = await cloud.image()
            path = f"/image/v2/images/{staged}/import"
            assert (await cloud.ask("POST", path, {"method": {"name": "glance-direct"}})).status == 409
            assert (await cloud.upload(staged, RAW, to="stage")).status == 204
            assert (await cloud.show(staged))["status"] == "uploading"
            assert (await cloud.ask("POST", path, {"method": {"name": "glance-direct"}})).status == 202
            shown = await cloud.settled(staged)
            assert (shown["status"], shown["size"]) == ("active", len(RAW))
            got = await cloud.ask("GET", f"/image/v2/images/{staged}/file")
            assert got.body == RAW
            tasks = (await cloud.ask("GET", f"/image/v2/images/{staged}/tasks")).json["tasks"]
            assert [task["status"] for task in tasks] == ["success"]

            lying = await cloud.image(disk_format="qcow2")
            await cloud.upload(lying, RAW, to="stage")
            await cloud.ask("POST", f"/image/v2/images/{lying}/import", {"method": {"name": "glance-direct"}})
            shown = await cloud.settled(lying)
            assert shown["status"] == "queued"
            assert "declared as qcow2" in shown["os_glance_failure"]

            for uri, status in (
                ("http://web/good", "active"),
                ("http://web/bad", "queued"),
                ("http://web/no", "queued"),
            ):
                image_id = await cloud.image()
                body = {"method": {"name": "web-download", "uri": uri}}
                assert (await cloud.ask("POST", f"/image/v2/images/{image_id}/import", body)).status == 202
                assert (await cloud.settled(image_id))["status"] == status
            await cloud.sweep_once()
            assert len(cloud.objects.objects) == 2
            for body, status in (
                ({"method": {"name": "web-download", "uri": "file:///etc/passwd"}}, 400),
                ({"method": {"name": "web-download"}}, 400),
                ({"method": {"name": "copy-image"}}, 409),
                ({"method": {"name": "magic"}}, 400),
                ({"method": {"name": "glance-direct"}, "stores": ["nowhere"]}, 400),
                ({}, 400),
            ):
                assert (await cloud.ask("POST", path, body)).status == status

    run(story())


def test_a_source_that_never_answers_is_given_up() -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            image_id = await cloud.image()
            flow = await cloud.images.start_import(ALICE, image_id, "web-download", "http://web/silent")
            await cloud.flows.advance_to_rest(flow.id)
            assert (await cloud.show(image_id))["status"] == "importing"
            cloud.world.clock.ahead_s = limits.ANSWER_WITHIN_S + 10  # type: ignore[attr-defined]
            await cloud.flows.advance_to_rest(flow.id)
            image = await cloud.show(image_id)
            assert (image["status"], image["os_glance_failed_import"]) == ("queued", "object")
            assert "no answer" in image["os_glance_failure"]

    run(story())


def test_deleted_while_importing() -> None:
    async def story() -> None:
        async with image_cloud({"http://web/good": RAW}) as cloud:
            image_id = await cloud.image()
            flow = await cloud.images.start_import(ALICE, image_id, "web-download", "http://web/good")
            await cloud.images.delete(ALICE, image_id)
            await cloud.flows.advance_to_rest(flow.id)
            cloud.world.clock.ahead_s = limits.DOWNLOAD_WITHIN_S + 3600  # type: ignore[attr-defined]
            await cloud.sweep_once()
            assert not cloud.objects.objects
            assert not await cloud.sweep.keys()

    run(story())


def test_staged_and_forgotten() -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            image_id = await cloud.image()
            await cloud.upload(image_id, RAW, to="stage")
            cloud.world.clock.ahead_s = limits.STAGED_FOR_S + 1  # type: ignore[attr-defined]
            await cloud.sweep_once()
            assert (await cloud.show(image_id))["status"] == "queued"
            assert not cloud.objects.objects

    run(story())


def test_members_and_visibility() -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            ask = cloud.ask
            image_id = await cloud.image(RAW)
            path = f"/image/v2/images/{image_id}"
            assert (await ask("GET", path, token="bob")).status == 404
            added = await ask("POST", f"{path}/members", {"member": BOB.project_id})
            assert (added.status, added.json["status"]) == (200, "pending")
            assert (await ask("POST", f"{path}/members", {"member": BOB.project_id})).status == 409
            assert (await ask("GET", path, token="bob")).status == 200
            assert (await ask("GET", f"{path}/file", token="bob")).body == RAW
            listed = "/image/v2/images"
            assert (await ask("GET", listed, token="bob")).json["images"] == []
            assert len((await ask("GET", f"{listed}?member_status=pending", token="bob")).json["images"]) == 1
            member = f"{path}/members/{BOB.project_id}"
            assert (await ask("PUT", member, {"status": "accepted"})).status == 403
            assert (await ask("PUT", member, {"status": "perhaps"}, token="bob")).status == 400
            assert (await ask("PUT", member, {"status": "accepted"}, token="bob")).json["status"] == "accepted"
            assert len((await ask("GET", listed, token="bob")).json["images"]) == 1
            assert len((await ask("GET", f"{path}/members", token="bob")).json["members"]) == 1
            assert (await ask("PUT", f"{path}/tags/t", token="bob")).status == 403
            assert (await ask("DELETE", member, token="bob")).status == 403
            assert (await ask("DELETE", member)).status == 204
            assert (await ask("GET", path, token="bob")).status == 404
            public = await cloud.image(token="admin", visibility="public")
            community = await cloud.image(visibility="community")
            found = {one["id"] for one in (await ask("GET", listed, token="bob")).json["images"]}
            assert found == {public}
            found = {one["id"] for one in (await ask("GET", f"{listed}?visibility=all", token="bob")).json["images"]}
            assert found == {public, community}
            assert (await ask("POST", f"/image/v2/images/{community}/members", {"member": "x"})).status == 403

    run(story())


CROSS = [
    ("GET", "", None), ("PATCH", "", [{"op": "replace", "path": "/name", "value": "x"}]), ("DELETE", "", None),
    ("GET", "/file", None), ("PUT", "/file", None), ("PUT", "/stage", None),
    ("POST", "/import", {"method": {"name": "glance-direct"}}), ("PUT", "/tags/x", None), ("DELETE", "/tags/x", None),
    ("POST", "/actions/deactivate", None), ("POST", "/actions/reactivate", None), ("GET", "/members", None),
    ("POST", "/members", {"member": "p"}), ("GET", "/members/p", None), ("PUT", "/members/p", {"status": "accepted"}),
    ("DELETE", "/members/p", None), ("GET", "/tasks", None),
]  # fmt: skip


def test_another_tenant_sees_nothing() -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            image_id = await cloud.image(RAW)
            before = await cloud.show(image_id)
            for method, rest, body in CROSS:
                kind = PATCH_2_1 if method == "PATCH" else "application/json" if body else "application/octet-stream"
                path = f"/image/v2/images/{image_id}{rest}"
                got = await cloud.ask(method, path, body, token="bob", headers={"content-type": kind})
                assert got.status == 404, (method, rest, got.status)
                got = await cloud.ask(method, path, body, token=None, headers={"content-type": kind})
                assert got.status == 401
                if method != "GET":
                    got = await cloud.ask(method, path, body, token="rita", headers={"content-type": kind})
                    assert got.status == 403
            assert await cloud.show(image_id) == before
            assert (await cloud.ask("GET", "/image/v2/tasks", token="bob")).status == 403

    run(story())


def test_lists() -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            ids = [
                await cloud.image(RAW[: 1000 * (i + 1)], name=f"n{i}", tags=[f"t{i % 2}"], rack=str(i % 3))
                for i in range(6)
            ]
            queued = await cloud.image(name="q,ueer", protected=True)

            async def names(query: str) -> list[str]:
                got = await cloud.ask("GET", f"/image/v2/images?{query}")
                assert got.status == 200, got.body
                return [one["name"] for one in got.json["images"]]

            assert await names("sort=name:asc") == ["n0", "n1", "n2", "n3", "n4", "n5", "q,ueer"]
            assert await names("name=n3") == ["n3"]
            assert sorted(await names('name=in:n1,"q,ueer"')) == ["n1", "q,ueer"]
            assert await names("status=queued") == ["q,ueer"]
            assert len(await names("status=in:queued,active")) == 7
            assert await names("sort_key=size&sort_dir=desc&size_min=4000&size_max=5000") == ["n4", "n3"]
            assert sorted(await names("tag=t0")) == ["n0", "n2", "n4"]
            assert await names("tag=t0&tag=t1") == []
            assert sorted(await names("rack=2")) == ["n2", "n5"]
            assert await names("protected=true") == ["q,ueer"]
            assert await names("os_hidden=true") == []
            assert len(await names(f"owner={ALICE.project_id}")) == 7
            assert await names("owner=nobody") == []
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
            assert len(await names(f"created_at=lt:{now}")) == 7
            assert await names(f"updated_at=gt:{now}") == []
            assert await names("limit=0") == []
            seen, path = [], "/image/v2/images?limit=3&sort=name:asc"
            while path:
                page = (await cloud.ask("GET", path)).json
                seen += [one["name"] for one in page["images"]]
                path = "/image" + page["next"] if "next" in page else ""
            assert seen == ["n0", "n1", "n2", "n3", "n4", "n5", "q,ueer"]
            for query, status in {
                "marker=nothing": 404, "limit=x": 400, "limit=-1": 400, "sort=colour:asc": 400, "sort=name:up": 400,
                "size_min=x": 400, "visibility=odd": 400, "member_status=odd": 400, "created_at=lt:yesterday": 400,
                'name=in:"a': 400, "protected=perhaps": 400,
            }.items():  # fmt: skip
                assert (await cloud.ask("GET", f"/image/v2/images?{query}")).status == status, query
            assert (await cloud.ask("DELETE", f"/image/v2/images/{queued}")).status == 403
            assert (await cloud.ask("DELETE", f"/image/v2/images/{ids[0]}")).status == 204

    run(story())


def test_deactivation_tags_and_info() -> None:
    async def story() -> None:
        async with image_cloud(settings=Settings(project_images_max=2)) as cloud:
            image_id = await cloud.image(RAW)
            path = f"/image/v2/images/{image_id}"
            assert (await cloud.ask("POST", f"{path}/actions/deactivate")).status == 204
            assert (await cloud.ask("POST", f"{path}/actions/deactivate")).status == 204
            assert (await cloud.ask("GET", f"{path}/file")).status == 403
            with pytest.raises(Conflict):
                await cloud.images.boot_image(ALICE, image_id)
            assert (await cloud.ask("POST", f"{path}/actions/reactivate")).status == 204
            assert (await cloud.images.boot_image(ALICE, image_id)).virtual_size_bytes == len(RAW)
            with pytest.raises(NotFound):
                await cloud.images.boot_image(BOB, image_id)
            assert (await cloud.ask("PUT", f"{path}/tags/a%20b")).status == 204
            assert (await cloud.show(image_id))["tags"] == ["a b"]
            assert (await cloud.ask("DELETE", f"{path}/tags/a%20b")).status == 204
            assert (await cloud.ask("DELETE", f"{path}/tags/a%20b")).status == 404
            queued = await cloud.image()
            assert (await cloud.ask("POST", f"/image/v2/images/{queued}/actions/deactivate")).status == 403
            assert (await cloud.ask("POST", "/image/v2/images", {})).status == 413
            for name in ("image", "images", "member", "members", "task", "tasks"):
                assert (await cloud.ask("GET", f"/image/v2/schemas/{name}")).json["name"] == name
            usage = (await cloud.ask("GET", "/image/v2/info/usage")).json["usage"]
            assert usage["image_count_total"] == {"usage": 2, "limit": 2}
            assert (await cloud.ask("GET", "/image/", token=None)).status == 300
            assert (await cloud.ask("GET", "/image/versions", token=None)).status == 200
            assert (await cloud.ask("GET", "/image/v2/info/import")).status == 200

    run(story())


def test_import_file_is_done_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with image_cloud() as cloud:
            data = bytes(range(256)) * (20 << 12)
            path = tmp_path / "root"
            path.write_bytes(data)
            image_id = await cloud.images.import_file(path, "micro", properties={"kernel_id": "k"})
            assert await cloud.images.import_file(path, "micro") == image_id
            shown = await cloud.show(image_id, "bob")
            assert (shown["status"], shown["visibility"], shown["size"]) == ("active", "public", len(data))
            assert shown["os_hash_value"] == hashlib.sha512(data).hexdigest()
            assert b"".join([chunk async for chunk in cloud.images.read(image_id, offset=len(data) - 7)]) == data[-7:]

    run(story())
