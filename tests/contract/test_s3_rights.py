"""Who is let in by the S3 door: signatures, ACLs, policies, origins."""

from __future__ import annotations

import datetime
import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.contract.s3_server import S3Server, refusal

_NAMED = ("Code", "Message", "ArgumentName", "ArgumentValue")
PUBLIC = "http://acs.amazonaws.com/groups/global/AllUsers"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def s3(server: S3Server) -> Any:
    return server.client()


@pytest.fixture(scope="module")
def bob(server: S3Server) -> Any:
    return server.client("bob")


@pytest.fixture
def bucket(s3: Any, request: pytest.FixtureRequest) -> str:
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60].strip("-")
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="o", Body=b"x")
    return name


def policy(bucket: str, *statements: dict[str, Any]) -> str:
    whole = [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*", **more}
        for more in statements
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": whole})


def code(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    found = re.search(b"<Code>([^<]*)</Code>", answer[2])
    return answer[0], found[1].decode() if found else ""


def test_signatures_that_are_not_good(server: S3Server, bucket: str) -> None:
    path = f"/{bucket}/o"
    good = server.signature("GET", path)
    assert server.raw("GET", path, headers=good)[0] == 200
    assert server.raw("GET", path, headers=good)[0] == 200, "a repeated read is a read"
    assert code(server.raw("GET", f"/{bucket}/p", headers=good)) == (403, "SignatureDoesNotMatch")
    assert code(server.raw("GET", f"{path}?acl", headers=good)) == (403, "SignatureDoesNotMatch")
    assert code(server.raw("PUT", path, b"", headers=good)) == (403, "SignatureDoesNotMatch")
    assert code(server.raw("DELETE", path, headers=good)) == (403, "SignatureDoesNotMatch")
    wrong = good["Authorization"].replace("RegionOne", "mars-1")
    assert code(server.raw("GET", path, headers={**good, "Authorization": wrong})) == (
        400,
        "AuthorizationHeaderMalformed",
    )
    wrong = good["Authorization"].replace("alice-key", "nobody-key")
    assert code(server.raw("GET", path, headers={**good, "Authorization": wrong})) == (403, "InvalidAccessKeyId")
    wrong = good["Authorization"].replace("alice-key", "bob-key")
    assert code(server.raw("GET", path, headers={**good, "Authorization": wrong})) == (403, "SignatureDoesNotMatch")
    assert code(server.raw("GET", path, headers={**good, "x-amz-acl": "private"})) == (403, "AccessDenied")
    assert code(server.raw("GET", path, headers={**good, "Authorization": "AWS a:b"})) == (400, "InvalidRequest")
    assert code(server.raw("GET", path, headers={**good, "Authorization": "Bearer x"})) == (400, "InvalidRequest")
    unhashed = {name: value for name, value in good.items() if name.lower() != "x-amz-content-sha256"}
    assert code(server.raw("GET", path, headers=unhashed)) == (400, "InvalidRequest")
    undated = {name: value for name, value in good.items() if name.lower() != "x-amz-date"}
    assert code(server.raw("GET", path, headers=undated)) == (403, "AccessDenied")
    assert code(server.raw("GET", path)) == (403, "AccessDenied")


def test_a_replay_is_too_late(server: S3Server, bucket: str) -> None:
    for minutes in (-16, 16):
        stamp = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=minutes)
        answer = server.signed("PUT", f"/{bucket}/o", b"again", x_amz_date=stamp.strftime("%Y%m%dT%H%M%SZ"))
        assert code(answer) == (403, "RequestTimeTooSkewed")
        assert b"<ServerTime>" in answer[2]
    assert server.signed("GET", f"/{bucket}/o")[2] == b"x"


def test_presigned_urls(server: S3Server, s3: Any, bucket: str) -> None:
    url = s3.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "o"}, ExpiresIn=60)
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"x"
    parts = urlsplit(url)
    path = f"{parts.path}?{parts.query}"
    assert code(server.raw("GET", path.replace("/o?", "/p?"))) == (403, "SignatureDoesNotMatch")
    assert code(server.raw("PUT", path, b"y")) == (403, "SignatureDoesNotMatch")
    assert code(server.raw("GET", path.replace("Expires=60", "Expires=61"))) == (403, "SignatureDoesNotMatch")
    assert code(server.raw("GET", path.replace("Expires=60", "Expires=9999999"))) == (
        400,
        "AuthorizationQueryParametersError",
    )
    stale = re.sub(r"Date=\d{8}T\d{6}Z", lambda match: match[0][:14] + "000000Z", path)
    if stale != path:
        assert code(server.raw("GET", stale))[0] == 403
    upload = s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": "up"}, ExpiresIn=60)
    parts = urlsplit(upload)
    assert server.raw("PUT", f"{parts.path}?{parts.query}", b"sent by a browser")[0] == 200
    assert s3.get_object(Bucket=bucket, Key="up")["Body"].read() == b"sent by a browser"


