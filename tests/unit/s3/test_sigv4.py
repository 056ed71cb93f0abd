"""Signatures as AWS publishes them: the examples of its S3 reference, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import datetime
from collections.abc import AsyncIterator, Callable

import pytest

from apus.services.identity.logic.signing import signing_key
from apus.skins.s3 import sigv4
from apus.skins.s3.chunked import Chain, ChunkedBody
from apus.skins.s3.errors import S3Error

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
STAMP, SCOPE = "20130524T000000Z", "20130524/us-east-1/s3/aws4_request"
KEY = signing_key(SECRET, "20130524", "us-east-1", "s3")
HOST = {"host": "examplebucket.s3.amazonaws.com", "x-amz-date": STAMP}
EMPTY = sigv4.EMPTY_SHA256
WELCOME = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "payload", "signature"),
    [
        ("GET", "/test.txt", "", {"range": "bytes=0-9"}, EMPTY, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
        ("PUT", "/test$file.text", "", {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"}, WELCOME, "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"),
        ("GET", "/", "lifecycle", {}, EMPTY, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("GET", "/", "max-keys=2&prefix=J", {}, EMPTY, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)  # fmt: skip
def test_published_headers(
    method: str, path: str, query: str, headers: dict[str, str], payload: str, signature: str
) -> None:
    sent = {**HOST, **headers, "x-amz-content-sha256": payload}
    canonical_query = sigv4.canonical_query(query, presigned=False)
    canonical = sigv4.canonical_request(method, path, canonical_query, sent, sorted(sent), payload)
    assert sigv4.sign(KEY, sigv4.string_to_sign(STAMP, SCOPE, canonical)) == signature


def test_published_presigned() -> None:
    query = (
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        "&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
        "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )
    canonical_query = sigv4.canonical_query(query, presigned=True)
    canonical = sigv4.canonical_request("GET", "/test.txt", canonical_query, HOST, ["host"], sigv4.UNSIGNED)
    signature = sigv4.sign(KEY, sigv4.string_to_sign(STAMP, SCOPE, canonical))
    assert signature == query.rpartition("=")[2]


def chunked(*, trailing: bool) -> tuple[bytes, Chain]:
    """The published example: 66,560 times `a`, in chunks of 64 KiB."""
    if trailing:
        seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"
        first = "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2"
        second = "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7"
        last = "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992"
        end = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435"
        behind = f"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:{end}\r\n\r\n"
    else:
        seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
        first = "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"
        second = "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"
        last, behind = "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9", "\r\n"
    body = (
        f"10000;chunk-signature={first}\r\n{'a' * 65536}\r\n400;chunk-signature={second}\r\n{'a' * 1024}\r\n"
        f"0;chunk-signature={last}\r\n{behind}"
    )
    return body.encode(), Chain(KEY, STAMP, SCOPE, seed)


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def unwrap(data: bytes, chain: Chain | None, *, trailing: bool, size: int = 1000) -> tuple[bytes, dict[str, str]]:
    async def work() -> tuple[bytes, dict[str, str]]:
        body = ChunkedBody(pieces(data, size), chain, trailing=trailing)
        return b"".join([piece async for piece in body.stream()]), body.trailers

    return asyncio.run(work())


@pytest.mark.parametrize("size", [1, 7, 65536, 1 << 20])
@pytest.mark.parametrize("trailing", [False, True])
def test_published_chunks(trailing: bool, size: int) -> None:
    data, chain = chunked(trailing=trailing)
    body, trailers = unwrap(data, chain, trailing=trailing, size=size)
    assert body == b"a" * 66560
    assert trailers == ({"x-amz-checksum-crc32c": "sOO8/Q=="} if trailing else {})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda data: data.replace(b"aaaa", b"aaab", 1), "SignatureDoesNotMatch"),
        (lambda data: data.replace(b"chunk-signature=b4", b"chunk-signature=b5"), "SignatureDoesNotMatch"),
        (lambda data: data.replace(b"sOO8", b"sOO9"), "SignatureDoesNotMatch"),
        (lambda data: data.replace(b";chunk-signature=1c", b";x=1c"), "IncompleteBody"),
        (lambda data: data[:66000], "IncompleteBody"),
        (lambda data: data[:65000], "IncompleteBody"),
        (lambda data: data.replace(b"10000;", b"0x10000;"), "IncompleteBody"),
        (lambda data: data.replace(b"10000;", b"-1;"), "IncompleteBody"),
        (lambda data: b"1" * 9000 + data, "IncompleteBody"),
        (lambda data: data + b"more", "IncompleteBody"),
        (lambda data: data.replace(b"x-amz-checksum-crc32c:", b"nothing"), "MalformedTrailerError"),
        (lambda data: data.replace(b"x-amz-trailer-signature", b"x-amz-other"), "IncompleteBody"),
    ],
)  # fmt: skip
def test_broken_chunks(change: Callable[[bytes], bytes], code: str) -> None:
    data, chain = chunked(trailing=True)
    with pytest.raises(S3Error) as refused:
        unwrap(change(data), chain, trailing=True)
    assert refused.value.code == code


def test_unsigned_chunks() -> None:
    data = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n"
    assert unwrap(data, None, trailing=True) == (b"hello", {"x-amz-checksum-crc32": "NhCmhg=="})
    assert unwrap(data[:-2], None, trailing=True, size=3)[0] == b"hello"
    with pytest.raises(S3Error, match="IncompleteBody"):
        unwrap(b"4" + data[1:], None, trailing=True)


def authorization(credential: str = f"AKID/{SCOPE}", signed: str = "host", signature: str = "x") -> str:
    return f"AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={signed}, Signature={signature}"


@pytest.mark.parametrize(
    ("header", "headers", "code"),
    [
        (authorization("AKID/20130524/us-east-1/s3"), HOST, "AuthorizationHeaderMalformed"),
        (authorization("AKID/20130524/us-east-1/ec2/aws4_request"), HOST, "AuthorizationHeaderMalformed"),
        (authorization("AKID/20130524/us-east-1/s3/aws5_request"), HOST, "AuthorizationHeaderMalformed"),
        (authorization("AKID/2013/us-east-1/s3/aws4_request"), HOST, "AuthorizationHeaderMalformed"),
        (authorization(signature=""), HOST, "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 nonsense", HOST, "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 ", HOST, "AuthorizationHeaderMalformed"),
        (authorization(), {"host": "x"}, "AccessDenied"),
        (authorization(), {"host": "x", "date": "yesterday"}, "AccessDenied"),
    ],
)
def test_headers_that_are_none(header: str, headers: dict[str, str], code: str) -> None:
    with pytest.raises(S3Error) as refused:
        sigv4.from_header(header, headers)
    assert refused.value.code == code


def test_the_time_of_a_signature() -> None:
    signature = sigv4.from_header(authorization(), HOST)
    signed_s = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC).timestamp()
    for skew_s in (-900, 0, 900):
        sigv4.check_time(signature, signed_s + skew_s)
    for skew_s in (-901, 901, 86400 * 365):
        with pytest.raises(S3Error, match="RequestTimeTooSkewed"):
            sigv4.check_time(signature, signed_s + skew_s)
    other_day = sigv4.from_header(authorization("AKID/20130523/us-east-1/s3/aws4_request"), HOST)
    with pytest.raises(S3Error, match="AuthorizationHeaderMalformed"):
        sigv4.check_time(other_day, signed_s)


def test_the_time_of_a_presigned_url() -> None:
    query = {
        "X-Amz-Algorithm": sigv4.ALGORITHM, "X-Amz-Credential": f"AKID/{SCOPE}", "X-Amz-Date": STAMP,
        "X-Amz-Expires": "60", "X-Amz-SignedHeaders": "host", "X-Amz-Signature": "x",
    }  # fmt: skip
    signed_s = datetime.datetime(2013, 5, 24, tzinfo=datetime.UTC).timestamp()
    sigv4.check_time(sigv4.from_query(query), signed_s + 59)
    with pytest.raises(S3Error, match="expired"):
        sigv4.check_time(sigv4.from_query(query), signed_s + 61)
    with pytest.raises(S3Error, match="not valid yet"):
        sigv4.check_time(sigv4.from_query(query), signed_s - 1000)
    for name, value in (
        ("X-Amz-Expires", "604801"), ("X-Amz-Expires", "-1"), ("X-Amz-Expires", "soon"), ("X-Amz-Date", "now"),
        ("X-Amz-Algorithm", "MD5"), ("X-Amz-Signature", ""),
    ):  # fmt: skip
        with pytest.raises(S3Error, match="AuthorizationQueryParametersError"):
            sigv4.from_query({**query, name: value})
    with pytest.raises(S3Error, match="AccessDenied"):
        sigv4.seconds_of("20131399T000000Z")


def test_a_published_post_policy() -> None:
    key = signing_key(SECRET, "20151229", "us-east-1", "s3")
    policy = (
        b'{ "expiration": "2015-12-30T12:00:00.000Z",\r\n  "conditions": [\r\n    {"bucket": "sigv4examplebucket"},\r\n'
        b'    ["starts-with", "$key", "user/user1/"],\r\n    {"acl": "public-read"},\r\n'
        b'    {"success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html"},\r\n'
        b'    ["starts-with", "$Content-Type", "image/"],\r\n    {"x-amz-meta-uuid": "14365123651274"},\r\n'
        b'    {"x-amz-server-side-encryption": "AES256"},\r\n    ["starts-with", "$x-amz-meta-tag", ""],\r\n\r\n'
        b'    {"x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"},\r\n'
        b'    {"x-amz-algorithm": "AWS4-HMAC-SHA256"},\r\n    {"x-amz-date": "20151229T000000Z" }\r\n  ]\r\n}'
    )
    signature = sigv4.sign(key, base64.b64encode(policy).decode())
    assert signature == "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e"
