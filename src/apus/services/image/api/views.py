"""Images as Glance shows them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from apus.kernel.flow import Flow, FlowState
from apus.services.image.model import Image, Member, Status

STORE: Final = "object"
"""The one store: this cloud's own object storage."""

_VERSIONS: Final = ("v2.16", "v2.15", "v2.9", "v2.7", "v2.6", "v2.5", "v2.4", "v2.3", "v2.2", "v2.1", "v2.0")


def time_of(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_s))


def image_view(image: Image) -> dict[str, Any]:
    data = image.data
    view: dict[str, Any] = {
        **image.properties,
        "id": image.id,
        "name": image.name,
        "status": image.status.value,
        "visibility": image.visibility.value,
        "protected": image.protected,
        "os_hidden": image.hidden,
        "owner": image.project_id,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "min_disk": image.min_disk_gib,
        "min_ram": image.min_memory_mib,
        "size": image.size_bytes,
        "virtual_size": data.finding.virtual_size_bytes if data else None,
        "checksum": data.checksum_md5 if data else None,
        "os_hash_algo": "sha512" if data else None,
        "os_hash_value": data.checksum_sha512 if data else None,
        "tags": sorted(image.tags),
        "created_at": time_of(image.created_at_s),
        "updated_at": time_of(image.updated_at_s),
        "self": f"/v2/images/{image.id}",
        "file": f"/v2/images/{image.id}/file",
        "schema": "/v2/schemas/image",
    }
    if data is not None:
        view["stores"] = STORE
    if image.status is Status.IMPORTING:
        view["os_glance_importing_to_stores"] = STORE
    if image.failure is not None:
        view["os_glance_failed_import"] = STORE
        view["os_glance_failure"] = image.failure
    return view


def member_view(member: Member) -> dict[str, Any]:
    return {
        "image_id": member.image_id,
        "member_id": member.project_id,
        "status": member.status.value,
        "created_at": time_of(member.created_at_s),
        "updated_at": time_of(member.updated_at_s),
        "schema": "/v2/schemas/member",
    }


_TASK_STATUS: Final[Mapping[FlowState, str]] = {
    FlowState.RUNNING: "processing",
    FlowState.WAITING: "processing",
    FlowState.STUCK: "processing",
    FlowState.SUCCEEDED: "success",
    FlowState.UNWOUND: "failure",
}
_TASK_KEPT_S: Final = 48 * 3600.0


def task_view(flow: Flow, *, whole: bool = True) -> dict[str, Any]:
    """An import flow as a Glance task of type api_image_import."""
    ended_s = flow.finished_at_s
    view: dict[str, Any] = {
        "id": flow.id,
        "type": "api_image_import",
        "status": _TASK_STATUS[flow.state],
        "owner": flow.project_id,
        "created_at": time_of(flow.created_at_s),
        "updated_at": time_of(ended_s or flow.created_at_s),
        "expires_at": None if ended_s is None else time_of(ended_s + _TASK_KEPT_S),
        "self": f"/v2/tasks/{flow.id}",
        "schema": "/v2/schemas/task",
    }
    if whole:
        view |= {
            "input": {"image_id": flow.resource_id},
            "result": {"image_id": flow.resource_id} if flow.state is FlowState.SUCCEEDED else None,
            "message": flow.reason or "",
            "image_id": flow.resource_id,
            "request_id": flow.request_id,
            "user_id": flow.user_id,
        }
    return view


def versions_view(base: str) -> dict[str, Any]:
    links = [{"rel": "self", "href": f"{base}/v2/"}]
    current, *older = _VERSIONS
    versions = [{"id": current, "status": "CURRENT", "links": links}]
    return {"versions": versions + [{"id": one, "status": "SUPPORTED", "links": links} for one in older]}


def import_info(methods: Sequence[str]) -> dict[str, Any]:
    return {
        "import-methods": {"description": "Import methods available.", "type": "array", "value": list(methods)},
    }
