"""What `apus object` understands and how it says it."""

from __future__ import annotations

import pytest

from apus.cli.objects import bytes_of
from apus.cli.shown import in_bytes, in_time
from apus.kernel.errors import Invalid


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 << 20), ("64M", 64 << 20), ("1.5g", 3 << 29), ("500KB/s", 500 << 10), ("12", 12), ("none", 0)],
)
def test_a_rate_is_read(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "fast", "-1M", "0", "12X", "1e9"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        bytes_of(text)


def test_sizes_and_times_are_for_people() -> None:
    assert [in_bytes(None), in_bytes(12), in_bytes(1536), in_bytes(5 << 40)] == ["-", "12 B", "1.5 KiB", "5.0 TiB"]
    assert [in_time(None), in_time(90), in_time(600), in_time(9000)] == ["unknown", "90 s", "10 min", "2.5 h"]
