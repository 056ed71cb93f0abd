"""`Idempotency-Key`: a POST that was sent twice is done once, and answered twice.

The key belongs to the user and the project that sent it.  Its row is written in the transaction of the request's first
write (kernel.once); the answer is added when there is one.  Sent again:
answered before → the same answer, marked `Idempotent-Replayed: true`; still under way → it waits for that answer;
died on the way → run to its end, without doing again what was done; another request → 422.
"""

from __future__ import annotations

import asyncio
import hashlib
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec

from apus.kernel.errors import Invalid
from apus.kernel.limits import BODY_MAX_BYTES
from apus.kernel.once import KEPT_FOR_S, Kept, keyed, load_kept, purge_kept, save_reply
from apus.kernel.record import encode
from apus.kernel.world import Store, World
from apus.wire.faults import KeyReused
from apus.wire.route import ApiRequest, Reply
from apus.wire.versions import text_of

KEY_MAX: Final = 255
HEADER: Final = "Idempotent-Replayed"


class KeptReply(msgspec.Struct, frozen=True, kw_only=True):
    status: int | None
    headers: dict[str, str]
    content_type: str | None
    json: Any = None
    raw: bytes | None = None


class StoreReplays:
    """The Replays of wire.app.  The services' World must hold an `OnceStore` over the same store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: weakref.WeakValueDictionary[tuple[str, str], asyncio.Lock] = weakref.WeakValueDictionary()

    async def around(self, request: ApiRequest, handle: Callable[[], Awaitable[Reply]]) -> Reply:
        if request.caller is None:
            return await handle()  # nobody whose key it could be
        key = request.headers["idempotency-key"].strip()
        if not (0 < len(key) <= KEY_MAX and key.isascii() and key.isprintable()):
            raise Invalid(
                "wire.idempotency_key",
                f"Idempotency-Key: 1 to {KEY_MAX} printable ASCII characters are possible.",
                field="Idempotency-Key",
            )
        scope = f"{request.caller.user_id}/{request.caller.project_id or request.caller.domain_id or ''}"
        digest = await _digest_of(request)
        lock = self._under_way.setdefault((scope, key), asyncio.Lock())
        async with lock:
            return await self._alone(request, handle, scope, key, digest)

    async def _alone(
        self, request: ApiRequest, handle: Callable[[], Awaitable[Reply]], scope: str, key: str, digest: bytes
    ) -> Reply:
        kept = await self._store.read(lambda tx: load_kept(tx, scope, key))
        if kept is not None:
            if kept.digest != digest:
                raise KeyReused(
                    "wire.key_reused",
                    "Idempotency-Key: this key was used for another request within the last day; take a new one.",
                    field="Idempotency-Key",
                )
            if kept.reply is not None:
                return _again(kept)
        with keyed(scope, key, digest) as own:
            reply = await handle()
        packed = _packed(reply)
        if packed is not None:
            await self._store.write(lambda tx: save_reply(tx, own, packed))
        if kept is not None:
            return Reply(reply.body, reply.status, {**reply.headers, HEADER: "true"}, reply.stream, reply.content_type)
        return reply


class PurgeReplays:
    """Forgets keys after a day."""

    name = "wire.purge_replays"
    period_s = 3600.0

    def __init__(self, world: World) -> None:
        self._world = world

    async def keys(self) -> Iterable[str]:
        return ("all",)

    async def settle(self, key: str) -> None:
        await self._world.store.write(lambda tx: purge_kept(tx, tx.now_s - KEPT_FOR_S))


async def _digest_of(request: ApiRequest) -> bytes:
    """Of all that makes it this request.  A body that the route does not decode is read here, and put back."""
    if request.route.takes is None:
        body = await request.read(BODY_MAX_BYTES)
        request.put_back(body)
    else:
        body = encode(request.body)
    version = "" if request.version is None else text_of(request.version)
    digest = hashlib.sha256()
    for part in (request.method.encode(), request.raw_path.encode(), request.raw_query.encode(), version.encode()):
        digest.update(len(part).to_bytes(4, "big") + part)
    digest.update(body)
    return digest.digest()


def _packed(reply: Reply) -> bytes | None:
    if reply.stream is not None:
        return None
    body = reply.body
    raw = bytes(body) if isinstance(body, (bytes, bytearray)) else None
    json = None if raw is not None else body
    kept = KeptReply(
        status=reply.status, headers=dict(reply.headers), content_type=reply.content_type, json=json, raw=raw
    )
    packed = encode(kept)
    return packed if len(packed) <= BODY_MAX_BYTES else None


def _again(kept: Kept) -> Reply:
    assert kept.reply is not None
    reply = msgspec.json.decode(kept.reply, type=KeptReply)
    body = reply.json if reply.raw is None else reply.raw
    return Reply(body, reply.status, {**reply.headers, HEADER: "true"}, content_type=reply.content_type)
