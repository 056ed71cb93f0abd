"""Forms that browsers send to a bucket: signed policies, their conditions, and what the answer looks like."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from apus.services.identity.logic.signing import signing_key
from apus.skins.s3.form_policy import form_policy_of
from tests.contract.s3_server import REGION, S3Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3(server: S3Server) -> Any:
    return server.client()


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60].strip("-")
    s3.create_bucket(Bucket=name)
    return name


def when(in_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + in_s))


def signed(
    fields: dict[str, str], conditions: list[Any] | None, who: str = "alice", in_s: float = 60, document: Any = None
) -> dict[str, str]:
    """The fields, with a policy and its signature before them."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    date = stamp[:8]
    proof = {
        "x-amz-algorithm": "AWS4-HMAC-SHA256",
        "x-amz-credential": f"{who}-key/{date}/{REGION}/s3/aws4_request",
        "x-amz-date": stamp,
    }
    if conditions is not None:
        whole = [*conditions, *({name: value} for name, value in proof.items())]
        document = {"expiration": when(in_s), "conditions": whole}
    policy = base64.b64encode(json.dumps(document).encode()).decode()
    key = signing_key(f"{who}-secret", date, REGION, "s3")
    signature = hmac.new(key, policy.encode(), hashlib.sha256).hexdigest()
    return {**fields, **proof, "policy": policy, "x-amz-signature": signature}


