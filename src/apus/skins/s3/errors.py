"""What S3 calls its errors: a code, a status and a sentence; and how the store's own errors are called there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from xml.sax.saxutils import escape

from apus.kernel.errors import CloudError, Conflict, Forbidden, Invalid, NotFound, OverQuota, Unauthenticated

CODES: Final[Mapping[str, tuple[int, str]]] = {
    "AccessControlListNotSupported": (400, "The bucket does not allow ACLs."),
    "AccessDenied": (403, "Access Denied."),
    "AccessForbidden": (403, "CORSResponse: This CORS request is not allowed."),
    "AuthorizationHeaderMalformed": (400, "The authorization header is malformed."),
    "AuthorizationQueryParametersError": (400, "The query parameters of the signature are malformed."),
    "BadDigest": (400, "The Content-MD5 or checksum value that you specified did not match what the server received."),
    "BucketAlreadyExists": (409, "The requested bucket name is not available: somebody else has a bucket of it."),
    "BucketAlreadyOwnedByYou": (409, "The bucket exists already, and is yours."),
    "BucketNotEmpty": (409, "The bucket that you tried to delete is not empty."),
    "ConditionalRequestConflict": (409, "A conflicting operation occurred during this request."),
    "EntityTooLarge": (400, "The upload is larger than the largest object allowed."),
    "EntityTooSmall": (400, "The upload is smaller than the smallest allowed size."),
    "ExpiredToken": (400, "The provided token has expired."),
    "IllegalVersioningConfigurationException": (400, "The versioning configuration is invalid."),
    "IncompleteBody": (400, "The body has not as many bytes as Content-Length says."),
    "InternalError": (500, "An internal error happened. Try again."),
    "InvalidAccessKeyId": (403, "The access key that you provided does not exist in our records."),
    "InvalidArgument": (400, "Invalid argument."),
    "InvalidBucketAclWithObjectOwnership": (400, "The bucket's ACL gives to others; its owner is to own all in it."),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidBucketState": (409, "The request is not valid for the current state of the bucket."),
    "InvalidDigest": (400, "The Content-MD5 that you specified is not valid."),
    "InvalidEncryptionAlgorithmError": (400, "The encryption that you asked for is not valid; AES256 is."),
    "InvalidLocationConstraint": (400, "The specified location constraint is not valid."),
    "InvalidObjectState": (403, "The operation is not valid for the current state of the object."),
    "InvalidPart": (400, "One or more of the specified parts could not be found, or its ETag or checksum differs."),
    "InvalidPartNumber": (416, "The requested part number is not satisfiable."),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order."),
    "InvalidPolicyDocument": (400, "The content of the form does not meet the conditions of the policy document."),
    "InvalidRange": (416, "The requested range cannot be satisfied."),
    "InvalidRequest": (400, "The request is not valid."),
    "InvalidStorageClass": (400, "The storage class that you specified is not valid."),
    "InvalidTag": (400, "The tag provided was not a valid tag."),
    "InvalidURI": (400, "The specified URI could not be parsed."),
    "InvalidRetentionPeriod": (400, "The retention period specified is invalid."),
    "InvalidObjectLockConfiguration": (400, "The object lock configuration is not valid."),
    "InvalidTargetBucketForLogging": (400, "The target bucket for logging is not valid."),
    "KeyTooLongError": (400, "Your key is too long."),
    "MalformedACLError": (400, "The XML that you provided was not well-formed or did not validate."),
    "MalformedPOSTRequest": (400, "The body of your POST request is not well-formed multipart/form-data."),
    "MalformedPolicy": (400, "The policy is not well-formed."),
    "MalformedTrailerError": (400, "The request contained trailing data that was not well-formed."),
    "MalformedXML": (400, "The XML that you provided was not well-formed or did not validate."),
    "MaxMessageLengthExceeded": (400, "Your request was too big."),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "MissingSecurityHeader": (400, "Your request is missing a required header."),
    "NoSuchBucket": (404, "The specified bucket does not exist."),
    "NoSuchBucketPolicy": (404, "The bucket policy does not exist."),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist."),
    "NoSuchObjectLockConfiguration": (404, "The specified object does not have an object lock configuration."),
    "NoSuchPublicAccessBlockConfiguration": (404, "The public access block configuration was not found."),
    "NoSuchTagSet": (404, "There is no tag set associated with the bucket."),
    "NoSuchUpload": (404, "The specified multipart upload does not exist: it may have been aborted or completed."),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NoSuchWebsiteConfiguration": (404, "The specified bucket does not have a website configuration."),
    "NotImplemented": (501, "What you asked for is not implemented."),
    "NotModified": (304, "Not Modified."),
    "ObjectLockConfigurationNotFoundError": (404, "Object Lock configuration does not exist for this bucket."),
    "OperationAborted": (409, "A conflicting operation is in progress against this resource. Try again."),
    "OwnershipControlsNotFoundError": (404, "The bucket ownership controls were not found."),
    "PreconditionFailed": (412, "At least one of the preconditions that you specified did not hold."),
    "ReplicationConfigurationNotFoundError": (404, "The replication configuration was not found."),
    "QuotaExceeded": (403, "The quota would be exceeded."),
    "RequestIsNotMultiPartContent": (412, "Bucket POST must be of the enclosure type multipart/form-data."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the server's time is too large."),
    "ServerSideEncryptionConfigurationNotFoundError": (404, "The encryption configuration was not found."),
    "ServiceUnavailable": (503, "Please reduce your request rate."),
    "SignatureDoesNotMatch": (403, "The request signature that we calculated does not match the one you provided."),
    "StorageFull": (507, "There is no room left on the drives."),
    "TooManyBuckets": (400, "You have attempted to create more buckets than allowed."),
    "UnexpectedContent": (400, "This request does not support content."),
    "UnresolvableGrantByEmailAddress": (400, "The email address that you provided does not match any account."),
    "XAmzContentSHA256Mismatch": (400, "The provided x-amz-content-sha256 does not match what was received."),
}  # fmt: skip
"""Every code that this door answers, its status, and the sentence that goes with it unless a better one is known."""


class S3Error(Exception):
    """A refusal in S3's words; `fields` are further elements of the answer's body, `headers` of its head."""

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, said = CODES[code]
        self.code, self.message = code, message or said
        self.fields, self.headers = dict(fields or {}), dict(headers or {})
        super().__init__(f"{code}: {self.message}")


_OF_CODES: Final = {
    "object.absent": "NoSuchKey",
    "object.turn": "ConditionalRequestConflict",
    "object.container_not_empty": "BucketNotEmpty",
    "object.etag": "BadDigest",
    "object.full": "StorageFull",
    "object.length": "IncompleteBody",
    "object.no_lock": "InvalidRequest",
    "object.locked_container": "InvalidBucketState",
    "object.no_account": "NoSuchBucket",
    "object.no_container": "NoSuchBucket",
    "object.too_large": "EntityTooLarge",
    "object.upload": "NoSuchUpload",
    "wire.body_too_large": "MaxMessageLengthExceeded",
    "wire.multipart": "MalformedPOSTRequest",
}

_OF_KINDS: Final[tuple[tuple[type[CloudError], str], ...]] = (
    (NotFound, "NoSuchKey"),
    (Conflict, "OperationAborted"),
    (Forbidden, "AccessDenied"),
    (Unauthenticated, "AccessDenied"),
    (OverQuota, "QuotaExceeded"),
    (Invalid, "InvalidArgument"),
)


def s3_error(error: CloudError) -> S3Error:
    """How S3 calls it."""
    code = _OF_CODES.get(error.code)
    if code is None:
        code = next((code for kind, code in _OF_KINDS if isinstance(error, kind)), None)
    if code is not None:
        return S3Error(code, error.shown if code in ("InvalidArgument", "QuotaExceeded") else "")
    return S3Error("ServiceUnavailable" if error.retry else "InternalError", headers={"retry-after": "1"})


_UNSPEAKABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""What XML cannot hold, not even as a reference: an error must be readable whatever it quotes."""


def error_body(error: S3Error, resource: str, request_id: str, host_id: str) -> bytes:
    fields = {
        "Code": error.code,
        "Message": error.message,
        **error.fields,
        "Resource": resource,
        "RequestId": request_id,
        "HostId": host_id,
    }
    said = {name: escape(_UNSPEAKABLE.sub("\N{REPLACEMENT CHARACTER}", value)) for name, value in fields.items()}
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in said.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'.encode("utf-8", "replace")
