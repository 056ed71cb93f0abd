"""Events that are still to be told, durable before the change that they tell of is answered.

One hidden container for each client's container; a row is an event on its way to one target.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from apus.services.object.contract import ObjectEvent
from apus.services.object.directory import Directory
from apus.services.object.logic.merge import seconds_of, ticks_of
from apus.services.object.logic.notices import DELETED, MARKED, Letter, letter_text, rules_of, wanting
from apus.services.object.logic.versions import VERSION, version_of
from apus.services.object.model import Change, Head, Row

OUTBOX: Final = ".outbox"


class Outbox:
    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self.waiting: dict[str, None] = {}
        """`ACCOUNT/CONTAINER` of what was put in since the notifier last looked."""

    async def happened(self, head: Head, cause: str, metadata: Mapping[str, str]) -> None:
        """To this version, which is there."""
        if not rules_of(metadata):
            return
        event = ObjectEvent(
            name=cause,
            account=head.account,
            bucket=head.container,
            key=head.name,
            at_s=seconds_of(head.stamp),
            sequence=f"{ticks_of(head.stamp):016X}",
            size_bytes=head.shown_size_bytes,
            etag=head.shown_etag,
            version_id=version_of(head) if VERSION in head.headers else "",
        )
        await self._put(event, metadata)

    async def removed(
        self, place: tuple[str, str, str], cause: str, version_id: str, metadata: Mapping[str, str], *, marked: bool
    ) -> None:
        if not rules_of(metadata):
            return
        stamp = self._directory.cluster.stamp()
        event = ObjectEvent(
            name=f"{cause}:{MARKED if marked else DELETED}",
            account=place[0],
            bucket=place[1],
            key=place[2],
            at_s=seconds_of(stamp),
            sequence=f"{ticks_of(stamp):016X}",
            version_id=version_id,
        )
        await self._put(event, metadata)

    async def _put(self, event: ObjectEvent, metadata: Mapping[str, str]) -> None:
        rows = tuple(
            Row(
                stamp := self._directory.cluster.stamp(),
                stamp,
                content_type=letter_text(Letter(rule.id, rule.target, event)),
            )
            for rule in wanting(rules_of(metadata), event.name, event.key)
        )
        if rows:
            key = f"{event.account}/{event.bucket}"
            await self._directory.offer(Change(OUTBOX, key, rows, made=rows[0].stamp))
            self.waiting[key] = None
