"""Reed-Solomon codes: segments to fragments and back, by ISA-L through pyeclib.

The Cauchy form, of which any k of k+m fragments are enough whatever k and m.  pyeclib puts a header in front of each
fragment.  We keep fragments without it: what is on the drives is the same whatever version of the library made it, and
begins at a page.  Where the library wants headers, it gets those that it makes for as many zeros.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from apus.services.object.logic.code import Code

if TYPE_CHECKING:
    from pyeclib.ec_iface import ECDriver

_KIND: Final = "isa_l_rs_cauchy"


class TooFewFragments(ValueError):
    """Fewer than k: the segment cannot be had from them."""


def encode(code: Code, segment: bytes | memoryview) -> list[memoryview]:
    """All its fragments by their numbers, equally long.  Those of data are views of the segment where it fills them."""
    size = code.fragment_bytes(len(segment))
    whole = bytes(segment).ljust(code.data * size, b"\0")
    view = memoryview(segment if len(segment) == len(whole) else whole)
    parity = _driver(code).encode(whole)[code.data :]
    data = [view[at : at + size] for at in range(0, len(whole), size)]
    return data + [memoryview(fragment)[-size:] for fragment in parity]


def decode(code: Code, fragments: Mapping[int, bytes | memoryview], size_bytes: int) -> bytes:
    """The segment of this size, from any k of its fragments by number.  Raise TooFewFragments."""
    if all(index in fragments for index in range(code.data)):
        return b"".join(fragments[index] for index in range(code.data))[:size_bytes]
    return _driver(code).decode(_with_headers(code, fragments))[:size_bytes]


def rebuild(code: Code, fragments: Mapping[int, bytes | memoryview], index: int) -> bytes:
    """The fragment of this number, from any k others.  Raise TooFewFragments."""
    (rebuilt,) = _driver(code).reconstruct(_with_headers(code, fragments), [index])
    return rebuilt[-len(next(iter(fragments.values()))) :]


def _with_headers(code: Code, fragments: Mapping[int, bytes | memoryview]) -> list[bytes]:
    if len(fragments) < code.data:
        raise TooFewFragments(f"{len(fragments)} fragments are left, and {code.data} are needed")
    chosen = sorted(fragments)[: code.data]
    headers = _headers(code, len(fragments[chosen[0]]))
    return [headers[index] + fragments[index] for index in chosen]


@lru_cache(maxsize=16)
def _driver(code: Code) -> ECDriver:
    from pyeclib.ec_iface import ECDriver  # most stores have no code

    return ECDriver(k=code.data, m=code.parity, ec_type=_KIND)


@lru_cache(maxsize=64)
def _headers(code: Code, size: int) -> Sequence[bytes]:
    """What the library puts in front of fragments of this size."""
    return [fragment[:-size] for fragment in _driver(code).encode(bytes(code.data * size))]
