"""Locked versions: until when, by whom they are lifted, and that no door removes them."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.s3_server import S3Server, refusal

UTC = datetime.UTC


def in_days(days: float) -> datetime.datetime:
    return datetime.datetime.now(UTC).replace(microsecond=0) + datetime.timedelta(days=days)


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
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    return name


def test_configurations(s3: Any, server: S3Server, bucket: str) -> None:
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    assert s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"] == {
        "ObjectLockEnabled": "Enabled"
    }
    with refusal("InvalidBucketState"):
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    assert server.ask("POST", f"/v1/AUTH_a/{bucket}", X_Versions_Enabled="false")[0] == 409
    whole = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 3}}}
    s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=whole)
    assert s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"] == whole
    for rule, code in (
        ({"Mode": "GOVERNANCE", "Days": 1, "Years": 1}, "MalformedXML"),
        ({"Mode": "GOVERNANCE"}, "MalformedXML"),
        ({"Mode": "abc", "Days": 1}, "MalformedXML"),
        ({"Mode": "GOVERNANCE", "Days": 0}, "InvalidRetentionPeriod"),
        ({"Mode": "GOVERNANCE", "Years": -1}, "InvalidRetentionPeriod"),
        ({"Mode": "GOVERNANCE", "Years": 101}, "InvalidRetentionPeriod"),
    ):
        with refusal(code):
            s3.put_object_lock_configuration(
                Bucket=bucket,
                ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": rule}},
            )
    with refusal("MalformedXML"):
        s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Disabled"})
    s3.create_bucket(Bucket="unlocked")
    with refusal("ObjectLockConfigurationNotFoundError"):
        s3.get_object_lock_configuration(Bucket="unlocked")
    with refusal("InvalidBucketState"):
        s3.put_object_lock_configuration(Bucket="unlocked", ObjectLockConfiguration=whole)
    s3.put_object(Bucket="unlocked", Key="o", Body=b"")
    for call in (s3.get_object_retention, s3.get_object_legal_hold):
        with refusal("InvalidRequest"):
            call(Bucket="unlocked", Key="o")
    with refusal("InvalidRequest"):
        s3.put_object(Bucket="unlocked", Key="o", Body=b"", ObjectLockLegalHoldStatus="ON")


def gone(server: S3Server, s3: Any, bucket: str, key: str, version: str, **more: Any) -> bool:
    """Whether a version can be deleted: tried through both doors."""
    if not more:
        status, _, _ = server.ask("DELETE", f"/v1/AUTH_a/{bucket}/{key}?version-id={version}")
        if status == 204:
            return True
        assert status == 403
    said = {"x_amz_bypass_governance_retention": "true"} if more else {}
    status, _, body = server.signed("DELETE", f"/{bucket}/{key}?versionId={version}", **said)
    there = server.signed("HEAD", f"/{bucket}/{key}?versionId={version}")[0] == 200
    assert (status, there) in ((204, False), (403, True)), body
    return not there


def test_retention(s3: Any, server: S3Server, bucket: str) -> None:
    until = in_days(1)
    for mode, by_bypass in (("GOVERNANCE", True), ("COMPLIANCE", False)):
        version = s3.put_object(
            Bucket=bucket, Key=mode, Body=b"x", ObjectLockMode=mode, ObjectLockRetainUntilDate=until
        )["VersionId"]
        head = s3.head_object(Bucket=bucket, Key=mode)
        assert (head["ObjectLockMode"], head["ObjectLockRetainUntilDate"]) == (mode, until)
        assert s3.get_object_retention(Bucket=bucket, Key=mode)["Retention"] == {"Mode": mode, "RetainUntilDate": until}
        assert not gone(server, s3, bucket, mode, version)
        done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": mode, "VersionId": version}]})
        assert done["Errors"][0]["Code"] == "AccessDenied"
        s3.delete_object(Bucket=bucket, Key=mode)
        assert server.ask("DELETE", f"/v1/AUTH_a/{bucket}/{mode}")[0] in (204, 404), "a marker hides it, and no more"
        assert not gone(server, s3, bucket, mode, version)
        assert gone(server, s3, bucket, mode, version, BypassGovernanceRetention=True) is by_bypass
    assert server.ask("DELETE", f"/v1/AUTH_a/{bucket}")[0] == 409


def test_changes_of_retention(s3: Any, server: S3Server, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="o", Body=b"x")
    with refusal("NoSuchObjectLockConfiguration"):
        s3.get_object_retention(Bucket=bucket, Key="o")

    def retain(mode: str | None, days: float, **more: Any) -> None:
        retention = {"Mode": mode, "RetainUntilDate": in_days(days)} if mode else {}
        s3.put_object_retention(Bucket=bucket, Key="o", Retention=retention, **more)

    retain("GOVERNANCE", 2)
    retain("GOVERNANCE", 3)
    for mode, days in (("GOVERNANCE", 1), ("COMPLIANCE", 3), (None, 0)):
        with refusal("AccessDenied"):
            retain(mode, days)
    retain("GOVERNANCE", 1, BypassGovernanceRetention=True)
    retain(None, 0, BypassGovernanceRetention=True)
    with refusal("NoSuchObjectLockConfiguration"):
        s3.get_object_retention(Bucket=bucket, Key="o")
    retain("COMPLIANCE", 1)
    retain("COMPLIANCE", 2)
    for mode, days in (("COMPLIANCE", 1), ("GOVERNANCE", 9), (None, 0)):
        with refusal("AccessDenied"):
            retain(mode, days, BypassGovernanceRetention=True)
    with refusal("InvalidArgument"):
        retain("COMPLIANCE", -1)
    for body in (b"<Retention><Mode>x</Mode></Retention>", b"<Retention><Mode>GOVERNANCE</Mode></Retention>", b"<x/>", b"<",
                 b"<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>soon</RetainUntilDate></Retention>"):  # fmt: skip
        assert server.signed("PUT", f"/{bucket}/o?retention", body)[0] == 400


def test_holds(s3: Any, server: S3Server, bucket: str) -> None:
    version = s3.put_object(Bucket=bucket, Key="o", Body=b"x", ObjectLockLegalHoldStatus="ON")["VersionId"]
    assert s3.head_object(Bucket=bucket, Key="o")["ObjectLockLegalHoldStatus"] == "ON"
    assert not gone(server, s3, bucket, "o", version)
    assert not gone(server, s3, bucket, "o", version, BypassGovernanceRetention=True)
    s3.put_object(Bucket=bucket, Key="o", Body=b"newer")
    server.ask("POST", f"/v1/AUTH_a/{bucket}/o?version-id={version}", X_Object_Meta_Colour="red")
    assert s3.get_object_legal_hold(Bucket=bucket, Key="o", VersionId=version)["LegalHold"]["Status"] == "ON"
    assert s3.get_object_legal_hold(Bucket=bucket, Key="o")["LegalHold"]["Status"] == "OFF"
    assert server.signed("PUT", f"/{bucket}/o?legal-hold", b"<LegalHold><Status>on</Status></LegalHold>")[0] == 400
    s3.put_object_legal_hold(Bucket=bucket, Key="o", VersionId=version, LegalHold={"Status": "OFF"})
    assert gone(server, s3, bucket, "o", version)


def test_defaults_hold_at_both_doors(s3: Any, server: S3Server, bucket: str) -> None:
    default = {"Mode": "COMPLIANCE", "Days": 1}
    s3.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": default}}
    )
    assert server.ask("PUT", f"/v1/AUTH_a/{bucket}/swift", b"x")[0] == 201
    assert server.ask("PUT", f"/v1/AUTH_a/{bucket}/soon", b"x", X_Delete_After="1")[0] == 400
    assert server.ask("POST", f"/v1/AUTH_a/{bucket}/swift", X_Delete_After="1")[0] == 400
    upload = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    s3.complete_multipart_upload(
        Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/swift")
    s3.put_object(Bucket=bucket, Key="own", Body=b"", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=in_days(9))
    for key in ("swift", "parts", "copy"):
        head = s3.head_object(Bucket=bucket, Key=key)
        assert head["ObjectLockMode"] == "COMPLIANCE"
        assert abs((head["ObjectLockRetainUntilDate"] - in_days(1)).total_seconds()) < 60
        assert not gone(server, s3, bucket, key, head["VersionId"])
        assert not gone(server, s3, bucket, key, head["VersionId"], BypassGovernanceRetention=True)
    assert s3.head_object(Bucket=bucket, Key="own")["ObjectLockMode"] == "GOVERNANCE"
    server.ask("POST", f"/v1/AUTH_a/{bucket}", X_Container_Meta_Colour="red")
    assert s3.head_object(Bucket=bucket, Key="parts")["ContentLength"] == 1


def test_who_may(s3: Any, server: S3Server, bucket: str) -> None:
    version = s3.put_object(
        Bucket=bucket, Key="o", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=in_days(1)
    )["VersionId"]
    bob = server.client("bob")
    everywhere = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    allow = {"Effect": "Allow", "Principal": {"AWS": "b"}, "Resource": everywhere,
             "Action": ["s3:DeleteObjectVersion", "s3:PutObject", "s3:GetObject*"]}  # fmt: skip
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
    with refusal("AccessDenied"):
        bob.delete_object(Bucket=bucket, Key="o", VersionId=version, BypassGovernanceRetention=True)
    with refusal("AccessDenied"):
        bob.put_object(Bucket=bucket, Key="p", Body=b"", ObjectLockLegalHoldStatus="ON")
    with refusal("AccessDenied"):
        bob.put_object_legal_hold(Bucket=bucket, Key="o", LegalHold={"Status": "ON"})
    allow["Action"] = "s3:*"
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
    bob.delete_object(Bucket=bucket, Key="o", VersionId=version, BypassGovernanceRetention=True)


def test_the_segments_of_a_locked_manifest_stay(s3: Any, server: S3Server, bucket: str) -> None:
    parts = bucket[:50] + "-parts"
    assert server.ask("PUT", f"/v1/AUTH_a/{parts}")[0] == 201
    assert server.ask("PUT", f"/v1/AUTH_a/{parts}/1", b"segment")[0] == 201
    large, manifest = f"/v1/AUTH_a/{bucket}/large", json.dumps([{"path": f"/{parts}/1"}]).encode()
    version = server.ask("PUT", large + "?multipart-manifest=put", manifest)[1]["x-object-version-id"]
    s3.put_object_retention(
        Bucket=bucket, Key="large", VersionId=version,
        Retention={"Mode": "GOVERNANCE", "RetainUntilDate": in_days(1)},
    )  # fmt: skip
    gone = f"{large}?multipart-manifest=delete&version-id={version}"
    status, _, body = server.ask("DELETE", gone, Accept="application/json")
    assert (status, json.loads(body)["Number Deleted"]) == (200, 0)
    assert json.loads(body)["Errors"] == [[f"/{bucket}/large", "403 Forbidden"]]
    assert server.ask("GET", large)[2] == b"segment"
    s3.put_object_retention(
        Bucket=bucket, Key="large", VersionId=version, Retention={}, BypassGovernanceRetention=True
    )  # fmt: skip
    body = server.ask("DELETE", gone, Accept="application/json")[2]
    assert json.loads(body)["Number Deleted"] == 2
    assert server.ask("GET", f"/v1/AUTH_a/{parts}/1")[0] == 404
