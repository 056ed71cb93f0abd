"""Security groups and their rules: plain functions of a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from apus.kernel.caller import Caller
from apus.kernel.events import emit
from apus.kernel.ids import child_id, new_id
from apus.kernel.record import changed
from apus.kernel.world import Transaction
from apus.services.network.logic.rules import ICMP, PORTED, PROTOCOLS, protocol_number
from apus.services.network.model import Rule, SecurityGroup
from apus.services.network.service.refusals import bad_input, conflict, missing, parsed_cidr, refused
from apus.services.network.service.rights import check_quota, owner_of
from apus.services.network.store import GROUPS, MEMBERSHIPS, RULES


def ensure_default(tx: Transaction, project_id: str) -> SecurityGroup:
    """Each project has a group named default; its id derives from the project, so two at once make one."""
    id = child_id("security-group", "default", project_id)
    group = GROUPS.get(tx, id)
    if group is not None:
        return group
    group = SecurityGroup(
        id=id,
        project_id=project_id,
        name="default",
        description="Default security group",
        created_at_s=tx.now_s,
        updated_at_s=tx.now_s,
    )
    GROUPS.insert(tx, group)
    RULES.insert_many(tx, [*_out_rules(tx, group), *_member_rules(tx, group)])
    return group


def _out_rules(tx: Transaction, group: SecurityGroup) -> list[Rule]:
    return [_derived_rule(tx, group, "egress", ethertype, None) for ethertype in ("IPv4", "IPv6")]


def _member_rules(tx: Transaction, group: SecurityGroup) -> list[Rule]:
    return [_derived_rule(tx, group, "ingress", ethertype, group.id) for ethertype in ("IPv4", "IPv6")]


def _derived_rule(tx: Transaction, group: SecurityGroup, direction: str, ethertype: str, remote: str | None) -> Rule:
    return Rule(
        id=child_id(group.id, direction, ethertype),
        project_id=group.project_id,
        group_id=group.id,
        direction=direction,
        ethertype=ethertype,
        remote_group_id=remote,
        created_at_s=tx.now_s,
        updated_at_s=tx.now_s,
    )


def visible_groups(tx: Transaction, caller: Caller) -> list[SecurityGroup]:
    return GROUPS.find(tx) if caller.is_admin else GROUPS.find(tx, project_id=caller.project_id)


def get_group(tx: Transaction, caller: Caller, id: str) -> SecurityGroup:
    group = GROUPS.get(tx, id)
    if group is None or not (caller.is_admin or group.project_id == caller.project_id):
        raise missing("SecurityGroupNotFound", "Security group", id)
    return group


def create_group(tx: Transaction, caller: Caller, dice: Random, fields: Mapping[str, Any]) -> SecurityGroup:
    project = owner_of(caller, fields.get("project_id"), "security_group")
    ensure_default(tx, project)
    _check_stateful(fields)
    if fields["name"] == "default":
        raise conflict("SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
    check_quota(tx, project, "security_group", 1)
    group = SecurityGroup(
        id=new_id(dice),
        project_id=project,
        name=fields["name"],
        description=fields.get("description") or "",
        created_at_s=tx.now_s,
        updated_at_s=tx.now_s,
    )
    GROUPS.insert(tx, group)
    RULES.insert_many(tx, _out_rules(tx, group))
    emit(tx, "network.security_group.created", group.id, project, caller=caller)
    return group


def _check_stateful(fields: Mapping[str, Any]) -> None:
    if fields.get("stateful") is False:
        raise bad_input("stateful", "here all security groups follow connections; one that does not is not possible")


def update_group(tx: Transaction, caller: Caller, id: str, fields: Mapping[str, Any]) -> SecurityGroup:
    group = get_group(tx, caller, id)
    _check_stateful(fields)
    if group.name == "default" and fields.get("name", "default") != "default":
        raise conflict("SecurityGroupCannotUpdateDefault", "Updating default security group not allowed.")
    if group.name != "default" and fields.get("name") == "default":
        raise conflict("SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
    emit(tx, "network.security_group.updated", id, group.project_id, caller=caller)
    return GROUPS.put(tx, changed(group, **fields, updated_at_s=tx.now_s))


def delete_group(tx: Transaction, caller: Caller, id: str) -> None:
    group = get_group(tx, caller, id)
    if group.name == "default" and not caller.is_admin:
        raise conflict("SecurityGroupCannotRemoveDefault", "Insufficient rights for removing default security group.")
    if MEMBERSHIPS.count(tx, group_id=id):
        raise conflict("SecurityGroupInUse", f"Security Group {id} in use.")
    RULES.delete_where(tx, group_id=id)
    RULES.delete_where(tx, remote_group_id=id)
    GROUPS.delete(tx, id)
    emit(tx, "network.security_group.deleted", id, group.project_id, caller=caller)


def visible_rules(tx: Transaction, caller: Caller) -> list[Rule]:
    return RULES.find(tx) if caller.is_admin else RULES.find(tx, project_id=caller.project_id)


def get_rule(tx: Transaction, caller: Caller, id: str) -> Rule:
    rule = RULES.get(tx, id)
    if rule is None or not (caller.is_admin or rule.project_id == caller.project_id):
        raise missing("SecurityGroupRuleNotFound", "Security group rule", id)
    return rule


def create_rules(
    tx: Transaction, caller: Caller, dice: Random, asks: Sequence[Mapping[str, Any]], hosts: set[str]
) -> list[Rule]:
    made = []
    for fields in asks:
        group = get_group(tx, caller, fields["security_group_id"])
        check_quota(tx, group.project_id, "security_group_rule", 1)
        rule = _new_rule(tx, caller, dice, group, fields)
        for other in RULES.find(tx, group_id=group.id):
            if _says(other) == _says(rule):
                raise conflict("SecurityGroupRuleExists", f"Security group rule already exists. Rule id is {other.id}.")
        RULES.insert(tx, rule)
        emit(tx, "network.security_group_rule.created", rule.id, rule.project_id, caller=caller)
        made.append(rule)
        hosts |= hosts_of_groups(tx, [group.id])
    return made


def _says(rule: Rule) -> tuple[object, ...]:
    ports = (rule.port_min, rule.port_max)
    return (rule.direction, rule.ethertype, rule.protocol, *ports, rule.remote_ip_prefix, rule.remote_group_id)


def _new_rule(tx: Transaction, caller: Caller, dice: Random, group: SecurityGroup, fields: Mapping[str, Any]) -> Rule:
    remote, remote_group = fields.get("remote_ip_prefix"), fields.get("remote_group_id")
    if remote and remote_group:
        raise refused(
            "SecurityGroupMultipleRemoteEntitites", "Only one of remote_ip_prefix and remote_group_id may be given."
        )
    if remote_group:
        get_group(tx, caller, remote_group)
    ethertype = {"ipv4": "IPv4", "ipv6": "IPv6"}.get((fields.get("ethertype") or "IPv4").lower())
    if ethertype is None:
        raise bad_input("ethertype", f"'{fields['ethertype']}' is neither IPv4 nor IPv6")
    if remote:
        cidr = parsed_cidr("remote_ip_prefix", remote)
        if cidr.version != (4 if ethertype == "IPv4" else 6):
            raise refused(
                "SecurityGroupRuleParameterConflict",
                f"Conflicting value ethertype {ethertype} for CIDR {remote}",
                field="remote_ip_prefix",
            )
        remote = str(cidr)
    protocol = _protocol(fields.get("protocol"), ethertype)
    low, high = _ports(protocol, fields.get("port_range_min"), fields.get("port_range_max"))
    return Rule(
        id=new_id(dice),
        project_id=group.project_id,
        group_id=group.id,
        direction=fields["direction"],
        ethertype=ethertype,
        protocol=protocol,
        port_min=low,
        port_max=high,
        remote_ip_prefix=remote or None,
        remote_group_id=remote_group or None,
        description=fields.get("description") or "",
        created_at_s=tx.now_s,
        updated_at_s=tx.now_s,
    )


def _protocol(given: str | int | None, ethertype: str) -> str | None:
    if given is None or given == "":
        return None
    text = str(given).lower()
    if text in ("any", "0"):
        return None
    if text not in PROTOCOLS and not (text.isascii() and text.isdigit() and int(text) <= 255):
        raise refused(
            "SecurityGroupRuleInvalidProtocol",
            f"Security group rule protocol {given} not supported. Only protocol values "
            f"{sorted(PROTOCOLS)} and integer representations [0 to 255] are supported.",
            field="protocol",
        )
    if text in ("icmpv6", "ipv6-icmp", "58") and ethertype == "IPv4":
        raise refused("SecurityGroupEthertypeConflictWithProtocol", f"Invalid ethertype IPv4 for protocol {text}.")
    return text


def _ports(protocol: str | None, low: int | None, high: int | None) -> tuple[int | None, int | None]:
    if low is None and high is None:
        return None, None
    number = protocol_number(protocol)
    if number in ICMP:
        for what, field, value in (("type", "port_range_min", low), ("code", "port_range_max", high)):
            if value is not None and not 0 <= value <= 255:
                said = f"Invalid value for ICMP {what} ({field}) {value}. It must be 0 to 255."
                raise refused("SecurityGroupInvalidIcmpValue", said, field=field)
        if low is None:
            said = f"ICMP code (port-range-max) {high} is provided but ICMP type (port-range-min) is missing."
            raise refused("SecurityGroupMissingIcmpType", said, field="port_range_min")
        return low, high
    if number is None:
        raise refused(
            "SecurityGroupProtocolRequiredWithPorts",
            "Must also specify protocol if port range is given.",
            field="protocol",
        )
    if number not in PORTED:
        raise refused("SecurityGroupInvalidProtocolForPort", f"Invalid protocol {protocol} for port range.")
    for field, value in (("port_range_min", low), ("port_range_max", high)):
        if value is not None and not 1 <= value <= 65535:
            raise refused("SecurityGroupInvalidPortValue", f"Invalid value for port {value}", field=field)
    if low is None or high is None or low > high:
        raise refused(
            "SecurityGroupInvalidPortRange", "For TCP/UDP protocols, port_range_min must be <= port_range_max"
        )
    return low, high


def delete_rule(tx: Transaction, caller: Caller, id: str, hosts: set[str]) -> None:
    rule = get_rule(tx, caller, id)
    RULES.delete(tx, id)
    hosts |= hosts_of_groups(tx, [rule.group_id])
    emit(tx, "network.security_group_rule.deleted", id, rule.project_id, caller=caller)


def hosts_of_groups(tx: Transaction, group_ids: Sequence[str]) -> set[str]:
    """Hosts with a port in one of these groups, or in one that lets these in."""
    if not group_ids:
        return set()
    marks = {f"g{index}": id for index, id in enumerate(group_ids)}
    listed = ", ".join(f":{name}" for name in marks)
    rows = tx.execute(
        "SELECT DISTINCT p.host FROM network_port p JOIN network_membership m ON m.port_id = p.id"  # noqa: S608
        f" WHERE p.host <> '' AND (m.group_id IN ({listed}) OR m.group_id IN"
        f" (SELECT group_id FROM network_security_group_rule WHERE remote_group_id IN ({listed})))",
        marks,
    )
    return {host for (host,) in rows}
