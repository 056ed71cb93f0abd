"""The Swift API as one table.  Every handler asks for rights itself: they depend on the container's ACLs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from apus.kernel.policy import Rule
from apus.services.object.api import containers, objects
from apus.services.object.api.bodies import (
    ACCOUNT_NAME_MAX,
    CONTAINER_NAME_MAX,
    LISTING_MAX,
    META_COUNT_MAX,
    META_NAME_MAX,
    META_TOTAL_MAX,
    META_VALUE_MAX,
    OBJECT_NAME_MAX,
)
from apus.services.object.api.faults import FAULTS
from apus.services.object.api.views import POLICY as STORAGE_POLICY
from apus.services.object.engine import OBJECT_BYTES_MAX
from apus.services.object.service import Objects
from apus.wire.app import Api
from apus.wire.route import ApiRequest, Reply, Route

POLICY: Final = {"object:any": Rule.PUBLIC}

INFO: Final = {
    "swift": {
        "version": "2.36.0",
        "account_autocreate": True,
        "account_listing_limit": LISTING_MAX,
        "container_listing_limit": LISTING_MAX,
        "max_account_name_length": ACCOUNT_NAME_MAX,
        "max_container_name_length": CONTAINER_NAME_MAX,
        "max_object_name_length": OBJECT_NAME_MAX,
        "max_file_size": OBJECT_BYTES_MAX,
        "max_header_size": 8192,
        "max_meta_count": META_COUNT_MAX,
        "max_meta_name_length": META_NAME_MAX,
        "max_meta_overall_size": META_TOTAL_MAX,
        "max_meta_value_length": META_VALUE_MAX,
        "allow_account_management": True,
        "strict_cors_mode": True,
        "policies": [{"name": STORAGE_POLICY, "aliases": STORAGE_POLICY, "default": True}],
    }
}


async def show_info(request: ApiRequest) -> Reply:
    return Reply(msgspec.json.encode(INFO), 200, content_type="application/json; charset=UTF-8")


async def show_health(request: ApiRequest) -> Reply:
    return Reply(b"OK", 200, content_type="text/plain")


def _traced(handler: Callable[[ApiRequest], Awaitable[Reply]]) -> Callable[[ApiRequest], Awaitable[Reply]]:
    """Swift's own name for the id of a request, beside OpenStack's, in its own form: 21 and 10 hex digits, the latter
    the time (tools that read logs, and Tempest, match on it)."""

    async def handle(request: ApiRequest) -> Reply:
        reply = await handler(request)
        objects: Objects = request.service
        digits = request.request_id.removeprefix("req-").replace("-", "")
        trans_id = f"tx{digits[:21]:0<21}-{int(objects.cluster.world.clock.now_s()):010x}"
        return Reply(
            reply.body,
            reply.status,
            {**reply.headers, "x-trans-id": trans_id},
            reply.stream,
            reply.content_type,
        )

    handle.__name__ = getattr(handler, "__name__", "")
    return handle


def _routes() -> tuple[Route, ...]:
    table: list[tuple[str, tuple[str, ...], Callable[[ApiRequest], Awaitable[Reply]]]] = []
    account, container = ("/{account}", "/{account}/"), ("/{account}/{container}", "/{account}/{container}/")
    for method, handler in (
        ("GET", containers.show_account),
        ("HEAD", containers.show_account),
        ("PUT", containers.put_account),
        ("POST", containers.post_account),
        ("DELETE", containers.delete_account),
    ):
        table.append((method, account, handler))
    for method, handler in (
        ("GET", containers.show_container),
        ("HEAD", containers.show_container),
        ("PUT", containers.put_container),
        ("POST", containers.post_container),
        ("DELETE", containers.delete_container),
    ):
        table.append((method, container, handler))
    for method, handler in (
        ("GET", objects.show_object),
        ("HEAD", objects.show_object),
        ("PUT", objects.put_object),
        ("POST", objects.post_object),
        ("DELETE", objects.delete_object),
        ("COPY", objects.copy_object),
    ):
        table.append((method, ("/{account}/{container}/{object:path}",), handler))
    return tuple(
        Route(method, path, _traced(handler), may="object:any") for method, paths, handler in table for path in paths
    )


ROUTES: Final = _routes()


def swift_apis(service: Objects) -> tuple[Api, ...]:
    """The doors to mount: the storage API, and two paths that ask for no token."""
    doors: tuple[tuple[str, str, tuple[Route, ...]], ...] = (
        ("swift", "/v1", ROUTES),
        ("swift-info", "/info", (Route("GET", "", _traced(show_info), may="object:any"),)),
        ("swift-health", "/healthcheck", (Route("GET", "", _traced(show_health), may="object:any"),)),
    )
    return tuple(
        Api(
            name=name,
            prefix=prefix,
            routes=routes,
            service=service,
            policy=POLICY,
            faults=FAULTS,
            service_type="object-store",
        )
        for name, prefix, routes in doors
    )
