"""Handlers of /os-hosts (to 2.42) and of migrations: what operators' older tools ask of the machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apus.kernel.errors import Conflict, Invalid, NotFound
from apus.services.compute.api.servers import compute_of
from apus.services.compute.hosts import HostView
from apus.services.compute.model import Server
from apus.wire.route import ApiRequest, Reply

_CLASSES = {"cpu": "VCPU", "memory_mb": "MEMORY_MB", "disk_gb": "DISK_GB"}


async def list_hosts(request: ApiRequest) -> Reply:
    zone, service = request.query("zone"), request.query("service")
    found = [view.host for view in await compute_of(request).hosts.all()]
    return Reply(
        {
            "hosts": [
                {"host_name": host.name, "service": "compute", "zone": host.availability_zone}
                for host in found
                if zone in (None, "", host.availability_zone) and service in (None, "", "compute")
            ]
        }
    )


async def show_host(request: ApiRequest) -> Reply:
    """All that it has, what is used now, what its servers may use at most, and that for each project."""
    host = (await _one(request)).host
    servers = await compute_of(request).hosts.servers_on(host.name)
    total = {name: host.inventories[kind].total if kind in host.inventories else 0 for name, kind in _CLASSES.items()}
    rows = [
        _row(host.name, "(total)", total),
        _row(host.name, "(used_now)", {name: host.used.get(kind, 0) for name, kind in _CLASSES.items()}),
        _row(host.name, "(used_max)", _asked(servers)),
    ]
    for project in sorted({server.project_id for server in servers}):
        rows.append(_row(host.name, project, _asked([s for s in servers if s.project_id == project])))
    return Reply({"host": rows})


def _row(host: str, project: str, amounts: Mapping[str, int]) -> dict[str, Any]:
    return {"resource": {"host": host, "project": project, **amounts}}


def _asked(servers: Sequence[Server]) -> dict[str, int]:
    return {
        "cpu": sum(server.vcpus for server in servers),
        "memory_mb": sum(server.memory_mib for server in servers),
        "disk_gb": sum(server.flavor.disk_gib + server.flavor.ephemeral_gib for server in servers),
    }


async def update_host(request: ApiRequest) -> Reply:
    body, name = request.body, (await _one(request)).host.name
    if body.maintenance_mode is not None:
        raise Conflict("compute.not_supported", "maintenance_mode: hosts here have none; disable the host instead.")
    if body.status is None or body.status.lower() not in ("enable", "disable"):
        raise Invalid("compute.invalid", "status: it is either enable or disable.", field="status")
    enabled = body.status.lower() == "enable"
    await compute_of(request).hosts.enable(name, enabled, None)
    return Reply({"host": name, "status": "enabled" if enabled else "disabled"})


async def _one(request: ApiRequest) -> HostView:
    name = request.params["name"]
    for view in await compute_of(request).hosts.all():
        if view.host.name == name:
            return view
    raise NotFound("compute.no_host", f"Compute host {name} could not be found.")


async def list_migrations(request: ApiRequest) -> Reply:
    """No server of this cloud moves yet, so there are none."""
    return Reply({"migrations": []})


async def list_server_migrations(request: ApiRequest) -> Reply:
    await compute_of(request).server(request.who, request.params["id"])
    return Reply({"migrations": []})
