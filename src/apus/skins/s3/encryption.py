"""Server-side encryption: by the store's own secret (AES256), of a whole bucket, or by a key that the client brings.

There is no key management service: what asks for one is refused.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Final

from apus.kernel.errors import Forbidden
from apus.services.object.logic.sealing import CUSTOMER_MARK, ENCRYPT, KEY_BYTES, customer_mark
from apus.services.object.model import Head
from apus.services.object.sealing import check_customer_key, has_customer_key, is_sealed
from apus.skins.s3.errors import S3Error
from apus.skins.s3.payload import read_document
from apus.skins.s3.request import S3Request
from apus.skins.s3.xml import CONTENT_TYPE, Field, document, malformed, parse
from apus.wire.route import Reply

SSE: Final = "x-amz-server-side-encryption"
CUSTOMER: Final = SSE + "-customer-"
SOURCE: Final = "x-amz-copy-source-server-side-encryption-customer-"
AES256: Final = "AES256"
KMS: Final = ("aws:kms", "aws:kms:dsse", "aws:fsx")
_KMS_HEADERS: Final = (SSE + "-aws-kms-key-id", SSE + "-context", SSE + "-bucket-key-enabled")

SEALED: Final = "x-object-sysmeta-s3-upload-sealed"
"""Of an upload in parts: it and its parts are encrypted by the store's secret."""


@dataclasses.dataclass(frozen=True, slots=True)
class Encryption:
    """What an upload asks for."""

    sealed: bool = False
    customer_key: bytes | None = None


NONE: Final = Encryption()


def asked(request: S3Request) -> Encryption:
    """By the headers of an upload.  Raise S3Error."""
    headers = request.headers
    customer_key = key_of(headers)
    algorithm = headers.get(SSE)
    if algorithm in (None, AES256) and any(name in headers for name in _KMS_HEADERS[:2]):
        raise S3Error("InvalidArgument", "A key id goes with aws:kms alone, which is not there.")
    if algorithm is None:
        return Encryption(customer_key=customer_key) if customer_key is not None else NONE
    if customer_key is not None:
        raise S3Error("InvalidArgument", "Server Side Encryption with Customer provided key is incompatible with the "
                      "encryption method specified")  # fmt: skip
    check_algorithm(request, algorithm)
    return Encryption(sealed=True)


def check_algorithm(request: S3Request, algorithm: str) -> None:
    if algorithm in KMS:
        raise S3Error(
            "NotImplemented", f"There is no key management service for {algorithm}: {AES256} is what is there."
        )
    if algorithm != AES256:
        raise S3Error("InvalidEncryptionAlgorithmError", fields={"ArgumentName": SSE, "ArgumentValue": algorithm})
    if not request.door.objects.sealing.possible:
        raise S3Error("NotImplemented", "This store has no secret to encrypt with.")


def key_of(headers: Mapping[str, str], prefix: str = CUSTOMER) -> bytes | None:
    """The key that the client brings.  Raise S3Error unless all three headers are there and right."""
    sent = [headers.get(prefix + what) for what in ("algorithm", "key", "key-md5")]
    if not any(value is not None for value in sent):
        return None
    algorithm, text, digest = sent
    if algorithm is None or text is None or digest is None:
        shown = "Requests specifying Server Side Encryption with Customer provided keys must provide an appropriate"
        missing = "valid encryption algorithm." if algorithm is None else "secret key and its MD5."
        raise S3Error("InvalidArgument", f"{shown} {missing}")
    if algorithm != AES256:
        raise S3Error("InvalidEncryptionAlgorithmError", fields={"ArgumentValue": algorithm})
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise S3Error("InvalidArgument", "The secret key was invalid for the specified algorithm.")
    if base64.b64encode(hashlib.md5(key, usedforsecurity=False).digest()).decode() != digest:
        raise S3Error("InvalidArgument", "The calculated MD5 hash of the key did not match the hash that was provided.")
    return key


