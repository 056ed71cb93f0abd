"""What a guest may know of itself: the documents of the metadata service and of the config drive.

Shapes: OpenStack's "Metadata" user guide and `network_data.json` schema; EC2's instance metadata categories.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from apus.services.compute.model import Server
from apus.services.network.contract import FixedIp, ServerPort

OPENSTACK_VERSIONS: Final = (
    "2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2017-02-22", "2018-08-27",
    "2020-10-14", "latest",
)  # fmt: skip
EC2_VERSIONS: Final = ("2009-04-04", "latest")
_encode = msgspec.json.encode


def user_data(server: Server) -> bytes | None:
    if not server.user_data:
        return None
    try:
        return base64.b64decode(server.user_data, validate=False)
    except binascii.Error:
        return server.user_data.encode()


def meta_data(server: Server) -> dict[str, Any]:
    document: dict[str, Any] = {
        "uuid": server.id,
        "name": server.name,
        "hostname": server.hostname,
        "launch_index": server.launch_index,
        "project_id": server.project_id,
        "availability_zone": server.zone or server.availability_zone or "nova",
        "meta": server.metadata,
        "devices": [],
        "dedicated_cpus": [],
    }
    if server.key is not None:
        document["public_keys"] = {server.key.name: server.key.public_key}
        document["keys"] = [{"name": server.key.name, "type": server.key.type, "data": server.key.public_key}]
    if server.personality:
        document["files"] = [
            {"path": path, "content_path": f"/content/{index:04}"} for index, path in enumerate(server.personality)
        ]
    return document


def network_data(server: Server) -> dict[str, Any]:
    links, networks, services = [], [], []
    for index, port in enumerate(server.ports):
        link_id = f"tap{port.id[:11]}"
        links.append(
            {"id": link_id, "vif_id": port.id, "type": "bridge", "mtu": port.mtu, "ethernet_mac_address": port.mac}
        )
        for number, fixed in enumerate(port.fixed_ips):
            networks.append(_network(f"network{index}" + (f"-{number}" if number else ""), link_id, port, fixed))
            services += [{"type": "dns", "address": address} for address in fixed.dns_nameservers]
    unique = {service["address"]: service for service in services}
    return {"links": links, "networks": networks, "services": list(unique.values())}


def _network(id: str, link_id: str, port: ServerPort, fixed: FixedIp) -> dict[str, Any]:
    network: dict[str, Any] = {"id": id, "link": link_id, "network_id": port.network_id}
    if fixed.version == 4 and fixed.dhcp:
        return {**network, "type": "ipv4_dhcp"}
    if fixed.version == 6 and fixed.ipv6_address_mode:
        kind = {"slaac": "ipv6_slaac", "dhcpv6-stateless": "ipv6_dhcpv6-stateless"}.get(
            fixed.ipv6_address_mode, "ipv6_dhcpv6-stateful"
        )
        return {**network, "type": kind}
    cidr = ipaddress.ip_network(fixed.cidr, strict=False)
    any_address = "0.0.0.0" if fixed.version == 4 else "::"  # noqa: S104 - the default route's destination
    routes = [{"network": any_address, "netmask": any_address, "gateway": fixed.gateway_ip}] if fixed.gateway_ip else []
    for destination, nexthop in fixed.host_routes:
        there = ipaddress.ip_network(destination, strict=False)
        routes.append({"network": str(there.network_address), "netmask": str(there.netmask), "gateway": nexthop})
    netmask = str(cidr.netmask)
    return {
        **network,
        "type": f"ipv{fixed.version}",
        "ip_address": fixed.address,
        "netmask": netmask,
        "routes": routes,
        "services": [{"type": "dns", "address": address} for address in fixed.dns_nameservers],
    }


def ec2_meta_data(server: Server) -> dict[str, str]:
    """Flat: category path -> value."""
    ipv4 = [fixed.address for port in server.ports for fixed in port.fixed_ips if fixed.version == 4]
    number = server.id.replace("-", "")[:17]
    document = {
        "ami-id": f"ami-{(server.image.id if server.image else '').replace('-', '')[:17]}",
        "ami-launch-index": str(server.launch_index),
        "ami-manifest-path": "(unknown)",
        "hostname": server.hostname,
        "instance-action": "none",
        "instance-id": f"i-{number}",
        "instance-type": server.flavor.name,
        "local-hostname": server.hostname,
        "local-ipv4": ipv4[0] if ipv4 else "",
        "public-hostname": server.hostname,
        "public-ipv4": "",
        "reservation-id": server.reservation_id,
        "security-groups": "\n".join(server.security_groups or ("default",)),
        "placement/availability-zone": server.zone or server.availability_zone or "nova",
        "block-device-mapping/ami": "vda",
        "block-device-mapping/root": server.root_device_name,
    }
    if server.key is not None:
        document["public-keys/0/openssh-key"] = server.key.public_key.rstrip("\n") + "\n"
    return document


def documents(server: Server) -> dict[str, bytes]:
    """Every leaf below the metadata address, by path without the leading slash."""
    found: dict[str, bytes] = {}
    meta, network, data = _encode(meta_data(server)), _encode(network_data(server)), user_data(server)
    for version in OPENSTACK_VERSIONS:
        place = f"openstack/{version}"
        found[f"{place}/meta_data.json"] = meta
        if data is not None:
            found[f"{place}/user_data"] = data
        if version >= "2013-04-04":
            found[f"{place}/password"] = server.password.encode()
        if version >= "2013-10-17":
            found[f"{place}/vendor_data.json"] = b"{}"
        if version >= "2015-10-15":
            found[f"{place}/network_data.json"] = network
        if version >= "2016-10-06":
            found[f"{place}/vendor_data2.json"] = b"{}"
    for index, content in enumerate(server.personality.values()):
        found[f"openstack/content/{index:04}"] = _decoded(content)
    for version in EC2_VERSIONS:
        for category, value in ec2_meta_data(server).items():
            found[f"{version}/meta-data/{category}"] = value.encode()
        if data is not None:
            found[f"{version}/user-data"] = data
    return found


def config_drive_files(server: Server) -> Mapping[str, bytes]:
    """The files of the drive labelled `config-2`."""
    files = {
        path: body
        for path, body in documents(server).items()
        if path.startswith("openstack/") and not path.endswith("/password")  # it is posted after the drive was made
    }
    nested: dict[str, Any] = {}
    for category, value in ec2_meta_data(server).items():
        place = nested
        *above, last = category.split("/")
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    files["ec2/latest/meta-data.json"] = _encode(nested)
    files["ec2/2009-04-04/meta-data.json"] = files["ec2/latest/meta-data.json"]
    data = user_data(server)
    if data is not None:
        files["ec2/latest/user-data"] = files["ec2/2009-04-04/user-data"] = data
    return files


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=False)
    except binascii.Error:
        return text.encode()
