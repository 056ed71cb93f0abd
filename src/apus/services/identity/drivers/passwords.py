"""Password hashes: argon2id, off the loop, a few at a time, and a bounded queue before them.

One check costs about 25 ms of a core and 19 MiB (OWASP's first choice of parameters): two at once bound the memory,
and the queue's bound keeps a storm of logins from making everybody wait longer than a client does.  A user who is
not there costs the same time as a wrong password.

Secrets that we made ourselves have 256 bits of chance in them: nobody guesses them however quick the hash is, so
they are kept as SHA-256 and cost nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from apus.kernel.errors import Unavailable
from apus.kernel.world import Runner

T = TypeVar("T")

MEMORY_KIB: Final = 19_456
PASSES: Final = 2
AT_ONCE: Final = 2
WAITING_MAX: Final = 200
"""About three seconds of work on two cores."""

_NOBODY: Final = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA$wnrSC2XCpoHQe1ZEUEwSDsX5lhjvZk1XyF1oIkHcKmo"
"""No password has this hash; checking against it takes as long as against any other."""

_PLAIN: Final = "sha256$"


class Passwords:
    def __init__(self, run: Runner, *, memory_kib: int = MEMORY_KIB, passes: int = PASSES) -> None:
        self._run = run
        self._hasher = PasswordHasher(time_cost=passes, memory_cost=memory_kib, parallelism=1)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Raise Unavailable when too many wait."""
        return await self._in_turn(lambda: self._hasher.hash(_bytes(password)))

    async def check(self, known: str | None, password: str) -> bool:
        """Whether the password has this hash; as slow for None (no such user, no password)."""
        if known is not None and known.startswith(_PLAIN):
            return hmac.compare_digest(known, hash_of_secret(password))

        def check() -> bool:
            try:
                return self._hasher.verify(known or _NOBODY, _bytes(password))
            except (VerificationError, InvalidHashError):
                return False

        return await self._in_turn(check) and known is not None

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise Unavailable("identity.busy", "Too many passwords are being checked; try again in a moment.")
        self._waiting += 1
        try:
            async with self._places:
                return await self._run.in_thread(work)
        finally:
            self._waiting -= 1


def hash_of_secret(secret: str) -> str:
    """Of a secret with as much chance in it as a key."""
    return _PLAIN + hashlib.sha256(_bytes(secret)).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
