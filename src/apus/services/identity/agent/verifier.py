"""Tells who holds a token, in any process of the cloud: keys, a short list of revocations, and no database.

Tokens that were opened once are remembered (they never change, and what ends them is asked each time), so that the
same token costs some dictionary look-ups and a new one the opening of its seal.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from apus.kernel.caller import Caller
from apus.kernel.errors import Unauthenticated
from apus.kernel.world import Clock
from apus.services.identity.drivers.keys import TokenKeys
from apus.services.identity.logic.claims import Claims, caller_of, pack, revoked, unpack

REMEMBERED_MAX: Final = 2048
"""Opened tokens, about 6 KiB each with the reply that shows them."""
TOKEN_MAX_CHARS: Final = 8192
"""Longer ones are refused unread: a header is no longer than that."""


class RevocationView:
    """Which subjects' tokens ended lately.  Only grows newer: late and repeated news are harmless."""

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}
        self.version = 0
        """Raised by every news, so that a token found good is asked again only after some."""

    def apply(self, epochs: Mapping[str, int]) -> None:
        mine = self.epochs
        for subject, epoch in epochs.items():
            if epoch > mine.get(subject, 0):
                mine[subject] = epoch
                self.version += 1

    def forget(self, before_us: int) -> None:
        """Drop what is older than any living token."""
        self.epochs = {subject: epoch for subject, epoch in self.epochs.items() if epoch >= before_us}


class Opened:
    """A token that was opened, and what was made of it."""

    __slots__ = ("caller", "claims", "good_at", "shown")

    def __init__(self, claims: Claims) -> None:
        self.claims, self.caller = claims, caller_of(claims)
        self.good_at = -1
        """The version of the view at which it was found not to be revoked."""
        self.shown: dict[str, Any] = {}
        """Encoded replies, kept by the door that made them."""


class Verifier:
    """The TokenVerifier of this process."""

    def __init__(self, keys: TokenKeys, view: RevocationView, clock: Clock) -> None:
        self._keys, self._view, self._clock = keys, view, clock
        self._known: OrderedDict[str, Opened] = OrderedDict()

    def verify(self, token: str) -> Caller:
        return self.opened(token).caller

    def opened(self, token: str) -> Opened:
        """Raise Unauthenticated (wrong, expired, revoked): all the same to the outside."""
        opened = self._known.get(token)
        if opened is None:
            opened = self._open(token)
        else:
            self._known.move_to_end(token)
        if opened.claims.expires_at_s <= self._clock.now_s():
            raise _refused("it has expired")
        if opened.good_at != self._view.version:
            if revoked(opened.claims, self._view.epochs):
                raise _refused("it was revoked")
            opened.good_at = self._view.version
        return opened

    def seal(self, claims: Claims) -> tuple[str, Opened]:
        """The token that says so; remembered, as who asked for it will soon use it."""
        token = self._keys.seal(pack(claims), claims.issued_at_s)
        return token, self._remember(token, Opened(claims))

    def _open(self, token: str) -> Opened:
        data = self._keys.open(token) if len(token) <= TOKEN_MAX_CHARS else None
        claims = unpack(data) if data is not None else None
        if claims is None:
            raise _refused("it is none of ours")
        return self._remember(token, Opened(claims))

    def _remember(self, token: str, opened: Opened) -> Opened:
        self._known[token] = opened
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return opened


def _refused(why: str) -> Unauthenticated:
    return Unauthenticated(
        "identity.token", "The request you have made requires authentication.", hidden=f"the token was refused: {why}"
    )