def test_a_key_ends_at_once(server: S3Server, bucket: str) -> None:
    server.keys.known["short-key"] = ("short-secret", server.keys.known["alice-key"][1])
    assert server.signed("GET", f"/{bucket}/o", who="short")[0] == 200
    asked = server.keys.asked
    assert server.signed("GET", f"/{bucket}/o", who="short")[0] == 200
    assert server.keys.asked == asked, "what is known is not asked again"
    del server.keys.known["short-key"]
    server.view.apply({"k:something": 1})
    assert code(server.signed("GET", f"/{bucket}/o", who="short")) == (403, "InvalidAccessKeyId")
    assert server.signed("GET", f"/{bucket}/o")[0] == 200


def test_roles(server: S3Server, s3: Any, bucket: str) -> None:
    reader, boss = server.client("reader"), server.client("boss")
    assert reader.get_object(Bucket=bucket, Key="o")["Body"].read() == b"x"
    assert reader.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    assert reader.get_object_tagging(Bucket=bucket, Key="o")["TagSet"] == []
    for refused in (
        lambda: reader.put_object(Bucket=bucket, Key="o", Body=b"y"),
        lambda: reader.delete_object(Bucket=bucket, Key="o"),
        lambda: reader.put_bucket_acl(Bucket=bucket, ACL="public-read"),
        lambda: reader.create_bucket(Bucket="readers-own"),
        lambda: reader.delete_bucket(Bucket=bucket),
    ):
        with refusal("AccessDenied"):
            refused()
    boss.put_object(Bucket=bucket, Key="boss", Body=b"b")
    assert s3.get_object(Bucket=bucket, Key="boss")["Body"].read() == b"b"


def test_canned_acls(server: S3Server, s3: Any, bob: Any, bucket: str) -> None:
    path = f"/{bucket}/o"
    grants = s3.get_object_acl(Bucket=bucket, Key="o")
    assert [(g["Grantee"]["ID"], g["Permission"]) for g in grants["Grants"]] == [("a", "FULL_CONTROL")]
    s3.put_object_acl(Bucket=bucket, Key="o", ACL="public-read")
    assert server.raw("GET", path)[2] == b"x"
    assert code(server.raw("GET", f"/{bucket}")) == (403, "AccessDenied")
    assert code(server.raw("GET", f"/{bucket}/none")) == (403, "AccessDenied")
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert b"<Key>o</Key>" in server.raw("GET", f"/{bucket}")[2]
    assert code(server.raw("GET", f"/{bucket}/none")) == (404, "NoSuchKey")
    assert code(server.raw("PUT", path, b"y")) == (403, "AccessDenied")
    s3.put_object_acl(Bucket=bucket, Key="o", ACL="authenticated-read")
    assert code(server.raw("GET", path)) == (403, "AccessDenied")
    assert bob.get_object(Bucket=bucket, Key="o")["Body"].read() == b"x"
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    assert server.raw("PUT", f"/{bucket}/anonymous", b"y")[0] == 200
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    assert code(server.raw("PUT", path, b"y")) == (403, "AccessDenied")
    s3.put_object(Bucket=bucket, Key="p", Body=b"p", ACL="public-read")
    assert server.raw("GET", f"/{bucket}/p")[2] == b"p"
    with refusal("InvalidArgument"):
        s3.put_object(Bucket=bucket, Key="p", Body=b"p", ACL="nonsense")


