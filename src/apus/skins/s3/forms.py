"""PostObject: a form that a browser sends, with a file at its end.

Its fields stand for the headers of a PUT, and from there on it is one; its policy is what was signed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from apus.services.object.engine import Intent
from apus.services.object.logic.notices import POST
from apus.skins.s3 import rights, sigv4
from apus.skins.s3.acls import object_acl
from apus.skins.s3.auth import Proof
from apus.skins.s3.errors import S3Error
from apus.skins.s3.form_policy import FormPolicy, check_form, form_policy_of
from apus.skins.s3.metadata import content_type_of, said_of_object
from apus.skins.s3.object_lock import said_of_lock
from apus.skins.s3.payload import PUT_BYTES_MAX, content_md5
from apus.skins.s3.request import KEY_BYTES_MAX, S3Request
from apus.skins.s3.tagging import tags_of_document
from apus.skins.s3.writing import store, written_headers
from apus.skins.s3.xml import CONTENT_TYPE, Field, document
from apus.wire.multipart import FormReader, boundary_of
from apus.wire.route import Reply

FIELDS_BYTES_MAX: Final = 64 << 10
"""Of all fields together; Amazon takes 20 KiB."""
_HEADERS: Final = ("cache-control", "content-disposition", "content-encoding", "content-type", "expires", "content-md5")
_STATUSES: Final = ("200", "201", "204")


async def post_object(request: S3Request) -> Reply:
    boundary = boundary_of(request.headers.get("content-type", ""))
    if boundary is None:
        raise S3Error("RequestIsNotMultiPartContent")
    form = FormReader(boundary, request.stream())
    fields = await _fields(form)
    policy = await _prove(request, fields)
    await request.door.enter(request)
    request.key = _key(fields)
    sent = {name: value for name, value in fields.items() if name.startswith("x-amz-") or name in _HEADERS}
    if "acl" in fields:
        sent["x-amz-acl"] = fields["acl"]
    if "tagging" in fields:
        sent["x-amz-tagging"] = urlencode(tags_of_document(fields["tagging"].encode()))
    request.headers = {**_kept(request.headers), **{name: _raw(value) for name, value in sent.items()}}
    await rights.require(request, "s3:PutObject", "WRITE")
    place = request.account, request.bucket, request.key
    said = {**said_of_object(request), **await object_acl(request), **await said_of_lock(request)}
    intent = Intent(*place, content_type_of(request), said, None, content_md5(request))
    head = await store(request, intent, _bounded(form.data(), policy), cause=POST)
    return _done(request, fields, written_headers(request, head))


async def _fields(form: FormReader) -> dict[str, str]:
    """Those before the file, in lower case, with its name where they ask for it: the policy is held against that.

    Raise S3Error without a file.
    """
    fields: dict[str, str] = {}
    room = FIELDS_BYTES_MAX
    while (part := await form.next_part()) is not None:
        name = part.name.lower()
        if name == "file":
            filename = (part.filename or "").replace("\\", "/").rpartition("/")[2]
            return {name: value.replace("${filename}", filename) for name, value in fields.items()} | {"file": filename}
        text = await form.text(room)
        room -= len(text.encode())
        if name in fields:
            raise S3Error("InvalidArgument", f"The form has two fields {name}.", fields={"ArgumentName": name})
        fields[name] = text
    shown = "POST requires exactly one file upload per request."
    raise S3Error("InvalidArgument", shown, fields={"ArgumentName": "file", "ArgumentValue": "0"})


async def _prove(request: S3Request, fields: Mapping[str, str]) -> FormPolicy | None:
    """Who sends the form, and what it may say.  None: nobody in particular, bound by no policy."""
    encoded = fields.get("policy")
    if encoded is None:
        if fields.keys() & {"x-amz-signature", "x-amz-credential", "x-amz-algorithm", "signature"}:
            shown = "Bucket POST must contain a field named 'policy'."
            raise S3Error("InvalidArgument", shown, fields={"ArgumentName": "policy"})
        request.proof = Proof(None, form=True)
        return None
    if "signature" in fields and "x-amz-signature" not in fields:
        raise S3Error("InvalidRequest", "Signature Version 2 is not supported. Please use AWS4-HMAC-SHA256.")
    for name in ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature"):
        if not fields.get(name):
            shown = f"Bucket POST must contain a field named '{name}'. If it is specified, please check the order."
            raise S3Error("InvalidArgument", shown, fields={"ArgumentName": name})
    if fields["x-amz-algorithm"] != sigv4.ALGORITHM:
        raise S3Error("InvalidArgument", f"x-amz-algorithm only supports {sigv4.ALGORITHM}.")
    access, date, region, _ = sigv4.credential_of(fields["x-amz-credential"])
    authority = request.door.authority
    authority.check_region(region, "InvalidArgument")
    key, caller = await authority.key_for(access, date, region)
    if not sigv4.same(sigv4.sign(key, encoded), fields["x-amz-signature"]):
        raise S3Error("SignatureDoesNotMatch", fields={"AWSAccessKeyId": access, "StringToSign": encoded})
    policy = form_policy_of(encoded)
    check_form(policy, {**fields, "bucket": request.bucket}, request.door.now_s())
    request.proof = Proof(caller, form=True)
    request.caller = caller
    return policy


def _key(fields: Mapping[str, str]) -> str:
    key = fields.get("key", "")
    if not key:
        shown = "Bucket POST must contain a field named 'key'. If it is specified, please check the order."
        raise S3Error("InvalidArgument", shown, fields={"ArgumentName": "key", "ArgumentValue": ""})
    if len(key.encode()) > KEY_BYTES_MAX:
        raise S3Error("KeyTooLongError", fields={"Size": str(len(key.encode())), "MaxSizeAllowed": str(KEY_BYTES_MAX)})
    if "\0" in key:
        raise S3Error("InvalidArgument", "The key contains a NUL.")
    return key


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    """Of the request's own headers those that say nothing about the object."""
    names = ("host", "origin", "referer", "user-agent", "expect")
    return {name: headers[name] for name in names if name in headers}


