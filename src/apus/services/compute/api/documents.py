"""The documents that say which versions there are."""

from __future__ import annotations

from typing import Any

from apus.services.compute.api.changes import MAXIMUM, MINIMUM
from apus.services.compute.api.servers import base_of
from apus.wire.route import ApiRequest, Reply
from apus.wire.versions import text_of


def _newest(request: ApiRequest) -> dict[str, Any]:
    return _entry(request, "v2.1", "CURRENT", "2013-07-23T11:33:21Z") | {
        "version": text_of(MAXIMUM),
        "min_version": text_of(MINIMUM),
    }


def _oldest(request: ApiRequest) -> dict[str, Any]:
    """The same API for clients from before microversions."""
    return _entry(request, "v2.0", "SUPPORTED", "2011-01-21T11:33:21Z") | {"version": "", "min_version": ""}


def _entry(request: ApiRequest, id: str, status: str, updated: str) -> dict[str, Any]:
    path = "v2" if id == "v2.0" else id
    here = {"rel": "self", "href": f"{base_of(request)}/{path}/"}
    return {"id": id, "status": status, "updated": updated, "links": [here]}


def _in_full(entry: dict[str, Any]) -> Reply:
    read = {"rel": "describedby", "type": "text/html", "href": "https://docs.openstack.org/"}
    number = entry["id"].removeprefix("v")
    kind = f"application/vnd.openstack.compute+json;version={'2' if number == '2.0' else number}"
    media = [{"base": "application/json", "type": kind}]
    return Reply({"version": {**entry, "links": [*entry["links"], read], "media-types": media}})


async def list_versions(request: ApiRequest) -> Reply:
    return Reply({"versions": [_oldest(request), _newest(request)]})


async def show_version(request: ApiRequest) -> Reply:
    return _in_full(_newest(request))


async def show_oldest_version(request: ApiRequest) -> Reply:
    return _in_full(_oldest(request))
