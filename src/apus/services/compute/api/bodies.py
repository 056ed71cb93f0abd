"""Request bodies in the newest version, and how they become commands.

Source: the Compute API reference, microversion 2.100; names with an underscore are set by `changes.py` alone.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from apus.kernel.caller import Caller
from apus.kernel.errors import Forbidden, Invalid
from apus.kernel.ids import is_uuid
from apus.services.compute.commands import CreateServer, UpdateServer
from apus.services.network.contract import PortAsk
from apus.wire.listing import boolean

Name = Annotated[str, Meta(min_length=1, max_length=255)]
Text = Annotated[str, Meta(max_length=255)]
Key = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9\-_:. ]+$")]
Items = dict[Key, Text]
Tag = Annotated[str, Meta(min_length=1, max_length=60, pattern=r"^[^,/]+$")]
Tags = Annotated[list[Tag], Meta(max_length=50)]
Count = int | str
Truth = bool | str | int

USER_DATA_MAX: Final = 65535
PERSONALITY_MAX: Final = 5
HOSTNAME: Final = re.compile(r"^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?$")


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A body in which a field that we do not know is refused by name."""


class NetworkItem(Strict, frozen=True):
    uuid: str | None = None
    port: str | None = None
    fixed_ip: str | None = None
    tag: str | None = None


class SecurityGroupItem(Strict, frozen=True):
    name: str


class FileItem(Strict, frozen=True):
    path: str
    contents: str


class BlockDevice(msgspec.Struct, frozen=True):
    """Of block_device_mapping_v2: what boots from an image on the host's disk; volumes come with their service."""

    source_type: str = ""
    destination_type: str | None = None
    uuid: str | None = None
    boot_index: Any = None


class ServerBody(Strict, frozen=True):
    name: Name
    flavorRef: str | int  # noqa: N815
    imageRef: str = ""  # noqa: N815
    networks: str | list[NetworkItem] | None = None
    security_groups: list[SecurityGroupItem] = []
    key_name: str | None = None
    user_data: str | None = None
    metadata: Items = {}
    personality: list[FileItem] = msgspec.field(name="_personality", default_factory=list)
    config_drive: Truth | None = None
    availability_zone: str | None = None
    host: str | None = None
    hypervisor_hostname: str | None = None
    min_count: Count = 1
    max_count: Count | None = None
    return_reservation_id: Truth = False
    tags: Tags = []
    description: Annotated[str, Meta(max_length=255)] | None = None
    hostname: str | None = None
    adminPass: str | None = None  # noqa: N815
    accessIPv4: str = ""  # noqa: N815
    accessIPv6: str = ""  # noqa: N815
    disk_config: str = msgspec.field(name="OS-DCF:diskConfig", default="AUTO")
    trusted_image_certificates: list[str] | None = None
    block_device_mapping_v2: list[BlockDevice] = []
    block_device_mapping: list[Any] = []
    hints: dict[str, Any] | None = msgspec.field(name="os:scheduler_hints", default=None)


class CreateServerBody(Strict, frozen=True):
    server: ServerBody
    hints: dict[str, Any] | None = msgspec.field(name="os:scheduler_hints", default=None)
    hints_too: dict[str, Any] | None = msgspec.field(name="OS-SCH-HNT:scheduler_hints", default=None)


class ServerChanges(Strict, frozen=True):
    name: Name | UnsetType = UNSET
    description: Annotated[str, Meta(max_length=255)] | UnsetType | None = UNSET
    hostname: str | UnsetType = UNSET
    accessIPv4: str | UnsetType = UNSET  # noqa: N815
    accessIPv6: str | UnsetType = UNSET  # noqa: N815
    disk_config: str | UnsetType = msgspec.field(name="OS-DCF:diskConfig", default=UNSET)


class UpdateServerBody(Strict, frozen=True):
    server: ServerChanges


class MetadataBody(Strict, frozen=True):
    metadata: Items


class MetadataItemBody(Strict, frozen=True):
    meta: Items


class TagsBody(Strict, frozen=True):
    tags: Tags


Zone = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^:]+$")]


class NewAggregate(Strict, frozen=True):
    name: Name
    availability_zone: Zone | None = None


class NewAggregateBody(Strict, frozen=True):
    aggregate: NewAggregate


class AggregateChanges(Strict, frozen=True):
    name: Name | None = None
    availability_zone: Zone | None = None


class AggregateBody(Strict, frozen=True):
    aggregate: AggregateChanges


class HostItem(Strict, frozen=True):
    host: Name


class AddHostBody(Strict, frozen=True):
    add_host: HostItem


class RemoveHostBody(Strict, frozen=True):
    remove_host: HostItem


class AggregateMetadata(Strict, frozen=True):
    metadata: dict[Key, Text | None]


class AggregateMetadataBody(Strict, frozen=True):
    set_metadata: AggregateMetadata


class HostBody(Strict, frozen=True):
    status: str | None = None
    maintenance_mode: str | None = None


