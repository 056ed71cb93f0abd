"""Our reading of a signed request against botocore's writing of one."""

from __future__ import annotations

import hashlib
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from apus.services.identity.logic.signing import signing_key
from apus.skins.s3 import sigv4

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
VALUE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
METHODS = st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"])
SECRET = "a secret/+="


def check(method: str, url: str, headers: dict[str, str], signature: sigv4.Signature, payload: str) -> None:
    parts = urlsplit(url)
    query = sigv4.canonical_query(parts.query, presigned=signature.expires_s is not None)
    canonical = sigv4.canonical_request(method, parts.path, query, headers, signature.signed_headers, payload)
    key = signing_key(SECRET, signature.date, signature.region, signature.service)
    mine = sigv4.sign(key, sigv4.string_to_sign(signature.stamp, signature.scope, canonical))
    assert mine == signature.signature


@given(
    METHODS,
    TEXT,
    st.lists(st.tuples(TEXT, TEXT), max_size=4),
    st.dictionaries(st.sampled_from(["x-amz-meta-a", "x-amz-meta-b", "content-type"]), VALUE),
    st.binary(max_size=20),
)
def test_headers(method: str, key: str, query: list[tuple[str, str]], headers: dict[str, str], body: bytes) -> None:
    asked = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in query)
    url = f"http://bucket.example:8080/{quote(key, safe='/~')}" + (f"?{asked}" if asked else "")
    request = AWSRequest(method, url, data=body, headers=dict(headers))
    S3SigV4Auth(Credentials("AKID", SECRET), "s3", "here-1").add_auth(request)
    sent = {name.lower(): value for name, value in request.headers.items()} | {"host": "bucket.example:8080"}
    signature = sigv4.from_header(sent["authorization"], sent)
    assert (signature.access, signature.region) == ("AKID", "here-1")
    payload = sent["x-amz-content-sha256"]
    assert payload in (hashlib.sha256(body).hexdigest(), sigv4.UNSIGNED)
    check(method, url, sent, signature, payload)


@given(TEXT, st.integers(1, 604_800))
def test_presigned(key: str, expires_s: int) -> None:
    url = f"http://bucket.example:8080/{quote(key, safe='/~')}"
    request = AWSRequest("GET", url)
    S3SigV4QueryAuth(Credentials("AKID", SECRET), "s3", "here-1", expires=expires_s).add_auth(request)
    query = dict(item.split("=", 1) for item in urlsplit(request.url).query.split("&"))
    query["X-Amz-Credential"] = query["X-Amz-Credential"].replace("%2F", "/")
    signature = sigv4.from_query(query)
    assert signature.expires_s == expires_s
    check("GET", request.url, {"host": "bucket.example:8080"}, signature, sigv4.UNSIGNED)
