"""One policy for both doors: what is said at one of them holds at the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.s3_server import S3Server, refusal


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
    s3.put_object(Bucket=name, Key="o", Body=b"x")
    return name


def say(s3: Any, bucket: str, *statements: dict[str, Any]) -> None:
    whole = [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*", **one}
        for one in statements
    ]
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": whole}))


def test_permissions_of_a_policy(s3: Any, server: S3Server, bucket: str) -> None:
    path = f"/v1/AUTH_a/{bucket}"
    assert server.ask("GET", f"{path}/o", token="bob")[0] == 403
    assert server.ask("GET", f"{path}/o", token=None)[0] == 401
    everywhere = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    say(s3, bucket, {"Principal": {"AWS": "b"}, "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": everywhere})
    assert server.ask("GET", f"{path}/o", token="bob")[2] == b"x"
    assert server.ask("GET", path, token="bob")[2] == b"o\n"
    assert server.ask("GET", f"{path}/none", token="bob")[0] == 404
    assert server.ask("PUT", f"{path}/p", b"", token="bob")[0] == 403
    assert server.ask("DELETE", f"{path}/o", token="bob")[0] == 403
    assert server.ask("GET", f"{path}/o", token=None)[0] == 401
    assert server.ask("POST", path, token="bob", X_Container_Read=".r:*")[0] == 403
    say(s3, bucket, {"Principal": {"AWS": "b"}, "Action": "s3:PutObject", "Resource": f"arn:aws:s3:::{bucket}/in/*"})
    assert server.ask("PUT", f"{path}/in/p", b"p", token="bob")[0] == 201
    assert server.ask("PUT", f"{path}/p", b"p", token="bob")[0] == 403
    assert server.ask("GET", f"{path}/in/p", token="bob")[0] == 403
    assert server.ask("COPY", f"{path}/o", token="alice", Destination=f"{bucket}/in/q")[0] == 201
    assert server.ask("COPY", f"{path}/o", token="bob", Destination=f"{bucket}/in/q")[0] == 403


def test_denials(s3: Any, server: S3Server, bucket: str) -> None:
    path = f"/v1/AUTH_a/{bucket}"
    everywhere = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    server.ask("POST", path, X_Container_Read=".r:*,.rlistings", X_Container_Meta_Temp_URL_Key="k")
    server.ask("PUT", f"{path}/link", b"", X_Symlink_Target=f"{bucket}/o")
    assert server.ask("GET", f"{path}/o", token=None)[0] == 200
    say(s3, bucket, {"Effect": "Deny", "Resource": f"arn:aws:s3:::{bucket}/o"})
    for token, status in (("alice", 403), ("bob", 403), (None, 401), ("boss", 200)):
        assert server.ask("GET", f"{path}/o", token=token)[0] == status, token
        assert server.ask("GET", f"{path}/link", token=token)[0] == status, token
        assert server.ask("GET", path, token=token)[0] == 200
    assert server.ask("COPY", f"{path}/o", Destination=f"{bucket}/copy")[0] == 403
    say(s3, bucket, {"Effect": "Deny", "Action": "s3:*", "Resource": everywhere})
    for method, where in (("GET", ""), ("HEAD", "/o"), ("PUT", "/o"), ("POST", "/o"), ("DELETE", "/o"), ("DELETE", "")):
        assert server.ask(method, path + where, b"" if method == "PUT" else None)[0] == 403, (method, where)
    assert server.ask("POST", path, X_Container_Meta_Colour="red")[0] == 403
    assert server.ask("PUT", path, X_Container_Read="b")[0] == 403
    assert server.ask("POST", path, X_Versions_Enabled="true")[0] == 403
    assert server.ask("POST", "/v1/AUTH_a?bulk-delete", f"{bucket}/o".encode(), Accept="application/json")[2].count(
        b"403"
    )
    assert s3.get_bucket_policy(Bucket=bucket), "its owner is not locked out"
    s3.delete_bucket_policy(Bucket=bucket)
    assert server.ask("GET", f"{path}/o", token=None)[0] == 200


def test_conditions_and_versions(s3: Any, server: S3Server, bucket: str) -> None:
    path = f"/v1/AUTH_a/{bucket}"
    say(
        s3,
        bucket,
        {"Condition": {"IpAddress": {"aws:SourceIp": "127.0.0.1/32"}, "StringLike": {"aws:Referer": "http://good/*"}}},
    )
    assert server.ask("GET", f"{path}/o", token=None, Referer="http://good/page")[0] == 200
    assert server.ask("GET", f"{path}/o", token=None, Referer="http://bad/page")[0] == 401
    s3.put_object_tagging(Bucket=bucket, Key="o", Tagging={"TagSet": [{"Key": "public", "Value": "yes"}]})
    say(s3, bucket, {"Condition": {"StringEquals": {"s3:ExistingObjectTag/public": "yes"}}})
    assert server.ask("GET", f"{path}/o", token=None)[0] == 200
    s3.delete_object_tagging(Bucket=bucket, Key="o")
    assert server.ask("GET", f"{path}/o", token=None)[0] == 401
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=bucket, Key="o", Body=b"y")["VersionId"]
    say(s3, bucket, {}, {"Effect": "Deny", "Action": ["s3:DeleteObjectVersion", "s3:GetObjectVersion"]})
    assert server.ask("GET", f"{path}/o", token=None)[2] == b"y"
    assert server.ask("GET", f"{path}/o?version-id={version}")[0] == 403
    assert server.ask("DELETE", f"{path}/o?version-id={version}")[0] == 403
    assert server.ask("DELETE", f"{path}/o")[0] == 204


def test_lists_of_buckets_and_objects(s3: Any, server: S3Server, bucket: str) -> None:
    path = f"/v1/AUTH_a/{bucket}"
    s3.put_object_acl(Bucket=bucket, Key="o", ACL="public-read")
    assert server.ask("GET", f"{path}/o", token=None)[2] == b"x"
    assert server.ask("GET", path, token=None)[0] == 401
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    assert server.ask("GET", path, token=None)[2] == b"o\n"
    assert server.ask("PUT", f"{path}/p", b"p", token=None)[0] == 201
    assert server.ask("GET", f"{path}/p", token=None)[0] == 401, "who lists a bucket does not read its objects"
    s3.put_public_access_block(
        Bucket=bucket,
        PublicAccessBlockConfiguration={"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": True, "RestrictPublicBuckets": True},
    )  # fmt: skip
    for where in ("", "/o"):
        assert server.ask("GET", path + where, token=None)[0] == 401
    assert server.ask("POST", path, X_Container_Read=".r:*")[0] == 403
    assert server.ask("POST", path, X_Container_Read="b:*")[0] == 204
    assert server.ask("GET", f"{path}/o", token="bob")[0] == 200
    s3.delete_public_access_block(Bucket=bucket)
    assert server.ask("POST", path, X_Container_Read=".r:*,.rlistings")[0] == 204
    assert server.raw("GET", f"/{bucket}/o")[2] == b"x"
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration={"IgnorePublicAcls": True})
    assert server.raw("GET", f"/{bucket}/o")[0] == 403
    assert server.ask("GET", f"{path}/o", token=None)[0] == 401
    s3.delete_public_access_block(Bucket=bucket)
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    server.ask("POST", path, X_Container_Read="")
    s3.put_bucket_ownership_controls(
        Bucket=bucket, OwnershipControls={"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    )
    assert server.ask("GET", f"{path}/o", token=None)[0] == 401


def test_swifts_lists_at_the_other_door(s3: Any, server: S3Server, bucket: str) -> None:
    bob = server.client("bob")
    with refusal("AccessDenied"):
        bob.get_object(Bucket=bucket, Key="o")
    server.ask("POST", f"/v1/AUTH_a/{bucket}", X_Container_Read="b:*", X_Container_Write="b:*")
    assert bob.get_object(Bucket=bucket, Key="o")["Body"].read() == b"x"
    bob.put_object(Bucket=bucket, Key="p", Body=b"bobs")
    assert server.ask("GET", f"/v1/AUTH_a/{bucket}/p")[2] == b"bobs"
    say(s3, bucket, {"Effect": "Deny", "Principal": {"AWS": "b"}, "Action": "s3:PutObject"})
    with refusal("AccessDenied"):
        bob.put_object(Bucket=bucket, Key="p", Body=b"")
    assert server.ask("PUT", f"/v1/AUTH_a/{bucket}/p", b"", token="bob")[0] == 403
