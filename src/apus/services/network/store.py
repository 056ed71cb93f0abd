"""Tables of the network service."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from apus.kernel.table import RecordTable
from apus.kernel.world import Transaction
from apus.services.network.model import (
    Address,
    HostAgent,
    Membership,
    Network,
    Plugged,
    Port,
    Quota,
    Rule,
    SecurityGroup,
    Subnet,
)

NETWORKS: Final = RecordTable("network_network", Network, columns=("project_id", "name"), indexes=(("project_id",),))
SUBNETS: Final = RecordTable(
    "network_subnet", Subnet, columns=("network_id", "project_id"), indexes=(("network_id",), ("project_id",))
)
PORTS: Final = RecordTable(
    "network_port",
    Port,
    columns=("network_id", "project_id", "device_id", "host", "mac"),
    unique=(("network_id", "mac"),),
    indexes=(("project_id",), ("device_id",), ("host",)),
)
ADDRESSES: Final = RecordTable(
    "network_address",
    Address,
    columns=("subnet_id", "port_id", "address"),
    indexes=(("subnet_id",), ("port_id",)),
)
MEMBERSHIPS: Final = RecordTable(
    "network_membership", Membership, columns=("port_id", "group_id"), indexes=(("port_id",), ("group_id",))
)
PLUGGED: Final = RecordTable("network_plugged", Plugged, columns=("host",), indexes=(("host",),))
GROUPS: Final = RecordTable(
    "network_security_group", SecurityGroup, columns=("project_id", "name"), indexes=(("project_id",),)
)
RULES: Final = RecordTable(
    "network_security_group_rule",
    Rule,
    columns=("group_id", "project_id", "remote_group_id"),
    indexes=(("group_id",), ("project_id",), ("remote_group_id",)),
)
QUOTAS: Final = RecordTable("network_quota", Quota)
HOST_AGENTS: Final = RecordTable("network_host_agent", HostAgent)


def taken_addresses(tx: Transaction, subnet_id: str) -> set[str]:
    rows = tx.execute("SELECT address FROM network_address WHERE subnet_id = :subnet", {"subnet": subnet_id})
    return {address for (address,) in rows}


def plugged_among(tx: Transaction, port_ids: Collection[str]) -> set[str]:
    """Which of these ports their host says are plugged."""
    if len(port_ids) > 200:
        return {id for (id,) in tx.execute("SELECT id FROM network_plugged")}
    return {record.id for record in PLUGGED.find(tx, id=list(port_ids))}
