"""Pages of all versions in a container: its own rows and those of its versions, side by side by name."""

from __future__ import annotations

from collections import deque
from itertools import islice

import msgspec

from apus.kernel.errors import Invalid
from apus.services.object.logic.hidden import NUL
from apus.services.object.logic.listed import listed
from apus.services.object.logic.versions import NULL, VersionRow, check_id, entry_name, name_and_id, version_rows
from apus.services.object.model import ListingAsk, Row, Subdir
from apus.services.object.shelf import Shelf
from apus.services.object.versions import Versions, versions_container

_BEHIND = "\1"
"""Sorts behind the NUL that ends a name in the name of a version, and before whatever name comes next."""


async def list_versions(
    shelf: Shelf, versions: Versions, account: str, container: str, ask: ListingAsk, version_marker: str = ""
) -> list[VersionRow | Subdir]:
    if version_marker and not ask.marker:
        raise Invalid("object.version_marker", "A version_marker needs a marker.", field="version_marker")
    kept = versions_container(container)
    found: list[VersionRow | Subdir] = []
    if version_marker:
        found += await _behind(shelf, versions, account, container, ask, version_marker)
    rows = _Cursor(shelf, account, container, ask)
    entries = _Cursor(shelf, account, kept, _of_entries(ask))
    while len(found) < ask.limit:
        row, entry = await rows.peek(), await entries.peek()
        names = [row.name] if row else []
        names += [name_and_id(entry.name)[0]] if entry else []
        if not names:
            break
        name = max(names) if ask.reverse else min(names)
        cut = name.find(ask.delimiter, len(ask.prefix)) if ask.delimiter else -1
        if cut >= 0:
            directory = name[: cut + len(ask.delimiter)]
            if directory != ask.marker:
                found.append(Subdir(directory))
            await rows.skip(directory)
            await entries.skip(directory)
            continue
        current = await rows.take() if row is not None and row.name == name else None
        found += await _of_name(name, current, entries, ask.limit - len(found))
    return found[: ask.limit]


def _of_entries(ask: ListingAsk) -> ListingAsk:
    """The same bounds among the names of versions."""
    low, high = (ask.end_marker, ask.marker) if ask.reverse else (ask.marker, ask.end_marker)
    low, high = low + _BEHIND if low else "", high + NUL if high else ""
    marker, end_marker = (high, low) if ask.reverse else (low, high)
    return msgspec.structs.replace(ask, marker=marker, end_marker=end_marker)


async def _of_name(
    name: str, current: Row | None, entries: _Cursor, limit: int, *, from_newest: bool = True
) -> list[VersionRow]:
    """At most so many, from where the cursor stands.  Backwards what is current comes last, when it comes at all."""
    some = await entries.take_all(name + NUL, limit)
    if not entries.reverse:
        return list(islice(version_rows(name, current, some, from_newest=from_newest), limit))
    following = await entries.peek()
    ended = following is None or not following.name.startswith(name + NUL)
    if current is not None and not listed(current).version and not ended:
        current = None
    return list(islice(reversed([*version_rows(name, current, reversed(some), from_newest=ended)]), limit))


async def _behind(
    shelf: Shelf, versions: Versions, account: str, container: str, ask: ListingAsk, version_marker: str
) -> list[VersionRow]:
    """The other versions of the name at which the last page ended."""
    name = ask.marker
    current = await shelf.directory.listing(account, container, ListingAsk(limit=1, prefix=name, end_marker=name + NUL))
    row = next((row for row in current if isinstance(row, Row)), None)
    entry_id: str | None = check_id(version_marker)
    if version_marker == NULL:
        plain = row is not None and not listed(row).version
        entry_id = None if plain else await versions.entry_of_null(account, container, name)
    after = entry_name(name, entry_id) if entry_id else name + NUL
    if ask.reverse and version_marker == NULL and entry_id is None:
        return []
    cursor = _Cursor(shelf, account, versions_container(container), msgspec.structs.replace(ask, marker=after))
    left = row if row is not None and (ask.reverse or listed(row).version) else None
    return await _of_name(name, left, cursor, ask.limit, from_newest=False)


class _Cursor:
    """The rows of an index one by one."""

    def __init__(self, shelf: Shelf, account: str, container: str, ask: ListingAsk) -> None:
        self._shelf, self._account, self._container, self.reverse = shelf, account, container, ask.reverse
        self._ask = msgspec.structs.replace(ask, delimiter="", limit=min(ask.limit + 1, 1_000))
        self._rows: deque[Row] = deque()
        self._ended = False

    async def peek(self) -> Row | None:
        if not self._rows and not self._ended:
            page = await self._shelf.directory.listing(self._account, self._container, self._ask)
            self._rows.extend(row for row in page if isinstance(row, Row))
            self._ended = len(page) < self._ask.limit
            if page:
                self._ask = msgspec.structs.replace(self._ask, marker=page[-1].name)
        return self._rows[0] if self._rows else None

    async def take(self) -> Row:
        row = await self.peek()
        assert row is not None
        self._rows.popleft()
        return row

    async def take_all(self, prefix: str, limit: int) -> list[Row]:
        taken: list[Row] = []
        while len(taken) < limit and (row := await self.peek()) is not None and row.name.startswith(prefix):
            taken.append(await self.take())
        return taken

    async def skip(self, prefix: str) -> None:
        """All that begin so."""
        while self._rows and self._rows[0].name.startswith(prefix):
            self._rows.popleft()
        if not self._rows and not self._ended:
            marker = prefix if self.reverse else max(self._ask.marker, prefix + "\U0010ffff")
            self._ask = msgspec.structs.replace(self._ask, marker=marker)
            while (row := await self.peek()) is not None and row.name.startswith(prefix):
                self._rows.popleft()