def test_explicit_acls(server: S3Server, s3: Any, bob: Any, bucket: str) -> None:
    s3.put_bucket_acl(Bucket=bucket, GrantWrite='id="b"', GrantRead='id="b"', GrantFullControl='id="a"')
    assert bob.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
    bob.put_object(Bucket=bucket, Key="bobs", Body=b"b")
    assert bob.get_object(Bucket=bucket, Key="bobs")["Body"].read() == b"b"
    with refusal("AccessDenied"):
        bob.get_object(Bucket=bucket, Key="o")
    acl = s3.get_object_acl(Bucket=bucket, Key="bobs")
    assert acl["Owner"]["ID"] == "b"
    grant = {"Grantee": {"Type": "CanonicalUser", "ID": "b"}, "Permission": "READ"}
    s3.put_object_acl(Bucket=bucket, Key="o", AccessControlPolicy={"Grants": [grant], "Owner": {"ID": "a"}})
    assert bob.get_object(Bucket=bucket, Key="o")["Body"].read() == b"x"
    with refusal("UnresolvableGrantByEmailAddress"):
        s3.put_bucket_acl(Bucket=bucket, GrantRead='emailAddress="a@b"')
    with refusal("InvalidArgument"):
        s3.put_bucket_acl(Bucket=bucket, GrantRead='uri="http://x"')
    for body in (
        b"<AccessControlPolicy/>",
        b"<AccessControlPolicy><AccessControlList><Grant/></AccessControlList></AccessControlPolicy>",
        b"<x",
    ):
        assert server.signed("PUT", f"/{bucket}?acl", body)[0] == 400


@pytest.mark.parametrize("who", ["nonsense", "n-b", "", "b" * 300])
def test_a_grant_to_nobody(s3: Any, server: S3Server, bucket: str, who: str) -> None:
    """Amazon names the argument by the way that it came."""

    def refused(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str, str, str]:
        found = [re.search(f"<{name}>([^<]*)</{name}>".encode(), answer[2]) for name in _NAMED]
        assert all(found), answer[2]
        code, message, name, value = (match[1].decode() for match in found if match is not None)
        assert value == who
        return answer[0], code, message, name

    expected = 400, "InvalidArgument", "Invalid id"
    headers = {"x_amz_grant_read": f'id="b", id="{who}"'}
    asked = [("PUT", f"/{bucket}?acl"), ("PUT", f"/{bucket}/o?acl"), ("PUT", f"/{bucket}/o"), ("PUT", f"/{bucket}-new")]
    for method, path in (*asked, ("POST", f"/{bucket}/o?uploads")):
        assert refused(server.signed(method, path, **headers)) == (*expected, "id"), path
    if who:
        grants = "".join(
            f"<Grant><Grantee><ID>{id}</ID></Grantee><Permission>READ</Permission></Grant>" for id in ("b", who)
        )
        text = f"<AccessControlPolicy><AccessControlList>{grants}</AccessControlList></AccessControlPolicy>".encode()
        for _, path in asked[:2]:
            assert refused(server.signed("PUT", path, text)) == (*expected, "CanonicalUser/ID"), path
    assert [grant["Grantee"]["ID"] for grant in s3.get_bucket_acl(Bucket=bucket)["Grants"]] == ["a"]
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == b"x"


def test_grants_to_those_there_are(s3: Any, bob: Any, server: S3Server, bucket: str) -> None:
    asked = server.everybody.asked
    s3.put_bucket_acl(Bucket=bucket, GrantRead=f'uri="{PUBLIC}"', GrantFullControl="id=a")
    s3.put_object(Bucket=bucket, Key="mine", Body=b"", ACL="public-read")
    assert server.everybody.asked == asked, "who asks and who is everybody need not be asked for"
    s3.put_bucket_acl(Bucket=bucket, GrantRead='id="u-b"')
    assert bob.list_objects_v2(Bucket=bucket)["KeyCount"] == 2
    server.everybody.silent = True
    try:
        s3.put_bucket_acl(Bucket=bucket, GrantRead='id="whoever"')
    finally:
        server.everybody.silent = False