def key_for(request: S3Request, head: Head, prefix: str = CUSTOMER) -> bytes | None:
    """The key with which to read this object.  Raise S3Error when it is missing, wrong or not called for."""
    if SSE in request.headers and prefix == CUSTOMER:
        shown = f"{SSE} header is not supported for this operation."
        raise S3Error("InvalidArgument", shown, fields={"ArgumentName": SSE, "ArgumentValue": request.headers[SSE]})
    key = key_of(request.headers, prefix)
    if key is None and has_customer_key(head):
        shown = "The object was stored using a form of Server Side Encryption. The correct parameters must be provided"
        raise S3Error("InvalidRequest", f"{shown} to retrieve the object.")
    if key is not None and not has_customer_key(head):
        raise S3Error("InvalidRequest", "The encryption parameters are not applicable to this object.")
    try:
        check_customer_key(head, key)
    except Forbidden as error:
        raise S3Error("AccessDenied", error.shown) from error
    return key


def encryption_headers(request: S3Request, head: Head) -> dict[str, str]:
    """How an object is encrypted, as answers say it."""
    if has_customer_key(head):
        return _customer_headers(request)
    return {SSE: AES256} if is_sealed(head) else {}


def _customer_headers(request: S3Request) -> dict[str, str]:
    digest = request.headers.get(CUSTOMER + "key-md5")
    return {CUSTOMER + "algorithm": AES256, **({CUSTOMER + "key-md5": digest} if digest else {})}


# Of uploads in parts.


def upload_headers(request: S3Request, encryption: Encryption) -> dict[str, str]:
    """What an upload keeps of it, for its parts and for the object."""
    if encryption.customer_key is not None:
        return {CUSTOMER_MARK: customer_mark(encryption.customer_key)}
    return {SEALED: AES256} if encryption.sealed or ENCRYPT in request.head.metadata else {}


def of_upload(request: S3Request, upload: Head) -> Encryption:
    """For a part of it: the client brings his key with each.  Raise S3Error."""
    key = key_of(request.headers)
    if (CUSTOMER_MARK in upload.headers) != (key is not None):
        shown = "The multipart upload initiate requested encryption. Subsequent part requests must include the same"
        raise S3Error("InvalidRequest", f"{shown} encryption parameters, and only these.")
    if key is not None and upload.headers[CUSTOMER_MARK] != customer_mark(key):
        raise S3Error("InvalidRequest", "The key is not the one that the upload was begun with.")
    return Encryption(SEALED in upload.headers, key)


def told_of_upload(request: S3Request, upload: Mapping[str, str]) -> dict[str, str]:
    if CUSTOMER_MARK in upload:
        return _customer_headers(request)
    return {SSE: AES256} if SEALED in upload else {}


# Of buckets.


async def get_encryption(request: S3Request) -> Reply:
    algorithm = request.head.metadata.get(ENCRYPT)
    if algorithm is None:
        raise S3Error("ServerSideEncryptionConfigurationNotFoundError", fields={"BucketName": request.bucket})
    by_default: list[Field] = [("SSEAlgorithm", algorithm)]
    rule: list[Field] = [("ApplyServerSideEncryptionByDefault", by_default), ("BucketKeyEnabled", False)]
    return Reply(document("ServerSideEncryptionConfiguration", [("Rule", rule)]), content_type=CONTENT_TYPE)


async def put_encryption(request: S3Request) -> Reply:
    rules = list(parse(await read_document(request), "ServerSideEncryptionConfiguration").all("Rule"))
    by_default = rules[0].find("ApplyServerSideEncryptionByDefault") if len(rules) == 1 else None
    if by_default is None:
        raise malformed("There is one Rule, with an ApplyServerSideEncryptionByDefault.")
    algorithm = by_default.need("SSEAlgorithm")
    if algorithm not in (AES256, *KMS):
        raise malformed("An SSEAlgorithm is AES256.")
    check_algorithm(request, algorithm)
    if by_default.get("KMSMasterKeyID"):
        raise S3Error("InvalidArgument", "A KMSMasterKeyID goes with aws:kms alone, which is not there.")
    await request.door.objects.describe_container(request.account, request.bucket, {ENCRYPT: algorithm})
    return Reply()


async def delete_encryption(request: S3Request) -> Reply:
    await request.door.objects.describe_container(request.account, request.bucket, {ENCRYPT: ""})
    return Reply(status=204)
