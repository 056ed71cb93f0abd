"""Storage policies through the Swift door: chosen with a container, kept for good, and obeyed by the drives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from apus.services.object.model import STRIDE_BYTES
from tests.contract.swift_server import SwiftServer

ACCOUNT = "/v1/AUTH_a"


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    server = SwiftServer(tmp_path_factory.mktemp("swift"), policies={"two": 2, "Four": 4})
    yield server
    server.stop()


def holders(swift: SwiftServer, container: str, name: str) -> int:
    async def count() -> int:
        place = await swift.store.service.engine.place("AUTH_a", container, name)
        await swift.store.cluster.settle()
        heads = [await drive.copies.head(place) for drive in swift.store.drives]
        return sum(head is not None for head in heads)

    return swift.run(count())


@pytest.mark.parametrize(("policy", "copies"), [(None, 3), ("replicated", 3), ("two", 2), ("TWO", 2), ("four", 4)])
@pytest.mark.parametrize("size", [100, 2 * STRIDE_BYTES + 7])
def test_objects_are_kept_as_their_container_says(
    swift: SwiftServer, policy: str | None, copies: int, size: int
) -> None:
    container = f"{policy}-{size}"
    said = {"X-Storage-Policy": policy} if policy else {}
    assert swift.ask("PUT", f"{ACCOUNT}/{container}", **said)[0] == 201
    assert swift.ask("PUT", f"{ACCOUNT}/{container}/o", b"x" * size)[0] == 201
    assert holders(swift, container, "o") == copies
    assert swift.ask("GET", f"{ACCOUNT}/{container}/o")[2] == b"x" * size
    shown = swift.ask("HEAD", f"{ACCOUNT}/{container}")[1]["x-storage-policy"]
    assert shown.lower() == (policy or "replicated").lower()
    assert swift.ask("POST", f"{ACCOUNT}/{container}/o", X_Object_Meta_K="v")[0] == 202
    assert swift.ask("HEAD", f"{ACCOUNT}/{container}/o")[1]["x-object-meta-k"] == "v"
    assert swift.ask("DELETE", f"{ACCOUNT}/{container}/o")[0] == 204
    assert swift.ask("GET", f"{ACCOUNT}/{container}/o")[0] == 404


def test_an_unknown_policy_is_refused_with_those_that_there_are(swift: SwiftServer) -> None:
    status, _, body = swift.ask("PUT", f"{ACCOUNT}/no", X_Storage_Policy="gold")
    assert status == 400
    assert b"replicated, two, Four" in body
    assert swift.ask("HEAD", f"{ACCOUNT}/no")[0] == 404


def test_a_policy_is_for_good(swift: SwiftServer) -> None:
    base = f"{ACCOUNT}/stays"
    assert swift.ask("PUT", base, X_Storage_Policy="two")[0] == 201
    assert swift.ask("PUT", base)[0] == 202
    assert swift.ask("PUT", base, X_Storage_Policy="two")[0] == 202
    assert swift.ask("PUT", base, X_Storage_Policy="replicated")[0] == 409
    assert swift.ask("POST", base, X_Storage_Policy="four")[0] == 204
    assert swift.ask("HEAD", base)[1]["x-storage-policy"] == "two"
    assert swift.ask("DELETE", base)[0] == 204
    assert swift.ask("PUT", base, X_Storage_Policy="four")[0] == 409
    assert swift.ask("PUT", base)[0] == 201
    assert swift.ask("HEAD", base)[1]["x-storage-policy"] == "two"


def test_of_two_that_are_made_at_once_one_wins(swift: SwiftServer) -> None:
    def make(policy: str) -> int:
        return swift.ask("PUT", f"{ACCOUNT}/race", X_Storage_Policy=policy)[0]

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(make, ["two", "four", "replicated"] * 2))
    assert sorted(made) == [201, 202, 409, 409, 409, 409]


def test_versions_are_kept_as_their_container_is(swift: SwiftServer) -> None:
    base = f"{ACCOUNT}/versions"
    assert swift.ask("PUT", base, X_Storage_Policy="four", X_Versions_Enabled="true")[0] == 201
    assert swift.ask("PUT", f"{base}/o", b"one")[0] == 201
    version = swift.ask("HEAD", f"{base}/o")[1]["x-object-version-id"]
    assert swift.ask("PUT", f"{base}/o", b"two")[0] == 201
    assert swift.ask("GET", f"{base}/o?version-id={version}")[2] == b"one"
    policy = swift.run(swift.store.service.directory.policy_of("AUTH_a", "\0versions\0versions"))
    assert policy == 2


def test_accounts_and_info_tell_of_policies(swift: SwiftServer) -> None:
    swift.ask("PUT", "/v1/AUTH_boss/a", token="boss")
    swift.ask("PUT", "/v1/AUTH_boss/b", token="boss", X_Storage_Policy="two")
    swift.ask("PUT", "/v1/AUTH_boss/b/o", b"12345", token="boss")
    seen = swift.ask("HEAD", "/v1/AUTH_boss", token="boss")[1]
    figures = {
        name: [
            seen[f"x-account-storage-policy-{name}-{what}"]
            for what in ("container-count", "object-count", "bytes-used")
        ]
        for name in ("replicated", "two", "four")
    }
    assert figures == {"replicated": ["1", "0", "0"], "two": ["1", "1", "5"], "four": ["0", "0", "0"]}
    policies = json.loads(swift.ask("GET", "/info", token=None)[2])["swift"]["policies"]
    assert [(one["name"], one.get("default", False)) for one in policies] == [
        ("replicated", True), ("two", False), ("Four", False),
    ]  # fmt: skip


def test_quotas_of_a_policy(swift: SwiftServer) -> None:
    account = "/v1/AUTH_b"

    def boss(**headers: str) -> int:
        return swift.ask("POST", account, token="boss", **headers)[0]

    assert swift.ask("PUT", account + "/cheap", token="bob", X_Storage_Policy="two")[0] == 201
    assert swift.ask("PUT", account + "/plain", token="bob")[0] == 201
    for name in ("X_Account_Quota_Bytes_Policy_two", "X_Remove_Account_Quota_Count_Policy_Two"):
        assert swift.ask("POST", account, token="bob", **{name: "1"})[0] == 403
    assert boss(X_Account_Quota_Bytes_Policy_two="x") == 400
    assert boss(X_Account_Quota_Bytes_Policy_two="5") == 204
    assert swift.ask("HEAD", account, token="bob")[1]["x-account-quota-bytes-policy-two"] == "5"
    assert swift.ask("PUT", account + "/cheap/1", b"xxx", token="bob")[0] == 201
    assert swift.ask("PUT", account + "/cheap/2", b"xxx", token="bob")[0] == 413
    assert swift.ask("PUT", account + "/plain/2", b"xxx", token="bob")[0] == 201
    assert boss(X_Remove_Account_Quota_Bytes_Policy_Two="x", X_Account_Quota_Count_Policy_Two="1") == 204
    headers = swift.ask("HEAD", account, token="bob")[1]
    assert headers["x-account-quota-count-policy-two"] == "1"
    assert "x-account-quota-bytes-policy-two" not in headers
    assert swift.ask("PUT", account + "/cheap/2", b"", token="bob")[0] == 413
    assert boss(X_Account_Quota_Count_Policy_Two="") == 204
    assert swift.ask("PUT", account + "/cheap/2", b"", token="bob")[0] == 201
