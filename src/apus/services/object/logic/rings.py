"""The rings of all storage policies as one: each has its own partitions, over the same drives.

The number of a partition says whose it is: the policy's number in the upper bits, the partition's own in the lower 24.
So whoever goes by partitions (repair, readers, drives) need not know of policies, and the number of a policy stays
readable when partitions are cut in two.  The partitions of the first policy are numbered as if there were no other;
the indexes of accounts and containers use them too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from apus.services.object.logic.ring import PART_POWER_MAX, Ring, part_of, split

_SHIFT: Final = 24
_OWN: Final = (1 << _SHIFT) - 1
assert PART_POWER_MAX <= _SHIFT


def policy_of(part: int) -> int:
    """The number of the policy whose partition this is."""
    return part >> _SHIFT


def own_part(part: int) -> int:
    """The number of the partition within its policy."""
    return part & _OWN


def part_in(policy: int, own: int) -> int:
    return policy << _SHIFT | own


class Rings(Ring, frozen=True, dict=True):
    """The first policy's ring, with those of the others behind it."""

    further: tuple[Ring, ...] = ()

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
        return self.further[policy_of(part) - 1] if part > _OWN else self

    def every_ring(self) -> tuple[Ring, ...]:
        """By the numbers of policies."""
        return (self, *self.further)

    def every_part(self) -> Iterator[int]:
        for policy in range(1 + len(self.further)):
            yield from range(part_in(policy, 0), part_in(policy, self.parts))

    def has(self, part: int) -> bool:
        return self._knows(part) and own_part(part) < self.parts

    def _knows(self, part: int) -> bool:
        return policy_of(part) <= len(self.further)


def joined(rings: Sequence[Ring]) -> Rings:
    """Rings by the numbers of their policies; all have as many partitions."""
    first, *further = rings
    return Rings(first.part_power, first.replicas, first.drives, first.rows, tuple(further))


def split_all(rings: Rings) -> Rings:
    """Each partition of each policy cut in two."""
    return joined([split(ring) for ring in rings.every_ring()])
