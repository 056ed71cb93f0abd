"""Settings: one TOML file, typed; a key that is not known is an error that names the nearest one that is.

Few, each with its unit, default and who would change it.  What can be found out is found out, not set.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from apus.kernel.errors import Invalid

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?$")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Role = Literal["control", "identity", "compute", "network", "object", "object-proxy", "object-disk"]
Ratio = Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one node is told.  The operator edits `apus.toml` in the state directory, or passes options to `apus`."""

    node: Name = "apus-1"
    """This node's name: unique in the cloud, stable over restarts."""
    cloud_id: str = ""
    """Eight hexadecimal digits that mark this cloud's bridges, taps and tables on the machine.  Made at first start."""
    region: str = "RegionOne"
    roles: tuple[Role, ...] = ("control", "compute", "network", "object")
    bind: str = "127.0.0.1"
    """Address that the APIs listen on.  Whoever opens the cloud to others changes it."""
    port: Port = 8774
    object_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """Port of the object process; 0: the one after `port`, or `port` itself where objects stand alone."""
    s3_port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    """Port of the S3 API; 0: it is not offered."""
    s3_domains: tuple[Name, ...] = ("localhost",)
    """Below these, a host name is that of a bucket (http://BUCKET.localhost:8776), or of its web site."""
    public_url: str = ""
    """What the catalogue says, when clients reach us through something else: http://cloud.example:8774."""
    network: str = "auto"
    """flat | user | simulated | auto: the best driver that works here."""
    sim_hosts: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 0
    """Simulated hypervisors instead of real ones."""
    drives: tuple[str, ...] = ()
    """Directories that hold objects; empty: four under the state directory.  `HOST:PATH` where proxies ask hosts."""
    disk_port: Port = 8779
    """Port at which a host with the role object-disk answers proxies."""
    replicas: Annotated[int, msgspec.Meta(ge=1, le=16)] = 3
    storage_policies: dict[str, int | str] = {}
    """By name copies, or a code such as "4+2": what a container may be made with instead of `replicated`, which keeps
    `replicas` copies."""
    encrypt_objects: bool = False
    """What is written to objects from now on is encrypted on the drives, under a secret in `keys/object-root`."""
    webhook_networks: tuple[str, ...] = ()
    """Where notifications of buckets may be sent although they would not be: 127.0.0.0/8, 169.254.0.0/16."""
    account_writes_per_s: Annotated[float, msgspec.Meta(ge=0.0, le=1e6)] = 0.0
    """Containers that one account may make and delete a second; 0: any number."""
    container_writes_per_s: Annotated[float, msgspec.Meta(ge=0.0, le=1e6)] = 0.0
    """Objects that may be written and deleted a second in one container; 0: any number."""
    shard_rows: Annotated[int, msgspec.Meta(ge=1_000, le=100_000_000)] = 1_000_000
    """The listing of a container of more names than this is cut into shards of half as many, on drives of their own."""
    store_url: str = ""
    """postgresql://… in a cluster; empty: SQLite in the state directory."""
    bus_url: str = ""
    """nats://… in a cluster, several with commas; empty: in-process, with a unix socket between the processes of this
    machine."""
    control_url: str = ""
    """Where a compute node without the control role reaches the APIs (image data); several with commas."""
    object_url: str = ""
    """Where a control node reaches the object process, when that is another node's: http://10.0.0.5:8775."""
    micro_image_dir: str = ""
    """Where `apus image build micro` put the guest that is imported at the first start; empty: the usual cache."""
    web_download_private: bool = False
    """Images may be fetched from loopback, link-local and private addresses too: then tenants reach what we reach."""
    cpu_allocation_ratio: Ratio = 16.0
    memory_allocation_ratio: Ratio = 1.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def network_prefix(self) -> str:
        """Begins the name of everything that this cloud makes on the machine's network: names there are short."""
        return f"a{self.cloud_id[:4]}"

    @property
    def first_network_cidr(self) -> str:
        """Of the network that a cloud begins with.  The machine reaches it, so two clouds there must differ."""
        number = int(hashlib.sha256(self.cloud_id.encode()).hexdigest()[:4], 16)
        return f"10.{64 + number % 128}.{number >> 12 << 4}.0/20"

    @property
    def alone(self) -> bool:
        """An object store without a cloud: identity and objects are one process, behind one port."""
        return {"identity", "object"} <= set(self.roles) and "control" not in self.roles

    @property
    def objects_at(self) -> int:
        return self.port if self.alone else self.object_port or self.port + 1


def load_settings(path: Path) -> Settings:
    """Raise Invalid naming the key, the file and what is allowed."""
    try:
        raw = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise Invalid("settings.missing", f"{path}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid("settings.unreadable", f"{path} cannot be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise Invalid("settings.malformed", f"{path}: {error}.") from None
    return parse_settings(raw, str(path))


def parse_settings(raw: dict[str, Any], source: str) -> Settings:
    known = [field.name for field in msgspec.structs.fields(Settings)]
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}."
            raise Invalid("settings.unknown", f"{source}: unknown setting {key!r}{hint}", field=key)
    try:
        settings = msgspec.convert(raw, Settings)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at ")
        field = where.strip("`").removeprefix("$.") or None
        raise Invalid("settings.invalid", f"{source}: {field}: {what.replace('`', '')}.", field=field) from None
    allowed = ("auto", "flat", "user", "simulated")
    if settings.network not in allowed:
        raise Invalid(
            "settings.network",
            f"{source}: network is {settings.network!r}; allowed: {', '.join(allowed)}.",
            field="network",
        )
    return settings


def dump_settings(settings: Settings) -> str:
    """As TOML: only what differs from the defaults, so that a later default takes effect."""
    lines = ["# Settings of this cloud; `apus` reads them at each start.  See docs/guide/settings.md."]
    defaults = Settings()
    for name in Settings.__struct_fields__:
        value = getattr(settings, name)
        if value != getattr(defaults, name):
            lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml(key)} = {_toml(one)}" for key, one in value.items()) + " }"
    # A JSON string is a TOML one, but for the pairs of \\u escapes that it has for what is beyond 16 bits.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
