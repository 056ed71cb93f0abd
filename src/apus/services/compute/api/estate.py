"""Handlers of the whole: limits, quotas, hypervisors, services, zones, usage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from apus.kernel import policy
from apus.kernel.errors import Forbidden, Invalid, NotFound
from apus.kernel.table import Query
from apus.services.compute.api import views
from apus.services.compute.api.bodies import truth
from apus.services.compute.api.servers import compute_of
from apus.services.compute.hosts import HostView
from apus.services.compute.model import Server
from apus.services.compute.policy import POLICY
from apus.wire.listing import page_of
from apus.wire.route import ApiRequest, Reply

QUOTA_KEYS: Final = (
    "instances", "cores", "ram", "metadata_items", "key_pairs", "server_groups", "server_group_members",
)  # fmt: skip
_OLD_QUOTA_KEYS: Final = frozenset({
    "floating_ips", "fixed_ips", "security_groups", "security_group_rules", "networks", "injected_files",
    "injected_file_content_bytes", "injected_file_path_bytes",
})  # fmt: skip
"""Of versions before 2.36 and 2.57.  What is set is kept and shown, as Nova does; it limits nothing."""


async def list_extensions(request: ApiRequest) -> Reply:
    return Reply({"extensions": []})


# ---------------------------------------------------------------------- limits and quotas
async def limits(request: ApiRequest) -> Reply:
    caller = request.who
    project_id = request.query("tenant_id") or caller.project_id or ""
    if project_id != caller.project_id and not caller.is_admin:
        raise Forbidden("policy.forbidden", "Only an administrator may see the limits of another project.")
    quotas = compute_of(request).quotas
    most, used = await quotas.limits(project_id), await quotas.used(project_id)
    absolute = {
        "maxTotalInstances": most["instances"],
        "maxTotalCores": most["cores"],
        "maxTotalRAMSize": most["ram"],
        "maxTotalKeypairs": most["key_pairs"],
        "maxServerMeta": most["metadata_items"],
        "maxServerGroups": most["server_groups"],
        "maxServerGroupMembers": most["server_group_members"],
        "totalInstancesUsed": used["instances"],
        "totalCoresUsed": used["cores"],
        "totalRAMUsed": used["ram"],
        "totalServerGroupsUsed": used["server_groups"],
    }
    return Reply({"limits": {"rate": [], "absolute": absolute}})


def _project(request: ApiRequest) -> str:
    """Whose quota is meant: one's own, or anybody's for an administrator."""
    project_id = request.params["project_id"]
    if project_id != request.who.project_id and not request.who.is_admin:
        raise Forbidden("policy.forbidden", "Only an administrator may see the quota of another project.")
    return project_id


def _quota_view(limits: Mapping[str, int]) -> dict[str, Any]:
    return {key: limits[key] for key in QUOTA_KEYS} | {
        "_old": {key: limits[key] for key in _OLD_QUOTA_KEYS if key in limits}
    }


async def show_quota(request: ApiRequest) -> Reply:
    project_id = _project(request)
    found = await compute_of(request).quotas.limits(project_id)
    return Reply({"quota_set": {"id": project_id, **_quota_view(found)}})


async def default_quota(request: ApiRequest) -> Reply:
    project_id = _project(request)
    return Reply({"quota_set": {"id": project_id, **_quota_view(await compute_of(request).quotas.default_limits())}})


async def detail_quota(request: ApiRequest) -> Reply:
    project_id, quotas = _project(request), compute_of(request).quotas
    most, used = await quotas.limits(project_id), await quotas.used(project_id)
    detail = {key: {"limit": most[key], "in_use": used.get(key, 0), "reserved": 0} for key in QUOTA_KEYS}
    return Reply({"quota_set": {"id": project_id, **detail}})


async def update_quota(request: ApiRequest) -> Reply:
    given = dict(request.body.quota_set)
    force = truth("quota_set.force", given.pop("force", False))
    given.pop("tenant_id", None)
    new = _limits_given("quota_set", given)
    found = await compute_of(request).quotas.set(request.params["project_id"], new, force=force)
    return Reply({"quota_set": _quota_view(found)})


def _limits_given(where: str, given: Mapping[str, Any]) -> dict[str, int]:
    unknown = [key for key in given if key not in QUOTA_KEYS and key not in _OLD_QUOTA_KEYS]
    if unknown:
        raise Invalid(
            "compute.invalid",
            f"{where}: there is no {unknown[0][:60]!r}; {', '.join(QUOTA_KEYS)}.",
            field=unknown[0][:60],
        )
    return {key: _limit(f"{where}.{key}", value) for key, value in given.items()}


def _limit(field: str, value: Any) -> int:
    try:
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            raise ValueError
        found = int(value)
    except ValueError:
        found = -2
    if not -1 <= found <= 2147483647:
        raise Invalid("compute.invalid", f"{field}: a whole number from -1 (no limit).", field=field)
    return found


async def reset_quota(request: ApiRequest) -> Reply:
    await compute_of(request).quotas.reset(request.params["project_id"])
    return Reply()


async def show_quota_class(request: ApiRequest) -> Reply:
    defaults = _quota_view(await compute_of(request).quotas.default_limits())
    return Reply({"quota_class_set": {"id": request.params["id"], **defaults}})


async def update_quota_class(request: ApiRequest) -> Reply:
    """Only the class `default` has ever meant anything: the limits of projects that have none of their own."""
    if request.params["id"] != "default":
        raise NotFound("compute.no_quota_class", f"Quota class {request.params['id']} could not be found: 'default'.")
    new = _limits_given("quota_class_set", request.body.quota_class_set)
    return Reply({"quota_class_set": _quota_view(await compute_of(request).quotas.set_defaults(new))})


# ---------------------------------------------------------------------- hypervisors
async def list_hypervisors(request: ApiRequest) -> Reply:
    return await _hypervisors(request, detail=False)


async def list_hypervisors_detail(request: ApiRequest) -> Reply:
    return await _hypervisors(request, detail=True)


async def _hypervisors(request: ApiRequest, *, detail: bool) -> Reply:
    page = page_of(request)
    found = list(await compute_of(request).hosts.all())
    pattern = request.query("hypervisor_hostname_pattern")
    if pattern is not None:
        found = [view for view in found if pattern in view.host.name]
        if not found:
            raise NotFound("compute.no_hypervisor", f"No hypervisor matching '{pattern}' could be found.")
    if page.marker is not None:
        places = [place for place, view in enumerate(found) if page.marker in (view.host.id, str(view.number))]
        if not places:
            raise Invalid("compute.marker", f"marker [{page.marker}] not found", field="marker")
        found = found[places[0] + 1 :]
    found = found[: page.limit]
    with_servers = truth("with_servers", request.query("with_servers") or "false")
    items = []
    for view in found:
        servers = await compute_of(request).hosts.servers_on(view.host.name) if with_servers else None
        items.append(_hypervisor(view, detail=detail, servers=servers))
    return Reply({"hypervisors": items})


async def show_hypervisor(request: ApiRequest) -> Reply:
    view = await _one_hypervisor(request)
    running = await compute_of(request).hosts.servers_on(view.host.name)
    with_servers = truth("with_servers", request.query("with_servers") or "false")
    item = _hypervisor(view, detail=True, servers=running if with_servers else None)
    item["_resources"]["running_vms"] = len(running)
    return Reply({"hypervisor": item})


async def search_hypervisors(request: ApiRequest) -> Reply:
    pattern = request.params["id"]
    found = [view for view in await compute_of(request).hosts.all() if pattern in view.host.name]
    if not found:
        raise NotFound("compute.no_hypervisor", f"No hypervisor matching '{pattern}' could be found.")
    return Reply({"hypervisors": [_hypervisor(view, detail=False, servers=None) for view in found]})


async def hypervisor_servers(request: ApiRequest) -> Reply:
    """Before 2.53: the servers of each hypervisor with this in its name."""
    pattern, hosts = request.params["id"], compute_of(request).hosts
    found = [view for view in await hosts.all() if pattern in (view.host.id, str(view.number), view.host.name)]
    if not found:
        raise NotFound("compute.no_hypervisor", f"No hypervisor matching '{pattern}' could be found.")
    items = []
    for view in found:
        item = _hypervisor(view, detail=False, servers=await hosts.servers_on(view.host.name))
        items.append(item if item["servers"] else {key: value for key, value in item.items() if key != "servers"})
    return Reply({"hypervisors": items})


async def hypervisor_statistics(request: ApiRequest) -> Reply:
    found = [
        _hypervisor(view, detail=True, servers=None)["_resources"] for view in await compute_of(request).hosts.all()
    ]
    names = ("vcpus", "vcpus_used", "memory_mb", "memory_mb_used", "local_gb", "local_gb_used", "free_ram_mb",
             "free_disk_gb", "disk_available_least", "current_workload", "running_vms")  # fmt: skip
    return Reply({"hypervisor_statistics": {"count": len(found), **{n: sum(i[n] for i in found) for n in names}}})


async def hypervisor_uptime(request: ApiRequest) -> Reply:
    view = await _one_hypervisor(request)
    return Reply({"hypervisor": {**_hypervisor(view, detail=False, servers=None), "uptime": _uptime(view)}})


async def _one_hypervisor(request: ApiRequest) -> HostView:
    id = request.params["id"]
    for view in await compute_of(request).hosts.all():
        if id in (view.host.id, str(view.number)):
            return view
    raise NotFound("compute.no_hypervisor", f"Hypervisor with ID '{id}' could not be found.")


def _hypervisor(view: HostView, *, detail: bool, servers: Sequence[Server] | None) -> dict[str, Any]:
    host = view.host
    item: dict[str, Any] = {
        "id": host.id,
        "_number": view.number,
        "hypervisor_hostname": host.name,
        "state": "up" if view.up else "down",
        "status": "enabled" if host.enabled else "disabled",
    }
    if servers is not None:
        item["servers"] = [{"uuid": server.id, "name": f"instance-{server.id[:8]}"} for server in servers]
    if detail:
        item.update(
            {
                "host_ip": "127.0.0.1",
                "hypervisor_type": "QEMU",
                "hypervisor_version": 7002000,
                "uptime": _uptime(view),
                "service": {
                    "id": view.service_id,
                    "_number": view.number,
                    "host": host.name,
                    "disabled_reason": host.disabled_reason,
                },
                "_resources": _resources(view),
            }
        )
    return item


def _uptime(view: HostView) -> str | None:
    """As the program `uptime` begins its line."""
    if view.host.booted_at_s is None:
        return None
    now = datetime.now(UTC)
    minutes = int(now.timestamp() - view.host.booted_at_s) // 60
    days = f"{minutes // 1440} day{'s' if minutes >= 2880 else ''}, " if minutes >= 1440 else ""
    return f"{now:%H:%M:%S} up {days}{minutes // 60 % 24}:{minutes % 60:02}"


def _resources(view: HostView) -> dict[str, Any]:
    inventories, used = view.host.inventories, view.host.used

    def total(name: str) -> int:
        return inventories[name].total if name in inventories else 0

    memory, disk = total("MEMORY_MB"), total("DISK_GB")
    return {
        "vcpus": total("VCPU"),
        "vcpus_used": used.get("VCPU", 0),
        "memory_mb": memory,
        "memory_mb_used": used.get("MEMORY_MB", 0),
        "free_ram_mb": memory - used.get("MEMORY_MB", 0),
        "local_gb": disk,
        "local_gb_used": used.get("DISK_GB", 0),
        "free_disk_gb": disk - used.get("DISK_GB", 0),
        "disk_available_least": disk - used.get("DISK_GB", 0),
        "current_workload": 0,
        "running_vms": 0,
        "cpu_info": {},
    }


# ---------------------------------------------------------------------- services
async def list_services(request: ApiRequest) -> Reply:
    host, binary = request.query("host"), request.query("binary")
    if binary not in (None, "nova-compute"):
        return Reply({"services": []})
    found = [view for view in await compute_of(request).hosts.all() if host in (None, view.host.name)]
    return Reply({"services": [_service(view) for view in found]})


async def update_service(request: ApiRequest) -> Reply:
    body = request.body
    view = await _one_service(request, lambda v: v.service_id == request.params["id"])
    await _set_service(request, view, body.status, body.disabled_reason, body.forced_down)
    return Reply({"service": _service(await _one_service(request, lambda v: v.service_id == request.params["id"]))})


async def delete_service(request: ApiRequest) -> Reply:
    """By its id, or before 2.53 by its number."""
    id = request.params["id"]
    view = await _one_service(request, lambda v: id in (v.service_id, str(v.number)))
    await compute_of(request).hosts.remove(request.who, view.host.name)
    return Reply()


async def act_on_service(request: ApiRequest) -> Reply:
    """Before 2.53: /os-services/enable, /disable, /disable-log-reason, /force-down with a host in the body."""
    body, verb = request.body, request.params["verb"]
    view = await _one_service(request, lambda v: v.host.name == body.host)
    status = {"enable": "enabled", "disable": "disabled", "disable-log-reason": "disabled", "force-down": None}
    if verb not in status or body.binary != "nova-compute":
        raise NotFound("compute.no_service", f"There is nothing to {verb[:40]} here, or no such binary.")
    await _set_service(request, view, status[verb], body.disabled_reason, body.forced_down)
    return Reply({"service": {"host": body.host, "binary": body.binary, "status": status[verb] or view.host.enabled}})


async def _set_service(
    request: ApiRequest, view: HostView, status: str | None, reason: str | None, forced_down: Any
) -> None:
    hosts = compute_of(request).hosts
    if status not in (None, "enabled", "disabled"):
        raise Invalid("compute.invalid", "status: it is either enabled or disabled.", field="status")
    if status is not None:
        await hosts.enable(view.host.name, status == "enabled", reason)
    if forced_down is not None:
        await hosts.force_down(view.host.name, truth("forced_down", forced_down))


async def _one_service(request: ApiRequest, test: Any) -> HostView:
    for view in await compute_of(request).hosts.all():
        if test(view):
            return view
    raise NotFound("compute.no_service", "There is no such compute service.")


def _service(view: HostView) -> dict[str, Any]:
    host = view.host
    return {
        "id": view.service_id,
        "_number": view.number,
        "binary": "nova-compute",
        "host": host.name,
        "zone": host.availability_zone,
        "status": "enabled" if host.enabled else "disabled",
        "state": "up" if view.up else "down",
        "updated_at": views.moment_us(host.heard_at_s),
        "disabled_reason": host.disabled_reason,
        "forced_down": view.forced_down,
    }


# ---------------------------------------------------------------------- zones
async def list_zones(request: ApiRequest) -> Reply:
    return Reply({"availabilityZoneInfo": await _zones(request, detail=False)})


async def list_zones_detail(request: ApiRequest) -> Reply:
    return Reply({"availabilityZoneInfo": await _zones(request, detail=True)})


async def _zones(request: ApiRequest, *, detail: bool) -> list[dict[str, Any]]:
    zones: dict[str, dict[str, Any]] = {}
    for view in await compute_of(request).hosts.all():
        found = zones.setdefault(view.host.availability_zone, {"available": False, "hosts": {}})
        found["available"] = found["available"] or view.host.enabled
        found["hosts"][view.host.name] = {
            "nova-compute": {
                "active": view.host.enabled,
                "available": view.up,
                "updated_at": views.moment_us(view.host.heard_at_s),
            }
        }
    return [
        {
            "zoneName": name,
            "zoneState": {"available": zone["available"]},
            "hosts": zone["hosts"] if detail else None,
        }
        for name, zone in sorted(zones.items())
    ]


# ---------------------------------------------------------------------- usage
async def list_usage(request: ApiRequest) -> Reply:
    policy.require(POLICY, "usage:all", request.who)
    start_s, stop_s = _period(request)
    servers = await compute_of(request).servers(request.who, Query(sort=(("created_at_s", False),)))
    detailed = request.query("detailed") == "1"
    projects = sorted({server.project_id for server in servers})
    usages = [_usage(project, servers, start_s, stop_s, detailed=detailed) for project in projects]
    return Reply({"tenant_usages": [usage for usage in usages if usage]})


async def show_usage(request: ApiRequest) -> Reply:
    project_id = _project(request)
    start_s, stop_s = _period(request)
    servers = await compute_of(request).servers(request.who, Query(where={"project_id": project_id}))
    return Reply({"tenant_usage": _usage(project_id, servers, start_s, stop_s, detailed=True)})


def _period(request: ApiRequest) -> tuple[float, float]:
    now = datetime.now(UTC)
    found = []
    for field, default in (("start", now.timestamp() - 28 * 86400), ("end", now.timestamp())):
        text = request.query(field)
        if text is None:
            found.append(default)
            continue
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise Invalid("compute.invalid", f"{field}: {text[:40]!r} is not a time.", field=field) from None
        found.append((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    if found[0] > found[1]:
        raise Invalid("compute.invalid", "start: it is after the end.", field="start")
    return found[0], found[1]


def _usage(
    project_id: str, servers: Sequence[Server], start_s: float, stop_s: float, *, detailed: bool
) -> dict[str, Any]:
    lines, hours_in_all, vcpu_hours, memory_hours, disk_hours = [], 0.0, 0.0, 0.0, 0.0
    now_s = datetime.now(UTC).timestamp()
    for server in servers:
        began_s, ended_s = server.launched_at_s, server.terminated_at_s
        if server.project_id != project_id or began_s is None or began_s > stop_s or (ended_s or stop_s) < start_s:
            continue
        hours = max(0.0, min(ended_s or now_s, stop_s, now_s) - max(began_s, start_s)) / 3600
        flavor = server.flavor
        hours_in_all += hours
        vcpu_hours += hours * flavor.vcpus
        memory_hours += hours * flavor.memory_mib
        disk_hours += hours * (flavor.disk_gib + flavor.ephemeral_gib)
        lines.append(
            {
                "instance_id": server.id,
                "name": server.name,
                "hours": hours,
                "flavor": flavor.name,
                "vcpus": flavor.vcpus,
                "memory_mb": flavor.memory_mib,
                "local_gb": flavor.disk_gib + flavor.ephemeral_gib,
                "tenant_id": project_id,
                "started_at": views.moment_us(began_s),
                "ended_at": views.moment_us(ended_s),
                "state": "terminated" if server.deleted else "active",
                "uptime": int((ended_s or now_s) - began_s),
            }
        )
    if not lines:
        return {}
    usage: dict[str, Any] = {
        "tenant_id": project_id,
        "start": views.moment_us(start_s),
        "stop": views.moment_us(stop_s),
        "total_hours": hours_in_all,
        "total_vcpus_usage": vcpu_hours,
        "total_memory_mb_usage": memory_hours,
        "total_local_gb_usage": disk_hours,
    }
    return {**usage, "server_usages": lines} if detailed else usage
