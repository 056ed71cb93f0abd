"""Key pairs: a user's public SSH keys.  A private key that we make is answered once and kept nowhere."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, NotFound
from apus.kernel.ids import child_id
from apus.kernel.table import Query
from apus.kernel.world import Transaction, World
from apus.services.compute.logic.keys import fingerprint
from apus.services.compute.model import Keypair
from apus.services.compute.quotas import check_keypairs
from apus.services.compute.store import KEYPAIRS


def keypair_id(user_id: str, name: str) -> str:
    return child_id("keypair", user_id, name)


def generate() -> tuple[str, str]:
    """A new Ed25519 pair: (private key in OpenSSH's form, public key)."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), public.decode()


def generate_x509(name: str, now_s: float) -> tuple[str, str]:
    """A new RSA key (PEM) and its certificate, signed by itself and good for ten years, as Windows guests want it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    named = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name[:64])])
    begins = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    signed = (
        x509.CertificateBuilder(named, named, key.public_key(), x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + datetime.timedelta(days=3650))
        .add_extension(x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), signed.public_bytes(serialization.Encoding.PEM).decode()


class Keypairs:
    def __init__(self, world: World) -> None:
        self._world = world

    async def create(
        self, caller: Caller, user_id: str, name: str, kind: str, public_key: str | None
    ) -> tuple[Keypair, str | None]:
        """The key pair, and its private key when we made it.  Raise Invalid, Conflict, OverQuota."""
        private = None
        if public_key is None and kind == "x509":
            now_s = self._world.clock.now_s()
            private, text = await self._world.run.in_thread(lambda: generate_x509(user_id, now_s))
        elif public_key is None:
            private, text = await self._world.run.in_thread(generate)
            text += " Generated-by-Apus\n"
        else:
            text = public_key
        mark = _x509_fingerprint(text) if kind == "x509" else fingerprint(text)

        def work(tx: Transaction) -> Keypair:
            if KEYPAIRS.get(tx, keypair_id(user_id, name)) is not None:
                raise Conflict("compute.keypair.exists", f"Key pair '{name}' already exists.")
            check_keypairs(tx, user_id)
            return KEYPAIRS.insert(
                tx,
                Keypair(
                    id=keypair_id(user_id, name),
                    user_id=user_id,
                    name=name,
                    type=kind,
                    public_key=text,
                    fingerprint=mark,
                    created_at_s=tx.now_s,
                ),
            )

        return await self._world.store.write(work), private

    async def get(self, user_id: str, name: str) -> Keypair:
        found = await self._world.store.read(lambda tx: KEYPAIRS.get(tx, keypair_id(user_id, name)))
        if found is None:
            raise _missing(user_id, name)
        return found

    async def page(self, user_id: str, query: Query) -> Sequence[Keypair]:
        marker = keypair_id(user_id, query.marker) if query.marker is not None else None
        asked = Query(where={"user_id": user_id}, sort=(("name", False),), marker=marker, limit=query.limit)
        return await self._world.store.read(lambda tx: KEYPAIRS.page(tx, asked))

    async def delete(self, user_id: str, name: str) -> None:
        if not await self._world.store.write(lambda tx: KEYPAIRS.delete(tx, keypair_id(user_id, name))):
            raise _missing(user_id, name)


def _x509_fingerprint(text: str) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    from apus.kernel.errors import Invalid

    try:
        digest = x509.load_pem_x509_certificate(text.encode()).fingerprint(hashes.SHA1()).hex()  # noqa: S303
    except ValueError:
        raise Invalid(
            "compute.invalid_key", "Keypair data is invalid: it is not a PEM certificate.", field="public_key"
        ) from None
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def _missing(user_id: str, name: str) -> NotFound:
    return NotFound("compute.keypair.not_found", f"Keypair {name} not found for user {user_id}")
