"""The clients that people use, unchanged, against a real server: uploads in parts, listings, copies, and all bytes back."""

from __future__ import annotations

import filecmp
import json
import os
import random
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import program
from tests.contract.s3_server import REGION, S3Server

MIB = 1 << 20
Run = Callable[..., str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small and large ones, with names that are hard."""
    root, dice = tmp_path_factory.mktemp("files"), random.Random(3)
    for name, size in (("big", 18 * MIB + 5), ("empty", 0), ("sub/small", 10), ("sub/ä b+c%20&?.txt", 3_000)):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(dice.randbytes(size))
    return root


def same(one: Path, other: Path) -> bool:
    """All files below are the same."""
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    there = sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    return names == there and filecmp.cmpfiles(one, other, [str(name) for name in names], shallow=False)[1:] == ([], [])


def runner(name: str, home: Path, before: list[str], **environment: str) -> Run:
    path = program(name)
    assert path is not None
    keys = {"AWS_ACCESS_KEY_ID": "alice-key", "AWS_SECRET_ACCESS_KEY": "alice-secret", "AWS_DEFAULT_REGION": REGION}
    shell = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", **keys, **environment}

    def run(*words: str, fails: bool = False) -> str:
        done = subprocess.run([path, *before, *words], env=shell, capture_output=True, text=True, timeout=100, cwd=home)
        assert (done.returncode != 0) == fails, f"{words}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout + (done.stderr if fails else "")

    return run


def in_parts(server: S3Server, bucket: str, key: str) -> bool:
    return "-" in server.client().head_object(Bucket=bucket, Key=key)["ETag"]


@pytest.mark.program("aws")
def test_the_aws_command(server: S3Server, files: Path, tmp_path: Path) -> None:
    aws = runner("aws", tmp_path, [], AWS_ENDPOINT_URL=server.url, AWS_EC2_METADATA_DISABLED="true")
    aws("s3", "mb", "s3://aws-box")
    aws("s3", "cp", str(files / "big"), "s3://aws-box/dir/big")
    assert in_parts(server, "aws-box", "dir/big")
    aws("s3", "cp", "s3://aws-box/dir/big", "s3://aws-box/dir/copy")
    aws("s3", "cp", "s3://aws-box/dir/copy", "back")
    assert filecmp.cmp(files / "big", tmp_path / "back", shallow=False)
    aws("s3", "sync", str(files), "s3://aws-box/tree")
    assert "upload" not in aws("s3", "sync", str(files), "s3://aws-box/tree"), "the second time there is nothing to do"
    aws("s3", "sync", "s3://aws-box/tree", "tree")
    assert same(files, tmp_path / "tree")
    assert re.search(r" 10 small$", aws("s3", "ls", "s3://aws-box/tree/sub/"), re.MULTILINE)
    aws("s3", "mv", "s3://aws-box/dir/copy", "s3://aws-box/dir/moved")
    url = aws("s3", "presign", "s3://aws-box/tree/sub/small").strip()
    assert urllib.request.urlopen(url).read() == (files / "sub/small").read_bytes()
    aws("s3api", "put-bucket-versioning", "--bucket", "aws-box", "--versioning-configuration", "Status=Enabled")
    aws(
        "s3api",
        "put-object-tagging",
        "--bucket",
        "aws-box",
        "--key",
        "dir/big",
        "--tagging",
        "TagSet=[{Key=a,Value=b}]",
    )
    told = json.loads(aws("s3api", "get-object-tagging", "--bucket", "aws-box", "--key", "dir/big"))
    assert told["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert "NoSuchKey" in aws("s3api", "get-object", "--bucket", "aws-box", "--key", "none", "x", fails=True)
    aws("s3", "rm", "--recursive", "s3://aws-box")
    versions: Any = json.loads(aws("s3api", "list-object-versions", "--bucket", "aws-box"))
    every = [
        {name: one[name] for name in ("Key", "VersionId")}
        for one in [*versions["Versions"], *versions["DeleteMarkers"]]
    ]
    aws("s3api", "delete-objects", "--bucket", "aws-box", "--delete", json.dumps({"Objects": every}))
    aws("s3", "rb", "s3://aws-box")


@pytest.mark.program("s3cmd")
def test_s3cmd(server: S3Server, files: Path, tmp_path: Path) -> None:
    host = f"127.0.0.1:{server.s3_port}"
    (tmp_path / "config").write_text(
        f"[default]\naccess_key = alice-key\nsecret_key = alice-secret\nhost_base = {host}\nhost_bucket = {host}\n"
        f"use_https = False\nbucket_location = {REGION}\nmultipart_chunk_size_mb = 5\n"
    )
    s3cmd = runner("s3cmd", tmp_path, ["-c", str(tmp_path / "config"), "--no-progress"])
    s3cmd("mb", "s3://cmd-box")
    s3cmd("put", str(files / "big"), "s3://cmd-box/dir/big")
    assert in_parts(server, "cmd-box", "dir/big")
    s3cmd("get", "s3://cmd-box/dir/big", "back")
    assert filecmp.cmp(files / "big", tmp_path / "back", shallow=False)
    s3cmd("sync", f"{files}/", "s3://cmd-box/tree/")
    (tmp_path / "tree").mkdir()
    s3cmd("sync", "s3://cmd-box/tree/", "tree/")
    assert same(files, tmp_path / "tree")
    assert "s3://cmd-box/tree/sub/small" in s3cmd("ls", "-r", "s3://cmd-box")
    s3cmd("cp", "s3://cmd-box/dir/big", "s3://cmd-box/dir/copy")
    s3cmd("mv", "s3://cmd-box/dir/copy", "s3://cmd-box/dir/moved")
    s3cmd("setacl", "--acl-public", "s3://cmd-box/tree/sub/small")
    assert server.raw("GET", "/cmd-box/tree/sub/small")[2] == (files / "sub/small").read_bytes()
    assert "*anon*: READ" in s3cmd("info", "s3://cmd-box/tree/sub/small")
    s3cmd("expire", "s3://cmd-box", "--expiry-days=3", "--expiry-prefix=tmp/")
    assert "Expiration Rule" in s3cmd("info", "s3://cmd-box")
    assert "s3://cmd-box/" in s3cmd("multipart", "s3://cmd-box")
    s3cmd("del", "--recursive", "--force", "s3://cmd-box")
    s3cmd("rb", "s3://cmd-box")


@pytest.mark.program("rclone")
def test_rclone(server: S3Server, files: Path, tmp_path: Path) -> None:
    remote = {"TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": server.url, "REGION": REGION, "ENV_AUTH": "true",
              "CHUNK_SIZE": "5Mi", "UPLOAD_CUTOFF": "5Mi", "COPY_CUTOFF": "5Mi", "FORCE_PATH_STYLE": "true"}  # fmt: skip
    rclone = runner("rclone", tmp_path, [], **{f"RCLONE_CONFIG_X_{name}": value for name, value in remote.items()})
    rclone("mkdir", "x:clone-box")
    rclone("copy", str(files), "x:clone-box/tree")
    assert in_parts(server, "clone-box", "tree/big")
    rclone("check", str(files), "x:clone-box/tree")
    rclone("check", "--download", str(files), "x:clone-box/tree")
    rclone("copy", "x:clone-box/tree", "tree")
    assert same(files, tmp_path / "tree")
    entries = json.loads(rclone("lsjson", "-R", "x:clone-box/tree"))
    assert {entry["Path"]: entry["Size"] for entry in entries if not entry["IsDir"]} == {
        str(path.relative_to(files)): path.stat().st_size for path in files.rglob("*") if path.is_file()
    }
    rclone("moveto", "x:clone-box/tree/big", "x:clone-box/tree/moved")
    assert in_parts(server, "clone-box", "tree/moved"), "copied on the server, in parts"
    (tmp_path / "tree/big").rename(tmp_path / "tree/moved")
    (tmp_path / "tree/sub/small").write_text("changed")
    rclone("sync", "tree", "x:clone-box/tree")
    rclone("check", "tree", "x:clone-box/tree")
    assert rclone("cat", "x:clone-box/tree/sub/small") == "changed"
    rclone("cleanup", "x:clone-box")
    rclone("purge", "x:clone-box")
    assert "clone-box" not in rclone("lsd", "x:")


@pytest.mark.program("restic")
def test_restic(server: S3Server, files: Path, tmp_path: Path) -> None:
    where = {"RESTIC_REPOSITORY": f"s3:{server.url}/restic-box/repo", "RESTIC_PASSWORD": "secret"}
    restic = runner("restic", tmp_path, ["-o", "s3.bucket-lookup=path"], **where)
    restic("init")
    restic("backup", str(files))
    (tmp_path / "more").write_bytes(random.Random(4).randbytes(6 * MIB))
    restic("backup", str(files), str(tmp_path / "more"))
    assert len(json.loads(restic("snapshots", "--json"))) == 2
    restic("check", "--read-data")
    restic("restore", "latest", "--target", "back")
    assert same(files, tmp_path / "back" / files.relative_to("/"))
    restic("forget", "--keep-last", "1", "--prune", "--group-by", "")
    restic("check", "--read-data")
    assert len(json.loads(restic("snapshots", "--json"))) == 1
    restic("unlock")
