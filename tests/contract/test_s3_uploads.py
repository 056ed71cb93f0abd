"""Uploads in parts at the S3 door: all steps, what is refused, and that nothing of them is left behind."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from boto3.s3.transfer import TransferConfig

from apus.services.object.logic.uploads import parts_container, uploads_container
from tests.contract.s3_server import S3Server, refusal

MIB = 1 << 20
A, B, C = (bytes([letter]) * (5 * MIB) for letter in b"abc")
END = b"the end"


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


def upload(s3: Any, bucket: str, key: str, *bodies: bytes, **said: Any) -> tuple[str, list[dict[str, Any]]]:
    """Begun and filled: its id, and its parts as Complete wants them."""
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key=key, **said)["UploadId"]
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=number, Body=body)["ETag"]}
        for number, body in enumerate(bodies, 1)
    ]  # fmt: skip
    return upload_id, parts


def complete(s3: Any, bucket: str, key: str, upload_id: str, parts: list[dict[str, Any]], **more: Any) -> Any:
    return s3.complete_multipart_upload(
        Bucket=bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}, **more
    )


def put(s3: Any, bucket: str, key: str, *bodies: bytes, **said: Any) -> Any:
    return complete(s3, bucket, key, *upload(s3, bucket, key, *bodies, **said))


def left(server: S3Server, bucket: str) -> list[str]:
    """Names in the hidden containers, when the sweeper has been round."""
    server.run(server.store.sweeper.run_once())
    names = list[str]()
    for container in (uploads_container(bucket), parts_container(bucket)):
        rows: Any = server.run(server.store.service.directory.rows("AUTH_a", container, "", 10_000))
        names += [row.name for row in rows if not row.gone]
    return names


def etag_of(*bodies: bytes) -> str:
    md5s = b"".join(hashlib.md5(body).digest() for body in bodies)
    return f'"{hashlib.md5(md5s).hexdigest()}-{len(bodies)}"'


def test_one_object(s3: Any, server: S3Server, bucket: str) -> None:
    whole = A + B + END
    done = put(s3, bucket, "dir/big", A, B, END, Metadata={"colour": "red"}, ContentType="text/x")
    assert done["ETag"] == etag_of(A, B, END)
    assert (done["Bucket"], done["Key"]) == (bucket, "dir/big")
    got = s3.get_object(Bucket=bucket, Key="dir/big")
    assert got["Body"].read() == whole
    assert (got["ETag"], got["ContentLength"], got["ContentType"]) == (etag_of(A, B, END), len(whole), "text/x")
    assert got["Metadata"] == {"colour": "red"}
    listed = s3.list_objects_v2(Bucket=bucket)["Contents"]
    assert [(item["Key"], item["Size"], item["ETag"]) for item in listed] == [
        ("dir/big", len(whole), etag_of(A, B, END))
    ]
    piece = s3.get_object(Bucket=bucket, Key="dir/big", Range=f"bytes={5 * MIB - 2}-{5 * MIB + 1}")
    assert (piece["Body"].read(), piece["ResponseMetadata"]["HTTPStatusCode"]) == (b"aabb", 206)
    for number, body in enumerate((A, B, END), 1):
        part = s3.get_object(Bucket=bucket, Key="dir/big", PartNumber=number)
        assert (part["Body"].read(), part["PartsCount"]) == (body, 3)
        assert s3.head_object(Bucket=bucket, Key="dir/big", PartNumber=number)["ContentLength"] == len(body)
    with refusal("InvalidPartNumber"):
        s3.get_object(Bucket=bucket, Key="dir/big", PartNumber=4)
    parts = s3.get_object_attributes(Bucket=bucket, Key="dir/big", ObjectAttributes=["ObjectParts", "ObjectSize"])
    assert (parts["ObjectParts"]["TotalPartsCount"], parts["ObjectSize"]) == (3, len(whole))


def test_the_other_door(s3: Any, server: S3Server, bucket: str) -> None:
    put(s3, bucket, "o", A, END, Metadata={"colour": "red"})
    status, headers, body = server.ask("GET", f"/v1/AUTH_a/{bucket}/o")
    assert (status, body) == (200, A + END)
    assert (headers["etag"], headers["x-object-meta-colour"]) == (etag_of(A, END), "red")
    assert headers["x-static-large-object"] == "True"
    assert server.ask("GET", f"/v1/AUTH_a/{bucket}/o", Range="bytes=-3")[2] == b"end"
    assert server.ask("GET", f"/v1/AUTH_a/{bucket}")[2] == b"o\n"
    account = server.ask("GET", "/v1/AUTH_a?format=json")[2]
    assert b"\\u0000" not in account
    assert b"parts" not in account
    manifest = server.ask("GET", f"/v1/AUTH_a/{bucket}/o?multipart-manifest=get")[2]
    assert b"u0000" not in manifest, "the parts have no names that a client could use"
    assert server.ask("HEAD", f"/v1/AUTH_a/{bucket}")[1]["x-container-bytes-used"] >= str(len(A + END))
    for query in ("", "?multipart-manifest=get"):
        status, _, _ = server.ask("COPY", f"/v1/AUTH_a/{bucket}/o{query}", Destination=f"{bucket}/copy")
        assert status == 201
        assert server.ask("GET", f"/v1/AUTH_a/{bucket}/copy")[2] == A + END
    server.ask("POST", f"/v1/AUTH_a/{bucket}/o", X_Object_Meta_Colour="blue")
    assert s3.head_object(Bucket=bucket, Key="o")["Metadata"] == {"colour": "blue"}
    assert server.ask("DELETE", f"/v1/AUTH_a/{bucket}/o?multipart-manifest=delete")[0] == 200
    assert not left(server, bucket)
    assert server.ask("GET", f"/v1/AUTH_a/{bucket}/copy")[2] == A + END, "a copy has bytes of its own"
    status, _, body = server.ask("POST", f"/v1/AUTH_a/{bucket}", X_Versions_Location="elsewhere")
    assert status == 400, body


def test_what_complete_refuses(s3: Any, server: S3Server, bucket: str) -> None:
    upload_id, parts = upload(s3, bucket, "o", A, b"small", END)
    with refusal("EntityTooSmall"):
        complete(s3, bucket, "o", upload_id, parts)
    for wrong, code in (
        ([parts[2], parts[0]], "InvalidPartOrder"),
        ([parts[0], parts[0]], "InvalidPartOrder"),
        ([parts[0], {**parts[2], "ETag": parts[0]["ETag"]}], "InvalidPart"),
        ([parts[0], {"PartNumber": 9, "ETag": parts[0]["ETag"]}], "InvalidPart"),
        ([], "MalformedXML"),
    ):
        with refusal(code):
            complete(s3, bucket, "o", upload_id, wrong)
    for body in (b"", b"<x/>", b"<CompleteMultipartUpload><Part/></CompleteMultipartUpload>",
                 b"<CompleteMultipartUpload><Part><PartNumber>0</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>",
                 b"<CompleteMultipartUpload><Part><PartNumber>x</PartNumber><ETag>x</ETag></Part></CompleteMultipartUpload>"):  # fmt: skip
        assert server.signed("POST", f"/{bucket}/o?uploadId={upload_id}", body)[0] == 400, body
    with refusal("InvalidRequest"):
        complete(s3, bucket, "o", upload_id, [parts[0], parts[2]], MpuObjectSize=3)
    with refusal("NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="o")
    complete(s3, bucket, "o", upload_id, [parts[0], parts[2]], MpuObjectSize=len(A + END))
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == A + END
    assert len([name for name in left(server, bucket) if name.count("\0") > 1]) == 2, (
        "the part that is not used is gone"
    )
    again = complete(s3, bucket, "o", upload_id, [parts[0], parts[2]])
    assert again["ETag"] == etag_of(A, END), "whoever did not hear the answer may ask again"
    for others in (parts[:1], parts, [{"PartNumber": 1, "ETag": "x"}]):
        with refusal("NoSuchUpload"):
            complete(s3, bucket, "o", upload_id, others)


def test_uploads_that_are_not_there(s3: Any, server: S3Server, bucket: str) -> None:
    upload_id, parts = upload(s3, bucket, "o", END)
    for wrong in ("nonsense", upload_id + "x", "0000000000000000-n1-00"):
        with refusal("NoSuchUpload"):
            s3.upload_part(Bucket=bucket, Key="o", UploadId=wrong, PartNumber=1, Body=b"")
        with refusal("NoSuchUpload"):
            s3.list_parts(Bucket=bucket, Key="o", UploadId=wrong)
        with refusal("NoSuchUpload"):
            s3.abort_multipart_upload(Bucket=bucket, Key="o", UploadId=wrong)
        with refusal("NoSuchUpload"):
            complete(s3, bucket, "o", wrong, parts)
    with refusal("NoSuchUpload"):
        s3.list_parts(Bucket=bucket, Key="other", UploadId=upload_id)
    for path in (f"/{bucket}/o?uploadId={upload_id}&partNumber=0", f"/{bucket}/o?uploadId={upload_id}&partNumber=10001",
                 f"/{bucket}/o?uploadId={upload_id}&partNumber=x", f"/{bucket}/o?uploadId={upload_id}"):  # fmt: skip
        status, _, body = server.signed("PUT", path, b"x")
        assert (status, b"InvalidArgument" in body) == (400, True)
    s3.abort_multipart_upload(Bucket=bucket, Key="o", UploadId=upload_id)
    with refusal("NoSuchUpload"):
        complete(s3, bucket, "o", upload_id, parts)
    assert not left(server, bucket)


def test_a_part_is_sent_twice(s3: Any, server: S3Server, bucket: str) -> None:
    upload_id, parts = upload(s3, bucket, "o", A, END)
    s3.upload_part(Bucket=bucket, Key="o", UploadId=upload_id, PartNumber=1, Body=B)
    listed = s3.list_parts(Bucket=bucket, Key="o", UploadId=upload_id)["Parts"]
    assert [(part["PartNumber"], part["Size"], part["ETag"]) for part in listed] == [
        (1, len(B), f'"{hashlib.md5(B).hexdigest()}"'), (2, len(END), f'"{hashlib.md5(END).hexdigest()}"'),
    ]  # fmt: skip
    with refusal("InvalidPart"):
        complete(s3, bucket, "o", upload_id, parts)
    complete(s3, bucket, "o", upload_id, [{"PartNumber": 1, "ETag": hashlib.md5(B).hexdigest()}, parts[1]])
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == B + END
    assert len([name for name in left(server, bucket) if name.count("\0") > 1]) == 2


def test_copied_parts(s3: Any, server: S3Server, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="from", Body=A + B)
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="o")["UploadId"]
    into = {"Bucket": bucket, "Key": "o", "UploadId": upload_id}
    etags = [
        s3.upload_part_copy(**into, PartNumber=1, CopySource=f"{bucket}/from", CopySourceRange=f"bytes=1-{5 * MIB}"),
        s3.upload_part_copy(**into, PartNumber=2, CopySource=f"{bucket}/from"),
    ]
    parts = [{"PartNumber": number, "ETag": done["CopyPartResult"]["ETag"]} for number, done in enumerate(etags, 1)]
    for wrong, code in (("bytes=5-", "InvalidArgument"), ("bytes=-5", "InvalidArgument"), ("0-5", "InvalidArgument"),
                        ("bytes=9-5", "InvalidRange"), (f"bytes=0-{10 * MIB}", "InvalidRange")):  # fmt: skip
        with refusal(code):
            s3.upload_part_copy(**into, PartNumber=3, CopySource=f"{bucket}/from", CopySourceRange=wrong)
    with refusal("NoSuchKey"):
        s3.upload_part_copy(**into, PartNumber=3, CopySource=f"{bucket}/none")
    with refusal("PreconditionFailed"):
        s3.upload_part_copy(**into, PartNumber=3, CopySource=f"{bucket}/from", CopySourceIfMatch="x")
    complete(s3, bucket, "o", upload_id, parts)
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == A[1:] + B[:1] + A + B
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/o")
    assert s3.head_object(Bucket=bucket, Key="copy")["ContentLength"] == 15 * MIB
    assert "-" not in s3.head_object(Bucket=bucket, Key="copy")["ETag"]


def crc32(data: bytes) -> str:
    return base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


@pytest.mark.parametrize("algorithm", ["CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"])
def test_checksums(s3: Any, server: S3Server, bucket: str, algorithm: str) -> None:
    kinds = {"CRC64NVME": ["FULL_OBJECT"], "SHA1": ["COMPOSITE"], "SHA256": ["COMPOSITE"]}
    s3.put_object(Bucket=bucket, Key="plain", Body=A + END, ChecksumAlgorithm=algorithm)
    field = "Checksum" + algorithm
    whole = s3.head_object(Bucket=bucket, Key="plain", ChecksumMode="ENABLED")[field]
    for kind in kinds.get(algorithm, ["COMPOSITE", "FULL_OBJECT"]):
        key = f"o-{kind}"
        made = s3.create_multipart_upload(Bucket=bucket, Key=key, ChecksumAlgorithm=algorithm, ChecksumType=kind)
        assert (made["ChecksumAlgorithm"], made["ChecksumType"]) == (algorithm, kind)
        into = {"Bucket": bucket, "Key": key, "UploadId": made["UploadId"]}
        parts = []
        for number, body in enumerate((A, END), 1):
            done = s3.upload_part(**into, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm)
            parts.append({"PartNumber": number, "ETag": done["ETag"], field: done[field]})
        listed = s3.list_parts(**into)
        assert (listed["ChecksumAlgorithm"], listed["ChecksumType"]) == (algorithm, kind)
        assert [part[field] for part in listed["Parts"]] == [part[field] for part in parts]
        with refusal("InvalidPart"):
            complete(s3, bucket, key, made["UploadId"], [{**parts[0], field: parts[1][field]}, parts[1]])
        joined = b"".join(base64.b64decode(part[field]) for part in parts)
        expected = whole
        if kind == "COMPOSITE":
            s3.put_object(Bucket=bucket, Key="joined", Body=joined, ChecksumAlgorithm=algorithm)
            expected = s3.head_object(Bucket=bucket, Key="joined", ChecksumMode="ENABLED")[field] + "-2"
        if kind == "FULL_OBJECT":
            with refusal("InvalidRequest"):
                complete(s3, bucket, key, made["UploadId"], parts, ChecksumType="COMPOSITE")
        wrong = parts[0][field] if kind == "FULL_OBJECT" else parts[0][field] + "-2"
        with refusal("BadDigest"):
            complete(s3, bucket, key, made["UploadId"], parts, ChecksumType=kind, **{field: wrong})
        done = complete(s3, bucket, key, made["UploadId"], parts, ChecksumType=kind, **{field: expected})
        assert (done[field], done["ChecksumType"]) == (expected, kind)
        head = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        assert (head[field], head["ChecksumType"]) == (expected, kind)
        part = s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED", PartNumber=2)
        assert (part[field], part["ChecksumType"]) == (parts[1][field], kind)
        told = s3.get_object_attributes(Bucket=bucket, Key=key, ObjectAttributes=["ObjectParts"])["ObjectParts"]
        assert [part[field] for part in told["Parts"]] == [part[field] for part in parts]


def test_checksums_that_cannot_be(s3: Any, bucket: str) -> None:
    for algorithm, kind in (("SHA256", "FULL_OBJECT"), ("SHA1", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE")):
        with refusal("InvalidRequest"):
            s3.create_multipart_upload(Bucket=bucket, Key="o", ChecksumAlgorithm=algorithm, ChecksumType=kind)
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="o", ChecksumAlgorithm="SHA256")["UploadId"]
    with refusal("InvalidRequest"):
        s3.upload_part(Bucket=bucket, Key="o", UploadId=upload_id, PartNumber=1, Body=b"x", ChecksumCRC32=crc32(b"x"))
    with refusal("BadDigest"):
        s3.upload_part(
            Bucket=bucket,
            Key="o",
            UploadId=upload_id,
            PartNumber=1,
            Body=b"x",
            ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==",
            ChecksumAlgorithm="SHA256",
        )
    assert "Parts" not in s3.list_parts(Bucket=bucket, Key="o", UploadId=upload_id)


def test_conditions(s3: Any, server: S3Server, bucket: str) -> None:
    upload_id, parts = upload(s3, bucket, "o", END)
    s3.put_object(Bucket=bucket, Key="o", Body=b"first")
    with refusal("PreconditionFailed"):
        complete(s3, bucket, "o", upload_id, parts, IfNoneMatch="*")
    with refusal("PreconditionFailed"):
        complete(s3, bucket, "o", upload_id, parts, IfMatch='"x"')
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == b"first"
    etag = s3.head_object(Bucket=bucket, Key="o")["ETag"]
    complete(s3, bucket, "o", upload_id, parts, IfMatch=etag)
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == END


def test_pages_of_parts(s3: Any, bucket: str) -> None:
    upload_id, _ = upload(s3, bucket, "o", *(b"%d" % number for number in range(5)))
    pages = list(s3.get_paginator("list_parts").paginate(Bucket=bucket, Key="o", UploadId=upload_id, MaxParts=2))
    assert [[part["PartNumber"] for part in page["Parts"]] for page in pages] == [[1, 2], [3, 4], [5]]
    assert pages[0]["Initiator"]["ID"] == "a"


def test_pages_of_uploads(s3: Any, server: S3Server, bucket: str) -> None:
    keys = ["a/1", "a/2", "b", "b", "c/1", "d-1", "d-2", "é"]
    ids = [(key, s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]) for key in keys]
    assert len({upload_id for _, upload_id in ids}) == len(ids)

    def paged(**asked: Any) -> tuple[list[str], list[str]]:
        found, prefixes = list[str](), list[str]()
        for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, **asked):
            assert len(page.get("Uploads", [])) + len(page.get("CommonPrefixes", [])) <= asked.get("MaxUploads", 1000)
            found += [item["Key"] for item in page.get("Uploads", [])]
            prefixes += [item["Prefix"] for item in page.get("CommonPrefixes", [])]
        return found, prefixes

    assert paged() == (keys, [])
    for most in (1, 2, 3):
        assert paged(MaxUploads=most) == (keys, [])
        assert paged(MaxUploads=most, Delimiter="/") == (["b", "b", "d-1", "d-2", "é"], ["a/", "c/"])
    assert paged(Prefix="a/") == (["a/1", "a/2"], [])
    assert paged(Delimiter="-") == ([key for key in keys if "-" not in key], ["d-"])
    whole = s3.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [(item["Key"], item["UploadId"]) for item in whole] == ids
    after = s3.list_multipart_uploads(Bucket=bucket, KeyMarker="b", UploadIdMarker=ids[2][1])["Uploads"]
    assert after[0]["UploadId"] == ids[3][1]
    assert s3.list_multipart_uploads(Bucket=bucket, KeyMarker="b")["Uploads"][0]["Key"] == "c/1"
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    s3.delete_bucket(Bucket=bucket)
    s3.create_bucket(Bucket=bucket)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


def test_what_is_left(s3: Any, server: S3Server, bucket: str) -> None:
    for key in ("deleted", "overwritten", "expired", "kept"):
        put(s3, bucket, key, A, END)
    s3.delete_object(Bucket=bucket, Key="deleted")
    s3.put_object(Bucket=bucket, Key="overwritten", Body=b"small")
    s3.put_object(Bucket=bucket, Key="kept/too", Body=b"")
    server.ask("POST", f"/v1/AUTH_a/{bucket}/expired", X_Delete_At="1000000000000")
    assert {name.split("\0")[0] for name in left(server, bucket)} == {"kept", "expired"}
    put(s3, bucket, "kept", B)
    assert s3.get_object(Bucket=bucket, Key="kept")["Body"].read() == B
    assert len(left(server, bucket)) == 2 + 3, "a record and a part; a record and two parts"
    s3.delete_object(Bucket=bucket, Key="kept")
    s3.delete_object(Bucket=bucket, Key="expired")
    server.store.service.uploads.doubts.clear()
    server.store.sweeper._scan_at_s = 0.0
    assert not left(server, bucket), "the scan finds what was never in doubt"


def test_versions(s3: Any, server: S3Server, bucket: str) -> None:
    put(s3, bucket, "o", A, END)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = put(s3, bucket, "o", B, END)["VersionId"]
    second = s3.put_object(Bucket=bucket, Key="o", Body=b"small")["VersionId"]
    s3.delete_object(Bucket=bucket, Key="o")
    left(server, bucket)
    for version, body in (("null", A + END), (first, B + END), (second, b"small")):
        got = s3.get_object(Bucket=bucket, Key="o", VersionId=version)
        assert got["Body"].read() == body
    listed = s3.list_object_versions(Bucket=bucket)["Versions"]
    assert [(item["VersionId"], item["Size"]) for item in listed] == [
        (second, 5), (first, len(B + END)), ("null", len(A + END)),
    ]  # fmt: skip
    assert server.ask("GET", f"/v1/AUTH_a/{bucket}/o?version-id={first}")[2] == B + END
    s3.delete_object(Bucket=bucket, Key="o", VersionId=first)
    left(server, bucket)
    assert s3.get_object(Bucket=bucket, Key="o", VersionId="null")["Body"].read() == A + END
    s3.delete_object(Bucket=bucket, Key="o", VersionId="null")
    assert not left(server, bucket)


def test_quotas(s3: Any, server: S3Server, bucket: str) -> None:
    server.ask("POST", f"/v1/AUTH_a/{bucket}", X_Container_Meta_Quota_Bytes=str(6 * MIB))
    upload_id, _ = upload(s3, bucket, "o", A)
    with refusal("QuotaExceeded"):
        s3.upload_part(Bucket=bucket, Key="o", UploadId=upload_id, PartNumber=2, Body=B)


def test_rights(s3: Any, server: S3Server, bucket: str) -> None:
    upload_id, parts = upload(s3, bucket, "o", END)
    bob = server.client("bob")
    with refusal("AccessDenied"):
        bob.create_multipart_upload(Bucket=bucket, Key="o")
    with refusal("AccessDenied"):
        bob.upload_part(Bucket=bucket, Key="o", UploadId=upload_id, PartNumber=1, Body=b"")
    with refusal("AccessDenied"):
        complete(bob, bucket, "o", upload_id, parts)
    with refusal("AccessDenied"):
        bob.abort_multipart_upload(Bucket=bucket, Key="o", UploadId=upload_id)
    with refusal("AccessDenied"):
        bob.list_parts(Bucket=bucket, Key="o", UploadId=upload_id)
    with refusal("AccessDenied"):
        bob.list_multipart_uploads(Bucket=bucket)
    server.ask("POST", f"/v1/AUTH_a/{bucket}", X_Container_Write="b:*", X_Container_Read="b:*")
    put(bob, bucket, "bobs", A, END)
    assert bob.get_object(Bucket=bucket, Key="bobs")["ContentLength"] == len(A + END)
    his = bob.create_multipart_upload(Bucket=bucket, Key="more")["UploadId"]
    said = [
        *s3.list_multipart_uploads(Bucket=bucket)["Uploads"],
        s3.list_parts(Bucket=bucket, Key="more", UploadId=his),
    ]
    assert [(item["Owner"]["ID"], item["Initiator"]["ID"]) for item in said] == [("b", "b"), ("a", "a"), ("b", "b")]


def test_by_the_transfer_manager(s3: Any, bucket: str) -> None:
    config = TransferConfig(multipart_threshold=6 * MIB, multipart_chunksize=5 * MIB, max_concurrency=4)
    body = A + B + C + END
    s3.upload_fileobj(io.BytesIO(body), bucket, "o", Config=config)
    assert s3.head_object(Bucket=bucket, Key="o")["ETag"] == etag_of(A, B, C, END)
    got = io.BytesIO()
    s3.download_fileobj(bucket, "o", got, Config=config)
    assert got.getvalue() == body
    s3.copy({"Bucket": bucket, "Key": "o"}, bucket, "copy", Config=config)
    assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == body


def test_files_left(server: S3Server) -> None:
    assert not server.uploads_left()