def send(
    server: S3Server,
    bucket: str,
    fields: dict[str, str],
    data: bytes = b"file",
    filename: str = "cat.png",
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    parts = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    file = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\nContent-Type: a/b\r\n\r\n'
    body = "".join(parts).encode() + file.encode() + data + b"\r\n--x--\r\n"
    return server.raw("POST", f"/{bucket}", body, {"Content-Type": "multipart/form-data; boundary=x", **headers})


def test_by_boto3(s3: Any, server: S3Server, bucket: str) -> None:
    made = s3.generate_presigned_post(
        bucket, "user/${filename}", Fields={"acl": "private"},
        Conditions=[{"acl": "private"}, ["content-length-range", 1, 100], ["starts-with", "$Content-Type", "image/"]],
    )  # fmt: skip
    status, headers, _ = send(server, bucket, {**made["fields"], "Content-Type": "image/png"})
    assert status == 204
    got = s3.get_object(Bucket=bucket, Key="user/cat.png")
    assert (got["Body"].read(), got["ContentType"], got["ETag"]) == (b"file", "image/png", headers["etag"])


def test_names_are_filled_in_before_the_policy_is_asked(s3: Any, server: S3Server, bucket: str) -> None:
    fields = {"key": "${filename}", "x-amz-meta-name": "of ${filename}"}
    conditions: list[Any] = [{"bucket": bucket}, ["starts-with", "$key", "cat"], {"x-amz-meta-name": "of cat.png"}]
    assert send(server, bucket, signed(fields, conditions))[0] == 204
    assert s3.head_object(Bucket=bucket, Key="cat.png")["Metadata"] == {"name": "of cat.png"}
    assert send(server, bucket, signed(fields, conditions), filename="dog.png")[0] == 403


def test_a_dollar_may_be_escaped(s3: Any, server: S3Server, bucket: str) -> None:
    here: list[Any] = [{"bucket": bucket}]
    for key in ("$a", r"\$a", r"\a"):
        assert send(server, bucket, signed({"key": key}, [*here, {"key": key}]))[0] == 204
        assert s3.get_object(Bucket=bucket, Key=key)
    assert send(server, bucket, signed({"key": r"\$a"}, [*here, {"key": "$a"}]))[0] == 403
    text = rb'{"expiration": "2031-01-01T00:00:00Z", "conditions": [{"key": "\$a"}]}'  # no JSON, and taken
    assert form_policy_of(base64.b64encode(text).decode()).conditions[0].value == "$a"


def test_what_the_answer_is(s3: Any, server: S3Server, bucket: str) -> None:
    open_to = [{"bucket": bucket}, ["starts-with", "$key", ""], ["starts-with", "$success_action_status", ""],
               ["starts-with", "$success_action_redirect", ""]]  # fmt: skip

    def answer(**fields: str) -> tuple[int, dict[str, str], bytes]:
        whole = {"key": "a b", "success_action_status": "", "success_action_redirect": "", **fields}
        return send(server, bucket, signed(whole, open_to))

    assert answer()[0] == 204
    assert answer(success_action_status="200")[0] == 200
    assert answer(success_action_status="404")[0] == 204
    status, headers, body = answer(success_action_status="201")
    assert (status, headers["location"].endswith(f"/{bucket}/a%20b")) == (201, True)
    assert b"<Key>a b</Key>" in body
    assert b"<PostResponse>" in body  # in no namespace
    assert f"<ETag>{headers['etag']}</ETag>".replace('"', "") in body.decode().replace('"', "")
    status, headers, _ = answer(success_action_redirect="http://there.example/page?x=1")
    assert status == 303
    assert headers["location"].startswith(f"http://there.example/page?x=1&bucket={bucket}&key=a+b&etag=%22")
    assert answer(success_action_redirect="javascript:x")[0] == 204


def test_a_container_of_swifts(server: S3Server) -> None:
    """It is a bucket to its project alone: whose form it is has to be known first."""
    server.ask("PUT", "/v1/AUTH_a/By_Swift")
    conditions: list[Any] = [{"bucket": "By_Swift"}, {"key": "o"}]
    assert send(server, "By_Swift", signed({"key": "o"}, conditions))[0] == 204
    assert server.ask("GET", "/v1/AUTH_a/By_Swift/o")[2] == b"file"
    assert send(server, "By_Swift", signed({"key": "o"}, conditions, "bob"))[0] == 404


def test_what_is_kept_with_it(s3: Any, server: S3Server, bucket: str) -> None:
    tags = "<Tagging><TagSet><Tag><Key>k</Key><Value>v &amp;</Value></Tag></TagSet></Tagging>"
    fields = {
        "key": "é",
        "x-amz-meta-colour": "grün",
        "tagging": tags,
        "Cache-Control": "no-store",
        "acl": "public-read",
    }
    names = [["starts-with", f"${name}", ""] for name in fields]
    status, _, body = send(server, bucket, signed({**fields, "x-ignore-me": "y"}, [{"bucket": bucket}, *names]))
    assert status == 204, body
    head = s3.head_object(Bucket=bucket, Key="é")
    assert head["CacheControl"] == "no-store"
    assert s3.get_object_tagging(Bucket=bucket, Key="é")["TagSet"] == [{"Key": "k", "Value": "v &"}]
    assert server.raw("GET", f"/{bucket}/%C3%A9")[2] == b"file"
    assert (
        server.ask("HEAD", f"/v1/AUTH_a/{bucket}/%C3%A9")[1]["x-object-meta-colour"].encode("latin-1").decode()
        == "grün"
    )


def test_what_a_policy_refuses(s3: Any, server: S3Server, bucket: str) -> None:
    here = {"bucket": bucket}
    fine: list[Any] = [here, ["starts-with", "$KEY", "user/"], ["eq", "$x-amz-meta-a", "1"]]
    good = {"key": "user/o", "x-amz-meta-a": "1"}
    assert send(server, bucket, signed(good, fine))[0] == 204
    for fields, conditions, status, code in (
        ({"key": "o", "x-amz-meta-a": "1"}, fine, 403, b"AccessDenied"),
        ({"key": "user/o", "x-amz-meta-a": "2"}, fine, 403, b"AccessDenied"),
        ({"key": "user/o"}, fine, 403, b"AccessDenied"),
        ({**good, "x-amz-meta-b": "1"}, fine, 403, b"AccessDenied"),
        ({**good, "acl": "public-read"}, fine, 403, b"AccessDenied"),
        (good, [{"bucket": "other"}, *fine[1:]], 403, b"AccessDenied"),
        (good, [*fine, ["content-length-range", 0, 3]], 400, b"EntityTooLarge"),
        (good, [*fine, ["content-length-range", 5, 9]], 400, b"EntityTooSmall"),
        (good, [*fine, ["content-length-range", 5]], 400, b"InvalidPolicyDocument"),
        (good, [*fine, ["content-length-range", -1, 5]], 400, b"InvalidPolicyDocument"),
        (good, [*fine, {}], 400, b"InvalidPolicyDocument"),
        (good, [*fine, ["eq", "acl", "x"]], 400, b"InvalidPolicyDocument"),
        (good, [*fine, ["maybe", "$acl", "x"]], 400, b"InvalidPolicyDocument"),
        (good, [*fine, 5], 400, b"InvalidPolicyDocument"),
        ({"x-amz-meta-a": "1"}, [here, ["eq", "$x-amz-meta-a", "1"]], 400, b"InvalidArgument"),
        ({**good, "key": "user/" + "x" * 1025}, fine, 400, b"KeyTooLongError"),
        ({**good, "key": "user/\0"}, fine, 400, b"InvalidArgument"),
    ):
        got, _, body = send(server, bucket, signed(fields, conditions))
        assert (got, code in body) == (status, True), (fields, conditions, body)
    for document in ({"conditions": fine}, {"expiration": "soon", "conditions": fine}, {"expiration": when(9)},
                     {"EXPIRATION": when(9), "conditions": fine}, {"expiration": 5, "conditions": []}):  # fmt: skip
        got, _, body = send(server, bucket, signed(good, None, document=document))
        assert (got, b"InvalidPolicyDocument" in body) == (400, True), document
    assert send(server, bucket, signed(good, fine, in_s=-5))[0] == 403
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["user/o"]
    assert not server.uploads_left()


def test_who_may(s3: Any, server: S3Server, bucket: str) -> None:
    conditions: list[Any] = [{"bucket": bucket}, {"key": "o"}]
    fields = {"key": "o"}
    for wrong, status, code in (
        ({**signed(fields, conditions), "x-amz-signature": "0" * 64}, 403, b"SignatureDoesNotMatch"),
        (signed(fields, conditions, "nobody"), 403, b"InvalidAccessKeyId"),
        (signed(fields, conditions, "bob"), 403, b"AccessDenied"),
        (signed(fields, conditions, "reader"), 403, b"AccessDenied"),
        ({**signed(fields, conditions), "x-amz-credential": "x"}, 400, b"InvalidArgument"),
        ({**signed(fields, conditions), "x-amz-algorithm": "x"}, 400, b"InvalidArgument"),
        ({**signed(fields, conditions), "policy": "!"}, 403, b"SignatureDoesNotMatch"),
        ({**fields, "policy": "e30="}, 400, b"InvalidArgument"),
        ({**fields, "signature": "x", "policy": "e30=", "awsaccesskeyid": "x"}, 400, b"InvalidRequest"),
        ({**fields, "x-amz-signature": "x"}, 400, b"InvalidArgument"),
        (fields, 403, b"AccessDenied"),
    ):
        got, _, body = send(server, bucket, wrong)
        assert (got, code in body) == (status, True), (wrong, body)
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    assert send(server, bucket, fields)[0] == 204
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == b"file"
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/*",
            "Condition": {"StringEquals": {"s3:authType": "POST"}}}  # fmt: skip
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    assert send(server, bucket, signed(fields, conditions))[0] == 403


def test_forms_that_are_none(server: S3Server, bucket: str) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    status, _, body = server.raw("POST", f"/{bucket}", b"x", {"Content-Type": "text/plain"})
    assert (status, b"RequestIsNotMultiPartContent" in body) == (412, True)
    for data in (b"", b"--x--\r\n", b"--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\no\r\n--x--\r\n", b"--x\r\nfoo\r\n\r\n",
                 b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n" + b"y" * 70_000 + b"\r\n--x--\r\n",
                 b"--x\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\n\xff\r\n--x--\r\n"):  # fmt: skip
        assert server.raw("POST", f"/{bucket}", data, form)[0] == 400, data[:40]
    assert send(server, "none-such", {"key": "o"})[0] == 404
