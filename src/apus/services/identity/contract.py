"""Identity, as others see it: who holds a token, where the services are, and what the cloud's own parts may ask.

A token carries all that its validation needs, so `TokenVerifier.verify` reads no database in any process.  What a
token cannot know is that it was revoked: each process keeps the short list of recent revocations in memory, and
refreshes it from a `RevocationSource` (the service itself, or a client of it across the bus) on a hint and by scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from apus.kernel.caller import Caller

DEFAULT_DOMAIN_ID: Final = "default"
REVOKED_HINT: Final = "identity.revoked"
"""Published after each change that ends tokens; the body is empty: read the source."""


class Revocations(msgspec.Struct, frozen=True, kw_only=True):
    """Subjects whose tokens ended: a token that was issued at an older epoch of a subject is worth nothing."""

    epochs: dict[str, int] = {}
    """subject -> epoch; subjects are opaque to all but identity."""
    horizon_s: float = 0.0
    """Ask again from here: later calls give what was stamped since, with some overlap."""


class CatalogueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One service and its endpoint, as `bootstrap` takes it: the URL is the same for all interfaces."""

    type: str
    name: str
    url: str
    """May hold %(project_id)s."""
    description: str = ""
    interfaces: tuple[str, ...] = ("public", "internal", "admin")


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Who logged in, to which project, and for how long."""

    token: str
    project_id: str
    expires_at_s: float


class TokenVerifier(Protocol):
    def verify(self, token: str) -> Caller:
        """Who holds this token.  Reads no database.  Raise Unauthenticated (wrong, expired, revoked)."""
        ...


class RevocationSource(Protocol):
    async def revocations(self, since_s: float) -> Revocations:
        """Revocations stamped since then (0: all that still matter)."""
        ...


class SigningKeys(Protocol):
    async def signing_key(self, access: str, date: str, region: str, service: str) -> tuple[bytes, Caller] | None:
        """What the holder of an EC2 credential signs with on that day (`20260131`, in UTC) by AWS's Signature
        Version 4, and the caller that he is; None when there is no such access key, or its owner may do nothing.

        The secret itself does not leave identity.  What may end it: see REVOKED_HINT.
        """
        ...


class Principals(Protocol):
    async def project_domain(self, project_id: str) -> str | None:
        """The id of its domain, in which it stays; None when there is no such project."""
        ...

    async def principals_among(self, ids: Sequence[str]) -> Sequence[str]:
        """Those that are ids of projects or of users."""
        ...


class IdentityService(SigningKeys, Principals, Protocol):
    async def project_exists(self, project_id: str) -> bool: ...

    async def project_names(self, project_ids: Sequence[str]) -> dict[str, str]:
        """Names of those that exist."""
        ...

    async def service_token(self) -> str:
        """A token of the cloud itself, with the roles admin and service, for calls between our own parts."""
        ...

    async def log_in(self, project: str, user: str, password: str) -> Login:
        """A token of a project, both named in the default domain.  Raise Unauthenticated."""
        ...

    async def image_token(self) -> str:
        """A token that reads the bytes of any image and does nothing else, for hosts."""
        ...
