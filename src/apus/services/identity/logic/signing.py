"""Keys of AWS's Signature Version 4: a secret that is good for one day, one region and one service."""

from __future__ import annotations

import hashlib
import hmac


def signing_key(secret: str, date: str, region: str, service: str) -> bytes:
    """`date` is eight digits, in UTC."""
    key = b"AWS4" + secret.encode("utf-8", "surrogatepass")
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return key
