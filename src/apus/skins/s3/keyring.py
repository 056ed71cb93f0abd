"""Who an access key belongs to, and what it signs with today: asked of identity, and remembered for a while.

What is remembered ends with the next news of any revocation, as tokens do; a new right of the owner is seen when the
memory ends by itself.  While identity is away, keys that are known stay good: so do tokens.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Final

from apus.kernel.caller import Caller
from apus.kernel.errors import Unavailable
from apus.kernel.world import Clock
from apus.services.identity.agent.verifier import RevocationView
from apus.services.identity.contract import SigningKeys
from apus.skins.s3.errors import S3Error

FRESH_S: Final = 30.0
STALE_S: Final = 3600.0
REMEMBERED_MAX: Final = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class KnownKey:
    key: bytes
    caller: Caller
    version: int
    """Of the news when it was asked for."""
    at_s: float


class Keyring:
    def __init__(self, source: SigningKeys, view: RevocationView, clock: Clock) -> None:
        self._source, self._view, self._clock = source, view, clock
        self._known: OrderedDict[tuple[str, str, str], KnownKey] = OrderedDict()

    async def find(self, access: str, date: str, region: str) -> KnownKey:
        """Raise S3Error when there is no such key, Unavailable when nobody can say."""
        asked, now_s, version = (access, date, region), self._clock.monotonic_s(), self._view.version
        known = self._known.get(asked)
        if known is not None and known.version != version:
            known = None
        if known is not None and now_s - known.at_s < FRESH_S:
            return known
        try:
            found = await self._source.signing_key(access, date, region, "s3")
        except Unavailable:
            if known is None or now_s - known.at_s > STALE_S:
                raise
            return known
        if found is None:
            self._known.pop(asked, None)
            raise S3Error("InvalidAccessKeyId", fields={"AWSAccessKeyId": access})
        self._known[asked] = known = KnownKey(found[0], found[1], version, now_s)
        self._known.move_to_end(asked)
        if len(self._known) > REMEMBERED_MAX:
            self._known.popitem(last=False)
        return known