def test_the_owner_alone(s3: Any, server: S3Server, bucket: str) -> None:
    with refusal("OwnershipControlsNotFoundError"):
        s3.get_bucket_ownership_controls(Bucket=bucket)
    rules = {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    s3.put_object_acl(Bucket=bucket, Key="o", ACL="public-read")
    s3.put_bucket_acl(Bucket=bucket, GrantRead='id="b"')
    with refusal("InvalidBucketAclWithObjectOwnership"):
        s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=rules)
    with refusal("InvalidBucketAclWithObjectOwnership"):
        s3.create_bucket(Bucket="shared-and-owned", ACL="public-read", ObjectOwnership="BucketOwnerEnforced")
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    s3.put_bucket_ownership_controls(Bucket=bucket, OwnershipControls=rules)
    assert s3.get_bucket_ownership_controls(Bucket=bucket)["OwnershipControls"] == rules
    assert code(server.raw("GET", f"/{bucket}/o")) == (403, "AccessDenied")
    with refusal("AccessControlListNotSupported"):
        s3.put_object(Bucket=bucket, Key="p", Body=b"", ACL="public-read")
    with refusal("AccessControlListNotSupported"):
        s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    for canned in ("private", "authenticated-read"):
        with refusal("AccessControlListNotSupported"):
            s3.put_object(Bucket=bucket, Key="p", Body=b"", ACL=canned)
    s3.put_object(Bucket=bucket, Key="p", Body=b"", ACL="bucket-owner-full-control")
    s3.put_object(Bucket=bucket, Key="p", Body=b"", GrantFullControl="id=a")
    s3.delete_bucket_ownership_controls(Bucket=bucket)
    assert server.raw("GET", f"/{bucket}/o")[0] == 200


def test_no_public_access(s3: Any, server: S3Server, bucket: str) -> None:
    with refusal("NoSuchPublicAccessBlockConfiguration"):
        s3.get_public_access_block(Bucket=bucket)
    s3.put_object_acl(Bucket=bucket, Key="o", ACL="public-read")
    s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {"Resource": f"arn:aws:s3:::{bucket}/by-policy"}))
    s3.put_object(Bucket=bucket, Key="by-policy", Body=b"p")
    assert server.raw("GET", f"/{bucket}/by-policy")[0] == 200
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    block = dict.fromkeys(names, True)
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=block)
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"] == block
    assert server.raw("GET", f"/{bucket}/o")[0] == 403
    assert server.raw("GET", f"/{bucket}/by-policy")[0] == 403
    with refusal("AccessDenied"):
        s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    with refusal("AccessDenied"):
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {}))
    s3.delete_public_access_block(Bucket=bucket)
    assert server.raw("GET", f"/{bucket}/o")[0] == 200


def test_nobody_lets_in_all_but_some(s3: Any, bucket: str) -> None:
    but_bob = {"Principal": None, "NotPrincipal": {"AWS": "arn:aws:iam::b:root"}}
    with refusal("MalformedPolicy"):
        s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, but_bob))
    s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, {**but_bob, "Effect": "Deny"}))


def test_policies(s3: Any, bob: Any, server: S3Server, bucket: str) -> None:
    with refusal("NoSuchBucketPolicy"):
        s3.get_bucket_policy(Bucket=bucket)
    text = policy(bucket, {"Principal": {"AWS": "arn:aws:iam::b:root"}})
    s3.put_bucket_policy(Bucket=bucket, Policy=text)
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == text
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is False
    assert bob.get_object(Bucket=bucket, Key="o")["Body"].read() == b"x"
    assert server.raw("GET", f"/{bucket}/o")[0] == 403
    with refusal("AccessDenied"):
        bob.list_objects_v2(Bucket=bucket)
    everybody = {
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, everybody))
    assert s3.get_bucket_policy_status(Bucket=bucket)["PolicyStatus"]["IsPublic"] is True
    assert server.raw("GET", f"/{bucket}/o")[2] == b"x"
    assert code(server.raw("GET", f"/{bucket}/none")) == (404, "NoSuchKey")
    s3.delete_bucket_policy(Bucket=bucket)
    assert server.raw("GET", f"/{bucket}/o")[0] == 403


