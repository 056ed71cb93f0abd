"""The Swift API as one table.  Every handler asks for rights itself: they depend on the container's ACLs."""

from __future__ import annotations

from typing import Final

import msgspec

from apus.kernel.policy import Rule
from apus.services.object.api import accounts, bulk, containers, copying, cors, large, objects, reading, recon
from apus.services.object.api.bodies import (
    ACCOUNT_NAME_MAX,
    CONTAINER_NAME_MAX,
    HEADER_BYTES_MAX,
    LISTING_MAX,
    META_COUNT_MAX,
    META_NAME_MAX,
    META_TOTAL_MAX,
    META_VALUE_MAX,
    OBJECT_NAME_MAX,
)
from apus.services.object.api.door import Handler, door, trans_ids
from apus.services.object.api.faults import FAULTS, HTML, page
from apus.services.object.engine import OBJECT_BYTES_MAX
from apus.services.object.logic.signed import DIGESTS
from apus.services.object.logic.symlink import LINKS_MAX
from apus.services.object.logic.tempurl import METHODS, SHOWN_METADATA
from apus.services.object.opening import DYNAMIC_MAX
from apus.services.object.rates import PATIENCE_S
from apus.services.object.service import Objects
from apus.wire.app import Api
from apus.wire.route import ApiRequest, Reply, Route

POLICY: Final = {"object:any": Rule.PUBLIC, "object:recon": Rule.ADMIN}

CROSS_DOMAIN: Final = b"""<?xml version="1.0"?>
<!DOCTYPE cross-domain-policy SYSTEM "http://www.adobe.com/xml/dtds/cross-domain-policy.dtd" >
<cross-domain-policy>
<allow-access-from domain="*" secure="false" />
</cross-domain-policy>"""

SWIFT: Final = {
    "version": recon.VERSION,
    "account_autocreate": True,
    "account_listing_limit": LISTING_MAX,
    "container_listing_limit": LISTING_MAX,
    "max_account_name_length": ACCOUNT_NAME_MAX,
    "max_container_name_length": CONTAINER_NAME_MAX,
    "max_object_name_length": OBJECT_NAME_MAX,
    "max_file_size": OBJECT_BYTES_MAX,
    "max_header_size": HEADER_BYTES_MAX,
    "max_meta_count": META_COUNT_MAX,
    "max_meta_name_length": META_NAME_MAX,
    "max_meta_overall_size": META_TOTAL_MAX,
    "max_meta_value_length": META_VALUE_MAX,
    "allow_account_management": True,
    "strict_cors_mode": True,
}

INFO: Final = {
    "swift": SWIFT,
    "formpost": {"allowed_digests": list(DIGESTS), "deprecated_digests": ["sha1"]},
    "tempurl": {
        "methods": list(METHODS),
        "incoming_remove_headers": [],
        "incoming_allow_headers": [],
        "outgoing_remove_headers": ["x-object-meta-*"],
        "outgoing_allow_headers": [f"{SHOWN_METADATA}*"],
        "allowed_digests": list(DIGESTS),
        "deprecated_digests": ["sha1"],
    },
    "account_quotas": {},
    "bulk_delete": {"max_deletes_per_request": bulk.DELETES_MAX, "max_failed_deletes": bulk.DELETES_MAX},
    "bulk_upload": {
        "max_containers_per_extraction": bulk.CONTAINERS_MAX,
        "max_failed_extractions": bulk.FAILURES_MAX,
    },
    "container_quotas": {},
    "crossdomain": {},
    "dlo": {"max_segments": DYNAMIC_MAX},
    "object_versioning": {},
    "slo": {
        "max_manifest_segments": large.SEGMENTS_MAX,
        "max_manifest_size": large.MANIFEST_BYTES_MAX,
        "min_segment_size": 1,
        "yield_frequency": int(large.BEAT_S),
    },
    "staticweb": {},
    "tempauth": {"account_acls": True},
    "symlink": {"symloop_max": LINKS_MAX, "static_links": True},
    "versioned_writes": {"allowed_flags": ["x-versions-location", "x-history-location"]},
}


