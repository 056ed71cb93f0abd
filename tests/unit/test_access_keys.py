"""EC2 keys: no more than what made them may do, and tokens for requests that were signed with them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from keystoneclient.contrib.ec2.utils import Ec2Signer

from apus.kernel.errors import Unauthenticated
from apus.services.identity.logic.signed_request import SignedRequest, is_fresh, is_right, is_right_text
from apus.services.identity.logic.signing import signing_key
from tests.identity_cloud import ADMIN_PASSWORD, DEMO_PASSWORD
from tests.unit.test_identity_service import Client, on, run

KEY_OF = ("20260131", "RegionOne", "s3")


async def ec2_key(client: Client, token: str) -> dict[str, str]:
    caller = client.identity.verifier.verify(token)
    path = f"/v3/users/{caller.user_id}/credentials/OS-EC2"
    made: dict[str, str] = (await client.ok("POST", path, {"tenant_id": caller.project_id}, token=token))["credential"]
    return made


async def app_credential(client: Client, token: str, **fields: Any) -> tuple[str, str]:
    """Its id, and a token of it."""
    user_id = client.identity.verifier.verify(token).user_id
    body = {"application_credential": {"name": f"app-{len(fields)}", **fields}}
    path = f"/v3/users/{user_id}/application_credentials"
    made = (await client.ok("POST", path, body, token=token))["application_credential"]
    proof = {"id": made["id"], "secret": made["secret"]}
    auth = {"identity": {"methods": ["application_credential"], "application_credential": proof}}
    status, headers, reply = await client.call("POST", "/v3/auth/tokens", {"auth": auth}, token="")
    assert status == 201, reply
    return made["id"], headers["x-subject-token"]


async def trust_token(client: Client, trustor: str, trustee: str) -> str:
    """Of a trust that impersonates."""
    giver, taker = (client.identity.verifier.verify(token) for token in (trustor, trustee))
    trust = {
        "trustor_user_id": giver.user_id,
        "trustee_user_id": taker.user_id,
        "project_id": giver.project_id,
        "impersonation": True,
        "roles": [{"name": "reader"}],
    }
    made = await client.ok("POST", "/v3/OS-TRUST/trusts", {"trust": trust}, token=trustor)
    identity = {"methods": ["token"], "token": {"id": trustee}}
    auth = {"identity": identity, "scope": {"OS-TRUST:trust": {"id": made["trust"]["id"]}}}
    status, headers, reply = await client.call("POST", "/v3/auth/tokens", {"auth": auth}, token="")
    assert status == 201, reply
    return headers["x-subject-token"]


def test_a_key_can_do_no_more_than_the_application_credential_that_made_it() -> None:
    async def work(client: Client) -> None:
        demo = await client.login("demo", DEMO_PASSWORD, on("demo"))
        id, token = await app_credential(client, demo, roles=[{"name": "reader"}], unrestricted=True)
        made = await ec2_key(client, token)
        found = await client.identity.signing_key(made["access"], *KEY_OF)
        assert found is not None
        assert found[0] == signing_key(made["secret"], *KEY_OF)
        assert found[1].roles == {"reader"}
        user_id = found[1].user_id
        await client.ok("DELETE", f"/v3/users/{user_id}/application_credentials/{id}", token=demo)
        assert await client.identity.signing_key(made["access"], *KEY_OF) is None
        path = f"/v3/users/{user_id}/credentials/OS-EC2/{made['access']}"
        assert (await client.call("GET", path, token=demo))[0] == 404

    run(work)


def test_who_has_a_part_of_the_rights_neither_makes_nor_sees_nor_changes_the_users_secrets() -> None:
    async def work(client: Client) -> None:
        demo = await client.login("demo", DEMO_PASSWORD, on("demo"))
        caller = client.identity.verifier.verify(demo)
        made = await ec2_key(client, demo)
        keys = f"/v3/users/{caller.user_id}/credentials/OS-EC2"
        id = hashlib.sha256(made["access"].encode()).hexdigest()
        tokens = {
            "trust": await trust_token(client, demo, await client.login("admin", ADMIN_PASSWORD)),
            "restricted": (await app_credential(client, demo))[1],
            "unrestricted": (await app_credential(client, demo, unrestricted=True))[1],
            "key": (await signed_with(client, made))[0],
        }
        for name, token in tokens.items():
            if name != "unrestricted":
                assert (await client.call("POST", keys, {"tenant_id": caller.project_id}, token=token))[0] == 403
                body = {"credential": {"type": "x", "blob": "x"}}
                assert (await client.call("POST", "/v3/credentials", body, token=token))[0] == 403
                path = f"/v3/users/{caller.user_id}/application_credentials"
                app = {"application_credential": {"name": "more"}}
                assert (await client.call("POST", path, app, token=token))[0] == 403
            change = {"credential": {"blob": json.dumps({"access": "mine", "secret": "mine"})}}
            assert (await client.call("PATCH", f"/v3/credentials/{id}", change, token=token))[0] == 403
            for path in (f"{keys}/{made['access']}", f"/v3/credentials/{id}"):
                assert (await client.call("GET", path, token=token))[0] == 403
                assert (await client.call("DELETE", path, token=token))[0] == 403
            assert (await client.ok("GET", "/v3/credentials", token=token))["credentials"] == []
            status, _, reply = await client.call("GET", keys, token=token)
            assert status == 403 or reply["credentials"] == [], name
        own = await ec2_key(client, tokens["unrestricted"])
        seen = (await client.ok("GET", keys, token=tokens["unrestricted"]))["credentials"]
        assert [each["access"] for each in seen] == [own["access"]]
        assert len((await client.ok("GET", keys, token=demo))["credentials"]) == 2

    run(work)


def test_a_trust_of_an_application_credential_gives_no_more_than_that_has() -> None:
    async def work(client: Client) -> None:
        demo = await client.login("demo", DEMO_PASSWORD, on("demo"))
        _, token = await app_credential(client, demo, roles=[{"name": "reader"}], unrestricted=True)
        caller = client.identity.verifier.verify(token)
        trust = {
            "trustor_user_id": caller.user_id,
            "trustee_user_id": client.identity.verifier.verify(client.token).user_id,
            "project_id": caller.project_id,
            "impersonation": True,
        }
        member = {"trust": {**trust, "roles": [{"name": "member"}]}}
        assert (await client.call("POST", "/v3/OS-TRUST/trusts", member, token=token))[0] == 404
        reader = {"trust": {**trust, "roles": [{"name": "reader"}]}}
        await client.ok("POST", "/v3/OS-TRUST/trusts", reader, token=token)

    run(work)


# ------------------------------------------------------------------------------------------- signed requests
def version_2(made: dict[str, str], at: float) -> dict[str, Any]:
    """As heat's EC2 door hands it on."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    params = {"SignatureVersion": "2", "AWSAccessKeyId": made["access"], "Timestamp": stamp, "Action": "Describe é&="}
    asked = {"host": "ec2.test:8773", "verb": "GET", "path": "/services/Cloud", "params": params}
    signature = Ec2Signer(made["secret"]).generate({**asked, "params": dict(params)})
    params["SignatureMethod"] = "HmacSHA256"
    return {**asked, "access": made["access"], "signature": signature}


