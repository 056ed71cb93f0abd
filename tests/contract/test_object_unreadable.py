"""An object of which no copy is sound: both doors say so, with a status, and go on to serve."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from tests.contract.s3_server import S3Server


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"), drives=3)
    yield server
    server.stop()


@pytest.mark.parametrize("door", ["swift", "s3"])
def test_what_nobody_can_read_is_no_answer(server: S3Server, door: str) -> None:
    s3 = server.client(retries={"total_max_attempts": 1})  # who asks again learns that all copies are put aside
    s3.create_bucket(Bucket="bucket")
    body = bytes(700_000) + b"here"
    s3.put_object(Bucket="bucket", Key="key", Body=body)
    s3.put_object(Bucket="bucket", Key="other", Body=b"sound")
    assert server.ask("GET", "/v1/AUTH_a/bucket/key")[2] == body
    spoilt = 0
    for volume in server.root.rglob("*.volume"):
        data = volume.read_bytes()
        at = data.find(body[-1000:])
        if at >= 0:
            with volume.open("r+b") as file:
                file.seek(at + 500)
                file.write(b"x")
            spoilt += 1
    assert spoilt == 3
    if door == "swift":
        assert server.ask("GET", "/v1/AUTH_a/bucket/key")[0] == 503
    else:
        with pytest.raises(ClientError) as refused:
            s3.get_object(Bucket="bucket", Key="key")
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert s3.get_object(Bucket="bucket", Key="other")["Body"].read() == b"sound"
