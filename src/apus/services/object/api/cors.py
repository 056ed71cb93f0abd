"""Requests that a browser makes for a page of another origin: which origins a container lets read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from apus.services.object.api.ask import Ask
from apus.services.object.api.faults import page
from apus.wire.route import Reply

METHODS: Final = {
    "account": ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"),
    "object": ("GET", "HEAD", "PUT", "POST", "DELETE", "COPY", "OPTIONS"),
}
_META: Final = "x-container-meta-access-control-"
_SIMPLE: Final = (
    "cache-control", "content-language", "content-type", "expires", "last-modified", "pragma", "etag", "x-timestamp",
    "x-trans-id", "x-openstack-request-id",
)  # fmt: skip


async def preflight(ask: Ask) -> Reply:
    """What may be asked for; for a page of another origin whether it may."""
    methods = ", ".join(METHODS["object" if ask.name else "account"])
    origin, wanted = ask.headers.get("origin"), ask.headers.get("access-control-request-method", "")
    if not origin or not ask.container:  # no account lets pages of others in, nor keeps them out
        return page(200, {"allow": methods})
    metadata = await _metadata(ask)
    allowed = _allowed(metadata, origin)
    if allowed is None or wanted not in methods.split(", "):
        return page(401, {"allow": methods})
    headers = {
        "allow": methods,
        "access-control-allow-origin": allowed,
        "access-control-allow-methods": methods,
        "vary": "Origin, Access-Control-Request-Headers",
    }
    if metadata.get(_META + "max-age"):
        headers["access-control-max-age"] = metadata[_META + "max-age"]
    asked = ask.headers.get("access-control-request-headers")
    if asked:
        headers["access-control-allow-headers"] = asked
    return page(200, headers)


async def with_origin(ask: Ask, reply: Reply) -> Reply:
    """The answer with what lets the page that asked for it see it."""
    origin = ask.headers.get("origin")
    if not origin or not ask.container or ask.method == "OPTIONS":
        return reply
    metadata = await _metadata(ask)
    allowed = _allowed(metadata, origin)
    if allowed is None:
        return reply
    extra = metadata.get(_META + "expose-headers", "").replace(",", " ").split()
    meta = [name for name in reply.headers if "-meta-" in name]
    headers = {
        "access-control-allow-origin": allowed,
        "access-control-expose-headers": ", ".join(_each_once([*_SIMPLE, *meta, *extra])),
    }
    if allowed != "*":
        headers["vary"] = "Origin"
    return reply.having(headers)


async def _metadata(ask: Ask) -> Mapping[str, str]:
    known = await ask.service.directory.known(ask.account, ask.container) if ask.container else None
    return known.metadata if known is not None else {}


def _allowed(metadata: Mapping[str, str], origin: str) -> str | None:
    origins = metadata.get(_META + "allow-origin", "").split()
    if "*" in origins:
        return "*"
    return origin if origin in origins else None


def _each_once(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.lower() for name in names))
