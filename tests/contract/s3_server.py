"""The S3 door beside the Swift one, over the same drives: two real ports, served from a thread."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import http.client
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from apus.kernel.caller import Caller
from apus.node.http import HttpServer, listen_on
from apus.services.identity.agent.verifier import RevocationView
from apus.services.identity.logic.signing import signing_key
from apus.services.object.service import DEFAULTS, Options
from apus.skins.s3.auth import Authority
from apus.skins.s3.door import S3Door
from apus.skins.s3.keyring import Keyring
from tests.contract.swift_server import SwiftServer, caller

REGION = "RegionOne"


class Keys:
    """Plays identity: access keys and whom they stand for."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, Caller]] = {
            "alice-key": ("alice-secret", caller("a")),
            "bob-key": ("bob-secret", caller("b")),
            "reader-key": ("reader-secret", caller("a", "reader")),
            "boss-key": ("boss-secret", caller("boss", "admin", "member", "reader")),
        }
        self.asked = 0

    async def signing_key(self, access: str, date: str, region: str, service: str) -> tuple[bytes, Caller] | None:
        self.asked += 1
        found = self.known.get(access)
        return (signing_key(found[0], date, region, service), found[1]) if found else None


class S3Server(SwiftServer):
    s3_port: int
    door: S3Door

    def __init__(
        self, root: Path, options: Options = DEFAULTS, policies: dict[str, int | str] | None = None, drives: int = 4
    ) -> None:
        self.keys, self.view = Keys(), RevocationView()
        super().__init__(root, options, policies, drives)

    def begin(self) -> list[HttpServer]:
        world = self.store.world
        keyring = Keyring(self.keys, self.view, world.clock)
        self.door = S3Door(
            self.store.service,
            Authority(keyring, REGION, world.clock.now_s),
            self.everybody,
            dice=random.Random(4),
            domains=("s3.test",),
        )
        listening = listen_on("127.0.0.1", 0)
        self.s3_port = listening.getsockname()[1]
        return [HttpServer(self.door, listening, self.sender)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.s3_port}"

    def client(self, who: str = "alice", **config: Any) -> Any:
        """boto3's, signing as one of those in `Keys`; None for nobody."""
        options: dict[str, Any] = {"retries": {"max_attempts": 1}, "s3": {"addressing_style": "path"}, **config}
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=f"{who}-key",
            aws_secret_access_key=f"{who}-secret",
            config=Config(**options),
        )

    def raw(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send just this."""
        connection = http.client.HTTPConnection("127.0.0.1", self.s3_port, timeout=20)
        connection.request(method, path, body or None, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data

    def signed(
        self, method: str, path: str, body: bytes = b"", who: str = "alice", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Signed by botocore, sent as it is."""
        return self.raw(method, path, body, self.signature(method, path, body, who, **headers))

    def signature(
        self, method: str, path: str, body: bytes = b"", who: str = "alice", **headers: str
    ) -> dict[str, str]:
        """The headers of a signed request; `x_amz_date` and the like may be given."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent.setdefault("x-amz-content-sha256", hashlib.sha256(body).hexdigest())
        request = AWSRequest(method, self.url + path, data=body, headers=sent)
        signer = S3SigV4Auth(Credentials(f"{who}-key", f"{who}-secret"), "s3", REGION)
        stamp = sent.get("x-amz-date") or datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        request.context["timestamp"] = stamp
        del request.headers["X-Amz-Date"]
        request.headers["X-Amz-Date"] = stamp
        if "host" not in {name.lower() for name in sent}:
            request.headers["host"] = urlsplit(self.url).netloc
        canonical = signer.canonical_request(request)
        text = signer.string_to_sign(request, canonical)
        value = signer.signature(text, request)
        scope = signer.scope(request)
        signed = signer.signed_headers(signer.headers_to_sign(request))
        authorization = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={signed}, Signature={value}"
        return {**dict(request.headers.items()), "Authorization": authorization}


def code_of(refused: pytest.ExceptionInfo[ClientError]) -> str:
    """What S3 calls the error."""
    return str(refused.value.response["Error"]["Code"])


@contextlib.contextmanager
def refusal(code: str) -> Iterator[None]:
    """boto3 is told this code inside."""
    with pytest.raises(ClientError) as refused:
        yield
    assert code_of(refused) == code
