"""The image door through the unmodified openstacksdk, over a socket."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import openstack
import pytest
from openstack import exceptions

from tests.doubles import BOB, served
from tests.image_cloud import image_app

DATA = b"disk" * 200_000


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(image_app) as base:
        yield f"{base}/image"


def connect(url: str, token: str) -> Any:
    auth = {"endpoint": url, "token": token}
    return openstack.connection.Connection(auth_type="admin_token", auth=auth, image_endpoint_override=url)


@pytest.fixture
def alice(url: str) -> Iterator[Any]:
    with connect(url, "alice") as connection:
        yield connection


def test_upload_and_download(alice: Any) -> None:
    image = alice.image.create_image(
        "sdk", data=DATA, disk_format="raw", container_format="bare", wait=True, os_distro="debian", tags=["a"]
    )
    image = alice.image.get_image(image.id)
    assert (image.status, image.size, image.hash_algo) == ("active", len(DATA), "sha512")
    assert image.hash_value == hashlib.sha512(DATA).hexdigest()
    assert image.os_distro == "debian"
    assert alice.image.download_image(image).content == DATA
    changed = alice.image.update_image(image, name="other", custom="yes")
    assert (changed.name, changed.properties.get("custom")) == ("other", "yes")
    alice.image.add_tag(image, "b")
    assert sorted(alice.image.get_image(image.id).tags) == ["a", "b"]
    alice.image.deactivate_image(image)
    alice.image.reactivate_image(image)
    alice.image.delete_image(image.id)
    with pytest.raises(exceptions.NotFoundException, match="No image found"):
        alice.image.get_image(image.id)


def test_paging(alice: Any) -> None:
    made = {alice.image.create_image(f"page{i}", allow_duplicates=True).id for i in range(5)}
    found = [image.id for image in alice.image.images(limit=2, sort="name:asc")]
    assert made <= set(found)
    assert len(found) == len(set(found))


def test_import_and_stage(alice: Any) -> None:
    image = alice.image.create_image("staged", disk_format="raw", container_format="bare")
    alice.image.stage_image(image, data=DATA)
    alice.image.import_image(image, method="glance-direct")
    image = alice.image.wait_for_status(image, "active", interval=0.05, wait=10)
    assert image.size == len(DATA)
    info = alice.image.get_import_info()
    assert "web-download" in str(info.to_dict())
    assert [store.id for store in alice.image.stores()] == ["object"]


def test_members(alice: Any, url: str) -> None:
    image = alice.image.create_image("shared", disk_format="raw", container_format="bare")
    alice.image.add_member(image, member_id=BOB.project_id)
    with connect(url, "bob") as bob:
        assert bob.image.get_image(image.id).name == "shared"
        bob.image.update_member(BOB.project_id, image.id, status="accepted")
        assert image.id in {one.id for one in bob.image.images()}
    assert [member.status for member in alice.image.members(image)] == ["accepted"]
    alice.image.remove_member(BOB.project_id, image.id)


def test_refusals_are_readable(alice: Any) -> None:
    image = alice.image.create_image("liar", disk_format="qcow2", container_format="bare")
    headers = {"Content-Type": "application/octet-stream"}
    answer = alice.image.put(f"/images/{image.id}/file", data=DATA, headers=headers)
    with pytest.raises(exceptions.BadRequestException, match="declared as qcow2"):
        exceptions.raise_from_response(answer)
    assert alice.image.get_image(image.id).status == "queued"
    assert alice.image.get_image_schema()["name"] == "image"
