"""What compute keeps.  A server is what the user asked for; an incarnation is one guest on one host, once.

The server's row embeds all that lists show (flavor, image, ports, what the host found), each copied in the
transaction that changed it: a list of a thousand servers is one query.  Defaults are not written, and no record is
tracked by the cycle collector (frozen trees have no cycles): together half the time of a long list.
"""

from __future__ import annotations

import msgspec

from apus.kernel.record import Record
from apus.services.compute.contract import Found, GuestSpec, Power, Wish
from apus.services.image.contract import BootImage
from apus.services.network.contract import PortAsk, ServerPort


class Flavor(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    ephemeral_gib: int = 0
    swap_mib: int = 0
    rxtx_factor: float = 1.0
    is_public: bool = True
    disabled: bool = False
    description: str | None = None
    extra_specs: dict[str, str] = {}
    access: tuple[str, ...] = ()
    """Projects that may use it when it is not public."""
    created_at_s: float = 0.0


class Keypair(Record, frozen=True, kw_only=True):
    """Its id derives from user and name."""

    user_id: str
    name: str
    type: str
    public_key: str
    fingerprint: str
    created_at_s: float


class Group(Record, frozen=True, kw_only=True):
    """A server group; its members are the live servers that name it."""

    project_id: str
    user_id: str
    name: str
    policy: str
    rules: dict[str, int] = {}


class Aggregate(Record, frozen=True, kw_only=True):
    """Hosts that an operator has put together; with a zone, they are in that availability zone."""

    number: int
    """What clients call it by in paths."""
    name: str
    hosts: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    created_at_s: float
    updated_at_s: float | None = None

    @property
    def zone(self) -> str | None:
        return self.metadata.get("availability_zone")


class Quota(Record, frozen=True, kw_only=True):
    """The limits of a project (its id) that an administrator has set."""

    limits: dict[str, int]


class HostNumber(Record, frozen=True, kw_only=True):
    """Small numbers for clients that know hypervisors and services by integers."""

    host: str
    number: int
    forced_down: bool = False


class KeySnapshot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    name: str
    type: str
    public_key: str


class Fault(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    code: int
    message: str
    at_s: float


class Server(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    project_id: str
    user_id: str
    name: str
    deleted: bool = False
    host: str | None = None
    vcpus: int
    memory_mib: int
    created_at_s: float
    updated_at_s: float
    hostname: str
    description: str | None = None
    flavor: Flavor
    image: BootImage | None = None
    kernel: BootImage | None = None
    ramdisk: BootImage | None = None
    metadata: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    key: KeySnapshot | None = None
    user_data: str | None = None
    """Base64, as it came."""
    config_drive: bool = False
    personality: dict[str, str] = {}
    availability_zone: str | None = None
    """As asked for; None: any."""
    zone: str | None = None
    """Of the host."""
    wanted_host: str | None = None
    security_groups: tuple[str, ...] = ()
    port_asks: tuple[PortAsk, ...] = ()
    ports: tuple[ServerPort, ...] = ()
    group_id: str | None = None
    same_host: tuple[str, ...] = ()
    different_host: tuple[str, ...] = ()
    hints: dict[str, object] = {}
    reservation_id: str = ""
    launch_index: int = 0
    launched_at_s: float | None = None
    terminated_at_s: float | None = None
    deleting: bool = False
    locked: bool = False
    locked_reason: str | None = None
    fault: Fault | None = None
    error: bool = False
    """Shown as ERROR: its boot failed, or an operator said so."""
    disk_config: str = "MANUAL"
    access_ipv4: str = ""
    access_ipv6: str = ""
    trusted_certificates: tuple[str, ...] | None = None
    root_device_name: str = "/dev/vda"
    wanted: Power = Power.ON
    wanted_seq: int = 0
    """Of the wish that carries `wanted` to the host."""
    boots: int = 1
    hard: bool = False
    incarnation_id: str | None = None
    seen: Found | None = None
    """A copy of what the host found of its incarnation."""
    password: str = ""
    """What the guest has posted: the administrator's password, which the guest encrypted with the key pair."""

    @property
    def settled(self) -> bool:
        """The host has acted on the newest wish."""
        return self.seen is not None and self.seen.seq >= self.wanted_seq


class Incarnation(Record, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    server_id: str
    host: str
    seq: int
    power: Power
    boots: int = 1
    hard: bool = False
    spec: GuestSpec
    found: Found | None = None

    @property
    def gone(self) -> bool:
        return self.power is Power.GONE and self.found is not None and self.found.power is Power.GONE

    def wish(self) -> Wish:
        return Wish(
            id=self.id,
            server_id=self.server_id,
            host=self.host,
            seq=self.seq,
            power=self.power,
            boots=self.boots,
            hard=self.hard,
            heard=self.found.counter if self.found is not None else 0,
            spec=self.spec,
        )


class ActionEvent(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    started_at_s: float
    finished_at_s: float | None = None
    result: str | None = None
    host: str | None = None
    details: str | None = None


class Action(Record, frozen=True, kw_only=True):
    """What was asked of a server, by whom, and how it went."""

    server_id: str
    request_id: str
    action: str
    user_id: str
    project_id: str | None
    started_at_s: float
    updated_at_s: float
    message: str | None = None
    flow_id: str | None = None
    seq: int = 0
    """The wish that it raised; finished when the host has acted on it."""
    finished: bool = False
    events: tuple[ActionEvent, ...] = ()
