"""Whatever is sent to the S3 door, it answers in its own words: no 5xx but NotImplemented, and each error in its XML."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apus.skins.s3.errors import CODES
from apus.skins.s3.operations import _BUCKET, _OBJECT, SUBRESOURCES
from tests.contract.s3_server import S3Server

BUCKETS = ("fuzz", "fuzz-versions", "fuzz-lock")
TEXTS = ("", "0", "-1", "1", "99999999999999999999", "x", "Enabled", "GOVERNANCE", "AES256", "aws:kms", "ON", "s3:ObjectCreated:*",
         "2031-01-01T00:00:00Z", "http://[", "\u00e9\U0001f985", "null", "true", "READ", "arn:apus:events", "http://169.254.169.254/")  # fmt: skip
VALID = {
    "acl": "<AccessControlPolicy><Owner><ID>a</ID></Owner><AccessControlList><Grant><Grantee><ID>b</ID></Grantee><Permission>READ</Permission></Grant><Grant><Grantee><URI>http://acs.amazonaws.com/groups/global/AllUsers</URI></Grantee><Permission>READ</Permission></Grant></AccessControlList></AccessControlPolicy>",
    "cors": "<CORSConfiguration><CORSRule><ID>r</ID><AllowedMethod>GET</AllowedMethod><AllowedOrigin>http://*.x</AllowedOrigin><MaxAgeSeconds>5</MaxAgeSeconds></CORSRule></CORSConfiguration>",
    "delete": "<Delete><Quiet>false</Quiet><Object><Key>none</Key><VersionId>null</VersionId></Object><Object><Key>never</Key></Object></Delete>",
    "encryption": "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule></ServerSideEncryptionConfiguration>",
    "legal-hold": "<LegalHold><Status>OFF</Status></LegalHold>",
    "lifecycle": "<LifecycleConfiguration><Rule><ID>r</ID><Status>Enabled</Status><Filter><And><Prefix>a</Prefix><Tag><Key>k</Key><Value>v</Value></Tag><ObjectSizeLessThan>9</ObjectSizeLessThan></And></Filter><Expiration><Days>3</Days></Expiration><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule><Rule><ID>s</ID><Status>Enabled</Status><Prefix/><Expiration><Date>2031-01-01T00:00:00Z</Date></Expiration><AbortIncompleteMultipartUpload><DaysAfterInitiation>9000</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>",
    "notification": "<NotificationConfiguration><TopicConfiguration><Id>t</Id><Topic>http://hooks.example/</Topic><Event>s3:ObjectRestore:*</Event><Event>s3:ObjectCreated:*</Event><Filter><S3Key><FilterRule><Name>prefix</Name><Value>zz</Value></FilterRule></S3Key></Filter></TopicConfiguration><EventBridgeConfiguration/></NotificationConfiguration>",
    "object-lock": "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>GOVERNANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>",
    "ownershipControls": "<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>",
    "publicAccessBlock": "<PublicAccessBlockConfiguration><BlockPublicAcls>true</BlockPublicAcls><IgnorePublicAcls>false</IgnorePublicAcls></PublicAccessBlockConfiguration>",
    "retention": "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2031-01-01T00:00:00Z</RetainUntilDate></Retention>",
    "tagging": "<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag><Tag><Key>c</Key><Value>d</Value></Tag></TagSet></Tagging>",
    "uploadId": "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>0cc175b9c0f1b6a831c399e269772661</ETag><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part></CompleteMultipartUpload>",
    "versioning": "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>",
    "website": "<WebsiteConfiguration><IndexDocument><Suffix>index.html</Suffix></IndexDocument><ErrorDocument><Key>e</Key></ErrorDocument><RoutingRules><RoutingRule><Condition><KeyPrefixEquals>a</KeyPrefixEquals></Condition><Redirect><HostName>x</HostName></Redirect></RoutingRule></RoutingRules></WebsiteConfiguration>",
    "": "<CreateBucketConfiguration><LocationConstraint>RegionOne</LocationConstraint></CreateBucketConfiguration>",
}  # fmt: skip
NAMES = sorted({element.tag for text in VALID.values() for element in ElementTree.fromstring(text).iter()})


@st.composite
def documents(draw: st.DrawFn, sub: str) -> bytes:
    """What is right for the sub-resource, changed in up to three places."""
    root = ElementTree.fromstring(VALID.get(sub) or draw(st.sampled_from(sorted(VALID.values()))))
    for _ in range(draw(st.integers(0, 3))):
        element = draw(st.sampled_from(list(root.iter())))
        change = draw(st.sampled_from(["text", "drop", "twice", "name", "add"]))
        children = list(element)
        if change == "text":
            element.text = draw(st.sampled_from(TEXTS))
        elif change == "name":
            element.tag = draw(st.sampled_from(NAMES))
        elif change == "add":
            ElementTree.SubElement(element, draw(st.sampled_from(NAMES))).text = draw(st.sampled_from(TEXTS))
        elif children:
            child = draw(st.sampled_from(children))
            element.append(child) if change == "twice" else element.remove(child)
    return ElementTree.tostring(root)


policies = st.builds(
    lambda fields: json.dumps({"Version": "2012-10-17", "Statement": [fields]}).encode(),
    st.dictionaries(st.sampled_from(["Effect", "Principal", "Action", "Resource", "Condition", "Sid"]),
                    st.sampled_from(["Allow", "Deny", "*", "s3:*", "arn:aws:s3:::fuzz/*", {"AWS": "b"}, {"Bool": {"a": []}}, [], 5, None]), max_size=5),
)  # fmt: skip
values = st.one_of(st.sampled_from(TEXTS), st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12))
PARAMS = ("versionId", "uploadId", "partNumber", "max-keys", "max-parts", "max-uploads", "prefix", "delimiter", "marker", "key-marker",
          "upload-id-marker", "version-id-marker", "part-number-marker", "list-type", "continuation-token", "encoding-type",
          "response-content-type", "start-after")  # fmt: skip
HEADERS = ("x-amz-acl", "x-amz-copy-source", "x-amz-copy-source-range", "x-amz-tagging", "x-amz-storage-class", "x-amz-meta-a", "range",
           "if-match", "if-none-match", "if-modified-since", "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date",
           "x-amz-object-lock-legal-hold", "x-amz-server-side-encryption", "x-amz-server-side-encryption-customer-key",
           "x-amz-server-side-encryption-customer-algorithm", "x-amz-checksum-crc32", "x-amz-checksum-algorithm", "x-amz-checksum-type",
           "x-amz-sdk-checksum-algorithm", "x-amz-trailer", "x-amz-grant-read", "x-amz-mp-object-size", "content-md5", "content-type",
           "x-amz-object-attributes", "x-amz-max-parts", "x-amz-website-redirect-location", "x-amz-metadata-directive",
           "x-amz-bypass-governance-retention", "x-amz-expected-bucket-owner", "x-amz-object-ownership", "origin")  # fmt: skip
header_values = st.one_of(st.sampled_from([*(text for text in TEXTS if text.isascii()), "fuzz/o", "bytes=0-5", "bytes=9-", "CRC32", "COMPOSITE",
                                           "public-read", "FULL_OBJECT", "id=b", "a=b&a=b", "multipart/form-data; boundary=x"]),
                          st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10))  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    s3 = server.client()
    for bucket in BUCKETS:
        s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=bucket == "fuzz-lock")
        s3.put_object(Bucket=bucket, Key="o", Body=b"some bytes")
    s3.put_bucket_versioning(Bucket="fuzz-versions", VersioningConfiguration={"Status": "Enabled"})
    upload_id = s3.create_multipart_upload(Bucket="fuzz", Key="o", ChecksumAlgorithm="CRC32")["UploadId"]
    s3.upload_part(Bucket="fuzz", Key="o", UploadId=upload_id, PartNumber=1, Body=b"part", ChecksumAlgorithm="CRC32")
    server.upload_id = upload_id  # type: ignore[attr-defined]
    yield server
    server.stop()


def check(answer: tuple[int, dict[str, str], bytes], method: str, sent: Any) -> None:
    status, headers, body = answer
    assert status < 500 or status == 501, (sent, answer)
    if status >= 400 and method != "HEAD" and body:
        root = ElementTree.fromstring(body)
        code = root.findtext("Code") or ""
        assert CODES[code][0] == status, (sent, answer)
        assert headers["content-type"] == "application/xml"
        assert root.findtext("RequestId") == headers["x-amz-request-id"]


OPERATIONS = [
    (method, sub, key) for table, key in ((_BUCKET, ""), (_OBJECT, "/o")) for method, by in table.items() for sub in by
]
KEPT = {("DELETE", "", ""), ("PUT", "", ""), ("DELETE", "uploadId", "/o")}
"""The buckets and the upload are wanted to the end."""


def bodies(sub: str) -> st.SearchStrategy[bytes]:
    return st.one_of(
        documents(sub), documents(sub), policies if sub == "policy" else documents(sub), st.binary(max_size=40)
    )


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_anything(server: S3Server, data: st.DataObject) -> None:
    draw = data.draw
    method, sub, key = draw(st.sampled_from([operation for operation in OPERATIONS if operation not in KEPT]))
    if draw(st.integers(0, 9)) == 0:
        sub = draw(st.sampled_from(sorted(SUBRESOURCES)))
    bucket = draw(st.sampled_from([*BUCKETS, *BUCKETS, "none-such"]))
    params = draw(st.dictionaries(st.sampled_from(PARAMS), values, max_size=2))
    if sub == "uploadId":
        sub, params = "", {**params, "uploadId": params.get("uploadId") or server.upload_id}  # type: ignore[attr-defined]
        body = draw(bodies("uploadId"))
    else:
        params.pop("uploadId", None)
        body = draw(bodies(sub))
    query = "&".join([*([sub] if sub else []), *(f"{name}={quote(value)}" for name, value in sorted(params.items()))])
    path = f"/{bucket}{key}" + (f"?{query}" if query else "")
    body = body if method in ("PUT", "POST") else b""
    headers = draw(st.dictionaries(st.sampled_from(HEADERS), header_values, max_size=3))
    who = draw(st.sampled_from(["alice", "alice", "alice", "bob", "reader", ""]))
    sent = {name: value.strip() for name, value in headers.items()}
    answer = server.raw(method, path, body, server.signature(method, path, body, who, **sent) if who else sent)
    check(answer, method, (method, path, headers, body, who))
    if method == "PUT" and answer[0] < 300 and not key and sub in _BUCKET["GET"]:
        back = server.signed("GET", f"/{bucket}?{sub}", who="boss")
        assert back[0] in (200, 404), (path, body, back)
        if sub in _BUCKET["DELETE"]:
            server.signed("DELETE", f"/{bucket}?{sub}", who="boss")


def test_all_is_still_well(server: S3Server) -> None:
    for method in ("GET", "HEAD"):
        assert server.signed(method, "/fuzz-lock/o", who="boss")[0] in (200, 404)
    server.run(server.store.sweeper.run_once())
    server.run(server.store.lifecycle.run_once())
