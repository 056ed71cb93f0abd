"""Objects that another cluster sends: signed with the realm's key and the container's, and with their own time."""

from __future__ import annotations

import re
from typing import Final

from apus.kernel.errors import Invalid, Unauthenticated
from apus.services.object.api.ask import Ask
from apus.services.object.logic.merge import TICKS_PER_S, make_stamp, ticks_of
from apus.services.object.logic.signed import Grant
from apus.services.object.logic.sync import SYNC_KEY, is_signed

_TIMESTAMP: Final = re.compile(r"([0-9]{1,10})\.([0-9]{5})")


async def stamp_of(ask: Ask) -> str:
    """The time that the other side gives, with rights in the container given to `ask`; empty for any other request.
    Raise Unauthenticated."""
    header = ask.headers.get("x-container-sync-auth")
    if header is None or not ask.name or ask.method not in ("PUT", "DELETE"):
        return ""
    known = await ask.service.directory.known(ask.account, ask.container)
    user_key = known.metadata.get(SYNC_KEY, "") if known is not None else ""
    timestamp = ask.headers.get("x-timestamp", "")
    if not is_signed(header, ask.method, ask.request.raw_path, timestamp, ask.service.options.realms, user_key):
        shown = "X-Container-Sync-Auth header not valid; contact cluster operator for support."
        raise Unauthenticated("object.sync_auth", shown)
    found = _TIMESTAMP.fullmatch(timestamp)
    if found is None:
        raise Invalid("object.sync_timestamp", "X-Timestamp is not a time", field="X-Timestamp")
    ask.grant = Grant(ask.account, ask.container)
    return make_stamp(int(found[1]) * TICKS_PER_S + int(found[2]), ask.service.cluster.node)


async def is_old(ask: Ask, stamp: str) -> bool:
    """What is here is as new, or newer."""
    here = await ask.service.engine.locate(await ask.service.engine.place(*ask.place), newest=True)
    return here is not None and ticks_of(here.head.changed) >= ticks_of(stamp)
