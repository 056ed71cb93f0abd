"""Encrypts what is written and decrypts what is read, between the doors and the drives.

Drives, listings and copies only ever see the encrypted bytes; the ETag that clients see is that of their own.
Names, metadata and ETags are not encrypted.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
from collections import ChainMap
from collections.abc import AsyncIterator, MutableMapping
from typing import cast

from apus.kernel.buffers import Chunk
from apus.kernel.errors import Forbidden, Invalid, Unavailable
from apus.services.object.engine import Found, Intent
from apus.services.object.logic.sealing import (
    CUSTOMER,
    CUSTOMER_MARK,
    DRAWN_BYTES,
    SEAL,
    Keyring,
    ObjectKey,
    customer_mark,
    new_key,
    unwrap,
    wrap,
)
from apus.services.object.model import ETAG, Head


class Sealing:
    def __init__(self, keyring: Keyring | None, *, always: bool) -> None:
        assert keyring is not None or not always
        self._keyring, self.always = keyring, always

    @property
    def possible(self) -> bool:
        """There is a root secret."""
        return self._keyring is not None

    def seal(
        self, intent: Intent, data: AsyncIterator[Chunk], customer_key: bytes | None = None
    ) -> tuple[Intent, AsyncIterator[Chunk]]:
        """The same object, encrypted.  `customer_key` (32 bytes) in place of the root secret."""
        drawn = secrets.token_bytes(DRAWN_BYTES)
        key = new_key(drawn)
        ours: dict[str, str] = {}
        if customer_key is not None:
            ours[CUSTOMER_MARK] = customer_mark(customer_key)
            seal = wrap(customer_key, CUSTOMER, key, drawn)
        elif self._keyring is not None:
            name = self._keyring.newest
            seal = wrap(self._keyring.keys[name], name, key, drawn)
        else:
            raise Unavailable("object.root_secret_away", "There is no root secret to encrypt with.")
        ours[SEAL] = seal
        headers = ChainMap(ours, cast(MutableMapping[str, str], intent.headers))  # a view: the ETag comes at the end
        shows_etag = ETAG not in intent.headers  # of a manifest it is that of its segments
        body = _encrypted(key, data, intent.etag, ours if shows_etag else {})
        return dataclasses.replace(intent, headers=headers, etag=None), body

    def opened(
        self, found: Found, stored: AsyncIterator[Chunk], offset: int, customer_key: bytes | None = None
    ) -> AsyncIterator[Chunk]:
        """The bytes of the client, of those stored from `offset` on."""
        seal = found.head.headers.get(SEAL)
        if seal is None:
            return stored
        return _decrypted(unwrap(seal, self._keyring, customer_key), stored, offset)

    def at_hand(self, found: Found, customer_key: bytes | None = None) -> Chunk | None:
        """All of a small object, if its bytes came with it."""
        seal = found.head.headers.get(SEAL)
        if seal is None or found.data is None:
            return found.data
        return unwrap(seal, self._keyring, customer_key).cipher(0).update(found.data)


def is_sealed(head: Head) -> bool:
    return SEAL in head.headers


def has_customer_key(head: Head) -> bool:
    """Only who brings the key reads it."""
    return CUSTOMER_MARK in head.headers or head.headers.get(SEAL, "").startswith(CUSTOMER + ".")


def check_customer_key(head: Head, key: bytes | None) -> None:
    """Raise Forbidden when it is not the key of this object, before anything is answered."""
    mark = head.headers.get(CUSTOMER_MARK)
    if key is None:
        if has_customer_key(head):
            raise Forbidden("object.customer_key", "This object needs the key that it was encrypted with.")
    elif mark is None or not hmac.compare_digest(mark, customer_mark(key)):
        raise Forbidden("object.customer_key", "The key is not the one that this object was encrypted with.")


async def _encrypted(
    key: ObjectKey, data: AsyncIterator[Chunk], etag: str | None, headers: dict[str, str]
) -> AsyncIterator[Chunk]:
    cipher, md5 = key.cipher(0), hashlib.md5(usedforsecurity=False)
    async for chunk in data:
        md5.update(chunk)
        yield cipher.update(chunk)
    headers[ETAG] = md5.hexdigest()
    if etag is not None and etag != headers[ETAG]:
        raise Invalid("object.etag", f"The MD5 of what came is {headers[ETAG]}, not {etag}.", field="ETag")


async def _decrypted(key: ObjectKey, stored: AsyncIterator[Chunk], offset: int) -> AsyncIterator[Chunk]:
    cipher = key.cipher(offset)
    async for chunk in stored:
        yield cipher.update(chunk)
