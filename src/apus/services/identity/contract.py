"""Identity, as others see it: who holds a token, and where the services are."""

from __future__ import annotations

from typing import Protocol

from apus.kernel.caller import Caller


class TokenVerifier(Protocol):
    def verify(self, token: str) -> Caller:
        """Who holds this token.  Reads no database.  Raise Unauthenticated (wrong, expired, revoked)."""
        ...


class IdentityService(Protocol):
    async def project_exists(self, project_id: str) -> bool: ...

    async def secret_of_access_key(self, access: str) -> tuple[str, Caller] | None:
        """The secret of an EC2 credential, and the caller that it stands for: for the S3 and EC2 doors."""
        ...
