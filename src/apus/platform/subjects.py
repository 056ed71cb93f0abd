"""Which subjects a pattern hears: the one rule that the local, the simulated and the NATS bus share.

`*` stands for exactly one word, a final `>` for one word or more, as NATS has it.
"""

from __future__ import annotations

from functools import lru_cache

SUBJECT_BYTES_MAX = 512
"""Longer names than this are a program's mistake, not an address."""

BODY_BYTES_MAX = 1 << 20
"""What a NATS server takes unless told otherwise.  What is larger goes through the store or the object service."""


def check_body(body: bytes) -> None:
    if len(body) > BODY_BYTES_MAX:
        raise ValueError(f"a bus message of {len(body)} bytes is over the limit of {BODY_BYTES_MAX}")


def check_subject(subject: str, *, pattern: bool = False) -> None:
    """Raise ValueError unless all three buses would take the subject."""
    words = subject.split(".")
    if not subject or len(subject) > SUBJECT_BYTES_MAX or not all(words):
        raise ValueError(f"bus subject {subject[:80]!r} has an empty word or is too long")
    if any(character.isspace() for character in subject):
        raise ValueError(f"bus subject {subject[:80]!r} has white space in it")
    if not pattern and ("*" in words or ">" in words):
        raise ValueError(f"bus subject {subject!r} has a wildcard, and only listeners may use one")
    if ">" in words[:-1]:
        raise ValueError(f"bus subject {subject!r} has `>` before its end")


@lru_cache(maxsize=4096)
def hears(pattern: str, subject: str) -> bool:
    wanted, words = pattern.split("."), subject.split(".")
    for place, want in enumerate(wanted):
        if want == ">":
            return len(words) > place
        if place == len(words) or want not in ("*", words[place]):
            return False
    return len(words) == len(wanted)
