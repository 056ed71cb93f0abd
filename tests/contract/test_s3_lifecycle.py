"""Lifecycle configurations of the S3 door, and what answers say of when an object goes."""

from __future__ import annotations

import datetime
import email.utils
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
    return name


def say(s3: Any, bucket: str, *rules: dict[str, Any]) -> None:
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": list(rules)})


def test_what_was_said_is_given_back(s3: Any, bucket: str) -> None:
    with refusal("NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)
    midnight = datetime.datetime(2031, 1, 1, tzinfo=datetime.UTC)
    both = {"Prefix": "a", "Tags": [{"Key": "k", "Value": "v"}], "ObjectSizeGreaterThan": 1, "ObjectSizeLessThan": 9}
    rules: list[dict[str, Any]] = [
        {"ID": "1", "Status": "Enabled", "Prefix": "old/", "Expiration": {"Days": 3}},
        {"ID": "2", "Status": "Disabled", "Filter": {"Prefix": "new/"}, "Expiration": {"Date": midnight}},
        {"ID": "3", "Status": "Enabled", "Filter": {"And": both}, "Expiration": {"Days": 1}},
        {"ID": "4", "Status": "Enabled", "Filter": {"Tag": {"Key": "a", "Value": "b"}}, "Expiration": {"Days": 1}},
        {"ID": "5", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"ExpiredObjectDeleteMarker": True},
         "NoncurrentVersionExpiration": {"NoncurrentDays": 2, "NewerNoncurrentVersions": 3},
         "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}},
    ]  # fmt: skip
    say(s3, bucket, *rules)
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"] == rules
    say(s3, bucket, {"Status": "Enabled", "Prefix": "", "Expiration": {"Days": 3}})
    assert s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"][0]["ID"]
    s3.delete_bucket_lifecycle(Bucket=bucket)
    with refusal("NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=bucket)


def test_what_is_refused(s3: Any, server: S3Server, bucket: str) -> None:
    good = {"ID": "x", "Status": "Enabled", "Filter": {"Prefix": "a"}, "Expiration": {"Days": 1}}
    tagged = {**good, "Filter": {"Tag": {"Key": "a", "Value": "b"}}}
    for rules, code in (
        ([{**good, "Expiration": {"Days": 0}}], "InvalidArgument"),
        ([{**good, "Expiration": {"Days": -1}}], "InvalidArgument"),
        ([{**good, "ID": "x" * 256}], "InvalidArgument"),
        ([good, good], "InvalidArgument"),
        ([{**good, "Status": "enabled"}], "MalformedXML"),
        ([{**good, "Prefix": "a"}], "MalformedXML"),
        ([{**good, "Expiration": {"Date": datetime.datetime(2031, 1, 1, 3, tzinfo=datetime.UTC)}}], "InvalidArgument"),
        ([{**good, "Expiration": {"Days": 1, "ExpiredObjectDeleteMarker": True}}], "MalformedXML"),
        ([{**tagged, "Expiration": {"ExpiredObjectDeleteMarker": True}}], "InvalidRequest"),
        ([{**tagged, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}], "InvalidRequest"),
        ([{**good, "Filter": {"And": {"Prefix": "a"}}}], "MalformedXML"),
        ([{**good, "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]}], "NotImplemented"),
        ([{"ID": "x", "Status": "Enabled", "Prefix": ""}], "InvalidRequest"),
    ):
        with refusal(code):
            say(s3, bucket, *rules)
    for body in (
        b"",
        b"<x/>",
        b"<LifecycleConfiguration/>",
        b"<LifecycleConfiguration><Rule/></LifecycleConfiguration>",
    ):
        assert server.signed("PUT", f"/{bucket}?lifecycle", body)[0] == 400
    with refusal("AccessDenied"):
        say(server.client("bob"), bucket, good)


def test_when_it_goes(s3: Any, server: S3Server, bucket: str) -> None:
    say(s3, bucket, {"ID": "soon", "Status": "Enabled", "Filter": {"Prefix": "a"}, "Expiration": {"Days": 2},
                     "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}})  # fmt: skip
    said = s3.put_object(Bucket=bucket, Key="a", Body=b"")["Expiration"]
    match = re.fullmatch(r'expiry-date="([^"]+)", rule-id="soon"', said)
    assert match
    at = email.utils.parsedate_to_datetime(match[1])
    assert (at.hour, at.minute, at.second) == (0, 0, 0)
    in_days = (at - datetime.datetime.now(datetime.UTC)).total_seconds() / 86_400
    assert 2 <= in_days + 0.01 <= 3.02
    assert s3.head_object(Bucket=bucket, Key="a")["Expiration"] == said
    assert "Expiration" not in s3.put_object(Bucket=bucket, Key="b", Body=b"")
    made = s3.create_multipart_upload(Bucket=bucket, Key="a")
    assert (made["AbortRuleId"], made["AbortDate"].hour) == ("soon", 0)
    assert "sysmeta" not in str(server.ask("HEAD", f"/v1/AUTH_a/{bucket}")[1])
