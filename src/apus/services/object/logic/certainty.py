"""When enough copies were heard to say that every acknowledged write is among them."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def is_certain(
    voted: Collection[str], *, asked: Collection[str], primaries: Sequence[str], quorum: int, loose: bool
) -> bool:
    """`voted`: who answered, and has not forgotten what he acknowledged.

    A write is acknowledged by `quorum` drives.  Unless `loose`, so many of them are primaries: a quorum of the
    primaries has one of them.  Loose ones (written while primaries were away, or before drives changed) may be on any
    of those asked: then fewer than a quorum may be silent.
    """
    if sum(name in voted for name in primaries) < quorum:
        return False
    return not loose or sum(name not in voted for name in asked) < quorum