def _raw(value: str) -> str:
    """As a header comes in."""
    return value.encode().decode("latin-1")


async def _bounded(data: AsyncIterator[bytes], policy: FormPolicy | None) -> AsyncIterator[bytes]:
    most = PUT_BYTES_MAX if policy is None or policy.most_bytes is None else min(policy.most_bytes, PUT_BYTES_MAX)
    least = policy.least_bytes if policy is not None else 0
    size = 0
    async for chunk in data:
        size += len(chunk)
        if size > most:
            fields = {"ProposedSize": str(size), "MaxSizeAllowed": str(most)}
            raise S3Error("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size", fields=fields)
        yield chunk
    if size < least:
        fields = {"ProposedSize": str(size), "MinSizeAllowed": str(least)}
        raise S3Error("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size", fields=fields)


def _done(request: S3Request, fields: Mapping[str, str], headers: dict[str, str]) -> Reply:
    """As the form asks: a redirect, or one of three statuses."""
    etag = headers["etag"]
    location = f"http://{request.headers.get('host', '')}/{request.bucket}/{quote(request.key)}"
    target = fields.get("success_action_redirect") or fields.get("redirect") or ""
    if urlsplit(target).scheme in ("http", "https") and urlsplit(target).netloc and target.isprintable():
        told = urlencode({"bucket": request.bucket, "key": request.key, "etag": etag})
        mark = "&" if urlsplit(target).query else "?"
        return Reply(status=303, headers={**headers, "location": f"{target}{mark}{told}"})
    status = fields.get("success_action_status", "")
    headers["location"] = location
    if status != "201":
        return Reply(status=int(status) if status in _STATUSES else 204, headers=headers)
    told_fields: list[Field] = [
        ("Location", location), ("Bucket", request.bucket), ("Key", request.key), ("ETag", etag),
    ]  # fmt: skip
    return Reply(document("PostResponse", told_fields, namespace=""), 201, headers, content_type=CONTENT_TYPE)