def test_denials(s3: Any, bucket: str) -> None:
    deny = {"Effect": "Deny", "Action": "s3:*", "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]}
    s3.put_bucket_policy(Bucket=bucket, Policy=policy(bucket, deny))
    with refusal("AccessDenied"):
        s3.get_object(Bucket=bucket, Key="o")
    with refusal("AccessDenied"):
        s3.delete_bucket(Bucket=bucket)
    s3.delete_bucket_policy(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="o")["Body"].read() == b"x"


def test_conditions_of_policies(s3: Any, server: S3Server, bucket: str) -> None:
    def allowed(condition: dict[str, Any], path: str = "/o", **headers: str) -> bool:
        s3.put_bucket_policy(
            Bucket=bucket,
            Policy=policy(bucket, {"Condition": condition, "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}*"}),
        )
        return server.raw("GET", f"/{bucket}{path}", headers=headers)[0] == 200

    assert allowed({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}})
    assert not allowed({"NotIpAddress": {"aws:SourceIp": ["127.0.0.0/8", "10.0.0.0/8"]}})
    assert allowed({"StringLike": {"aws:Referer": "http://good.example/*"}}, referer="http://good.example/page")
    assert not allowed({"StringLike": {"aws:Referer": "http://good.example/*"}}, referer="http://bad.example/page")
    assert allowed({"StringEquals": {"s3:prefix": "o"}}, "?prefix=o")
    assert not allowed({"StringEquals": {"s3:prefix": "o"}}, "?prefix=")
    assert allowed({"NumericLessThanEquals": {"s3:max-keys": "10"}}, "?max-keys=10")
    assert not allowed({"NumericLessThanEquals": {"s3:max-keys": "10"}}, "?max-keys=11")
    assert allowed({"Bool": {"aws:SecureTransport": False}})
    assert allowed({"DateLessThan": {"aws:CurrentTime": "2100-01-01T00:00:00Z"}})
    s3.put_object_tagging(Bucket=bucket, Key="o", Tagging={"TagSet": [{"Key": "public", "Value": "yes"}]})
    assert allowed({"StringEquals": {"s3:ExistingObjectTag/public": "yes"}})
    assert not allowed({"StringEquals": {"s3:ExistingObjectTag/public": "no"}})
    for wrong in ("{}", "[]", "x", policy(bucket, {"Effect": "Maybe"}), policy("other", {}),
                  policy(bucket, {"Condition": {"Sometimes": {"a": "b"}}}), policy(bucket, {"Principal": {"Who": "x"}}),
                  policy(bucket, {"Action": "ec2:Run"}), policy(bucket, {"More": "x"})):  # fmt: skip
        with refusal("MalformedPolicy"):
            s3.put_bucket_policy(Bucket=bucket, Policy=wrong)


def test_origins(s3: Any, server: S3Server, bucket: str) -> None:
    asked = {"Origin": "http://a.example", "Access-Control-Request-Method": "PUT"}
    assert code(server.raw("OPTIONS", f"/{bucket}/o", headers=asked)) == (403, "AccessForbidden")
    with refusal("NoSuchCORSConfiguration"):
        s3.get_bucket_cors(Bucket=bucket)
    rules = [
        {"AllowedOrigins": ["http://*.example"], "AllowedMethods": ["PUT", "GET"], "AllowedHeaders": ["x-*"],
         "ExposeHeaders": ["etag"], "MaxAgeSeconds": 60},
        {"AllowedOrigins": ["*"], "AllowedMethods": ["HEAD"]},
    ]  # fmt: skip
    s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": rules})
    assert s3.get_bucket_cors(Bucket=bucket)["CORSRules"] == rules
    status, headers, _ = server.raw(
        "OPTIONS", f"/{bucket}/o", headers={**asked, "Access-Control-Request-Headers": "X-Amz-Date"}
    )
    assert (status, headers["access-control-allow-origin"]) == (200, "http://a.example")
    assert headers["access-control-allow-headers"] == "x-amz-date"
    assert headers["access-control-max-age"] == "60"
    for more in (
        {"Access-Control-Request-Headers": "content-type"},
        {"Origin": "http://a.other"},
        {"Access-Control-Request-Method": "DELETE"},
    ):
        assert code(server.raw("OPTIONS", f"/{bucket}/o", headers={**asked, **more})) == (403, "AccessForbidden")
    assert server.raw("OPTIONS", f"/{bucket}/o")[0] == 400
    headers = server.signed("GET", f"/{bucket}/o", origin="http://a.example")[1]
    assert (headers["access-control-allow-origin"], headers["access-control-expose-headers"]) == (
        "http://a.example",
        "etag",
    )
    headers = server.raw("GET", f"/{bucket}/o", headers={"Origin": "http://a.example"})[1]
    assert headers["access-control-allow-origin"] == "http://a.example", "a page may read why it was refused"
    assert server.signed("HEAD", f"/{bucket}/o", origin="http://else")[1]["access-control-allow-origin"] == "*"
    with refusal("InvalidRequest"):
        s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [{**rules[0], "AllowedMethods": ["BREW"]}]})
    s3.delete_bucket_cors(Bucket=bucket)
    assert "access-control-allow-origin" not in server.signed("GET", f"/{bucket}/o", origin="http://a.example")[1]


