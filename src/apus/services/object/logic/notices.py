"""Notifications: which events of a container its owner wants to be told of, and where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote_plus

import msgspec

from apus.services.object.contract import ObjectEvent

NOTICES: Final = "x-container-sysmeta-notices"
RULES_MAX: Final = 100
STREAM: Final = "events"
"""The target that is the cloud's own stream of events; any other is a URL."""

CREATED: Final = (
    "ObjectCreated:Put",
    "ObjectCreated:Post",
    "ObjectCreated:Copy",
    "ObjectCreated:CompleteMultipartUpload",
)
PUT, POST, COPY, COMPLETED = CREATED
REMOVED: Final = "ObjectRemoved"
EXPIRED: Final = "LifecycleExpiration"
DELETED: Final = "Delete"
MARKED: Final = "DeleteMarkerCreated"
TAGGED, UNTAGGED, ACL_PUT = DESCRIBED = ("ObjectTagging:Put", "ObjectTagging:Delete", "ObjectAcl:Put")
EVENTS: Final = (
    *CREATED,
    *(f"{cause}:{what}" for cause in (REMOVED, EXPIRED) for what in (DELETED, MARKED)),
    *DESCRIBED,
)


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    target: str
    events: tuple[str, ...]
    """With `*` behind the colon for all of a kind."""
    kind: str = ""
    """What the client called it: Topic, Queue, CloudFunction; empty for EventBridge."""
    prefix: str = ""
    suffix: str = ""


class Letter(msgspec.Struct, frozen=True):
    """An event on its way to one target."""

    rule: str
    target: str
    event: ObjectEvent


_decode = msgspec.json.Decoder(tuple[Rule, ...]).decode
_decode_letter = msgspec.json.Decoder(Letter).decode


def rules_text(rules: Sequence[Rule]) -> str:
    return msgspec.json.encode(rules).decode()


@lru_cache(maxsize=512)
def _rules(text: str) -> tuple[Rule, ...]:
    return _decode(text)


def rules_of(metadata: Mapping[str, str]) -> tuple[Rule, ...]:
    text = metadata.get(NOTICES)
    return _rules(text) if text else ()


def is_event(name: str) -> bool:
    """Whether it is one that is told of, or all of a kind."""
    return name in EVENTS or any(name == event.partition(":")[0] + ":*" for event in EVENTS)


def wanting(rules: Sequence[Rule], event: str, key: str) -> Iterator[Rule]:
    kind = event.partition(":")[0] + ":*"
    for rule in rules:
        if (event in rule.events or kind in rule.events) and key.startswith(rule.prefix) and key.endswith(rule.suffix):
            yield rule


def letter_text(letter: Letter) -> str:
    return msgspec.json.encode(letter).decode()


def letter_of(text: str) -> Letter:
    return _decode_letter(text)


def message(letter: Letter, region: str, time_text: str) -> dict[str, Any]:
    """What a webhook is sent: as S3 sends it."""
    event = letter.event
    thing = {"key": quote_plus(event.key, safe="/"), "sequencer": event.sequence}
    if event.etag:
        thing |= {"size": event.size_bytes, "eTag": event.etag}  # type: ignore[dict-item]
    if event.version_id:
        thing["versionId"] = event.version_id
    bucket = {
        "name": event.bucket,
        "ownerIdentity": {"principalId": event.account.removeprefix("AUTH_")},
        "arn": f"arn:aws:s3:::{event.bucket}",
    }
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": region,
        "eventTime": time_text,
        "eventName": event.name,
        "s3": {"s3SchemaVersion": "1.0", "configurationId": letter.rule, "bucket": bucket, "object": thing},
    }
    return {"Records": [record]}
