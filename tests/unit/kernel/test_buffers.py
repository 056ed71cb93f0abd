"""Buffers that are used again once nobody looks at them."""

from __future__ import annotations

import ctypes

from apus.kernel.buffers import BUFFER_BYTES, KEPT_BYTES, LONG_BUFFER_BYTES, take_buffer

KEPT_MAX = KEPT_BYTES // BUFFER_BYTES


def test_a_buffer_is_used_again_only_when_no_view_of_it_is_left() -> None:
    first, second = take_buffer(), take_buffer()
    assert first.obj is not second.obj
    kept, part = first.obj, second[5:10]
    del first, second
    third = take_buffer()
    assert third.obj is not kept  # we still name it
    assert third.obj is not part.obj
    del kept
    part[:] = b"hello"
    taken = [take_buffer() for _ in range(KEPT_MAX + 3)]
    assert len({id(view.obj) for view in taken} | {id(part.obj)}) == KEPT_MAX + 4
    assert part == b"hello"


def test_a_buffer_begins_at_a_page() -> None:
    for view in [take_buffer() for _ in range(KEPT_MAX + 1)]:
        assert len(view) == BUFFER_BYTES
        assert ctypes.addressof(ctypes.c_char.from_buffer(view)) % 4096 == 0


def test_who_never_gives_a_buffer_back_keeps_it_from_nobody_else() -> None:
    held = [take_buffer() for _ in range(KEPT_MAX * 2)]
    view = take_buffer()
    view[:5] = b"again"
    del view
    assert take_buffer()[:5] == b"again"
    assert len(held) == KEPT_MAX * 2


def test_no_more_is_kept_of_long_ones() -> None:
    held = [take_buffer(LONG_BUFFER_BYTES) for _ in range(KEPT_MAX)]
    assert {len(view) for view in held} == {LONG_BUFFER_BYTES}
    places = {id(view.obj) for view in held}
    assert len(places) == KEPT_MAX
    del held
    again = [take_buffer(LONG_BUFFER_BYTES) for _ in range(KEPT_BYTES // LONG_BUFFER_BYTES)]
    assert len({id(view.obj) for view in again}) == len(again)
    assert take_buffer(LONG_BUFFER_BYTES).obj not in [view.obj for view in again]
    assert len(take_buffer()) == BUFFER_BYTES
