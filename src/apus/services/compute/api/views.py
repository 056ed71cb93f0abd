"""Records as Nova shows them, in the newest version; `changes.py` takes away what older ones did not have.

Source of every field name: the Compute API reference, microversion 2.100.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from apus.services.compute.logic.status import project
from apus.services.compute.model import Action, Flavor, Group, Keypair, Server
from apus.services.network.contract import ServerPort

_PROGRESS = {"ACTIVE": 100, "BUILD": 0}


@functools.lru_cache(maxsize=4096)
def moment(at_s: float) -> str:
    return datetime.fromtimestamp(int(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.lru_cache(maxsize=4096)
def moment_us(at_s: float | None) -> str | None:
    return None if at_s is None else datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")


@functools.lru_cache(maxsize=65536)
def host_id(project_id: str, host: str | None) -> str:
    """What a tenant may know of the host: only whether two servers of his share it."""
    return hashlib.sha224((project_id + host).encode()).hexdigest() if host else ""


def server_links(server_id: str, base: str) -> list[dict[str, str]]:
    return [
        {"rel": "self", "href": f"{base}/v2.1/servers/{server_id}"},
        {"rel": "bookmark", "href": f"{base}/servers/{server_id}"},
    ]


def brief(server: Server, base: str) -> dict[str, Any]:
    return {"id": server.id, "name": server.name, "links": server_links(server.id, base)}


def server_view(
    server: Server, base: str, *, admin: bool, listed: bool = False, silent: bool = False
) -> dict[str, Any]:
    status = project(server)
    view: dict[str, Any] = {
        "id": server.id,
        "name": server.name,
        "status": status.status,
        "tenant_id": server.project_id,
        "user_id": server.user_id,
        "metadata": server.metadata,
        "hostId": host_id(server.project_id, server.host),
        "image": image_view(server, base),
        "flavor": embedded_flavor(server.flavor),
        "created": moment(server.created_at_s),
        "updated": moment(server.updated_at_s),
        "addresses": addresses(server.ports),
        "accessIPv4": server.access_ipv4,
        "accessIPv6": server.access_ipv6,
        "links": server_links(server.id, base),
        "OS-DCF:diskConfig": server.disk_config,
        "OS-EXT-AZ:availability_zone": (server.zone or "nova") if server.host else (server.availability_zone or ""),
        "pinned_availability_zone": server.availability_zone,
        "config_drive": "True" if server.config_drive else "",
        "key_name": server.key.name if server.key else None,
        "OS-SRV-USG:launched_at": moment_us(server.launched_at_s),
        "OS-SRV-USG:terminated_at": moment_us(server.terminated_at_s),
        "OS-EXT-STS:task_state": status.task_state,
        "OS-EXT-STS:vm_state": status.vm_state,
        "OS-EXT-STS:power_state": status.power_state,
        "os-extended-volumes:volumes_attached": [],
        "locked": server.locked,
        "locked_reason": server.locked_reason,
        "description": server.description,
        "tags": server.tags,
        "trusted_image_certificates": server.trusted_certificates,
        "OS-EXT-SRV-ATTR:hostname": server.hostname,
    }
    if status.status in ("ACTIVE", "BUILD", "PASSWORD", "REBUILD", "RESIZE", "HARD_REBOOT", "REBOOT"):
        view["progress"] = _PROGRESS.get(status.status, 0)
    groups = security_groups(server.ports).values() if server.ports else server.security_groups
    if groups:
        view["security_groups"] = [{"name": name} for name in groups]
    if server.fault is not None and status.status in ("ERROR", "DELETED"):
        view["fault"] = {
            "code": server.fault.code,
            "created": moment(server.fault.at_s),
            "message": server.fault.message,
        }
    if admin:
        view.update(
            {
                "OS-EXT-SRV-ATTR:instance_name": f"instance-{server.id[:8]}",
                "OS-EXT-SRV-ATTR:host": server.host,
                "OS-EXT-SRV-ATTR:hypervisor_hostname": server.host,
                "OS-EXT-SRV-ATTR:reservation_id": server.reservation_id,
                "OS-EXT-SRV-ATTR:launch_index": server.launch_index,
                "OS-EXT-SRV-ATTR:kernel_id": server.kernel.id if server.kernel else "",
                "OS-EXT-SRV-ATTR:ramdisk_id": server.ramdisk.id if server.ramdisk else "",
                "OS-EXT-SRV-ATTR:root_device_name": server.root_device_name,
                "OS-EXT-SRV-ATTR:user_data": server.user_data,
                "host_status": ("UNKNOWN" if silent else "UP") if server.host else "",
            }
        )
    if not listed:
        # The reference: server groups are answered by show, not by lists.
        view["server_groups"] = [server.group_id] if server.group_id else []
    view["scheduler_hints"] = server.hints
    return view


def security_groups(ports: Sequence[ServerPort]) -> dict[str, str]:
    """Names by id, of all ports."""
    return {
        id: name for port in ports for id, name in zip(port.security_group_ids, port.security_group_names, strict=True)
    }


def image_view(server: Server, base: str) -> Any:
    if server.image is None:
        return ""
    return {
        "id": server.image.id,
        "links": [{"rel": "bookmark", "href": f"{base}/images/{server.image.id}"}],
        "properties": {key: value for key, value in server.image.properties.items() if not key.startswith("image_")},
    }


def embedded_flavor(flavor: Flavor) -> dict[str, Any]:
    return {
        "_id": flavor.id,  # for versions before 2.47 only
        "vcpus": flavor.vcpus,
        "ram": flavor.memory_mib,
        "disk": flavor.disk_gib,
        "ephemeral": flavor.ephemeral_gib,
        "swap": flavor.swap_mib,
        "original_name": flavor.name,
        "extra_specs": flavor.extra_specs,
    }


def addresses(ports: Sequence[ServerPort]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for port in ports:
        for fixed in port.fixed_ips:
            found.setdefault(port.network_name, []).append(
                {
                    "version": fixed.version,
                    "addr": fixed.address,
                    "OS-EXT-IPS:type": "fixed",
                    "OS-EXT-IPS-MAC:mac_addr": port.mac,
                }
            )
    return found


def diagnostics(server: Server) -> dict[str, Any]:
    """What the control plane knows of a running guest; what only its host could count is null, as the API allows."""
    counted = ("octets", "errors", "drop", "packets", "rate")
    unknown_traffic = {f"{way}_{what}": None for way in ("rx", "tx") for what in counted}
    unknown_disk = dict.fromkeys(("read_bytes", "read_requests", "write_bytes", "write_requests", "errors_count"))
    return {
        "state": "running",
        "driver": "libvirt",  # the API's word for QEMU; clients check it against a list
        "hypervisor": "qemu",
        "hypervisor_os": "linux",
        "uptime": None,
        "config_drive": server.config_drive,
        "num_cpus": server.vcpus,
        "num_nics": len(server.ports),
        "num_disks": 1,
        "memory_details": {"maximum": server.memory_mib, "used": None},
        "cpu_details": [{"id": number, "time": None, "utilisation": None} for number in range(server.vcpus)],
        "nic_details": [{"mac_address": port.mac, **unknown_traffic} for port in server.ports],
        "disk_details": [unknown_disk],
    }


def flavor_links(flavor_id: str, base: str) -> list[dict[str, str]]:
    return [
        {"rel": "self", "href": f"{base}/v2.1/flavors/{flavor_id}"},
        {"rel": "bookmark", "href": f"{base}/flavors/{flavor_id}"},
    ]


def flavor_view(flavor: Flavor, base: str) -> dict[str, Any]:
    return {
        "id": flavor.id,
        "name": flavor.name,
        "vcpus": flavor.vcpus,
        "ram": flavor.memory_mib,
        "disk": flavor.disk_gib,
        "swap": flavor.swap_mib,
        "OS-FLV-EXT-DATA:ephemeral": flavor.ephemeral_gib,
        "OS-FLV-DISABLED:disabled": flavor.disabled,
        "os-flavor-access:is_public": flavor.is_public,
        "rxtx_factor": flavor.rxtx_factor,
        "description": flavor.description,
        "extra_specs": flavor.extra_specs,
        "links": flavor_links(flavor.id, base),
    }


def keypair_view(keypair: Keypair) -> dict[str, Any]:
    return {
        "name": keypair.name,
        "type": keypair.type,
        "public_key": keypair.public_key,
        "fingerprint": keypair.fingerprint,
    }


def group_view(group: Group, members: Sequence[str]) -> dict[str, Any]:
    return {
        "id": group.id,
        "name": group.name,
        "policy": group.policy,
        "rules": group.rules,
        "members": list(members),
        "project_id": group.project_id,
        "user_id": group.user_id,
    }


def action_view(action: Action) -> dict[str, Any]:
    return {
        "action": action.action,
        "instance_uuid": action.server_id,
        "request_id": action.request_id,
        "user_id": action.user_id,
        "project_id": action.project_id,
        "start_time": moment_us(action.started_at_s),
        "updated_at": moment_us(action.updated_at_s),
        "message": action.message,
    }


def events_view(action: Action, *, admin: bool) -> list[dict[str, Any]]:
    found = []
    for event in action.events:
        view: dict[str, Any] = {
            "event": event.name,
            "start_time": moment_us(event.started_at_s),
            "finish_time": moment_us(event.finished_at_s),
            "result": event.result,
            "hostId": host_id(action.project_id or "", event.host),
            "details": event.details,
        }
        if admin:
            view["host"] = event.host
            view["traceback"] = None
        found.append(view)
    return found


def without(view: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in view.items() if key not in keys}
