"""Bodies in strides, whatever the pieces they come in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apus.kernel.errors import TooLarge
from apus.services.object.model import STRIDE_BYTES
from apus.services.object.strides import LONG_STRIDE_BYTES, SMALL_BYTES, strides

sizes = st.one_of(st.integers(0, 2000), st.sampled_from([SMALL_BYTES, SMALL_BYTES + 1, STRIDE_BYTES, STRIDE_BYTES + 1]))

stride_sizes = st.sampled_from([STRIDE_BYTES, LONG_STRIDE_BYTES])


class Network:
    """Fills what it is given, or comes in pieces."""

    def __init__(self, data: bytes, piece_bytes: int) -> None:
        self.data, self.at, self.piece_bytes = data, 0, piece_bytes

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = self.data[self.at : self.at + self.piece_bytes]
        if not piece:
            raise StopAsyncIteration
        self.at += len(piece)
        return piece

    async def fill(self, view: memoryview) -> int:
        piece = self.data[self.at : self.at + len(view)]
        view[: len(piece)] = piece
        self.at += len(piece)
        return len(piece)


async def pieces_of(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def kept(
    data: AsyncIterator[bytes], announced: int | None, limit: int = 1 << 40, stride_bytes: int = STRIDE_BYTES
) -> list[bytes]:
    """All strides are looked at when all have come: none may have been used for another."""
    views = [stride async for stride in strides(data, announced, limit, stride_bytes)]
    return [bytes(view) for view in views]


@settings(max_examples=60, deadline=None)
@given(st.lists(sizes, max_size=6), st.booleans(), stride_sizes)
def test_pieces_become_strides(lengths: list[int], announce: bool, stride_bytes: int) -> None:
    parts = [bytes([number % 251]) * length for number, length in enumerate(lengths)]
    whole = b"".join(parts)
    found = asyncio.run(kept(pieces_of(parts), len(whole) if announce else None, stride_bytes=stride_bytes))
    assert b"".join(found) == whole
    assert all(len(stride) == stride_bytes for stride in found[:-1])
    assert all(found)


@settings(max_examples=30, deadline=None)
@given(st.one_of(sizes, st.integers(0, 5 * STRIDE_BYTES)), st.integers(1, 1 << 18), stride_sizes)
def test_a_body_is_filled_where_it_is_wanted(size: int, piece_bytes: int, stride_bytes: int) -> None:
    whole = bytes(range(256)) * (size // 256) + bytes(size % 256)
    found = asyncio.run(kept(Network(whole, piece_bytes), size, stride_bytes=stride_bytes))
    assert b"".join(found) == whole
    assert all(len(stride) == stride_bytes for stride in found[:-1])


def test_what_ends_early_is_shorter_than_announced() -> None:
    found = asyncio.run(kept(Network(bytes(SMALL_BYTES), 1000), 2 * STRIDE_BYTES))
    assert sum(map(len, found)) == SMALL_BYTES


@pytest.mark.parametrize(("announced", "limit"), [(None, 9), (9, 1000), (1 << 20, 1 << 19)])
def test_what_is_longer_is_refused(announced: int | None, limit: int) -> None:
    size = 10 if announced is None or announced < 10 else 1 << 20
    with pytest.raises(TooLarge):
        asyncio.run(kept(Network(bytes(size), 1000), announced, limit))