def version_4(made: dict[str, str], body: bytes = b"Action=Describe") -> dict[str, Any]:
    request = AWSRequest("POST", "http://ec2.test:8773/services/Cloud?b=2&a=1", data=body)
    SigV4Auth(Credentials(made["access"], made["secret"]), "ec2", "nova").add_auth(request)
    headers = {**dict(request.headers.items()), "Host": "ec2.test:8773"}
    return {
        "access": made["access"],
        "signature": headers["Authorization"].rpartition("Signature=")[2],
        "host": "ec2.test:8773",
        "verb": "POST",
        "path": "/services/Cloud",
        "params": {"b": "2", "a": "1"},
        "headers": headers,
        "body_hash": hashlib.sha256(body).hexdigest(),
    }


async def signed_with(client: Client, made: dict[str, str], **changed: Any) -> tuple[str, Any]:
    body = {"credentials": {**version_4(made), **changed}}
    status, headers, reply = await client.call("POST", "/v3/ec2tokens", body)
    assert status == 200, reply
    return headers["x-subject-token"], reply["token"]


def test_a_service_gets_the_token_of_who_signed() -> None:
    async def work(client: Client) -> None:
        demo = await client.login("demo", DEMO_PASSWORD, on("demo"))
        made = await ec2_key(client, demo)
        caller = client.identity.verifier.verify(demo)
        token, shown = await signed_with(client, made)
        assert shown["methods"] == ["ec2credential"]
        assert (shown["user"]["name"], shown["project"]["name"]) == ("demo", "demo")
        assert client.identity.verifier.verify(token).roles == caller.roles
        for name in ("credential", "ec2Credentials"):
            await client.ok("POST", "/v3/ec2tokens", {name: version_2(made, time.time())})
        path = f"/v3/users/{caller.user_id}/credentials/OS-EC2/{made['access']}"
        await client.ok("DELETE", path, token=demo)
        with pytest.raises(Unauthenticated):
            client.identity.verifier.verify(token)
        assert (await client.call("POST", "/v3/ec2tokens", {"credentials": version_4(made)}))[0] == 404

    run(work)