def test_web_sites(s3: Any, server: S3Server, bucket: str) -> None:
    def get(path: str) -> tuple[int, dict[str, str], bytes]:
        return server.raw("GET", path, headers={"Host": f"{bucket}.s3-website.s3.test"})

    assert get("/")[0] == 404
    s3.put_bucket_website(
        Bucket=bucket,
        WebsiteConfiguration={
            "IndexDocument": {"Suffix": "index.html"},
            "ErrorDocument": {"Key": "sorry.html"},
            "RoutingRules": [
                {"Condition": {"KeyPrefixEquals": "old/"}, "Redirect": {"ReplaceKeyPrefixWith": "new/"}},
                {"Condition": {"HttpErrorCodeReturnedEquals": "404", "KeyPrefixEquals": "gone/"},
                 "Redirect": {"HostName": "else.example", "ReplaceKeyWith": "here", "HttpRedirectCode": "302"}},
            ],
        },
    )  # fmt: skip
    assert s3.get_bucket_website(Bucket=bucket)["IndexDocument"] == {"Suffix": "index.html"}
    for key in ("index.html", "dir/index.html", "sorry.html", "private.html"):
        acl = "private" if key == "private.html" else "public-read"
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode(), ACL=acl, ContentType="text/html")
    s3.put_object(Bucket=bucket, Key="moved", Body=b"", ACL="public-read", WebsiteRedirectLocation="/there")
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert (get("/")[0], get("/")[2], get("/")[1]["content-type"]) == (200, b"index.html", "text/html")
    assert get("/dir/")[2] == b"dir/index.html"
    assert (get("/dir")[0], get("/dir")[1]["location"]) == (302, "/dir/")
    assert (get("/none")[0], get("/none")[2]) == (404, b"sorry.html")
    assert (get("/private.html")[0], get("/private.html")[2]) == (403, b"sorry.html")
    assert (get("/moved")[0], get("/moved")[1]["location"]) == (301, "/there")
    assert get("/old/x")[1]["location"] == f"http://{bucket}.s3-website.s3.test/new/x"
    assert (get("/gone/x")[0], get("/gone/x")[1]["location"]) == (302, "http://else.example/here")
    assert server.raw("PUT", "/x", b"", headers={"Host": f"{bucket}.s3-website.s3.test"})[0] == 405
    s3.put_bucket_website(
        Bucket=bucket, WebsiteConfiguration={"RedirectAllRequestsTo": {"HostName": "x.example", "Protocol": "https"}}
    )
    assert get("/a")[1]["location"] == "https://x.example/a"
    s3.delete_bucket_website(Bucket=bucket)
    with refusal("NoSuchWebsiteConfiguration"):
        s3.get_bucket_website(Bucket=bucket)


def test_expected_owners(s3: Any, bucket: str) -> None:
    assert s3.head_bucket(Bucket=bucket, ExpectedBucketOwner="a")
    with refusal("403"):
        s3.head_bucket(Bucket=bucket, ExpectedBucketOwner="b")
