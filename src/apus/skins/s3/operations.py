"""The S3 API as one table: by what a request is about, its method and the sub-resource that its query names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from apus.skins.s3 import (
    acls,
    buckets,
    completing,
    configs,
    encryption,
    forms,
    lifecycle,
    listing,
    notifications,
    object_acls,
    object_lock,
    policies,
    reading,
    tagging,
    upload_listing,
    uploads,
    versions,
    writing,
)
from apus.skins.s3.cors import CORS
from apus.skins.s3.errors import S3Error
from apus.skins.s3.request import S3Request
from apus.skins.s3.website import WEBSITE
from apus.wire.route import Reply

Handler = Callable[[S3Request], Awaitable[Reply]]


class Operation(NamedTuple):
    name: str
    to: Handler
    action: str = ""
    """What a policy calls it; empty where the handler asks for rights itself."""
    permission: str = ""
    """What an ACL of the bucket calls it, when one can give it."""
    on_bucket: bool = True
    """The bucket has to be there."""
    needs_caller: bool = False
    proves: bool = True
    """Whoever asks proves it before the handler begins."""


_SERVICE: Final[Mapping[str, Mapping[str, Operation]]] = {
    "GET": {"": Operation("ListBuckets", buckets.list_buckets, on_bucket=False, needs_caller=True)},
}

_BUCKET: Final[Mapping[str, Mapping[str, Operation]]] = {
    "GET": {
        "": Operation("ListObjects", listing.list_objects, "s3:ListBucket", "READ"),
        "acl": Operation("GetBucketAcl", acls.get_bucket_acl, "s3:GetBucketAcl", "READ_ACP"),
        "accelerate": Operation(
            "GetBucketAccelerateConfiguration", configs.constant("AccelerateConfiguration"),
            "s3:GetAccelerateConfiguration",
        ),
        "cors": Operation("GetBucketCors", CORS.getter(), "s3:GetBucketCORS"),
        "encryption": Operation("GetBucketEncryption", encryption.get_encryption, "s3:GetEncryptionConfiguration"),
        "lifecycle": Operation(
            "GetBucketLifecycleConfiguration", lifecycle.get_lifecycle, "s3:GetLifecycleConfiguration"
        ),
        "location": Operation("GetBucketLocation", buckets.get_location, "s3:GetBucketLocation"),
        "logging": Operation("GetBucketLogging", configs.constant("BucketLoggingStatus"), "s3:GetBucketLogging"),
        "notification": Operation(
            "GetBucketNotificationConfiguration", notifications.get_notifications, "s3:GetBucketNotification"
        ),
        "object-lock": Operation(
            "GetObjectLockConfiguration", object_lock.get_configuration, "s3:GetBucketObjectLockConfiguration"
        ),
        "ownershipControls": Operation(
            "GetBucketOwnershipControls", configs.get_ownership, "s3:GetBucketOwnershipControls"
        ),
        "policy": Operation("GetBucketPolicy", policies.get_policy, "s3:GetBucketPolicy"),
        "policyStatus": Operation("GetBucketPolicyStatus", policies.get_policy_status, "s3:GetBucketPolicyStatus"),
        "publicAccessBlock": Operation(
            "GetPublicAccessBlock", configs.get_public_access, "s3:GetBucketPublicAccessBlock"
        ),
        "replication": Operation(
            "GetBucketReplication", configs.absent("ReplicationConfigurationNotFoundError"),
            "s3:GetReplicationConfiguration",
        ),
        "requestPayment": Operation(
            "GetBucketRequestPayment", configs.constant("RequestPaymentConfiguration", ("Payer", "BucketOwner")),
            "s3:GetBucketRequestPayment",
        ),
        "tagging": Operation("GetBucketTagging", tagging.get_bucket_tagging, "s3:GetBucketTagging"),
        "uploads": Operation(
            "ListMultipartUploads", upload_listing.list_uploads, "s3:ListBucketMultipartUploads", "READ"
        ),
        "versioning": Operation("GetBucketVersioning", versions.get_versioning, "s3:GetBucketVersioning"),
        "versions": Operation("ListObjectVersions", versions.list_versions, "s3:ListBucketVersions", "READ"),
        "website": Operation("GetBucketWebsite", WEBSITE.getter(), "s3:GetBucketWebsite"),
    },
    "HEAD": {"": Operation("HeadBucket", buckets.head_bucket, "s3:ListBucket", "READ")},
    "PUT": {
        "": Operation("CreateBucket", buckets.create_bucket, on_bucket=False, needs_caller=True),
        "acl": Operation("PutBucketAcl", acls.put_bucket_acl, "s3:PutBucketAcl", "WRITE_ACP"),
        "cors": Operation("PutBucketCors", CORS.putter(), "s3:PutBucketCORS"),
        "encryption": Operation("PutBucketEncryption", encryption.put_encryption, "s3:PutEncryptionConfiguration"),
        "lifecycle": Operation(
            "PutBucketLifecycleConfiguration", lifecycle.put_lifecycle, "s3:PutLifecycleConfiguration"
        ),
        "notification": Operation(
            "PutBucketNotificationConfiguration", notifications.put_notifications, "s3:PutBucketNotification"
        ),
        "object-lock": Operation(
            "PutObjectLockConfiguration", object_lock.put_configuration, "s3:PutBucketObjectLockConfiguration"
        ),
        "ownershipControls": Operation(
            "PutBucketOwnershipControls", configs.put_ownership, "s3:PutBucketOwnershipControls"
        ),
        "policy": Operation("PutBucketPolicy", policies.put_policy, "s3:PutBucketPolicy"),
        "publicAccessBlock": Operation(
            "PutPublicAccessBlock", configs.put_public_access, "s3:PutBucketPublicAccessBlock"
        ),
        "tagging": Operation("PutBucketTagging", tagging.put_bucket_tagging, "s3:PutBucketTagging"),
        "versioning": Operation("PutBucketVersioning", versions.put_versioning, "s3:PutBucketVersioning"),
        "website": Operation("PutBucketWebsite", WEBSITE.putter(), "s3:PutBucketWebsite"),
    },
    "POST": {
        "": Operation("PostObject", forms.post_object, on_bucket=False, proves=False),
        "delete": Operation("DeleteObjects", writing.delete_objects),
    },
    "DELETE": {
        "": Operation("DeleteBucket", buckets.delete_bucket, "s3:DeleteBucket"),
        "cors": Operation("DeleteBucketCors", CORS.remover(), "s3:PutBucketCORS"),
        "encryption": Operation(
            "DeleteBucketEncryption", encryption.delete_encryption, "s3:PutEncryptionConfiguration"
        ),
        "lifecycle": Operation("DeleteBucketLifecycle", lifecycle.delete_lifecycle, "s3:PutLifecycleConfiguration"),
        "ownershipControls": Operation(
            "DeleteBucketOwnershipControls", configs.delete_ownership, "s3:PutBucketOwnershipControls"
        ),
        "policy": Operation("DeleteBucketPolicy", policies.delete_policy, "s3:DeleteBucketPolicy"),
        "publicAccessBlock": Operation(
            "DeletePublicAccessBlock", configs.delete_public_access, "s3:PutBucketPublicAccessBlock"
        ),
        "tagging": Operation("DeleteBucketTagging", tagging.delete_bucket_tagging, "s3:PutBucketTagging"),
        "website": Operation("DeleteBucketWebsite", WEBSITE.remover(), "s3:DeleteBucketWebsite"),
    },
}  # fmt: skip

_OBJECT: Final[Mapping[str, Mapping[str, Operation]]] = {
    "GET": {
        "": Operation("GetObject", reading.get_object),
        "acl": Operation("GetObjectAcl", object_acls.get_object_acl),
        "attributes": Operation("GetObjectAttributes", reading.get_object_attributes),
        "legal-hold": Operation("GetObjectLegalHold", object_lock.get_legal_hold),
        "retention": Operation("GetObjectRetention", object_lock.get_retention),
        "tagging": Operation("GetObjectTagging", tagging.get_object_tagging),
        "uploadId": Operation("ListParts", upload_listing.list_parts, "s3:ListMultipartUploadParts", "READ"),
    },
    "HEAD": {"": Operation("HeadObject", reading.get_object)},
    "PUT": {
        "": Operation("PutObject", writing.put_object),
        "acl": Operation("PutObjectAcl", object_acls.put_object_acl),
        "legal-hold": Operation("PutObjectLegalHold", object_lock.put_legal_hold),
        "retention": Operation("PutObjectRetention", object_lock.put_retention),
        "tagging": Operation("PutObjectTagging", tagging.put_object_tagging),
        "uploadId": Operation("UploadPart", uploads.upload_part, "s3:PutObject", "WRITE"),
    },
    "POST": {
        "uploadId": Operation("CompleteMultipartUpload", completing.complete, "s3:PutObject", "WRITE"),
        "uploads": Operation("CreateMultipartUpload", uploads.create, "s3:PutObject", "WRITE"),
    },
    "DELETE": {
        "": Operation("DeleteObject", writing.delete_object),
        "tagging": Operation("DeleteObjectTagging", tagging.delete_object_tagging),
        "uploadId": Operation("AbortMultipartUpload", uploads.abort, "s3:AbortMultipartUpload", "WRITE"),
    },
}

SUBRESOURCES: Final = frozenset({
    "accelerate", "acl", "analytics", "attributes", "cors", "delete", "encryption", "intelligent-tiering", "inventory",
    "legal-hold", "lifecycle", "location", "logging", "metadataTable", "metrics", "notification", "object-lock",
    "ownershipControls", "policy", "policyStatus", "publicAccessBlock", "replication", "requestPayment", "restore",
    "retention", "select", "session", "tagging", "torrent", "uploadId", "uploads", "versioning", "versions", "website",
    "append", "renameObject", "abac",
})  # fmt: skip
"""Those that S3 knows: one that is not in the table is refused, never taken for the thing itself."""


def find_operation(request: S3Request) -> Operation:
    """Raise S3Error."""
    table = _OBJECT if request.key else _BUCKET if request.bucket else _SERVICE
    named = [name for name in request.params_of if name in SUBRESOURCES]
    if len(named) > 1:
        raise S3Error("InvalidArgument", f"Conflicting query parameters: {', '.join(named)}.")
    sub = named[0] if named else ""
    methods = table.get(request.method)
    if methods is None:
        raise S3Error("MethodNotAllowed", fields={"Method": request.method}, headers={"allow": ", ".join(table)})
    operation = methods.get(sub)
    if operation is None:
        raise S3Error("NotImplemented" if sub else "MethodNotAllowed", fields={"Method": request.method})
    return operation
