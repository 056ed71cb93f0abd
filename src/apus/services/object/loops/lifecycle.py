"""Does what lifecycle rules say: once a day for each container, and again when its rules change.

Whatever it removes it looks at again just before: what was written, marked or locked meanwhile stays.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Final

from apus.kernel.errors import Forbidden, NotFound
from apus.services.object.logic.lifecycle import DAY_S, LIFECYCLE, Leaving, Rule, abort_of, leaving, rules_of
from apus.services.object.logic.merge import seconds_of
from apus.services.object.logic.notices import EXPIRED
from apus.services.object.logic.tags import tags_of
from apus.services.object.logic.uploads import USED, key_and_id, uploads_container
from apus.services.object.logic.versions import NULL, VersionRow, version_of
from apus.services.object.model import Head, IndexHead, ListingAsk
from apus.services.object.service import CYCLED, Objects

PASS_EVERY_S: Final = 600.0
PAGE: Final = 1_000
CONTAINERS_MAX: Final = 100_000


class Lifecycle:
    name = "object.lifecycle"
    period_s = PASS_EVERY_S

    def __init__(self, objects: Objects, *, page: int = PAGE) -> None:
        self._objects, self._page = objects, page
        self._done: dict[str, tuple[int, str]] = {}
        """By container the day of its last pass, and the rules then."""

    async def keys(self) -> Iterable[str]:
        """`ACCOUNT/CONTAINER` of each that has rules."""
        return [row.name for row in await self._objects.listing(*CYCLED, ListingAsk(limit=CONTAINERS_MAX))]

    async def settle(self, key: str) -> None:
        account, container = key.split("/", 1)
        head = await self._objects.directory.head(account, container)
        if head is None or not head.exists or LIFECYCLE not in head.metadata:
            self._done.pop(key, None)
            return
        now_s = self._objects.cluster.world.clock.now_s()
        done = int(now_s // DAY_S), head.metadata[LIFECYCLE]
        if self._done.get(key) == done:
            return
        rules = rules_of(head.metadata)
        await self._versions(head, rules, now_s)
        if USED in head.metadata:
            await self._uploads(head, rules, now_s)
        self._done[key] = done

    async def run_once(self) -> None:
        for key in await self.keys():
            await self.settle(key)

    async def _versions(self, head: IndexHead, rules: Sequence[Rule], now_s: float) -> None:
        tagged = any(rule.tags for rule in rules)
        async for versions in self._names(head):
            rows = [row for row in versions if tagged and not row.is_marker]
            tags = {row.version_id: await self._tags(head, row) for row in rows}
            for one in _leaving(rules, versions, tags, now_s):
                await self._remove(head, one)

    async def _names(self, head: IndexHead) -> AsyncIterator[list[VersionRow]]:
        """All versions of each name, the newest first."""
        held: list[VersionRow] = []
        ask, version_marker = ListingAsk(limit=self._page), ""
        while True:
            rows = await self._objects.list_versions(head.account, head.container, ask, version_marker)
            for row in rows:
                assert isinstance(row, VersionRow)
                if held and held[0].name != row.name:
                    yield held
                    held = []
                held.append(row)
            if len(rows) < self._page:
                break
            ask, version_marker = ListingAsk(limit=self._page, marker=held[-1].name), held[-1].version_id
        if held:
            yield held

    async def _tags(self, head: IndexHead, row: VersionRow) -> dict[str, str]:
        found = await self._objects.find(head.account, head.container, row.name, version_id=row.version_id)
        return tags_of(found.head.shown_headers) if found is not None else {}

    async def _remove(self, head: IndexHead, one: Leaving) -> None:
        place, row = (head.account, head.container, one.row.name), one.row
        try:
            if one.mark:
                current = row.changed if row.version_id == NULL else row.version_id
                await self._objects.delete(*place, if_stamp=current, cause=EXPIRED)
            elif row.is_marker or not await self._is_current(place, row):
                await self._objects.delete(*place, version_id=row.version_id, cause=EXPIRED)
        except (Forbidden, NotFound):
            return  # locked, or changed meanwhile

    async def _is_current(self, place: tuple[str, str, str], row: VersionRow) -> bool:
        """The listing may be behind, and the version the only one that is left."""
        found = await self._objects.find(*place, newest=True)
        return found is not None and version_of(found.head) == row.version_id

    async def _uploads(self, head: IndexHead, rules: Sequence[Rule], now_s: float) -> None:
        after = "", ""
        uploads, ask = self._objects.uploads, ListingAsk(limit=self._page)
        while rows := await uploads.page(head.account, head.container, ask, after):
            for row in rows:
                after = key_and_id(row.name)
                ends = abort_of(rules, after[0], seconds_of(row.stamp))
                if ends is not None and now_s >= ends[0]:
                    upload = Head(head.account, uploads_container(head.container), row.name, row.stamp)
                    await uploads.give_up(upload, head.container)


def _leaving(
    rules: Sequence[Rule], versions: Sequence[VersionRow], tags: Mapping[str, dict[str, str]], now_s: float
) -> Iterator[Leaving]:
    return leaving(rules, versions, lambda row: tags.get(row.version_id, {}), now_s)
