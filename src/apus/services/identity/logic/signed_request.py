"""Requests that somebody signed with an EC2 key and sent to another service, which asks whether the signature is right.

Signature Version 2 and 4 as the other service took them apart (AWS's "Signing AWS API requests"), and for S3 the text
that was signed.  Pure: who signed, and when, is for the caller to judge.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from apus.services.identity.logic.signing import signing_key

V4: Final = "AWS4-HMAC-SHA256"
FRESH_S: Final = 900.0
"""How long a signature is good, as in Keystone's `auth_ttl`."""
_DIGESTS: Final = {"HmacSHA1": hashlib.sha1, "HmacSHA256": hashlib.sha256}


class SignedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Header names in lower case; `params` are those of the query or the form, decoded."""

    verb: str
    host: str
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    body_hash: str
    """SHA-256 of the body, in hexadecimal digits; of version 4."""

    @property
    def is_v4(self) -> bool:
        return self.headers.get("authorization", "").startswith(V4) or self.params.get("X-Amz-Algorithm") == V4

    def part(self, name: str) -> str:
        """Of version 4: from the Authorization header, or the parameter `X-Amz-name`."""
        header = self.headers.get("authorization", "")
        if not header:
            return self.params.get(f"X-Amz-{name}", "")
        found = re.search(rf"(?:^|[ ,]){name}=([^,]*)", header)
        return found[1].strip() if found else ""

    @property
    def stamp(self) -> str:
        """When it was signed, as it says; empty when it does not."""
        if self.is_v4:
            return self.headers.get("x-amz-date") or self.params.get("X-Amz-Date", "")
        return self.params.get("Timestamp", "")


def is_fresh(stamp: str, now_s: float) -> bool:
    """`stamp` is a time in ISO 8601, in UTC unless it says otherwise."""
    try:
        at = datetime.datetime.fromisoformat(stamp)
        return abs(now_s - (at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp()) <= FRESH_S
    except (ValueError, OverflowError):
        return False


def is_right(request: SignedRequest, secret: str, signature: str) -> bool:
    """Whether the secret makes this signature for the request."""
    if request.is_v4:
        return _same(_version_4(request, secret), signature)
    if request.params.get("SignatureVersion") != "2":
        return False
    hosts = dict.fromkeys((request.host, request.host.partition(":")[0]))  # old clients sign without the port
    return any(_same(_version_2(request, secret, host), signature) for host in hosts)


def is_right_text(signed: str, secret: str, signature: str) -> bool:
    """For S3: whether the secret makes this signature of the text, which is in Base64."""
    try:
        text = base64.urlsafe_b64decode(signed.encode("ascii"))
    except (ValueError, binascii.Error):
        return False
    if not text.startswith(b"AWS4"):
        return _same(_base64(hmac.digest(_bytes(secret), text, "sha1")), signature)
    lines = text.decode("latin-1").split("\n")
    scope = lines[2].split("/") if len(lines) == 4 else []
    if lines[0] != V4 or len(scope) != 4 or scope[2:] != ["s3", "aws4_request"]:
        return False
    return _same(hmac.new(signing_key(secret, *scope[:3]), text, hashlib.sha256).hexdigest(), signature)


def _version_2(request: SignedRequest, secret: str, host: str) -> str:
    digest = _DIGESTS.get(request.params.get("SignatureMethod", "HmacSHA256"))
    if digest is None:
        return ""
    query = _query(request.params, "Signature")
    text = f"{request.verb.upper()}\n{host}\n{request.path}\n{query}"
    return _base64(hmac.new(_bytes(secret), _bytes(text), digest).digest())


def _version_4(request: SignedRequest, secret: str) -> str:
    scope = request.part("Credential").split("/")[-4:]
    signed = request.part("SignedHeaders")
    if len(scope) != 4 or scope[3] != "aws4_request" or not request.stamp.startswith(scope[0]):
        return ""
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in signed.split(";"))
    query = _query(request.params, "X-Amz-Signature")
    canonical = "\n".join((request.verb.upper(), request.path, query, headers, signed, request.body_hash))
    hashed = hashlib.sha256(_bytes(canonical)).hexdigest()
    text = "\n".join((V4, request.stamp, "/".join(scope), hashed))
    return hmac.new(signing_key(secret, *scope[:3]), _bytes(text), hashlib.sha256).hexdigest()


def _query(params: Mapping[str, str], signature: str) -> str:
    """Sorted by their names' bytes, as both versions have it; the signature itself is not signed."""
    pairs = sorted((_bytes(name), _bytes(value)) for name, value in params.items() if name != signature)
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _same(mine: str, theirs: str) -> bool:
    return bool(mine) and hmac.compare_digest(_bytes(mine), _bytes(theirs))
