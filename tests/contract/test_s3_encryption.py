"""Encryption at the S3 door: by the store's secret, of a whole bucket, by keys that clients bring."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from apus.services.object.logic.sealing import Keyring
from apus.services.object.service import Options
from tests.contract.s3_server import S3Server, refusal

MIB = 1 << 20
SECRET = b"what nobody may find on a drive " * 4_000
KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"), Options(keyring=Keyring({"1": b"s" * 32})))
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


def on_drives(server: S3Server, what: bytes = SECRET[:32]) -> bool:
    return any(
        what in path.read_bytes()
        for path in server.root.glob("d*/**/*")
        if path.is_file() and path.stat().st_size < 1 << 30
    )


def customer(key: bytes = KEY, source: bool = False) -> dict[str, Any]:
    prefix = "CopySource" if source else ""
    return {f"{prefix}SSECustomerAlgorithm": "AES256", f"{prefix}SSECustomerKey": key}


def parts_of(
    s3: Any, bucket: str, key: str, bodies: list[bytes], said: dict[str, Any], with_parts: dict[str, Any]
) -> Any:
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key=key, **said)["UploadId"]
    into = {"Bucket": bucket, "Key": key, "UploadId": upload_id}
    parts = [
        {"PartNumber": number, "ETag": s3.upload_part(**into, PartNumber=number, Body=body, **with_parts)["ETag"]}
        for number, body in enumerate(bodies, 1)
    ]
    return s3.complete_multipart_upload(**into, MultipartUpload={"Parts": parts})


def test_by_the_stores_secret(s3: Any, server: S3Server, bucket: str) -> None:
    done = s3.put_object(Bucket=bucket, Key="o", Body=SECRET, ServerSideEncryption="AES256")
    assert done["ServerSideEncryption"] == "AES256"
    assert done["ETag"].strip('"') == hashlib.md5(SECRET).hexdigest()
    got = s3.get_object(Bucket=bucket, Key="o")
    assert (got["Body"].read(), got["ServerSideEncryption"]) == (SECRET, "AES256")
    assert s3.get_object(Bucket=bucket, Key="o", Range="bytes=5-9")["Body"].read() == SECRET[5:10]
    assert server.ask("GET", f"/v1/AUTH_a/{bucket}/o")[2] == SECRET
    assert server.signed("GET", f"/{bucket}/o", x_amz_server_side_encryption="AES256")[0] == 400, (
        "it asks for nothing here"
    )
    assert not on_drives(server)
    head = bytes(5 * MIB)
    done = parts_of(s3, bucket, "parts", [head, SECRET], {"ServerSideEncryption": "AES256"}, {})
    assert done["ServerSideEncryption"] == "AES256"
    assert s3.get_object(Bucket=bucket, Key="parts")["Body"].read() == head + SECRET
    assert s3.head_object(Bucket=bucket, Key="parts")["ServerSideEncryption"] == "AES256"
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/o", ServerSideEncryption="AES256")
    s3.copy_object(Bucket=bucket, Key="o", CopySource=f"{bucket}/o", ServerSideEncryption="AES256")
    assert server.ask("GET", f"/v1/AUTH_a/{bucket}/copy")[2] == SECRET
    assert not on_drives(server)


@pytest.mark.parametrize("size", [1, 100_000, MIB, MIB + 1])
def test_what_is_in_the_page_cache_is_decrypted_too(s3: Any, bucket: str, size: int) -> None:
    body = (SECRET * 9)[:size]
    s3.put_object(Bucket=bucket, Key="o", Body=body, ServerSideEncryption="AES256")
    s3.put_object(Bucket=bucket, Key="mine", Body=body, **customer())
    for _ in range(4):
        assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == body
        assert s3.get_object(Bucket=bucket, Key="mine", **customer())["Body"].read() == body


def test_of_a_bucket(s3: Any, server: S3Server, bucket: str) -> None:
    with refusal("ServerSideEncryptionConfigurationNotFoundError"):
        s3.get_bucket_encryption(Bucket=bucket)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"][0][
        "ApplyServerSideEncryptionByDefault"
    ] == {"SSEAlgorithm": "AES256"}
    assert s3.put_object(Bucket=bucket, Key="o", Body=SECRET)["ServerSideEncryption"] == "AES256"
    server.ask("PUT", f"/v1/AUTH_a/{bucket}/swift", SECRET)
    assert s3.head_object(Bucket=bucket, Key="swift")["ServerSideEncryption"] == "AES256"
    parts_of(s3, bucket, "parts", [SECRET], {}, {})
    assert s3.get_object(Bucket=bucket, Key="parts")["Body"].read() == SECRET
    assert not on_drives(server)
    for body in (b"<x/>", b"<ServerSideEncryptionConfiguration/>", b"<",
                 b"<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>ROT13</SSEAlgorithm>"
                 b"</ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>"):  # fmt: skip
        assert server.signed("PUT", f"/{bucket}?encryption", body)[0] == 400
    rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] = "aws:kms"
    with refusal("NotImplemented"):
        s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    s3.delete_bucket_encryption(Bucket=bucket)
    assert "ServerSideEncryption" not in s3.put_object(Bucket=bucket, Key="o", Body=b"as it was sent" * 9)
    assert on_drives(server, b"as it was sent"), "the test would see it"


def test_by_the_clients_key(s3: Any, server: S3Server, bucket: str) -> None:
    done = s3.put_object(Bucket=bucket, Key="o", Body=SECRET, **customer())
    assert done["SSECustomerAlgorithm"] == "AES256"
    assert done["SSECustomerKeyMD5"] == base64.b64encode(hashlib.md5(KEY).digest()).decode()
    s3.put_object(Bucket=bucket, Key="small", Body=b"x", **customer())
    for key in ("o", "small"):
        for call in (s3.get_object, s3.head_object):
            assert call(Bucket=bucket, Key=key, **customer())["SSECustomerAlgorithm"] == "AES256"
        with refusal("InvalidRequest"):
            s3.get_object(Bucket=bucket, Key=key)
        with refusal("400"):
            s3.head_object(Bucket=bucket, Key=key)
        with refusal("AccessDenied"):
            s3.get_object(Bucket=bucket, Key=key, **customer(OTHER))
        assert server.ask("GET", f"/v1/AUTH_a/{bucket}/{key}")[0] == 403
        assert server.ask("COPY", f"/v1/AUTH_a/{bucket}/{key}", Destination=f"{bucket}/copy")[0] == 403
    assert s3.get_object(Bucket=bucket, Key="o", Range="bytes=7-9", **customer())["Body"].read() == SECRET[7:10]
    with refusal("InvalidRequest"):
        s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/o")
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/o", **customer(source=True), **customer(OTHER))
    assert s3.get_object(Bucket=bucket, Key="copy", **customer(OTHER))["Body"].read() == SECRET
    s3.put_object(Bucket=bucket, Key="plain", Body=b"x")
    with refusal("InvalidRequest"):
        s3.get_object(Bucket=bucket, Key="plain", **customer())
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=bucket, Key="o", Body=b"newer", **customer(OTHER))["VersionId"]
    assert s3.get_object(Bucket=bucket, Key="o", VersionId="null", **customer())["Body"].read() == SECRET
    assert s3.get_object(Bucket=bucket, Key="o", VersionId=version, **customer(OTHER))["Body"].read() == b"newer"
    assert not on_drives(server)


def test_parts_by_the_clients_key(s3: Any, server: S3Server, bucket: str) -> None:
    head = bytes(5 * MIB)
    parts_of(s3, bucket, "o", [head, SECRET], customer(), customer())
    got = s3.get_object(Bucket=bucket, Key="o", **customer())
    assert got["Body"].read() == head + SECRET
    assert s3.get_object(Bucket=bucket, Key="o", PartNumber=2, **customer())["Body"].read() == SECRET
    with refusal("InvalidRequest"):
        s3.get_object(Bucket=bucket, Key="o")
    with refusal("AccessDenied"):
        s3.get_object(Bucket=bucket, Key="o", **customer(OTHER))
    assert server.ask("GET", f"/v1/AUTH_a/{bucket}/o")[0] == 403
    with refusal("InvalidRequest"):
        parts_of(s3, bucket, "p", [b"x"], customer(), {})
    with refusal("InvalidRequest"):
        parts_of(s3, bucket, "p", [b"x"], customer(), customer(OTHER))
    with refusal("InvalidRequest"):
        parts_of(s3, bucket, "p", [b"x"], {}, customer())
    server.run(server.store.sweeper.run_once())
    assert s3.get_object(Bucket=bucket, Key="o", **customer())["ContentLength"] == len(head + SECRET)
    assert not on_drives(server)


def test_what_is_refused(s3: Any, server: S3Server, bucket: str) -> None:
    prefix = "x_amz_server_side_encryption"
    key, digest = base64.b64encode(KEY).decode(), base64.b64encode(hashlib.md5(KEY).digest()).decode()
    for headers, status, code in (
        ({prefix: "aws:kms"}, 501, b"NotImplemented"),
        ({prefix: "ROT13"}, 400, b"InvalidEncryptionAlgorithmError"),
        ({f"{prefix}_aws_kms_key_id": "x"}, 400, b"InvalidArgument"),
        ({f"{prefix}_aws_kms_key_id": "x", prefix: "AES256"}, 400, b"InvalidArgument"),
        ({f"{prefix}_customer_algorithm": "AES256"}, 400, b"InvalidArgument"),
        ({f"{prefix}_customer_key": key}, 400, b"InvalidArgument"),
        ({f"{prefix}_customer_algorithm": "AES256", f"{prefix}_customer_key": key, f"{prefix}_customer_key_MD5": "x"}, 400, b"InvalidArgument"),
        ({f"{prefix}_customer_algorithm": "AES256", f"{prefix}_customer_key": "x", f"{prefix}_customer_key_MD5": digest}, 400, b"InvalidArgument"),
        ({f"{prefix}_customer_algorithm": "DES", f"{prefix}_customer_key": key, f"{prefix}_customer_key_MD5": digest}, 400, b"InvalidEncryptionAlgorithmError"),
        ({f"{prefix}_customer_algorithm": "AES256", f"{prefix}_customer_key": key, f"{prefix}_customer_key_MD5": digest, prefix: "AES256"}, 400, b"InvalidArgument"),
    ):  # fmt: skip
        got, _, body = server.signed("PUT", f"/{bucket}/o", b"x", **headers)
        assert (got, code in body) == (status, True), (headers, body)
    with refusal("NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="o")


def test_without_a_secret(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = S3Server(tmp_path_factory.mktemp("none"))
    try:
        s3 = server.client()
        s3.create_bucket(Bucket="box")
        with refusal("NotImplemented"):
            s3.put_object(Bucket="box", Key="o", Body=b"", ServerSideEncryption="AES256")
        s3.put_object(Bucket="box", Key="o", Body=b"x", **customer())
        assert s3.get_object(Bucket="box", Key="o", **customer())["Body"].read() == b"x"
    finally:
        server.stop()
