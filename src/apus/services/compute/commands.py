"""What may be asked of compute, as typed commands in our own words."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from apus.services.network.contract import PortAsk


class CreateServer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    flavor_id: str
    image_id: str
    networks: Sequence[PortAsk] | None = None
    """None: the project's network; empty: no interface."""
    security_groups: Sequence[str] = ()
    key_name: str | None = None
    user_data: str | None = None
    metadata: dict[str, str] = {}
    personality: dict[str, str] = {}
    config_drive: bool = False
    availability_zone: str | None = None
    host: str | None = None
    min_count: int = 1
    max_count: int = 1
    name_by_count: bool = True
    tags: Sequence[str] = ()
    description: str | None = None
    hostname: str | None = None
    group_id: str | None = None
    same_host: Sequence[str] = ()
    different_host: Sequence[str] = ()
    hints: dict[str, object] = {}
    disk_config: str = "MANUAL"
    access_ipv4: str = ""
    access_ipv6: str = ""
    trusted_certificates: tuple[str, ...] | None = None


class UpdateServer(msgspec.Struct, frozen=True, kw_only=True):
    """Fields left UNSET stay as they are."""

    name: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    hostname: str | msgspec.UnsetType = msgspec.UNSET
    access_ipv4: str | msgspec.UnsetType = msgspec.UNSET
    access_ipv6: str | msgspec.UnsetType = msgspec.UNSET
    disk_config: str | msgspec.UnsetType = msgspec.UNSET
