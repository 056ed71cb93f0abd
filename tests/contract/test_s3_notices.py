"""Notifications: what becomes of objects, through either door, is told to webhooks."""

from __future__ import annotations

import http.server
import ipaddress
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from apus.services.object.service import Options
from tests.contract.s3_server import S3Server, refusal


class Receiver(http.server.ThreadingHTTPServer):
    """Takes what webhooks are sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[dict[str, Any]] = []
        self.status = 200
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_port}/hook?x=1"

    def take(self) -> list[tuple[str, str]]:
        """(event, key) of what came since."""
        got, self.got = self.got, []
        records = [record for message in got for record in message["Records"]]
        return [(record["eventName"], record["s3"]["object"]["key"]) for record in records]


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        receiver: Any = self.server
        if receiver.status == 200:
            receiver.got.append(json.loads(body))
        self.send_response(receiver.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    networks = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    server = S3Server(tmp_path_factory.mktemp("s3"), Options(webhook_networks=networks, region="RegionOne"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3(server: S3Server) -> Any:
    return server.client()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.shutdown()


@pytest.fixture
def bucket(s3: Any, receiver: Receiver, request: pytest.FixtureRequest) -> str:
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60].strip("-")
    s3.create_bucket(Bucket=name)
    receiver.got.clear()
    return name


def say(s3: Any, bucket: str, **kinds: Any) -> None:
    s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration=kinds, SkipDestinationValidation=True
    )


def test_both_doors(s3: Any, server: S3Server, receiver: Receiver, bucket: str) -> None:
    key = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".txt"}]}}
    say(s3, bucket, TopicConfigurations=[
        {"Id": "made", "TopicArn": receiver.url, "Events": ["s3:ObjectCreated:*"], "Filter": key},
        {"Id": "gone", "TopicArn": receiver.url, "Events": ["s3:ObjectRemoved:Delete"]},
    ])  # fmt: skip

    def told() -> list[tuple[str, str]]:
        server.run(server.store.notifier.run_once())
        return receiver.take()

    s3.put_object(Bucket=bucket, Key="in/a b.txt", Body=b"xyz")
    s3.put_object(Bucket=bucket, Key="out/a.txt", Body=b"")
    server.ask("PUT", f"/v1/AUTH_a/{bucket}/in/swift.txt", b"x")
    s3.copy_object(Bucket=bucket, Key="in/copy.txt", CopySource=f"{bucket}/out/a.txt")
    server.ask("COPY", f"/v1/AUTH_a/{bucket}/in/swift.txt", Destination=f"{bucket}/in/copy2.txt")
    upload = s3.create_multipart_upload(Bucket=bucket, Key="in/parts.txt")["UploadId"]
    etag = s3.upload_part(Bucket=bucket, Key="in/parts.txt", UploadId=upload, PartNumber=1, Body=b"x")["ETag"]
    assert ("ObjectCreated:CompleteMultipartUpload", "in/parts.txt") not in told()
    s3.complete_multipart_upload(
        Bucket=bucket, Key="in/parts.txt", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]}
    )
    assert told() == [("ObjectCreated:CompleteMultipartUpload", "in/parts.txt")]
    s3.delete_object(Bucket=bucket, Key="out/a.txt")
    server.ask("DELETE", f"/v1/AUTH_a/{bucket}/in/swift.txt")
    assert told() == [("ObjectRemoved:Delete", "out/a.txt"), ("ObjectRemoved:Delete", "in/swift.txt")]
    assert told() == []


def test_tags_and_acls(s3: Any, server: S3Server, receiver: Receiver, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=bucket, Key="k", Body=b"xyz")["VersionId"]
    s3.put_object(Bucket=bucket, Key="k", Body=b"newer")
    say(s3, bucket, TopicConfigurations=[
        {"Id": "tags", "TopicArn": receiver.url, "Events": ["s3:ObjectTagging:*"]},
        {"Id": "acls", "TopicArn": receiver.url, "Events": ["s3:ObjectAcl:Put"]},
    ])  # fmt: skip
    tags = {"TagSet": [{"Key": "a", "Value": "b"}]}
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tags)
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tags, VersionId=version)
    s3.delete_object_tagging(Bucket=bucket, Key="k")
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    server.run(server.store.notifier.run_once())
    records = [record for message in receiver.got for record in message["Records"]]
    assert [record["eventName"] for record in records] == [
        "ObjectTagging:Put", "ObjectTagging:Put", "ObjectTagging:Delete", "ObjectAcl:Put",
    ]  # fmt: skip
    assert records[1]["s3"]["object"]["versionId"] == version
    assert records[1]["s3"]["object"]["size"] == 3


def test_what_is_told(s3: Any, server: S3Server, receiver: Receiver, bucket: str) -> None:
    say(
        s3,
        bucket,
        QueueConfigurations=[
            {"Id": "all", "QueueArn": receiver.url, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        ],
    )
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    done = s3.put_object(Bucket=bucket, Key="a b/é", Body=b"xyz")
    marker = s3.delete_object(Bucket=bucket, Key="a b/é")["VersionId"]
    s3.delete_object(Bucket=bucket, Key="a b/é", VersionId=done["VersionId"])
    server.run(server.store.notifier.run_once())
    made, marked, gone = [message["Records"][0] for message in receiver.got]
    assert (made["eventName"], made["awsRegion"], made["eventSource"]) == ("ObjectCreated:Put", "RegionOne", "aws:s3")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made["eventTime"])
    assert made["s3"]["configurationId"] == "all"
    assert made["s3"]["bucket"] == {
        "name": bucket,
        "ownerIdentity": {"principalId": "a"},
        "arn": f"arn:aws:s3:::{bucket}",
    }
    thing = made["s3"]["object"]
    assert (thing["key"], thing["size"], thing["eTag"]) == ("a+b/%C3%A9", 3, done["ETag"].strip('"'))
    assert thing["versionId"] == done["VersionId"]
    assert (marked["eventName"], marked["s3"]["object"]["versionId"]) == ("ObjectRemoved:DeleteMarkerCreated", marker)
    assert (gone["eventName"], gone["s3"]["object"]["versionId"]) == ("ObjectRemoved:Delete", done["VersionId"])
    sequence = [record["s3"]["object"]["sequencer"] for record in (made, marked, gone)]
    assert sequence == sorted(sequence)


def test_configurations(s3: Any, server: S3Server, bucket: str) -> None:
    assert "TopicConfigurations" not in s3.get_bucket_notification_configuration(Bucket=bucket)
    key = {"Key": {"FilterRules": [{"Name": "prefix", "Value": "a"}]}}
    topic = {"Id": "t", "TopicArn": "https://hooks.example/x", "Events": ["s3:ObjectCreated:Put"], "Filter": key}
    queue = {"Id": "q", "QueueArn": "arn:apus:events", "Events": ["s3:ObjectRemoved:*", "s3:LifecycleExpiration:*"]}
    function = {"Id": "f", "LambdaFunctionArn": "http://[2001:db8::1]:80/", "Events": ["s3:ObjectCreated:*"]}
    say(s3, bucket, TopicConfigurations=[topic], QueueConfigurations=[queue],
        LambdaFunctionConfigurations=[function], EventBridgeConfiguration={})  # fmt: skip
    found = s3.get_bucket_notification_configuration(Bucket=bucket)
    assert found["TopicConfigurations"] == [topic]
    assert found["QueueConfigurations"] == [queue]
    assert found["LambdaFunctionConfigurations"] == [function]
    assert found["EventBridgeConfiguration"] == {}
    say(s3, bucket)
    assert "TopicConfigurations" not in s3.get_bucket_notification_configuration(Bucket=bucket)
    for wrong in (
        {**topic, "TopicArn": "arn:aws:sns:us-east-1:1:topic"},
        {**topic, "TopicArn": "ftp://hooks.example/"},
        {**topic, "TopicArn": "http:///x"},
        {**topic, "TopicArn": "http://169.254.169.254/latest"},
        {**topic, "TopicArn": "http://[::ffff:169.254.169.254]/"},
        {**topic, "Events": ["s3:ObjectRestore:Post"]},
        {**topic, "Events": ["s3:Nothing"]},
        {**topic, "Filter": {"Key": {"FilterRules": [{"Name": "middle", "Value": "a"}]}}},
    ):
        with refusal("InvalidArgument"):
            say(s3, bucket, TopicConfigurations=[wrong])
    with refusal("InvalidArgument"):
        say(s3, bucket, TopicConfigurations=[topic, topic])
    for body in (b"", b"<x/>", b"<NotificationConfiguration><TopicConfiguration/></NotificationConfiguration>"):
        assert server.signed("PUT", f"/{bucket}?notification", body)[0] == 400
    with refusal("AccessDenied"):
        say(server.client("bob"), bucket)