def test_what_was_not_signed_by_the_key_or_long_ago_gets_no_token() -> None:
    async def work(client: Client) -> None:
        demo = await client.login("demo", DEMO_PASSWORD, on("demo"))
        made = await ec2_key(client, demo)
        good = version_4(made)
        for wrong in (
            {**good, "signature": "0" * 64},
            {**good, "path": "/other"},
            {**good, "params": {"a": "1"}},
            {**good, "body_hash": "0"},
            {**good, "headers": {**good["headers"], "X-Amz-Date": "20200101T000000Z"}},
            {**good, "headers": {}},
            version_2(made, time.time() - 3600),
            {**version_2(made, time.time()), "host": "elsewhere"},
        ):
            assert (await client.call("POST", "/v3/ec2tokens", {"credentials": wrong}))[0] == 401, wrong
        for body in (
            {},
            {"credentials": {"access": made["access"]}},
            {"credentials": {"access": "x", "signature": "x"}},
        ):
            status, _, reply = await client.call("POST", "/v3/ec2tokens", body)
            assert status == 400
            assert "credential" in reply["error"]["message"]
        assert (await client.call("POST", "/v3/ec2tokens", {"credentials": good}, token=demo))[0] == 403
        assert (await client.call("POST", "/v3/ec2tokens", {"credentials": good}, token=""))[0] == 401
        assert (await client.call("POST", "/v3/s3tokens", {"credentials": {**good, "token": None}}))[0] == 400

    run(work)


def test_s3_asks_with_the_text_that_was_signed() -> None:
    async def work(client: Client) -> None:
        demo = await client.login("demo", DEMO_PASSWORD, on("demo"))
        made = await ec2_key(client, demo)
        v4 = "AWS4-HMAC-SHA256\n20260131T000000Z\n20260131/RegionOne/s3/aws4_request\n" + "0" * 64
        key = signing_key(made["secret"], *KEY_OF)
        v1 = "GET\n\n\nSat, 31 Jan 2026 00:00:00 GMT\n/bucket/ключ"
        for text, signature in (
            (v4, hmac.new(key, v4.encode(), "sha256").hexdigest()),
            (v1, base64.b64encode(hmac.digest(made["secret"].encode(), v1.encode(), "sha1")).decode()),
        ):
            signed = base64.urlsafe_b64encode(text.encode()).decode()
            body = {"credentials": {"access": made["access"], "signature": signature, "token": signed}}
            status, headers, reply = await client.call("POST", "/v3/s3tokens", body)
            assert status == 200, reply
            assert "x-subject-token" not in headers
            assert reply["token"]["user"]["name"] == "demo"
            body["credentials"]["signature"] = signature[:-2] + "xx"
            assert (await client.call("POST", "/v3/s3tokens", body))[0] == 401

    run(work)


TEXTS = st.text(max_size=8)


@given(st.dictionaries(TEXTS, TEXTS, max_size=4), st.dictionaries(TEXTS, TEXTS, max_size=4), TEXTS, TEXTS)
def test_anything_may_be_asked_about(params: dict[str, str], headers: dict[str, str], text: str, secret: str) -> None:
    extra = (
        {"SignatureVersion": "2", "SignatureMethod": text} if len(text) % 2 else {"X-Amz-Algorithm": "AWS4-HMAC-SHA256"}
    )
    request = SignedRequest(
        verb=text, host=text, path=text, params={**params, **extra}, headers=headers, body_hash=text
    )
    assert not is_right(request, secret, "")
    assert not is_right_text(text, secret, "")
    assert not is_fresh(text, 0.0)
