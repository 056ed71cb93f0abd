"""The rings of all storage policies as one: each has its own partitions, over the same drives.

The number of a partition says whose it is: the *room* in the upper bits, the partition's own in the lower 24.  A
policy's room is its number; a policy with an erasure code has a second one, for the archives of its fragments, with a
ring of k+m places.  So whoever goes by partitions (repair, readers, drives) need not know of policies, and the room
stays readable when partitions are cut in two.  The partitions of the first policy are numbered as if there were no
other; the indexes of accounts and containers use them too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from apus.services.object.logic.code import Code
from apus.services.object.logic.ring import PART_POWER_MAX, Ring, part_of, split

_SHIFT: Final = 24
_OWN: Final = (1 << _SHIFT) - 1
assert PART_POWER_MAX <= _SHIFT

_FRAGMENTS: Final = 1 << 7
"""In the number of a room: it has the fragments of the policy whose number is in the other bits."""


def room_of(part: int) -> int:
    """The number of the room that has this partition."""
    return part >> _SHIFT


def policy_of(part: int) -> int:
    """The number of the policy whose partition this is."""
    return room_of(part) & ~_FRAGMENTS


def is_of_fragments(part: int) -> bool:
    return bool(room_of(part) & _FRAGMENTS)


def fragments_room(policy: int) -> int:
    return policy | _FRAGMENTS


def own_part(part: int) -> int:
    """The number of the partition within its room."""
    return part & _OWN


def part_in(room: int, own: int) -> int:
    return room << _SHIFT | own


def archives_part(part: int) -> int:
    """Where the archives are of the objects in this partition."""
    return part_in(fragments_room(policy_of(part)), own_part(part))


def objects_part(part: int) -> int:
    """Where the objects are whose archives are in this partition."""
    return part_in(policy_of(part), own_part(part))


class Rings(Ring, frozen=True, dict=True):
    """The first policy's ring, with those of the others behind it."""

    further: tuple[Ring, ...] = ()
    fragments: tuple[Ring | None, ...] = ()
    """By the numbers of policies, as far as one has an erasure code."""

    def part_of(self, path_hash_hex: str, policy: int) -> int:
        return part_in(policy, part_of(path_hash_hex, self.part_power))

    def primaries(self, part: int) -> tuple[str, ...]:
        """Nobody for a policy that this does not know: it is older than that."""
        if part <= _OWN:
            return super().primaries(part)
        return self.ring_of(part).primaries(part & _OWN) if self._knows(part) else ()

    def handoffs(self, part: int) -> tuple[str, ...]:
        if part <= _OWN:
            return super().handoffs(part)
        return self.ring_of(part).handoffs(part & _OWN) if self._knows(part) else ()

    def ring_of(self, part: int) -> Ring:
        if part <= _OWN:
            return self
        policy = policy_of(part)
        ring = self.fragments[policy] if is_of_fragments(part) else self.further[policy - 1]
        assert ring is not None
        return ring

    def code_of(self, part: int) -> Code | None:
        """Of the policy whose partition this is."""
        policy = policy_of(part)
        ring = self.fragments[policy] if policy < len(self.fragments) else None
        return ring.code if ring is not None else None

    def by_policy(self) -> tuple[Ring, ...]:
        """Those of whole copies, by the numbers of policies."""
        return (self, *self.further)

    def every_ring(self) -> tuple[Ring, ...]:
        """Those of fragments too."""
        return (*self.by_policy(), *(ring for ring in self.fragments if ring is not None))

    def every_part(self) -> Iterator[int]:
        coded = [fragments_room(policy) for policy, ring in enumerate(self.fragments) if ring is not None]
        for room in (*range(1 + len(self.further)), *coded):
            yield from range(part_in(room, 0), part_in(room, self.parts))

    def has(self, part: int) -> bool:
        return self._knows(part) and own_part(part) < self.parts

    def _knows(self, part: int) -> bool:
        policy = policy_of(part)
        if is_of_fragments(part):
            return policy < len(self.fragments) and self.fragments[policy] is not None
        return policy <= len(self.further)


def joined(rings: Sequence[Ring], fragments: Sequence[Ring | None] = ()) -> Rings:
    """Rings by the numbers of their policies; all have as many partitions."""
    first, *further = rings
    return Rings(
        first.part_power, first.replicas, first.drives, first.rows, further=tuple(further), fragments=tuple(fragments)
    )


def split_all(rings: Rings) -> Rings:
    """Each partition of each room cut in two."""
    fragments = [split(ring) if ring is not None else None for ring in rings.fragments]
    return joined([split(ring) for ring in rings.by_policy()], fragments)
