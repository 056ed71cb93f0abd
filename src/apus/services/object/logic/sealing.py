"""Encryption of objects: a key for each, wrapped by a root secret or by a key of the client's own.

The bytes are AES-256 in counter mode, so any range can be read alone; whether they are whole is told by the checksums
that every copy has anyway.  The object's key and its first counter are wrapped by AES-256-GCM.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hmac
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from apus.kernel.errors import Forbidden, Invalid, Unavailable

SEAL: Final = "x-object-sysmeta-seal"
"""`KEY.BASE64`: which root secret wrapped the object's key, and the wrapped key."""

CUSTOMER: Final = "customer"
"""In place of a root secret's name: the key is the client's."""

CUSTOMER_MARK: Final = "x-object-sysmeta-customer-mark"
"""Of an object that only the client's key opens, whole or in its parts: what tells that key from others."""

ENCRYPT: Final = "x-container-sysmeta-encrypt"
"""What is written in this container is encrypted: `AES256`."""

KEY_BYTES: Final = 32
_COUNTER_BYTES: Final = 16
_NONCE_BYTES: Final = 12
DRAWN_BYTES: Final = KEY_BYTES + _COUNTER_BYTES + _NONCE_BYTES
"""What chance has to give for one object."""


@dataclasses.dataclass(frozen=True, slots=True)
class Keyring:
    """Root secrets by name.  The last one wraps; the others open what they wrapped."""

    keys: Mapping[str, bytes]

    @property
    def newest(self) -> str:
        return next(reversed(list(self.keys)))


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectKey:
    """What one object's bytes are encrypted with."""

    key: bytes
    counter: bytes

    def cipher(self, offset: int) -> CipherContext:
        """Encrypts and decrypts (it is the same) the bytes from there on."""
        number = int.from_bytes(self.counter, "big") + offset // _COUNTER_BYTES
        counter = (number % (1 << 8 * _COUNTER_BYTES)).to_bytes(_COUNTER_BYTES, "big")
        context = Cipher(algorithms.AES256(self.key), modes.CTR(counter)).encryptor()
        context.update(bytes(offset % _COUNTER_BYTES))
        return context


def parse_keyring(text: str) -> Keyring:
    """Lines of `NAME BASE64`, the oldest first.  Raise Invalid."""
    keys: dict[str, bytes] = {}
    for line in text.split("\n"):
        name, _, encoded = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES or "." in name or name == CUSTOMER:
            raise Invalid("object.root_secret", f"The root secret {name!r} is not {KEY_BYTES} bytes in base64.")
        keys[name] = key
    if not keys:
        raise Invalid("object.root_secret", "There is no root secret in the file.")
    return Keyring(keys)


def new_key(drawn: bytes) -> ObjectKey:
    assert len(drawn) == DRAWN_BYTES
    return ObjectKey(drawn[:KEY_BYTES], drawn[KEY_BYTES : KEY_BYTES + _COUNTER_BYTES])


def customer_mark(key: bytes) -> str:
    return base64.b64encode(hmac.digest(key, b"the key of a customer", "sha256")).decode()


def wrap(secret: bytes, name: str, key: ObjectKey, drawn: bytes) -> str:
    nonce = drawn[-_NONCE_BYTES:]
    wrapped = AESGCM(secret).encrypt(nonce, key.key + key.counter, name.encode())
    return f"{name}.{base64.b64encode(nonce + wrapped).decode()}"


def unwrap(seal: str, keyring: Keyring | None, customer_key: bytes | None) -> ObjectKey:
    """Raise Forbidden without the client's right key, Unavailable without the root secret."""
    name, _, encoded = seal.partition(".")
    if name == CUSTOMER:
        if customer_key is None:
            raise Forbidden("object.customer_key", "This object needs the key that it was encrypted with.")
        secret = customer_key
    else:
        if keyring is None or name not in keyring.keys:
            raise Unavailable("object.root_secret_away", "The key of this object is not here.", hidden=name)
        secret = keyring.keys[name]
    packed = base64.b64decode(encoded)
    try:
        opened = AESGCM(secret).decrypt(packed[:_NONCE_BYTES], packed[_NONCE_BYTES:], name.encode())
    except InvalidTag as error:
        if name == CUSTOMER:
            raise Forbidden(
                "object.customer_key", "The key is not the one that this object was encrypted with."
            ) from error
        raise Unavailable("object.root_secret_away", "The key of this object is not here.", hidden=name) from error
    return ObjectKey(opened[:KEY_BYTES], opened[KEY_BYTES:])
