"""Object lock: of buckets whether versions can be locked, and of versions until when they are, and by whom held."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Final

from apus.kernel.errors import Conflict
from apus.services.object.logic.locks import (
    HOLD,
    LOCK,
    MODES,
    ON,
    Default,
    Retention,
    default_of,
    is_held,
    retention_headers,
    retention_of,
)
from apus.skins.s3 import rights
from apus.skins.s3.errors import S3Error
from apus.skins.s3.metadata import iso_of
from apus.skins.s3.payload import read_document
from apus.skins.s3.request import S3Request
from apus.skins.s3.versions import found_version, version_headers, wanted_version
from apus.skins.s3.xml import CONTENT_TYPE, Field, Node, document, malformed, parse
from apus.wire.route import Reply

DAY_S: Final = 86_400
YEARS_MAX: Final = 100
BYPASS: Final = "x-amz-bypass-governance-retention"
_MODE, _UNTIL, _HOLD = (f"x-amz-object-lock-{what}" for what in ("mode", "retain-until-date", "legal-hold"))


async def said_of_lock(request: S3Request) -> dict[str, str]:
    """The headers with which an upload is locked.  Raise S3Error."""
    mode, until, hold = (request.headers.get(name) for name in (_MODE, _UNTIL, _HOLD))
    if mode is None and until is None and hold is None:
        return {}
    _require_bucket(request)
    kept: dict[str, str] = {}
    if mode is not None or until is not None:
        if mode is None or until is None:
            shown = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied"
            raise S3Error("InvalidArgument", shown)
        if mode not in MODES:
            raise S3Error("InvalidArgument", "Unknown wormMode directive.", fields={"ArgumentValue": mode})
        await rights.require(request, "s3:PutObjectRetention", "")
        kept |= retention_headers(Retention(mode, _moment(request, until)))
    if hold is not None:
        if hold not in ("ON", "OFF"):
            raise S3Error("InvalidArgument", "Legal Hold must be either of 'ON' or 'OFF'")
        await rights.require(request, "s3:PutObjectLegalHold", "")
        kept |= {HOLD: ON} if hold == "ON" else {}
    return kept


def lock_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """What S3 says of a version's lock."""
    told: dict[str, str] = {}
    retention = retention_of(headers)
    if retention is not None:
        told |= {_MODE: retention.mode, _UNTIL: iso_of(retention.until_s)}
    if is_held(headers):
        told[_HOLD] = "ON"
    return told


async def bypass(request: S3Request, key: str | None = None) -> bool:
    """Whether the caller passes over GOVERNANCE: he has to say so, and to be allowed to."""
    if request.headers.get(BYPASS, "").lower() != "true":
        return False
    return await rights.may(request, "s3:BypassGovernanceRetention", "", key=key)


def _require_bucket(request: S3Request) -> None:
    if LOCK not in request.head.metadata:
        raise S3Error("InvalidRequest", "Bucket is missing Object Lock Configuration")


