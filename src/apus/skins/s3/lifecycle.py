"""Lifecycle configurations, and what answers say of when an object goes."""

from __future__ import annotations

import datetime
from typing import Final

from apus.services.object.logic.conditions import http_date
from apus.services.object.logic.lifecycle import (
    DAY_S,
    LIFECYCLE,
    RULES_MAX,
    Rule,
    abort_of,
    expiry_of,
    rules_of,
    rules_text,
)
from apus.services.object.logic.merge import seconds_of
from apus.services.object.logic.tags import tags_of
from apus.services.object.model import Head
from apus.skins.s3.errors import S3Error
from apus.skins.s3.metadata import iso_of
from apus.skins.s3.payload import read_document
from apus.skins.s3.request import S3Request
from apus.skins.s3.xml import CONTENT_TYPE, Field, Node, document, malformed, parse
from apus.wire.route import Reply

ID_MAX: Final = 255
DAYS_MAX: Final = 2**31 - 1
_FILTERS: Final = ("Prefix", "Tag", "ObjectSizeGreaterThan", "ObjectSizeLessThan")
_ACTIONS: Final = ("Expiration", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload")
_MOVES: Final = ("Transition", "NoncurrentVersionTransition")


def expiration_header(request: S3Request, head: Head) -> dict[str, str]:
    """Of a current object."""
    rules = rules_of(request.head.metadata)
    if not rules or "versionId" in request.params_of:
        return {}
    tags = tags_of(head.shown_headers)
    found = expiry_of(rules, head.name, head.shown_size_bytes, tags, seconds_of(head.stamp))
    if found is None:
        return {}
    return {"x-amz-expiration": f'expiry-date="{http_date(found[0])}", rule-id="{found[1]}"'}


def abort_headers(request: S3Request, begun_s: float) -> dict[str, str]:
    """Of an upload in parts."""
    found = abort_of(rules_of(request.head.metadata), request.key, begun_s)
    if found is None:
        return {}
    return {"x-amz-abort-date": http_date(found[0]), "x-amz-abort-rule-id": found[1]}


async def get_lifecycle(request: S3Request) -> Reply:
    rules = rules_of(request.head.metadata)
    if not rules:
        raise S3Error("NoSuchLifecycleConfiguration", fields={"BucketName": request.bucket})
    fields = [("Rule", _shown(rule)) for rule in rules]
    return Reply(document("LifecycleConfiguration", fields), content_type=CONTENT_TYPE)


async def put_lifecycle(request: S3Request) -> Reply:
    root = parse(await read_document(request), "LifecycleConfiguration")
    root.only("Rule")
    if not 0 < len(root.children) <= RULES_MAX:
        raise malformed(f"There are 1 to {RULES_MAX} rules.")
    rules = [_rule(request, node) for node in root.children]
    if len({rule.id for rule in rules}) != len(rules):
        raise S3Error("InvalidArgument", "Rule ID must be unique. Found same ID for more than one rule")
    await request.door.objects.describe_container(request.account, request.bucket, {LIFECYCLE: rules_text(rules)})
    return Reply()


async def delete_lifecycle(request: S3Request) -> Reply:
    await request.door.objects.describe_container(request.account, request.bucket, {LIFECYCLE: ""})
    return Reply(status=204)


def _rule(request: S3Request, node: Node) -> Rule:
    if any(node.find(name) is not None for name in _MOVES):
        raise S3Error("NotImplemented", "All storage classes are stored alike: there are no transitions.")
    node.only("ID", "Status", "Prefix", "Filter", *_ACTIONS)
    id, status, filter, prefix = node.get("ID"), node.need("Status"), node.find("Filter"), node.get("Prefix")
    if id is not None and len(id) > ID_MAX:
        raise S3Error("InvalidArgument", f"ID length should not exceed allowed limit of {ID_MAX}")
    if status not in ("Enabled", "Disabled"):
        raise malformed("A Status is Enabled or Disabled.")
    if (filter is None) == (prefix is None):
        raise malformed("A Rule has either a Filter or a Prefix.")
    if not any(node.find(name) is not None for name in _ACTIONS):
        raise S3Error("InvalidRequest", "At least one action needs to be specified in a rule.")
    rule = Rule(
        id=id or f"{request.door.dice.getrandbits(96):024x}",
        enabled=status == "Enabled",
        prefix=prefix or "",
        filtered=filter is not None,
    )
    if filter is not None:
        rule = _filtered(rule, filter)
    return _acting(rule, node)


def _filtered(rule: Rule, filter: Node) -> Rule:
    both = filter.find("And")
    if both is not None:
        filter.only("And")
        both.only(*_FILTERS)
        if len(both.children) < 2:
            raise malformed("An And has two or more conditions.")
    elif len(filter.children) > 1:
        raise malformed("A Filter has one condition, or an And.")
    inside = both if both is not None else filter
    inside.only(*_FILTERS)
    tags = tuple((tag.need("Key"), tag.need("Value")) for tag in inside.all("Tag"))
    if len({key for key, _ in tags}) != len(tags):
        raise S3Error("InvalidRequest", "Duplicate Tag Keys are not allowed.")
    over, under = (_number(inside, f"ObjectSize{what}Than", least=0) for what in ("Greater", "Less"))
    if over is not None and under is not None and over >= under:
        raise S3Error("InvalidRequest", "ObjectSizeGreaterThan is less than ObjectSizeLessThan.")
    return Rule(
        rule.id, rule.enabled, inside.get("Prefix") or "", tags, over, under, filtered=True,
    )  # fmt: skip


def _acting(rule: Rule, node: Node) -> Rule:
    days, date_s, markers = None, None, False
    expiration = node.find("Expiration")
    if expiration is not None:
        expiration.only("Days", "Date", "ExpiredObjectDeleteMarker")
        if len(expiration.children) != 1:
            raise malformed("An Expiration has Days, a Date or an ExpiredObjectDeleteMarker.")
        days, date_s = _number(expiration, "Days"), _date(expiration.get("Date"))
        markers = (expiration.get("ExpiredObjectDeleteMarker") or "").lower() == "true"
    noncurrent = node.find("NoncurrentVersionExpiration")
    noncurrent_days, kept = None, 0
    if noncurrent is not None:
        noncurrent.only("NoncurrentDays", "NewerNoncurrentVersions")
        noncurrent_days = _number(noncurrent, "NoncurrentDays")
        if noncurrent_days is None:
            raise malformed("A NoncurrentVersionExpiration has NoncurrentDays.")
        kept = _number(noncurrent, "NewerNoncurrentVersions") or 0
    abort = node.find("AbortIncompleteMultipartUpload")
    abort_days = _number(abort, "DaysAfterInitiation") if abort is not None else None
    if abort is not None and abort_days is None:
        raise malformed("An AbortIncompleteMultipartUpload has DaysAfterInitiation.")
    narrow = rule.tags or rule.bytes_over is not None or rule.bytes_under is not None
    if narrow and (abort is not None or markers):
        what = "AbortIncompleteMultipartUpload" if abort is not None else "ExpiredObjectDeleteMarker"
        raise S3Error("InvalidRequest", f"{what} cannot be specified with Tags or sizes.")
    return Rule(
        rule.id, rule.enabled, rule.prefix, rule.tags, rule.bytes_over, rule.bytes_under, days, date_s, markers,
        noncurrent_days, kept, abort_days, rule.filtered,
    )  # fmt: skip


def _number(node: Node, name: str, *, least: int = 1) -> int | None:
    text = node.get(name)
    if text is None:
        return None
    number = int(text) if text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20 else None
    if number is None:
        raise malformed(f"{name} is a number.")
    if number < least or (least and number > DAYS_MAX):
        raise S3Error("InvalidArgument", f"'{name}' for {node.name} action must be a positive integer")
    return number


def _date(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        parsed = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise malformed("A Date is one of ISO 8601.") from None
    date_s = (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp()
    if date_s % DAY_S or not 0 <= date_s < 2**40:
        raise S3Error("InvalidArgument", "'Date' must be at midnight GMT")
    return int(date_s)


def _shown(rule: Rule) -> list[Field]:
    fields: list[Field] = [("ID", rule.id), ("Status", "Enabled" if rule.enabled else "Disabled")]
    if rule.filtered:
        conditions: list[Field] = [("Prefix", rule.prefix)] if rule.prefix else []
        conditions += [("Tag", [("Key", key), ("Value", value)]) for key, value in rule.tags]
        sizes = (("ObjectSizeGreaterThan", rule.bytes_over), ("ObjectSizeLessThan", rule.bytes_under))
        conditions += [(name, size) for name, size in sizes if size is not None]
        inside: list[Field] = conditions or [("Prefix", "")]
        fields.append(("Filter", [("And", conditions)] if len(conditions) > 1 else inside))
    else:
        fields.append(("Prefix", rule.prefix))
    if rule.days is not None:
        fields.append(("Expiration", [("Days", rule.days)]))
    if rule.date_s is not None:
        fields.append(("Expiration", [("Date", iso_of(rule.date_s))]))
    if rule.markers:
        fields.append(("Expiration", [("ExpiredObjectDeleteMarker", True)]))
    if rule.noncurrent_days is not None:
        kept = rule.noncurrent_kept or None
        inside = [("NoncurrentDays", rule.noncurrent_days), ("NewerNoncurrentVersions", kept)]
        fields.append(("NoncurrentVersionExpiration", inside))
    if rule.abort_days is not None:
        fields.append(("AbortIncompleteMultipartUpload", [("DaysAfterInitiation", rule.abort_days)]))
    return fields
