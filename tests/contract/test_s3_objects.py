"""Buckets, objects and listings of the S3 door, as boto3 sees them."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.contract.s3_server import S3Server, refusal

BIG = bytes(range(256)) * 12_289  # three strides and a bit


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


def test_buckets(server: S3Server, s3: Any) -> None:
    other = server.client("bob")
    s3.create_bucket(Bucket="one.bucket", CreateBucketConfiguration={"LocationConstraint": "RegionOne"})
    assert "one.bucket" in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert "one.bucket" not in [bucket["Name"] for bucket in other.list_buckets()["Buckets"]]
    assert s3.get_bucket_location(Bucket="one.bucket")["LocationConstraint"] == "RegionOne"
    assert s3.head_bucket(Bucket="one.bucket")["BucketRegion"] == "RegionOne"
    with refusal("BucketAlreadyOwnedByYou"):
        s3.create_bucket(Bucket="one.bucket")
    with refusal("BucketAlreadyExists"):
        other.create_bucket(Bucket="one.bucket")
    with refusal("403"):
        other.head_bucket(Bucket="one.bucket")
    with refusal("404"):
        s3.head_bucket(Bucket="no-bucket")
    with refusal("InvalidLocationConstraint"):
        s3.create_bucket(Bucket="elsewhere", CreateBucketConfiguration={"LocationConstraint": "mars-1"})
    for name in ("Upper", "ab", "a_b", "a..b", "192.168.1.1", "xn--a", "a" * 64):
        status, _, body = server.signed("PUT", f"/{name}")
        assert (status, b"InvalidBucketName" in body) == (400, True), name
    s3.put_object(Bucket="one.bucket", Key="k", Body=b"")
    with refusal("BucketNotEmpty"):
        s3.delete_bucket(Bucket="one.bucket")
    s3.delete_object(Bucket="one.bucket", Key="k")
    s3.delete_bucket(Bucket="one.bucket")
    with refusal("NoSuchBucket"):
        s3.delete_bucket(Bucket="one.bucket")
    other.create_bucket(Bucket="one.bucket")
    other.delete_bucket(Bucket="one.bucket")


def test_two_who_want_the_same_name(server: S3Server) -> None:
    """Many at once, of two projects: one project has it, and the other none."""
    said: dict[str, list[str]] = {"alice": [], "bob": []}

    def make(who: str) -> None:
        try:
            server.client(who).create_bucket(Bucket="contended")
            said[who].append("made")
        except ClientError as error:
            said[who].append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=make, args=(who,)) for who in ("alice", "bob", "alice", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    has = [who for who in said if "contended" in [b["Name"] for b in server.client(who).list_buckets()["Buckets"]]]
    assert len(has) <= 1, said
    assert all("made" not in said[who] for who in said if who not in has), said


def test_both_doors_show_the_same(server: S3Server, s3: Any) -> None:
    assert server.ask("PUT", "/v1/AUTH_a/Made_By_Swift")[0] == 201
    server.ask("PUT", "/v1/AUTH_a/Made_By_Swift/dir/o", b"swift", Content_Type="text/x", X_Object_Meta_Colour="red")
    assert "Made_By_Swift" in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    status, headers, body = server.signed("GET", "/Made_By_Swift/dir/o")
    assert (status, body, headers["content-type"], headers["x-amz-meta-colour"]) == (200, b"swift", "text/x", "red")
    s3.create_bucket(Bucket="made-by-s3")
    s3.put_object(Bucket="made-by-s3", Key="a/b", Body=b"s3", Metadata={"shape": "round"}, ContentType="text/y")
    status, swift, body = server.ask("GET", "/v1/AUTH_a/made-by-s3/a/b")
    assert (status, body, swift["x-object-meta-shape"], swift["content-type"]) == (200, b"s3", "round", "text/y")
    assert not [name for name in swift if "sysmeta" in name]
    assert server.ask("GET", "/v1/AUTH_a/made-by-s3")[2] == b"a/b\n"
    assert not [name for name in server.ask("HEAD", "/v1/AUTH_a/made-by-s3")[1] if "sysmeta" in name]
    assert swift["etag"] == s3.head_object(Bucket="made-by-s3", Key="a/b")["ETag"].strip('"')
    server.ask("POST", "/v1/AUTH_a/made-by-s3/a/b", X_Object_Meta_Shape="flat")
    assert s3.head_object(Bucket="made-by-s3", Key="a/b")["Metadata"] == {"shape": "flat"}


@pytest.mark.parametrize(
    "key", ["plain", "a b", "a+b", "é/ü", "//x", "..", "a/../b", "%2F", "?&=#", "🦅", "a\tb", "x" * 1024]
)
def test_names(s3: Any, server: S3Server, key: str) -> None:
    if "names" not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
        s3.create_bucket(Bucket="names")
    s3.put_object(Bucket="names", Key=key, Body=key.encode())
    assert s3.get_object(Bucket="names", Key=key)["Body"].read() == key.encode()
    assert key in [item["Key"] for item in s3.list_objects_v2(Bucket="names")["Contents"]]
    s3.delete_object(Bucket="names", Key=key)
    with refusal("NoSuchKey"):
        s3.get_object(Bucket="names", Key=key)


def test_names_that_cannot_be(server: S3Server, bucket: str) -> None:
    for path, code in (
        (f"/{bucket}/{'x' * 1025}", b"KeyTooLongError"),
        (f"/{bucket}/%00", b"InvalidURI"),
        (f"/{bucket}/%ff", b"InvalidURI"),
        ("/%00versions%00x/o", b"InvalidURI"),
    ):
        status, _, body = server.signed("PUT", path, b"x")
        assert (status, code in body) == (400, True), body
    assert server.store.service is not None
    assert server.signed("GET", f"/{bucket}")[2].count(b"<Key>") == 0


@pytest.mark.parametrize("size", [0, 1, 300_000, len(BIG)])
def test_sizes(s3: Any, server: S3Server, bucket: str, size: int) -> None:
    etag = s3.put_object(Bucket=bucket, Key="o", Body=BIG[:size])["ETag"]
    got = s3.get_object(Bucket=bucket, Key="o")
    assert (got["Body"].read(), got["ContentLength"], got["ETag"]) == (BIG[:size], size, etag)
    assert etag == f'"{hashlib.md5(BIG[:size]).hexdigest()}"'
    assert not server.uploads_left()


def test_headers_kept(s3: Any, bucket: str) -> None:
    said = {
        "ContentType": "text/x", "CacheControl": "no-store", "ContentDisposition": "inline", "ContentEncoding": "br",
        "ContentLanguage": "de", "Metadata": {"a": "1", "b": "two"}, "StorageClass": "STANDARD_IA",
        "WebsiteRedirectLocation": "/there",
    }  # fmt: skip
    s3.put_object(Bucket=bucket, Key="o", Body=b"x", Tagging="a=1&b=%20", **said)
    got = s3.head_object(Bucket=bucket, Key="o")
    assert {name: got[name] for name in said} == said
    assert got["TagCount"] == 2
    with refusal("InvalidStorageClass"):
        s3.put_object(Bucket=bucket, Key="o", Body=b"x", StorageClass="CLAY")
    with refusal("MetadataTooLarge"):
        s3.put_object(Bucket=bucket, Key="o", Body=b"x", Metadata={"a": "x" * 2048})
    overridden = s3.get_object(Bucket=bucket, Key="o", ResponseContentType="a/b", ResponseCacheControl="max-age=1")
    assert (overridden["ContentType"], overridden["CacheControl"]) == ("a/b", "max-age=1")


def test_ranges(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="o", Body=BIG)
    for text, start, end in (("5-9", 5, 10), ("1048570-1048580", 1048570, 1048581), ("-7", len(BIG) - 7, len(BIG))):
        got = s3.get_object(Bucket=bucket, Key="o", Range=f"bytes={text}")
        assert got["Body"].read() == BIG[start:end]
        assert got["ContentRange"] == f"bytes {start}-{end - 1}/{len(BIG)}"
    assert s3.get_object(Bucket=bucket, Key="o", Range="bytes=0-1,5-6")["ContentLength"] == len(BIG)
    with refusal("InvalidRange"):
        s3.get_object(Bucket=bucket, Key="o", Range=f"bytes={len(BIG)}-")
    assert s3.get_object(Bucket=bucket, Key="o", PartNumber=1)["ContentLength"] == len(BIG)
    with refusal("InvalidPartNumber"):
        s3.get_object(Bucket=bucket, Key="o", PartNumber=2)
    with refusal("InvalidRequest"):
        s3.get_object(Bucket=bucket, Key="o", PartNumber=0, Range="bytes=1-2")


def test_conditions_of_reading(s3: Any, bucket: str) -> None:
    etag = s3.put_object(Bucket=bucket, Key="o", Body=b"x")["ETag"]
    changed = s3.head_object(Bucket=bucket, Key="o")["LastModified"]
    assert s3.get_object(Bucket=bucket, Key="o", IfMatch=etag)["ETag"] == etag
    with refusal("PreconditionFailed"):
        s3.get_object(Bucket=bucket, Key="o", IfMatch='"other"')
    with refusal("304"):
        s3.get_object(Bucket=bucket, Key="o", IfNoneMatch=etag)
    with refusal("304"):
        s3.head_object(Bucket=bucket, Key="o", IfModifiedSince=changed)
    with refusal("PreconditionFailed"):
        s3.get_object(Bucket=bucket, Key="o", IfUnmodifiedSince="1998-01-01")
    assert s3.get_object(Bucket=bucket, Key="o", IfMatch=etag, IfUnmodifiedSince="1998-01-01")["ETag"] == etag


def test_conditions_of_writing(s3: Any, bucket: str) -> None:
    with refusal("NoSuchKey"):
        s3.put_object(Bucket=bucket, Key="o", Body=b"0", IfMatch='"any"')
    etag = s3.put_object(Bucket=bucket, Key="o", Body=b"1", IfNoneMatch="*")["ETag"]
    with refusal("PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="o", Body=b"2", IfNoneMatch="*")
    with refusal("PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="o", Body=b"2", IfMatch='"other"')
    later = s3.put_object(Bucket=bucket, Key="o", Body=b"2", IfMatch=etag)["ETag"]
    with refusal("PreconditionFailed"):
        s3.delete_object(Bucket=bucket, Key="o", IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == b"2"
    s3.delete_object(Bucket=bucket, Key="o", IfMatch=later)


def test_conditions_of_deleting_many(s3: Any, server: S3Server, bucket: str) -> None:
    etags = {name: s3.put_object(Bucket=bucket, Key=name, Body=name.encode())["ETag"] for name in ("a", "b", "c")}
    wanted = [{"Key": "a", "ETag": etags["a"]}, {"Key": "b", "ETag": etags["a"]}, {"Key": "c", "ETag": "*"},
              {"Key": "never", "ETag": "*"}]  # fmt: skip
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted})
    assert [item["Key"] for item in done["Deleted"]] == ["a", "c"]
    assert [(item["Key"], item["Code"]) for item in done["Errors"]] == [
        ("b", "PreconditionFailed"), ("never", "NoSuchKey"),
    ]  # fmt: skip
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "b", "Size": 7}]})
    assert [item["Code"] for item in done["Errors"]] == ["NotImplemented"]
    with refusal("NotImplemented"):
        s3.delete_object(Bucket=bucket, Key="b", IfMatchSize=7)
    assert s3.get_object(Bucket=bucket, Key="b")["Body"].read() == b"b"


def test_tags_and_lists_leave_the_date(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="o", Body=b"x")
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]  # to the millisecond
    s3.put_object_tagging(Bucket=bucket, Key="o", Tagging={"TagSet": [{"Key": "a", "Value": "1"}]})
    s3.put_object_acl(Bucket=bucket, Key="o", ACL="public-read")
    assert s3.list_objects_v2(Bucket=bucket)["Contents"] == listed
    assert s3.list_object_versions(Bucket=bucket)["Versions"][0]["LastModified"] == listed[0]["LastModified"]


def test_the_date_may_be_that_of_mail(server: S3Server, bucket: str) -> None:
    client = server.client()

    def add_date(params: dict[str, Any], **_: Any) -> None:
        params["headers"]["Date"] = "now"  # botocore then writes its own there, and no X-Amz-Date

    client.meta.events.register("before-call.s3.PutObject", add_date)
    client.put_object(Bucket=bucket, Key="o", Body=b"x")
    sent = server.signature("GET", f"/{bucket}/o")
    for date in ("yesterday", "Mon, 99 Nov 2026 99:00:00 GMT", "Mon, 1 Jan 99999 00:00:00 +9999"):
        said = {name: value for name, value in sent.items() if name.lower() != "x-amz-date"}
        assert server.raw("GET", f"/{bucket}/o", headers={**said, "Date": date})[0] in (400, 403)


def test_an_empty_object_has_a_type(s3: Any, server: S3Server, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="o", ContentType="text/x", ContentEncoding="deflate, gzip")
    got = s3.get_object(Bucket=bucket, Key="o")
    assert (got["ContentType"], got["ContentEncoding"]) == ("text/x", "deflate, gzip")
    assert s3.get_object(Bucket=bucket, Key="o", ResponseContentType="text/y")["ContentType"] == "text/y"


@pytest.mark.parametrize("size", [1, 4096, 60_000, 100_000, 300_000, 1 << 20, (1 << 20) + 1])
def test_what_is_in_the_page_cache_reads_the_same(s3: Any, bucket: str, size: int) -> None:
    body = BIG[:size]
    s3.put_object(Bucket=bucket, Key="o", Body=body)
    for _ in range(5):  # the first read of each copy brings it there
        assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == body
        assert s3.get_object(Bucket=bucket, Key="o", Range="bytes=0-")["Body"].read() == body
        assert s3.get_object(Bucket=bucket, Key="o", IfMatch="*")["Body"].read() == body
        assert s3.head_object(Bucket=bucket, Key="o")["ContentLength"] == size


def test_of_many_who_put_if_absent_one_does(s3: Any, server: S3Server, bucket: str) -> None:
    done: list[int] = []
    refused: list[str] = []

    def put(number: int) -> None:
        try:
            server.client().put_object(Bucket=bucket, Key="o", Body=b"%d" % number * 100_000, IfNoneMatch="*")
            done.append(number)
        except ClientError as error:
            refused.append(error.response["Error"]["Code"])

    threads = [threading.Thread(target=put, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1
    assert refused == ["PreconditionFailed"] * 5
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == b"%d" % done[0] * 100_000


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums(s3: Any, bucket: str, algorithm: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="o", Body=BIG, ChecksumAlgorithm=algorithm)
    got = s3.get_object(Bucket=bucket, Key="o", ChecksumMode="ENABLED")
    assert got["Body"].read() == BIG  # botocore compares it as it reads
    assert got[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert got["ChecksumType"] == "FULL_OBJECT"
    attributes = s3.get_object_attributes(Bucket=bucket, Key="o", ObjectAttributes=["Checksum", "ObjectSize", "ETag"])
    assert attributes["Checksum"][f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    assert (attributes["ObjectSize"], attributes["ETag"]) == (len(BIG), put["ETag"].strip('"'))
    copied = s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/o")["CopyObjectResult"]
    assert copied[f"Checksum{algorithm}"] == put[f"Checksum{algorithm}"]
    wrong = base64.b64encode(bytes(len(base64.b64decode(put[f"Checksum{algorithm}"])))).decode()
    with refusal("BadDigest"):
        s3.put_object(Bucket=bucket, Key="wrong", Body=b"x", **{f"Checksum{algorithm}": wrong})
    with refusal("InvalidRequest"):
        s3.put_object(Bucket=bucket, Key="wrong", Body=b"x", **{f"Checksum{algorithm}": "none"})
    with refusal("NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="wrong")


def crc_of(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def test_wrong_digests_leave_nothing(server: S3Server, bucket: str) -> None:
    path = f"/{bucket}/o"
    for headers, code in (
        ({"content_md5": "x"}, b"InvalidDigest"),
        ({"content_md5": base64.b64encode(bytes(16)).decode()}, b"BadDigest"),
        ({"x_amz_content_sha256": "0" * 64}, b"XAmzContentSHA256Mismatch"),
        ({"x_amz_content_sha256": "nonsense"}, b"InvalidArgument"),
        ({"x_amz_content_sha256": "A" * 64}, b"XAmzContentSHA256Mismatch"),
        ({"x_amz_checksum_crc32": "AAAAAA==", "x_amz_checksum_sha1": "AAAA"}, b"InvalidRequest"),
        ({"x_amz_checksum_adler": "AAAAAA=="}, b"InvalidRequest"),
        ({"x_amz_checksum_crc32": "AAAAAB=="}, b"InvalidRequest"),
        ({"x_amz_sdk_checksum_algorithm": "SHA1"}, b"InvalidRequest"),
        ({"x_amz_sdk_checksum_algorithm": "SHA1", "x_amz_checksum_crc32": crc_of(BIG)}, b"InvalidRequest"),
        ({"x_amz_trailer": "x-amz-checksum-crc32", "x_amz_checksum_crc32": crc_of(BIG)}, b"InvalidRequest"),
    ):
        status, _, body = server.signed("PUT", path, BIG, **headers)
        assert (status, code in body) == (400, True), body
        assert server.signed("GET", path)[0] == 404
        assert not server.uploads_left()
    digest = base64.b64encode(hashlib.md5(BIG).digest()).decode()
    assert server.signed("PUT", path, BIG, content_md5=digest)[0] == 200
    upper = hashlib.sha256(BIG).hexdigest().upper()
    assert server.signed("PUT", path, BIG, x_amz_content_sha256=upper)[0] == 200


def test_chunked_with_an_unsigned_trailer(server: S3Server, bucket: str) -> None:
    crc = crc_of(BIG)
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (BIG[:70_000], BIG[70_000:])) + b"0\r\n"
    headers = {
        "x_amz_content_sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "content_encoding": "aws-chunked",
        "x_amz_trailer": "x-amz-checksum-crc32", "x_amz_decoded_content_length": str(len(BIG)),
    }  # fmt: skip
    path = f"/{bucket}/o"
    good = body + f"x-amz-checksum-crc32:{crc}\r\n\r\n".encode()
    for bad, code in (
        (body + b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n", b"BadDigest"),
        (body + b"\r\n", b"MalformedTrailerError"),
        (good[:-2] + b"more: of it\r\n\r\n", b"MalformedTrailerError"),
        (good[:100_000], b"IncompleteBody"),
        (b"no size\r\n" + good, b"IncompleteBody"),
        (good.replace(b"\r\n0\r\n", b"0\r\n"), b"IncompleteBody"),
        (good + b"more", b"IncompleteBody"),
    ):
        status, _, answer = server.signed("PUT", path, bad, **headers)
        assert (status, code in answer) == (400, True), answer
    for said in (
        {"x_amz_decoded_content_length": "5"},
        {"x_amz_decoded_content_length": str(len(BIG) + 1)},
        {"x_amz_trailer": "x-amz-checksum-crc32,x-amz-checksum-sha1"},
        {"x_amz_trailer": "x-amz-checksum-crc32,x-other"},
        {"x_amz_trailer": ", x-amz-checksum-crc32"},
    ):
        status, _, answer = server.signed("PUT", path, good, **{**headers, **said})
        assert status == 400
        assert (b"IncompleteBody" in answer) == ("x_amz_decoded_content_length" in said), answer
    assert server.signed("GET", path)[0] == 404
    assert not server.uploads_left()
    for trailer in ("x-amz-checksum-crc32", "x-amz-checksum-crc32, "):
        status, answer_headers, _ = server.signed("PUT", path, good, **{**headers, "x_amz_trailer": trailer})
        assert (status, answer_headers["x-amz-checksum-crc32"]) == (200, crc)
    status, answer_headers, data = server.signed("GET", path)
    assert data == BIG
    assert "content-encoding" not in answer_headers


def test_listings(s3: Any, bucket: str) -> None:
    names = ["a", "dir/one", "dir/sub/two", "dir2/x", "z&<>", "é"]
    for name in names:
        s3.put_object(Bucket=bucket, Key=name, Body=b"xy")
    assert [item["Key"] for item in s3.list_objects(Bucket=bucket)["Contents"]] == names
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [item["Key"] for item in page["Contents"]] == ["a", "z&<>", "é"]
    assert [item["Prefix"] for item in page["CommonPrefixes"]] == ["dir/", "dir2/"]
    assert page["KeyCount"] == 5
    page = s3.list_objects_v2(Bucket=bucket, Prefix="dir/", Delimiter="/", StartAfter="dir/one")
    assert [item["Prefix"] for item in page["CommonPrefixes"]] == ["dir/sub/"]
    assert "Contents" not in page
    found: list[str] = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": 2}):
        found += [item["Key"] for item in page["Contents"]]
    assert found == names
    found = []
    for page in s3.get_paginator("list_objects").paginate(
        Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 1}
    ):
        found += [item["Key"] for item in page.get("Contents", [])]
        found += [item["Prefix"] for item in page.get("CommonPrefixes", [])]
    assert sorted(found) == ["a", "dir/", "dir2/", "z&<>", "é"]
    first = s3.list_objects(Bucket=bucket)["Contents"][0]
    assert (first["Size"], first["ETag"], first["Owner"]["ID"]) == (2, f'"{hashlib.md5(b"xy").hexdigest()}"', "a")
    assert "Owner" not in s3.list_objects_v2(Bucket=bucket)["Contents"][0]
    assert "Owner" in s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"][0]
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket, MaxKeys=0)
    for parameters in ({"MaxKeys": -1}, {"EncodingType": "x"}, {"ContinuationToken": "_w"}):
        with pytest.raises(ClientError) as refused:
            s3.list_objects_v2(Bucket=bucket, **parameters)
        assert refused.value.response["Error"]["Code"] == "InvalidArgument"


def test_copies(s3: Any, server: S3Server, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="from é", Body=BIG, Metadata={"a": "1"}, ContentType="text/x", Tagging="t=1")
    s3.copy_object(Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "from é"})
    got = s3.get_object(Bucket=bucket, Key="to")
    assert (got["Body"].read(), got["Metadata"], got["ContentType"], got["TagCount"]) == (BIG, {"a": "1"}, "text/x", 1)
    s3.copy_object(
        Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "from é"}, MetadataDirective="REPLACE",
        Metadata={"b": "2"}, ContentType="text/y", TaggingDirective="REPLACE", Tagging="u=2",
    )  # fmt: skip
    got = s3.head_object(Bucket=bucket, Key="to")
    assert (got["Metadata"], got["ContentType"]) == ({"b": "2"}, "text/y")
    assert s3.get_object_tagging(Bucket=bucket, Key="to")["TagSet"] == [{"Key": "u", "Value": "2"}]
    with refusal("InvalidRequest"):
        s3.copy_object(Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "to"})
    s3.copy_object(
        Bucket=bucket, Key="to", CopySource={"Bucket": bucket, "Key": "to"}, MetadataDirective="REPLACE",
        Metadata={"c": "3"},
    )  # fmt: skip
    assert s3.head_object(Bucket=bucket, Key="to")["Metadata"] == {"c": "3"}
    with refusal("NoSuchKey"):
        s3.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/none")
    with refusal("PreconditionFailed"):
        s3.copy_object(Bucket=bucket, Key="to", CopySource=f"{bucket}/to", CopySourceIfMatch="x")
    status, _, body = server.signed("PUT", f"/{bucket}/x", x_amz_copy_source=f"/{bucket}/to", range="bytes=0-2")
    assert (status, b"InvalidArgument" in body) == (400, True)
    with refusal("AccessDenied"):
        server.client("bob").copy_object(Bucket=bucket, Key="x", CopySource=f"{bucket}/to")
    server.client("bob").create_bucket(Bucket="bobs-for-copies")
    with refusal("AccessDenied"):
        server.client("bob").copy_object(Bucket="bobs-for-copies", Key="x", CopySource=f"{bucket}/to")


def test_many_are_deleted_at_once(s3: Any, server: S3Server, bucket: str) -> None:
    for name in ("a", "b c", "é", " "):
        s3.put_object(Bucket=bucket, Key=name, Body=b"")
    wanted = [{"Key": name} for name in ("a", "b c", "é", " ", "never")]
    done = s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted})
    assert [item["Key"] for item in done["Deleted"]] == ["a", "b c", "é", " ", "never"]
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert "Deleted" not in s3.delete_objects(Bucket=bucket, Delete={"Objects": wanted, "Quiet": True})
    done = server.client("bob").delete_objects(Bucket=bucket, Delete={"Objects": wanted})
    assert {item["Code"] for item in done["Errors"]} == {"AccessDenied"}
    for body in (b"", b"<Delete>", b"<Delete></Delete>", b"<Other/>", b"<Delete><Object/></Delete>", b"\xff",
                 b'<!DOCTYPE a [<!ENTITY e "x">]><Delete><Object><Key>&e;</Key></Object></Delete>',
                 b"<Delete>" + b"<Object><Key>x</Key></Object>" * 1001 + b"</Delete>"):  # fmt: skip
        digest = base64.b64encode(hashlib.md5(body).digest()).decode()
        status, _, answer = server.signed("POST", f"/{bucket}?delete", body, content_md5=digest)
        assert (status, b"MalformedXML" in answer) == (400, True), (body[:60], answer)
    whole = b"<Delete><Object><Key>a</Key></Object></Delete>"
    status, _, answer = server.signed("POST", f"/{bucket}?delete", whole)
    assert (status, b"InvalidRequest" in answer) == (400, True)


def test_tags(s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="o", Body=b"x", Metadata={"a": "1"})
    assert s3.get_object_tagging(Bucket=bucket, Key="o")["TagSet"] == []
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b &", "Value": ""}]
    s3.put_object_tagging(Bucket=bucket, Key="o", Tagging={"TagSet": tags})
    assert s3.get_object_tagging(Bucket=bucket, Key="o")["TagSet"] == tags
    assert s3.head_object(Bucket=bucket, Key="o")["Metadata"] == {"a": "1"}
    s3.put_object(Bucket=bucket, Key="p", Body=b"", Tagging="foo=bar&bar")
    assert {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(Bucket=bucket, Key="p")["TagSet"]} == {
        "foo": "bar",
        "bar": "",
    }
    s3.delete_object_tagging(Bucket=bucket, Key="o")
    assert s3.get_object_tagging(Bucket=bucket, Key="o")["TagSet"] == []
    for wrong in (
        tags[:1] * 2,
        [{"Key": str(number), "Value": ""} for number in range(11)],
        [{"Key": "x" * 129, "Value": ""}],
    ):
        with refusal("InvalidTag"):
            s3.put_object_tagging(Bucket=bucket, Key="o", Tagging={"TagSet": wrong})
    with refusal("NoSuchKey"):
        s3.get_object_tagging(Bucket=bucket, Key="none")
    with refusal("NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=bucket)
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": tags})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == tags
    s3.delete_bucket_tagging(Bucket=bucket)
    with refusal("NoSuchTagSet"):
        s3.get_bucket_tagging(Bucket=bucket)


def test_what_is_not_there_is_refused(server: S3Server, bucket: str) -> None:
    for method, path, status, code in (
        ("PUT", f"/{bucket}?replication", 501, b"NotImplemented"),
        ("DELETE", f"/{bucket}?inventory", 501, b"NotImplemented"),
        ("GET", f"/{bucket}/o?torrent", 501, b"NotImplemented"),
        ("PATCH", f"/{bucket}/o", 405, b"MethodNotAllowed"),
        ("POST", "/", 405, b"MethodNotAllowed"),
        ("GET", f"/{bucket}?acl&policy", 400, b"InvalidArgument"),
        ("GET", f"/{bucket}?replication", 404, b"ReplicationConfigurationNotFoundError"),
    ):
        got, headers, body = server.signed(method, path)
        assert (got, code in body) == (status, True), body
        assert len(headers["x-amz-request-id"]) == 16
        assert headers["x-amz-id-2"]
    assert server.signed("HEAD", f"/{bucket}")[0] == 200, "the bucket is still there"


def test_hosts_that_name_buckets(server: S3Server, s3: Any, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="dir/o", Body=b"x")
    host = f"{bucket}.s3.test"
    assert server.signed("GET", "/dir/o", host=host)[2] == b"x"
    assert b"<Key>dir/o</Key>" in server.signed("GET", "/?prefix=dir", host=host)[2]
    assert server.signed("PUT", "/new", b"y", host=host)[0] == 200
    assert s3.get_object(Bucket=bucket, Key="new")["Body"].read() == b"y"
    assert server.signed("GET", "/dir/o", host="none.s3.test")[0] == 404


def test_files_left(server: S3Server, tmp_path: Path) -> None:
    assert not server.uploads_left()