def _moment(request: S3Request, text: str) -> float:
    try:
        parsed = datetime.datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise S3Error("InvalidArgument", "The retain until date must be provided in ISO 8601 format") from None
    until_s = (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp()
    if until_s <= request.door.now_s():
        raise S3Error("InvalidArgument", "The retain until date must be in the future!")
    return until_s


async def get_configuration(request: S3Request) -> Reply:
    if LOCK not in request.head.metadata:
        raise S3Error("ObjectLockConfigurationNotFoundError", fields={"BucketName": request.bucket})
    fields: list[Field] = [("ObjectLockEnabled", "Enabled")]
    default = default_of(request.head.metadata)
    if default is not None:
        retention = [("Mode", default.mode), ("Days", default.for_s // DAY_S)]
        fields.append(("Rule", [("DefaultRetention", retention)]))
    return Reply(document("ObjectLockConfiguration", fields), content_type=CONTENT_TYPE)


async def put_configuration(request: S3Request) -> Reply:
    root = parse(await read_document(request), "ObjectLockConfiguration")
    root.only("ObjectLockEnabled", "Rule")
    if root.get("ObjectLockEnabled") != "Enabled":
        raise malformed("ObjectLockEnabled is Enabled.")
    rule = root.find("Rule")
    try:
        await request.door.objects.set_locking(request.account, request.bucket, _default(rule) if rule else None)
    except Conflict as error:
        shown = "Versioning must be 'Enabled' on the bucket to apply a Object Lock configuration"
        raise S3Error("InvalidBucketState", shown) from error
    return Reply()


def _default(rule: Node) -> Default:
    retention = rule.find("DefaultRetention")
    if retention is None:
        raise malformed("A Rule has a DefaultRetention.")
    mode, days, years = retention.need("Mode"), retention.get("Days"), retention.get("Years")
    if mode not in MODES or (days is None) == (years is None):
        raise malformed("A DefaultRetention has a Mode, and either Days or Years.")
    text = days if days is not None else years or ""
    number = int(text) if text.removeprefix("-").isdigit() and text.isascii() and len(text) < 10 else None
    if number is None:
        raise malformed("Days and Years are numbers.")
    count = number if days is not None else number * 365
    if not 0 < count <= YEARS_MAX * 365:
        shown = f"Default retention period must be a positive integer value of at most {YEARS_MAX} years."
        raise S3Error("InvalidRetentionPeriod", shown)
    return Default(mode, count * DAY_S)


async def get_retention(request: S3Request) -> Reply:
    _require_bucket(request)
    found = await found_version(request)
    await rights.require(request, "s3:GetObjectRetention", "", existing=found.head, on_object=True)
    retention = retention_of(found.head.shown_headers)
    if retention is None:
        raise S3Error("NoSuchObjectLockConfiguration")
    fields = [("Mode", retention.mode), ("RetainUntilDate", iso_of(retention.until_s))]
    return Reply(document("Retention", fields), headers=version_headers(request, found.head), content_type=CONTENT_TYPE)


async def put_retention(request: S3Request) -> Reply:
    _require_bucket(request)
    found = await found_version(request)
    await rights.require(request, "s3:PutObjectRetention", "", existing=found.head, on_object=True)
    root = parse(await read_document(request), "Retention")
    root.only("Mode", "RetainUntilDate")
    mode, until = root.get("Mode"), root.get("RetainUntilDate")
    retention = None
    if mode is not None or until is not None:
        if mode not in MODES or until is None:
            raise malformed("A Retention has a Mode and a RetainUntilDate.")
        retention = Retention(mode, _moment(request, until))
    version_id = wanted_version(request.param("versionId"))
    place = request.account, request.bucket, request.key
    await request.door.objects.retain(*place, version_id, retention, bypass=await bypass(request))
    return Reply(headers=version_headers(request, found.head))


async def get_legal_hold(request: S3Request) -> Reply:
    _require_bucket(request)
    found = await found_version(request)
    await rights.require(request, "s3:GetObjectLegalHold", "", existing=found.head, on_object=True)
    fields = [("Status", "ON" if is_held(found.head.shown_headers) else "OFF")]
    return Reply(document("LegalHold", fields), headers=version_headers(request, found.head), content_type=CONTENT_TYPE)


async def put_legal_hold(request: S3Request) -> Reply:
    _require_bucket(request)
    found = await found_version(request)
    await rights.require(request, "s3:PutObjectLegalHold", "", existing=found.head, on_object=True)
    status = parse(await read_document(request), "LegalHold").get("Status")
    if status not in ("ON", "OFF"):
        raise malformed("A LegalHold has a Status, ON or OFF.")
    version_id = wanted_version(request.param("versionId"))
    place = request.account, request.bucket, request.key
    await request.door.objects.hold(*place, version_id, held=status == "ON")
    return Reply(headers=version_headers(request, found.head))