class FlavorItem(Strict, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=255)]
    ram: Count
    vcpus: Count
    disk: Count
    id: str | int | None = None
    swap: Count | None = 0
    ephemeral: Count = msgspec.field(name="OS-FLV-EXT-DATA:ephemeral", default=0)
    rxtx_factor: float | str = 1.0
    is_public: Truth = msgspec.field(name="os-flavor-access:is_public", default=True)
    disabled: Truth = msgspec.field(name="OS-FLV-DISABLED:disabled", default=False)
    description: Annotated[str, Meta(max_length=65535)] | None = None


class FlavorBody(Strict, frozen=True):
    flavor: FlavorItem


class FlavorChange(Strict, frozen=True):
    description: Annotated[str, Meta(max_length=65535)] | None


class FlavorChangeBody(Strict, frozen=True):
    flavor: FlavorChange


class ExtraSpecsBody(Strict, frozen=True):
    extra_specs: dict[Key, str | int | float]


class KeypairItem(Strict, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[\w @._\-]+$")]
    public_key: Annotated[str, Meta(min_length=1, max_length=65535)] | None = None
    type: str = "ssh"
    user_id: str | None = None
    generate: bool = msgspec.field(name="_generate", default=False)


class KeypairBody(Strict, frozen=True):
    keypair: KeypairItem


class GroupItem(Strict, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^\S(.*\S)?$")]
    policy: str
    rules: dict[str, Count] = {}


class GroupBody(Strict, frozen=True):
    server_group: GroupItem


class QuotaBody(Strict, frozen=True):
    quota_set: dict[str, Any]


class QuotaClassBody(Strict, frozen=True):
    quota_class_set: dict[str, Any]


class ServiceBody(Strict, frozen=True):
    status: str | None = None
    disabled_reason: str | None = None
    forced_down: Truth | None = None


class OldServiceBody(Strict, frozen=True):
    host: str
    binary: str = "nova-compute"
    disabled_reason: str | None = None
    forced_down: Truth | None = None


# ---------------------------------------------------------------------- into commands
def number(field: str, value: Count, minimum: int, maximum: int = 2147483647) -> int:
    try:
        found = int(value)
    except ValueError:
        found = minimum - 1
    if isinstance(value, bool) or not minimum <= found <= maximum:
        raise _invalid(field, f"{value!r} is not a whole number from {minimum} to {maximum}")
    return found


def truth(field: str, value: Truth | None) -> bool:
    if value is None:
        return False
    return value if isinstance(value, bool) else boolean(field, str(value))


def create_command(body: CreateServerBody, caller: Caller) -> CreateServer:
    server = body.server
    hints = body.hints or body.hints_too or server.hints or {}
    name = server.name.strip()
    if not name:
        raise _invalid("server.name", "a name of blanks only")
    least = number("server.min_count", server.min_count, 1, 1000)
    most = number("server.max_count", server.max_count if server.max_count is not None else least, 1, 1000)
    if least > most:
        raise _invalid("server.min_count", "min_count must be <= max_count")
    zone, host = _zone_and_host(server, caller)
    return CreateServer(
        name=name,
        flavor_id=str(server.flavorRef).rsplit("/", 1)[-1],
        image_id=_image(server),
        networks=_networks(server.networks),
        security_groups=[item.name for item in server.security_groups],
        key_name=server.key_name,
        user_data=_user_data(server.user_data),
        metadata=dict(server.metadata),
        personality=_personality(server.personality),
        config_drive=truth("server.config_drive", server.config_drive or False),
        availability_zone=zone,
        host=host,
        min_count=least,
        max_count=most,
        tags=server.tags,
        description=server.description,
        hostname=_hostname("server.hostname", server.hostname),
        group_id=_hint_id(hints, "group"),
        same_host=_hint_ids(hints, "same_host"),
        different_host=_hint_ids(hints, "different_host"),
        hints=hints,
        disk_config=_disk_config(server.disk_config),
        access_ipv4=_address("server.accessIPv4", server.accessIPv4, 4),
        access_ipv6=_address("server.accessIPv6", server.accessIPv6, 6),
        trusted_certificates=None
        if server.trusted_image_certificates is None
        else tuple(server.trusted_image_certificates),
    )


def update_command(body: UpdateServerBody) -> UpdateServer:
    server = body.server
    name = server.name
    if isinstance(name, str):
        name = name.strip()
        if not name:
            raise _invalid("server.name", "a name of blanks only")
    v4, v6 = server.accessIPv4, server.accessIPv6
    return UpdateServer(
        name=name,
        description=server.description,
        hostname=server.hostname if server.hostname is UNSET else _hostname("server.hostname", server.hostname) or "",
        access_ipv4=v4 if v4 is UNSET else _address("server.accessIPv4", v4, 4),
        access_ipv6=v6 if v6 is UNSET else _address("server.accessIPv6", v6, 6),
        disk_config=server.disk_config if server.disk_config is UNSET else _disk_config(server.disk_config),
    )


def _image(server: ServerBody) -> str:
    image_id = server.imageRef.rsplit("/", 1)[-1]
    for device in server.block_device_mapping_v2:
        if device.source_type == "image" and device.destination_type in (None, "local") and device.uuid:
            image_id = image_id or device.uuid
        elif device.source_type != "blank" or device.destination_type == "volume":
            raise _invalid("server.block_device_mapping_v2", "volumes are not available in this cloud yet")
    if server.block_device_mapping:
        raise _invalid("server.block_device_mapping", "volumes are not available in this cloud yet")
    if not image_id:
        raise _invalid("server.imageRef", "a server needs an image to boot from")
    if not is_uuid(image_id):
        raise _invalid("server.imageRef", f"{image_id!r} is not the id of an image")
    return image_id


def _networks(asked: str | Sequence[NetworkItem] | None) -> list[PortAsk] | None:
    if asked is None:
        raise _invalid("server.networks", "it is required: 'auto', 'none' or a list of networks and ports")
    if asked in ("auto", "default"):
        return None
    if asked == "none":
        return []
    if isinstance(asked, str):
        raise _invalid("server.networks", f"{asked!r} is neither 'auto' nor 'none' nor a list")
    asks = []
    for index, item in enumerate(asked):
        place = f"server.networks[{index}]"
        if item.port is None and item.uuid is None:
            raise _invalid(place, "it names neither a network (uuid) nor a port")
        for which, value in (("uuid", item.uuid), ("port", item.port)):
            if value is not None and not is_uuid(value):
                raise _invalid(f"{place}.{which}", f"Bad networks format: {value!r} is not a UUID")
        if item.fixed_ip is not None:
            _address(f"{place}.fixed_ip", item.fixed_ip, None)
        if item.port is not None and item.fixed_ip is not None:
            raise _invalid(f"{place}.fixed_ip", "a port has its addresses already")
        asks.append(
            PortAsk(
                network_id=None if item.port else item.uuid, port_id=item.port, fixed_ip=item.fixed_ip, tag=item.tag
            )
        )
    return asks or None


def _zone_and_host(server: ServerBody, caller: Caller) -> tuple[str | None, str | None]:
    """`zone:host:node` is the operator's way to name a host."""
    zone, host = server.availability_zone or None, server.host or server.hypervisor_hostname
    if zone is not None and ":" in zone:
        parts = zone.split(":")
        if len(parts) > 3:
            raise _invalid("server.availability_zone", "Unable to parse availability_zone; it is ZONE:HOST:NODE")
        if not caller.is_admin:
            raise Forbidden("policy.forbidden", "Only an administrator may choose the host (ZONE:HOST).")
        host = host or next((part for part in parts[1:] if part), None)
        zone = parts[0] or None
    return zone, host


def _user_data(text: str | None) -> str | None:
    if text is None:
        return None
    if len(text) > USER_DATA_MAX:
        raise _invalid("server.user_data", f"it is longer than {USER_DATA_MAX} characters")
    try:
        base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _invalid("server.user_data", "it is not base64") from None
    return text


def _personality(files: Sequence[FileItem]) -> dict[str, str]:
    if len(files) > PERSONALITY_MAX:
        raise Forbidden("compute.over_quota", f"Quota exceeded: at most {PERSONALITY_MAX} files can be injected.")
    for index, file in enumerate(files):
        try:
            base64.b64decode(file.contents, validate=True)
        except (binascii.Error, ValueError):
            raise _invalid(f"server.personality[{index}].contents", "it is not base64") from None
    return {file.path: file.contents for file in files}


def _hostname(field: str, name: str | UnsetType | None) -> str | None:
    if name is None or name is UNSET:
        return None
    assert isinstance(name, str)
    if len(name) > 255 or not HOSTNAME.match(name):
        raise _invalid(field, f"{name[:80]!r} is not a host name: letters, digits, '-' and '.'")
    return name


def _disk_config(value: str) -> str:
    if value not in ("AUTO", "MANUAL"):
        raise _invalid("OS-DCF:diskConfig", f"{value[:40]!r} is neither AUTO nor MANUAL")
    return value


def _address(field: str, text: str, version: int | None) -> str:
    if not text:
        return ""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        found = None
    if found is None or (version is not None and found.version != version):
        raise _invalid(field, f"{text[:60]!r} is not an IP{'v' + str(version) if version else ''} address")
    return str(found)  # RFC 5952, section 4: one form only


def _hint_ids(hints: Mapping[str, Any], name: str) -> list[str]:
    value = hints.get(name, [])
    ids = value if isinstance(value, list) else [value]
    for id in ids:
        if not isinstance(id, str) or not is_uuid(id):
            raise _invalid(f"os:scheduler_hints.{name}", f"{str(id)[:60]!r} is not a UUID")
    return ids


def _hint_id(hints: Mapping[str, Any], name: str) -> str | None:
    ids = _hint_ids(hints, name)
    return ids[0] if ids else None


def _invalid(field: str, why: str) -> Invalid:
    return Invalid("compute.invalid", f"Invalid input for field/attribute {field}. {why}", field=field)
