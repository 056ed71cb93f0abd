"""A container whose objects are in fragments, through both doors, plain and encrypted: as any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from apus.services.object.logic.sealing import Keyring
from apus.services.object.service import Options
from tests.contract.s3_server import S3Server

ACCOUNT = "/v1/AUTH_a"
MIB = 1 << 20
SIZES = [0, 1000, 128 << 10, MIB, 3 * MIB + 5]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "encrypted"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    options = Options(keyring=Keyring({"1": b"s" * 32}), encrypt=request.param)
    server = S3Server(tmp_path_factory.mktemp("store"), options, {"coded": "4+2"}, drives=6)
    assert server.ask("PUT", f"{ACCOUNT}/c", X_Storage_Policy="coded")[0] == 201
    yield server
    server.stop()


def body(size: int, seed: int = 1) -> bytes:
    return Random(f"{seed}/{size}").randbytes(size)


def is_coded(server: S3Server, container: str, name: str) -> bool:
    found = server.run(server.store.service.find("AUTH_a", container, name))
    assert found is not None
    return found.head.coded is not None


@pytest.mark.parametrize("size", SIZES)
def test_objects_are_written_read_described_copied_and_deleted(server: S3Server, size: int) -> None:
    base, data = f"{ACCOUNT}/c/o-{size}", body(size)
    status, headers, _ = server.ask("PUT", base, data, X_Object_Meta_K="v")
    assert (status, headers["etag"].strip('"')) == (201, hashlib.md5(data).hexdigest())
    assert is_coded(server, "c", f"o-{size}") == (size >= 128 << 10)
    status, headers, got = server.ask("GET", base)
    assert (status, got, headers["content-length"]) == (200, data, str(size))
    assert headers["etag"].strip('"') == hashlib.md5(data).hexdigest()
    assert server.ask("POST", base, X_Object_Meta_K="w")[0] == 202
    assert server.ask("GET", base, X_Newest="true")[1]["x-object-meta-k"] == "w"
    status, headers, got = server.ask("GET", base, X_Consistency="strong")
    assert (status, got, headers["x-consistency"]) == (200, data, "strong")
    if size:
        low, high = size // 3, size // 2
        status, _, got = server.ask("GET", base, Range=f"bytes={low}-{high}")
        assert (status, got) == (206, data[low : high + 1])
        status, _, got = server.ask("GET", base, Range=f"bytes=0-0,-{size // 4 + 1}")
        assert status == 206
        assert data[-(size // 4 + 1) :] in got
    assert server.ask("COPY", base, Destination=f"c/copy-{size}")[0] == 201
    assert server.ask("PUT", base, b"other")[0] == 201
    assert server.ask("GET", base)[2] == b"other"
    assert server.ask("GET", f"{ACCOUNT}/c/copy-{size}")[2] == data
    assert server.ask("DELETE", f"{ACCOUNT}/c/copy-{size}")[0] == 204
    assert server.ask("GET", f"{ACCOUNT}/c/copy-{size}")[0] == 404


def test_a_wrong_checksum_or_length_leaves_what_was_there(server: S3Server) -> None:
    base, data = f"{ACCOUNT}/c/kept", body(2 * MIB)
    assert server.ask("PUT", base, data)[0] == 201
    assert server.ask("PUT", base, body(2 * MIB, 2), ETag="0" * 32)[0] == 422
    assert server.ask("GET", base)[2] == data


def test_large_objects_of_both_kinds(server: S3Server) -> None:
    parts = [body(MIB + number, number) for number in range(3)]
    for number, part in enumerate(parts):
        assert server.ask("PUT", f"{ACCOUNT}/c/parts/{number}", part)[0] == 201
    listed = [{"path": f"/c/parts/{number}"} for number in range(3)]
    slo = json.dumps(listed).encode()
    assert server.ask("PUT", f"{ACCOUNT}/c/static?multipart-manifest=put", slo)[0] == 201
    assert server.ask("PUT", f"{ACCOUNT}/c/dynamic", b"", X_Object_Manifest="c/parts/")[0] == 201
    whole = b"".join(parts)
    for name in ("static", "dynamic"):
        assert server.ask("GET", f"{ACCOUNT}/c/{name}")[2] == whole
        got = server.ask("GET", f"{ACCOUNT}/c/{name}", Range=f"bytes={MIB - 5}-{2 * MIB + 5}")[2]
        assert got == whole[MIB - 5 : 2 * MIB + 6]


def test_versions_are_in_fragments_too(server: S3Server) -> None:
    base, first = f"{ACCOUNT}/versions", body(MIB)
    assert server.ask("PUT", base, X_Storage_Policy="coded", X_Versions_Enabled="true")[0] == 201
    assert server.ask("PUT", f"{base}/o", first)[0] == 201
    version = server.ask("HEAD", f"{base}/o")[1]["x-object-version-id"]
    assert server.ask("PUT", f"{base}/o", b"two")[0] == 201
    assert server.ask("GET", f"{base}/o?version-id={version}")[2] == first


def test_the_other_door_has_the_same_objects(server: S3Server) -> None:
    s3: Any = server.client()
    data = body(3 * MIB + 5, 7)
    s3.put_object(Bucket="c", Key="s3", Body=data, ChecksumAlgorithm="CRC32")
    assert is_coded(server, "c", "s3")
    assert server.ask("GET", f"{ACCOUNT}/c/s3")[2] == data
    assert s3.get_object(Bucket="c", Key="s3", Range="bytes=1048570-1048590")["Body"].read() == data[1048570:1048591]
    parts = [body(5 * MIB, 1), body(MIB + 3, 2)]
    upload = s3.create_multipart_upload(Bucket="c", Key="mp")["UploadId"]
    into = {"Bucket": "c", "Key": "mp", "UploadId": upload}
    done = [
        {"PartNumber": number, "ETag": s3.upload_part(**into, PartNumber=number, Body=part)["ETag"]}
        for number, part in enumerate(parts, 1)
    ]
    s3.complete_multipart_upload(**into, MultipartUpload={"Parts": done})
    assert s3.get_object(Bucket="c", Key="mp")["Body"].read() == b"".join(parts)
    assert server.ask("GET", f"{ACCOUNT}/c/mp")[2] == b"".join(parts)
    s3.copy_object(Bucket="c", Key="copied", CopySource="c/mp")
    assert s3.head_object(Bucket="c", Key="copied")["ContentLength"] == 6 * MIB + 3
    s3.delete_object(Bucket="c", Key="mp")
    assert server.ask("HEAD", f"{ACCOUNT}/c/mp")[0] == 404


def test_what_is_told_of_the_policy(server: S3Server) -> None:
    assert server.ask("HEAD", f"{ACCOUNT}/c")[1]["x-storage-policy"] == "coded"
    policies = json.loads(server.ask("GET", "/info", token=None)[2])["swift"]["policies"]
    assert [one["name"] for one in policies] == ["replicated", "coded"]
