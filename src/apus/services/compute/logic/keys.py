"""Public SSH keys: what they are, whether they are whole, and their MD5 fingerprint.

Format: RFC 4253 section 6.6; `ssh-keygen -E md5 -l` prints the same fingerprint.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from apus.kernel.errors import Invalid

KINDS: Final = (
    "ssh-rsa", "ssh-dss", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
)  # fmt: skip
PUBLIC_KEY_MAX: Final = 16384


def fingerprint(public_key: str) -> str:
    """Raise Invalid when it is not an SSH public key."""
    parts = public_key.strip().split(None, 2)
    if len(public_key) > PUBLIC_KEY_MAX or len(parts) < 2 or "\n" in public_key.strip():
        raise _invalid("an SSH public key is one line: its kind, its data in base64, and a comment")
    kind, data = parts[0], parts[1]
    if kind not in KINDS:
        raise _invalid(f"{kind[:40]!r} is not a kind of SSH key; possible: {', '.join(KINDS)}")
    try:
        blob = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid("its data is not base64") from None
    name = kind.encode()
    if blob[:4] != len(name).to_bytes(4, "big") or blob[4 : 4 + len(name)] != name or len(blob) < 32:
        raise _invalid(f"its data is not that of a whole {kind} key")
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[at : at + 2] for at in range(0, 32, 2))


def _invalid(why: str) -> Invalid:
    return Invalid("compute.invalid_key", f"Keypair data is invalid: {why}.", field="public_key")
