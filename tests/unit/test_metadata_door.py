"""What a guest is answered at the metadata address, from documents written here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict
from apus.services.compute.contract import ServerFacts, SshAddress
from apus.skins.metadata.door import PASSWORD_MAX_BYTES, MetadataAnswer, MetadataDoor

PLACE = "openstack/2013-10-17/password"


class OneAddress:
    async def server_at(self, network_id: str, address: str) -> str | None:
        return "server-1" if address == "10.0.0.5" else None


class OneServer:
    """ComputeService with a server that has told nothing yet."""

    def __init__(self) -> None:
        self.password = ""

    async def metadata_for(self, server_id: str) -> Mapping[str, bytes] | None:
        return {PLACE: self.password.encode(), "openstack/latest/meta_data.json": b"{}"}

    async def keep_password(self, server_id: str, password: str) -> None:
        if self.password:
            raise Conflict("compute.password_set", "It is set already.")
        self.password = password

    async def ssh_address(self, caller: Caller, server_id: str) -> SshAddress:
        raise NotImplementedError

    async def server_facts(self, server_id: str) -> ServerFacts | None:
        raise NotImplementedError


def ask(door: MetadataDoor, method: str, path: str, body: bytes = b"", ip: str = "10.0.0.5") -> MetadataAnswer:
    return asyncio.run(door.answer("net", ip, method, path, {}, body))


def test_a_guest_tells_its_password_once() -> None:
    compute = OneServer()
    door = MetadataDoor(OneAddress(), compute)
    assert ask(door, "GET", f"/{PLACE}").body == b""
    assert ask(door, "POST", f"/{PLACE}", b"c2VjcmV0").status == 200
    assert compute.password == "c2VjcmV0"
    assert ask(door, "GET", f"/{PLACE}").body == b"c2VjcmV0"
    assert ask(door, "POST", f"/{PLACE}", b"other").status == 409
    assert compute.password == "c2VjcmV0"


@pytest.mark.parametrize(
    ("path", "body", "ip", "status"),
    [
        (f"/{PLACE}", b"", "10.0.0.5", 400),
        (f"/{PLACE}", b"x" * (PASSWORD_MAX_BYTES + 1), "10.0.0.5", 400),
        (f"/{PLACE}", b"\xff", "10.0.0.5", 400),
        (f"/{PLACE}", b"x", "10.0.0.6", 404),
        ("/openstack/latest/meta_data.json", b"x", "10.0.0.5", 404),
        ("/openstack/2012-08-10/password", b"x", "10.0.0.5", 404),
        ("/", b"x", "10.0.0.5", 404),
    ],
)
def test_nothing_else_is_taken(path: str, body: bytes, ip: str, status: int) -> None:
    compute = OneServer()
    assert ask(MetadataDoor(OneAddress(), compute), "POST", path, body, ip).status == status
    assert compute.password == ""


def test_other_methods_are_refused() -> None:
    answer = ask(MetadataDoor(OneAddress(), OneServer()), "PUT", f"/{PLACE}", b"x")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, POST")