async def show_info(request: ApiRequest) -> Reply:
    objects: Objects = request.service
    realms: dict[str, dict[str, dict[str, dict[str, str]]]] = {
        name: {"clusters": {cluster: {} for cluster in realm.clusters}}
        for name, realm in objects.options.realms.items()
    }
    told = {**INFO, "container_sync": {"realms": realms}} if realms else dict(INFO)
    names = objects.policies
    policies = [{"name": one, "aliases": one, **({"default": True} if one == names[0] else {})} for one in names]
    told["swift"] = {**SWIFT, "policies": policies}
    if objects.options.account_writes_per_s or objects.options.container_writes_per_s:
        told["ratelimit"] = {
            "account_ratelimit": objects.options.account_writes_per_s,
            "max_sleep_time_seconds": PATIENCE_S,
            "container_ratelimits": [[0, objects.options.container_writes_per_s]],
        }
    return Reply(msgspec.json.encode(told), 200, content_type="application/json; charset=UTF-8")


async def info_options(request: ApiRequest) -> Reply:
    return page(200, {"allow": "HEAD, GET, OPTIONS"})


async def show_cross_domain(request: ApiRequest) -> Reply:
    return Reply(CROSS_DOMAIN, 200, content_type="application/xml")


async def show_health(request: ApiRequest) -> Reply:
    return Reply(b"OK", 200, content_type="text/plain")


async def no_account(request: ApiRequest) -> Reply:
    """Of a path that ends with the version."""
    return Reply(b"Bad URL", 412, content_type=HTML)


def _routes() -> tuple[Route, ...]:
    account, container = ("/{account}", "/{account}/"), ("/{account}/{container}", "/{account}/{container}/")
    table: tuple[tuple[tuple[str, ...], tuple[tuple[str, Handler], ...]], ...] = (
        (account, (
            ("GET", accounts.show_account), ("HEAD", accounts.show_account), ("PUT", accounts.put_account),
            ("POST", accounts.post_account), ("DELETE", accounts.delete_account), ("OPTIONS", cors.preflight),
        )),
        (container, (
            ("GET", containers.show_container), ("HEAD", containers.show_container), ("PUT", containers.put_container),
            ("POST", containers.post_container), ("DELETE", containers.delete_container), ("OPTIONS", cors.preflight),
        )),
        (("/{account}/{container}/{object:path}",), (
            ("GET", reading.show_object), ("HEAD", reading.show_object), ("PUT", objects.put_object),
            ("POST", objects.post_object), ("DELETE", objects.delete_object), ("COPY", copying.copy_object),
            ("OPTIONS", cors.preflight),
        )),
    )  # fmt: skip
    named = tuple(
        Route(method, path, door(handler), may="object:any")
        for paths, handlers in table
        for path in paths
        for method, handler in handlers
    )
    methods = sorted({route.method for route in named})
    return named + tuple(Route(method, path, no_account, may="object:any") for path in ("", "/") for method in methods)


ROUTES: Final = _routes()


def swift_apis(service: Objects) -> tuple[Api, ...]:
    """The doors to mount: the storage API, three paths that ask for no token, and one for operators."""
    doors: tuple[tuple[str, str, tuple[Route, ...]], ...] = (
        ("swift", "/v1", ROUTES),
        (
            "swift-info",
            "/info",
            (
                Route("GET", "", show_info, may="object:any"),
                Route("OPTIONS", "", info_options, may="object:any"),
            ),
        ),
        ("swift-health", "/healthcheck", (Route("GET", "", show_health, may="object:any"),)),
        ("swift-domains", "/crossdomain.xml", (Route("GET", "", show_cross_domain, may="object:any"),)),
        ("swift-recon", "/recon", (Route("GET", "/{what:path}", recon.show, may="object:recon"),)),
    )
    marks = trans_ids(service.cluster.world.clock)
    return tuple(
        Api(
            name=name,
            prefix=prefix,
            routes=routes,
            service=service,
            policy=POLICY,
            faults=FAULTS,
            service_type="object-store",
            admits_nul=True,
            marks=marks,
        )
        for name, prefix, routes in doors
    )
