"""Who sends a request: the holder of an access key whose signature is good, or nobody in particular."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Final

from apus.kernel.caller import Caller
from apus.skins.s3 import sigv4
from apus.skins.s3.chunked import Chain
from apus.skins.s3.errors import S3Error
from apus.skins.s3.keyring import Keyring
from apus.skins.s3.request import S3Request

STREAMING: Final = "STREAMING-"
_STREAMS: Final = {
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD": (True, False),
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER": (True, True),
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER": (False, True),
}
"""Whether chunks are signed, and whether trailers follow."""
_SHA256: Final = re.compile("[0-9a-fA-F]{64}")
DEFAULT_REGION: Final = "us-east-1"
"""What clients sign for that were told no region."""


@dataclasses.dataclass(frozen=True, slots=True)
class Proof:
    """How the caller showed who he is, and what that says about the body."""

    caller: Caller | None
    payload: str = sigv4.UNSIGNED
    """The value of x-amz-content-sha256."""
    chain: Chain | None = None
    """Signs the chunks of the body."""
    chunked: bool = False
    trailing: bool = False
    presigned: bool = False
    signed_at_s: float | None = None
    form: bool = False

    @property
    def way(self) -> str:
        """As policies call it."""
        return "POST" if self.form else "REST-QUERY-STRING" if self.presigned else "REST-HEADER"

    @property
    def sha256(self) -> str | None:
        """What the body must hash to."""
        return self.payload.lower() if _SHA256.fullmatch(self.payload) else None


class Authority:
    def __init__(self, keyring: Keyring, region: str, now_s: Callable[[], float]) -> None:
        self.keyring, self.region, self._now_s = keyring, region, now_s

    async def prove(self, request: S3Request) -> Proof:
        """Raise S3Error when what the request says of its sender is not so."""
        header = request.headers.get("authorization")
        if header is not None:
            if "X-Amz-Algorithm" in request.params_of:
                raise S3Error("InvalidArgument", "Only one auth mechanism allowed.")
            if not header.startswith(sigv4.ALGORITHM + " "):
                shown = "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
                raise S3Error("InvalidRequest", shown)
            return await self._check(request, sigv4.from_header(header, request.headers))
        if "X-Amz-Algorithm" in request.params_of or "X-Amz-Signature" in request.params_of:
            return await self._check(request, sigv4.from_query(request.params_of))
        if "Signature" in request.params_of and "AWSAccessKeyId" in request.params_of:
            raise S3Error("InvalidRequest", "Signature Version 2 is not supported. Please use AWS4-HMAC-SHA256.")
        return _anonymous(request)

    async def key_for(self, access: str, date: str, region: str) -> tuple[bytes, Caller]:
        known = await self.keyring.find(access, date, region)
        return known.key, known.caller

    def check_region(self, region: str, code: str = "AuthorizationHeaderMalformed") -> None:
        if region not in (self.region, DEFAULT_REGION):
            shown = f"The region {region!r} is wrong; expecting {self.region!r}."
            raise S3Error(code, shown, fields={"Region": self.region})

    async def _check(self, request: S3Request, signature: sigv4.Signature) -> Proof:
        presigned = signature.expires_s is not None
        code = "AuthorizationQueryParametersError" if presigned else "AuthorizationHeaderMalformed"
        self.check_region(signature.region, code)
        payload = _payload_of(request, presigned=presigned)
        signed = signature.signed_headers
        left_out = sigv4.unsigned_among(request.headers, signed)
        if left_out:
            shown = "There were headers present in the request which were not signed."
            raise S3Error("AccessDenied", shown, fields={"HeadersNotSigned": ", ".join(left_out)})
        sigv4.check_time(signature, self._now_s())
        key, caller = await self.key_for(signature.access, signature.date, signature.region)
        query = sigv4.canonical_query(request.raw_query, presigned=presigned)
        canonical = sigv4.canonical_request(request.method, request.raw_path, query, request.headers, signed, payload)
        text = sigv4.string_to_sign(signature.stamp, signature.scope, canonical)
        mine = sigv4.sign(key, text)
        if not sigv4.same(mine, signature.signature):
            fields = {
                "AWSAccessKeyId": signature.access,
                "StringToSign": text,
                "SignatureProvided": signature.signature,
                "CanonicalRequest": canonical,
            }
            raise S3Error("SignatureDoesNotMatch", fields=fields)
        chunk_signed, trailing = _STREAMS.get(payload, (False, False))
        chain = Chain(key, signature.stamp, signature.scope, mine) if chunk_signed else None
        signed_at_s = sigv4.seconds_of(signature.stamp)
        return Proof(caller, payload, chain, payload in _STREAMS, trailing, presigned, signed_at_s)


def _payload_of(request: S3Request, *, presigned: bool) -> str:
    payload = request.headers.get("x-amz-content-sha256")
    if payload is None:
        payload = request.params_of.get("X-Amz-Content-Sha256") if presigned else None
        if payload is None and not presigned:
            shown = "Missing required header for this request: x-amz-content-sha256"
            raise S3Error("InvalidRequest", shown)
        return payload or sigv4.UNSIGNED
    if presigned and "x-amz-content-sha256" not in request.params_of.get("X-Amz-SignedHeaders", ""):
        return payload if payload in _STREAMS else sigv4.UNSIGNED
    if payload != sigv4.UNSIGNED and payload not in _STREAMS and not _SHA256.fullmatch(payload):
        shown = (
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, "
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER or a valid sha256 value."
        )
        fields = {"ArgumentName": "x-amz-content-sha256", "ArgumentValue": payload}
        raise S3Error("InvalidArgument", shown, fields=fields)
    return payload


def _anonymous(request: S3Request) -> Proof:
    payload = request.headers.get("x-amz-content-sha256", sigv4.UNSIGNED)
    signed, trailing = _STREAMS.get(payload, (False, False))
    if signed:
        raise S3Error("AccessDenied")
    return Proof(None, payload, chunked=payload in _STREAMS, trailing=trailing)
