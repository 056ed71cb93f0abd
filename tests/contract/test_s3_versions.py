"""Versions of objects at the S3 door, and the same ones at Swift's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
    return name


def keep(s3: Any, bucket: str, status: str = "Enabled") -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": status})


def listed(s3: Any, bucket: str) -> list[tuple[str, str, bool, bool]]:
    """(key, version, latest, marker), as they are listed page by page: versions, then markers."""
    found = []
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}):
        for kind in ("Versions", "DeleteMarkers"):
            found += [
                (row["Key"], row["VersionId"], row["IsLatest"], kind == "DeleteMarkers") for row in page.get(kind, [])
            ]
    return found


def test_states(s3: Any, server: S3Server, bucket: str) -> None:
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert "VersionId" not in s3.put_object(Bucket=bucket, Key="o", Body=b"0")
    assert listed(s3, bucket) == [("o", "null", True, False)]
    for status in ("Enabled", "Suspended"):
        keep(s3, bucket, status)
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == status
    for body, code in (
        (b"<VersioningConfiguration/>", b"IllegalVersioningConfigurationException"),
        (b"<VersioningConfiguration><Status>Maybe</Status></VersioningConfiguration>", b"MalformedXML"),
        (b"<Versioning", b"MalformedXML"),
    ):
        status_code, _, answer = server.signed("PUT", f"/{bucket}?versioning", body)
        assert (status_code, code in answer) == (400, True), answer


def test_versions_and_markers(s3: Any, bucket: str) -> None:
    keep(s3, bucket)
    first = s3.put_object(Bucket=bucket, Key="o", Body=b"1", Metadata={"n": "1"})["VersionId"]
    second = s3.put_object(Bucket=bucket, Key="o", Body=b"22")["VersionId"]
    got = s3.get_object(Bucket=bucket, Key="o")
    assert (got["Body"].read(), got["VersionId"]) == (b"22", second)
    got = s3.get_object(Bucket=bucket, Key="o", VersionId=first)
    assert (got["Body"].read(), got["VersionId"], got["Metadata"]) == (b"1", first, {"n": "1"})
    deleted = s3.delete_object(Bucket=bucket, Key="o")
    assert deleted["DeleteMarker"] is True
    with pytest.raises(Exception, match="NoSuchKey") as refused:
        s3.get_object(Bucket=bucket, Key="o")
    headers = refused.value.response["ResponseMetadata"]["HTTPHeaders"]  # type: ignore[attr-defined]
    assert (headers["x-amz-delete-marker"], headers["x-amz-version-id"]) == ("true", deleted["VersionId"])
    with refusal("MethodNotAllowed"):
        s3.get_object(Bucket=bucket, Key="o", VersionId=deleted["VersionId"])
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    rows = listed(s3, bucket)
    assert {row[1:] for row in rows} == {
        (deleted["VersionId"], True, True),
        (second, False, False),
        (first, False, False),
    }
    with refusal("BucketNotEmpty"):
        s3.delete_bucket(Bucket=bucket)
    removed = s3.delete_object(Bucket=bucket, Key="o", VersionId=deleted["VersionId"])
    assert (removed["DeleteMarker"], removed["VersionId"]) == (True, deleted["VersionId"])
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == b"22"
    s3.delete_object(Bucket=bucket, Key="o", VersionId=second)
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == b"1", "the one before is current again"
    s3.delete_object(Bucket=bucket, Key="o", VersionId=first)
    assert s3.delete_object(Bucket=bucket, Key="o", VersionId=first)["VersionId"] == first, "gone already is as well"
    assert listed(s3, bucket) == []
    s3.delete_bucket(Bucket=bucket)


def test_storage_classes_are_listed(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x", StorageClass="STANDARD_IA")
    assert s3.list_objects_v2(Bucket=bucket)["Contents"][0]["StorageClass"] == "STANDARD_IA"
    keep(s3, bucket)
    s3.put_object(Bucket=bucket, Key="kept", Body=b"x", StorageClass="ONEZONE_IA")
    s3.put_object(Bucket=bucket, Key="plain", Body=b"y")
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="parts", StorageClass="GLACIER_IR")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload_id, PartNumber=1, Body=b"x")["ETag"]
    parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
    s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload_id, MultipartUpload=parts)
    rows = [(item["Key"], item["StorageClass"]) for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert rows == [("kept", "ONEZONE_IA"), ("parts", "GLACIER_IR"), ("plain", "STANDARD")]
    versions = [(item["Key"], item["StorageClass"]) for item in s3.list_object_versions(Bucket=bucket)["Versions"]]
    assert versions == [*rows, ("plain", "STANDARD_IA")]


def test_the_null_version(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="o", Body=b"before")
    keep(s3, bucket)
    kept = s3.put_object(Bucket=bucket, Key="o", Body=b"kept")["VersionId"]
    assert s3.get_object(Bucket=bucket, Key="o", VersionId="null")["Body"].read() == b"before"
    keep(s3, bucket, "Suspended")
    assert s3.put_object(Bucket=bucket, Key="o", Body=b"after")["VersionId"] == "null"
    assert s3.get_object(Bucket=bucket, Key="o", VersionId="null")["Body"].read() == b"after"
    assert s3.get_object(Bucket=bucket, Key="o", VersionId=kept)["Body"].read() == b"kept"
    assert sorted(row[1] for row in listed(s3, bucket)) == sorted([kept, "null"])


def test_ids_that_are_none(s3: Any, bucket: str) -> None:
    keep(s3, bucket)
    version = s3.put_object(Bucket=bucket, Key="o", Body=b"x")["VersionId"]
    with refusal("InvalidArgument"):
        s3.get_object(Bucket=bucket, Key="o", VersionId="nonsense")
    with refusal("NoSuchVersion"):
        s3.get_object(Bucket=bucket, Key="o", VersionId="0" * 16 + version[16:])
    with refusal("NoSuchVersion"):
        s3.get_object(Bucket=bucket, Key="o", VersionId="null")
    with refusal("InvalidArgument"):
        s3.list_object_versions(Bucket=bucket, VersionIdMarker=version)


def test_what_is_said_of_one_version(s3: Any, bucket: str) -> None:
    keep(s3, bucket)
    tags = [{"Key": "a", "Value": "1"}]
    first = s3.put_object(Bucket=bucket, Key="o", Body=b"1")["VersionId"]
    s3.put_object(Bucket=bucket, Key="o", Body=b"2")
    assert (
        s3.put_object_tagging(Bucket=bucket, Key="o", VersionId=first, Tagging={"TagSet": tags})["VersionId"] == first
    )
    assert s3.get_object_tagging(Bucket=bucket, Key="o", VersionId=first)["TagSet"] == tags
    assert s3.get_object_tagging(Bucket=bucket, Key="o")["TagSet"] == []
    s3.put_object_acl(Bucket=bucket, Key="o", VersionId=first, ACL="public-read")
    assert len(s3.get_object_acl(Bucket=bucket, Key="o", VersionId=first)["Grants"]) == 2
    assert len(s3.get_object_acl(Bucket=bucket, Key="o")["Grants"]) == 1
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "o", "VersionId": first})
    assert copied["CopySourceVersionId"] == first
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == b"1"


def test_many_versions_at_once(s3: Any, bucket: str) -> None:
    keep(s3, bucket)
    versions = [s3.put_object(Bucket=bucket, Key="o", Body=b"%d" % number)["VersionId"] for number in range(3)]
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "o"}]})["Deleted"][0]
    assert done["DeleteMarker"] is True
    wanted = [{"Key": "o", "VersionId": version} for version in (*versions, done["DeleteMarkerVersionId"])]
    assert len(s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted})["Deleted"]) == 4
    assert listed(s3, bucket) == []


def test_swift_shows_the_same_versions(s3: Any, server: S3Server, bucket: str) -> None:
    keep(s3, bucket)
    first = s3.put_object(Bucket=bucket, Key="o", Body=b"by s3")["VersionId"]
    path = f"/v1/AUTH_a/{bucket}/o"
    assert server.ask("PUT", path, b"by swift")[0] == 201
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == b"by swift"
    assert s3.get_object(Bucket=bucket, Key="o", VersionId=first)["Body"].read() == b"by s3"
    assert server.ask("DELETE", path)[0] == 204
    assert server.ask("GET", path)[0] == 404
    assert s3.get_object(Bucket=bucket, Key="o", VersionId=first)["Body"].read() == b"by s3"
    assert len(listed(s3, bucket)) == 3


def test_all_versions_are_deleted_at_once(s3: Any, bucket: str) -> None:
    """By several, in any order: nothing is left, and no version comes back as current that is gone."""
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    for _ in range(4):
        for key in ("a", "b"):
            s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    versions = s3.list_object_versions(Bucket=bucket)["Versions"]
    wanted = {"Objects": [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in versions]}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: s3.delete_objects(Bucket=bucket, Delete=wanted), range(4)))
    assert all("Errors" not in answer and len(answer["Deleted"]) == 8 for answer in answers), answers
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert "Versions" not in s3.list_object_versions(Bucket=bucket)
