"""Notification configurations: events to webhooks, whose URL stands in an ARN's place, and to the cloud's own stream.

`EventBridgeConfiguration` is the stream with all events; with `arn:apus:events` as a target it has those asked for.
"""

from __future__ import annotations

from typing import Final

from apus.kernel.errors import Invalid
from apus.services.object.logic.addresses import check_url
from apus.services.object.logic.notices import EVENTS, NOTICES, RULES_MAX, STREAM, Rule, is_event, rules_of, rules_text
from apus.skins.s3.errors import S3Error
from apus.skins.s3.payload import read_document
from apus.skins.s3.request import S3Request
from apus.skins.s3.xml import CONTENT_TYPE, Field, Node, document, malformed, parse
from apus.wire.route import Reply

STREAM_ARN: Final = "arn:apus:events"
_BRIDGE: Final = "EventBridgeConfiguration"
_KINDS: Final = {
    "TopicConfiguration": "Topic",
    "QueueConfiguration": "Queue",
    "CloudFunctionConfiguration": "CloudFunction",
}
_ALL: Final = tuple(dict.fromkeys(event.partition(":")[0] + ":*" for event in EVENTS))


async def get_notifications(request: S3Request) -> Reply:
    fields = [_shown(rule) for rule in rules_of(request.head.metadata)]
    return Reply(document("NotificationConfiguration", fields), content_type=CONTENT_TYPE)


async def put_notifications(request: S3Request) -> Reply:
    root = parse(await read_document(request), "NotificationConfiguration")
    root.only(*_KINDS, _BRIDGE)
    if len(root.children) > RULES_MAX:
        raise malformed(f"There are {RULES_MAX} configurations at most.")
    rules = [_rule(request, node) for node in root.children]
    if len({rule.id for rule in rules}) != len(rules):
        raise S3Error("InvalidArgument", "Configurations have different Ids.")
    text = rules_text(rules) if rules else ""
    await request.door.objects.describe_container(request.account, request.bucket, {NOTICES: text})
    return Reply()


def _rule(request: S3Request, node: Node) -> Rule:
    if node.name == _BRIDGE:
        return Rule(_BRIDGE, STREAM, _ALL)
    kind = _KINDS[node.name]
    node.only("Id", "Event", "Filter", kind)
    target = node.need(kind)
    if target != STREAM_ARN:
        try:
            check_url(target, request.door.objects.options.webhook_networks)
        except Invalid as error:
            shown = f"Unable to validate the following destination configurations: {error.shown}"
            raise S3Error("InvalidArgument", shown, fields={"ArgumentName": kind, "ArgumentValue": target}) from error
    names = [event.text.strip().removeprefix("s3:") for event in node.all("Event")]
    if not names:
        raise malformed(f"A {node.name} has an Event.")
    for name in names:
        if not is_event(name):
            shown = "The event is not supported for notifications"
            raise S3Error("InvalidArgument", shown, fields={"ArgumentName": "Event", "ArgumentValue": f"s3:{name}"})
    prefix, suffix = _filter(node)
    return Rule(
        node.get("Id") or f"{request.door.dice.getrandbits(96):024x}",
        STREAM if target == STREAM_ARN else target,
        tuple(names),
        kind,
        prefix,
        suffix,
    )


def _filter(node: Node) -> tuple[str, str]:
    found = {"prefix": "", "suffix": ""}
    inside = node.find("Filter")
    key = inside.find("S3Key") if inside is not None else None
    for rule in key.all("FilterRule") if key is not None else ():
        name = rule.need("Name").lower()
        if name not in found:
            shown = "filter rule name must be either prefix or suffix"
            raise S3Error("InvalidArgument", shown, fields={"ArgumentName": "FilterRule.Name", "ArgumentValue": name})
        value = rule.find("Value")
        found[name] = value.text if value is not None else ""
    return found["prefix"], found["suffix"]


def _shown(rule: Rule) -> Field:
    if not rule.kind:
        return _BRIDGE, []
    fields: list[Field] = [("Id", rule.id), (rule.kind, STREAM_ARN if rule.target == STREAM else rule.target)]
    fields += [("Event", f"s3:{event}") for event in rule.events]
    named = [(name, value) for name, value in (("prefix", rule.prefix), ("suffix", rule.suffix)) if value]
    if named:
        filters: list[Field] = [("FilterRule", [("Name", name), ("Value", value)]) for name, value in named]
        fields.append(("Filter", [("S3Key", filters)]))
    return rule.kind + "Configuration", fields
