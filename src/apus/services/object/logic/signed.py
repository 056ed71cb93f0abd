"""Signatures with the keys of an account or a container: who has one may do one thing until a time, without a token."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

DIGESTS: Final = {"sha1": 40, "sha256": 64, "sha512": 128}
"""And how many hexadecimal digits each has."""


class Grant(NamedTuple):
    """A signature's rights: those of the owner, in the account or in one container."""

    account: str
    container: str
    """Empty: all of the account."""

    def covers(self, account: str, container: str) -> bool:
        return account == self.account and self.container in ("", container)


def keys_of(metadata: Mapping[str, str], kind: str) -> list[str]:
    """Two keys, so that one can be changed while the other is in use."""
    names = (f"x-{kind}-meta-temp-url-key", f"x-{kind}-meta-temp-url-key-2")
    return [metadata[name] for name in names if metadata.get(name)]


def grant_of(signature: str, messages: Sequence[str], keys: Sequence[tuple[Grant, Sequence[str]]]) -> Grant | None:
    """Whose key made this signature of one of the messages, the last of them; None when nobody's did."""
    named = digest_of(signature)
    if named is None:
        return None
    digest, given = named
    granted: Grant | None = None
    for grant, its_keys in keys:
        for key in its_keys:
            for message in messages:
                made = hmac.new(key.encode(), message.encode(), digest).hexdigest()
                if hmac.compare_digest(made, given):
                    granted = grant
    return granted


def digest_of(signature: str) -> tuple[str, str] | None:
    """(digest, hexadecimal signature) of `0a1b…` or `sha256:BASE64`."""
    name, colon, text = signature.partition(":")
    if colon:
        if name not in DIGESTS:
            return None
        try:
            padded = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
            return name, base64.b64decode(padded, validate=True).hex()
        except (binascii.Error, ValueError):
            return None
    lowered = signature.lower()
    if any(letter not in "0123456789abcdef" for letter in lowered):
        return None
    for digest, length in DIGESTS.items():
        if len(lowered) == length:
            return digest, lowered
    return None


def form_message(path: str, redirect: str, max_file_size: str, max_file_count: str, expires: str) -> str:
    return "\n".join((path, redirect, max_file_size, max_file_count, expires))


assert all(hashlib.new(name, usedforsecurity=False).digest_size * 2 == size for name, size in DIGESTS.items())
