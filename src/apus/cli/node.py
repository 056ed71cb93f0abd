"""`apus node`: one node of a cloud on many machines, in the foreground (its service manager restarts it)."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from apus.cli.places import StateDir, cloud_at
from apus.kernel.errors import Invalid
from apus.kernel.settings import Settings, dump_settings
from apus.node.secrets import write_private

ROLES: Final = ("control", "compute", "network", "object", "identity", "object-proxy", "object-disk")


def register(app: typer.Typer) -> None:
    app.command()(node)


def node(
    roles: Annotated[str, typer.Option(help="control,compute,network,object,object-proxy,object-disk: what it does.")],
    state_dir: StateDir = None,
    name: Annotated[str | None, typer.Option(help="This node's name; the host's unless given.")] = None,
    store: Annotated[
        str | None, typer.Option(help="postgresql://user:password@host/database (control nodes).", envvar="APUS_STORE")
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(help="nats://token@host:port of the cloud's bus; several with commas.", envvar="APUS_JOIN"),
    ] = None,
    control_url: Annotated[
        str | None, typer.Option(help="http://…: the APIs (nodes without the control role); several with commas.")
    ] = None,
    object_url: Annotated[
        str | None, typer.Option(help="http://…: the object process of another node (control nodes).")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(help="http://…: how clients reach the cloud; the same on all control nodes.")
    ] = None,
    bind: Annotated[str | None, typer.Option(help="Address of the APIs.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the APIs; objects at the next one.")] = None,
    network: Annotated[str | None, typer.Option(help="flat | user | simulated | auto")] = None,
    sim_hosts: Annotated[int | None, typer.Option(help="Simulated hypervisors instead of a real one.")] = None,
    s3_port: Annotated[int | None, typer.Option(help="Port of S3 (nodes with an object door).")] = None,
    drives: Annotated[
        str | None, typer.Option(help="HOST:PATH by commas: the first drives of a new store (its first object-proxy).")
    ] = None,
    disk_port: Annotated[int | None, typer.Option(help="Port at which an object-disk node answers proxies.")] = None,
    secrets_file: Annotated[
        Path | None, typer.Option(help="secrets.json of the first control node (control and object nodes).")
    ] = None,
    drive_key: Annotated[
        Path | None, typer.Option(help="keys/object-drives of a control node (object-disk nodes).")
    ] = None,
) -> None:
    """Run one node with these roles until told to stop.  What is given once is remembered in apus.toml."""
    cloud = cloud_at(state_dir)
    cloud.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    first_name = None if cloud.settings_path.exists() else socket.gethostname()
    given = {
        "node": name or first_name, "store_url": store, "bus_url": join, "control_url": control_url,
        "object_url": object_url, "public_url": public_url, "bind": bind, "port": port, "network": network,
        "sim_hosts": sim_hosts, "s3_port": s3_port, "disk_port": disk_port,
        "drives": tuple(drives.split(",")) if drives else None,
    }  # fmt: skip
    settings = cloud.first_settings()
    settings = msgspec.structs.replace(
        settings,
        roles=tuple(role for role in roles.split(",") if role),
        **{key: value for key, value in given.items() if value is not None},
    )
    check(settings)
    write_private(cloud.settings_path, dump_settings(settings))
    if secrets_file is not None:
        write_private(cloud.state_dir / "secrets.json", secrets_file.read_text())
    if drive_key is not None:
        (cloud.state_dir / "keys").mkdir(mode=0o700, exist_ok=True)
        write_private(cloud.state_dir / "keys" / "object-drives", drive_key.read_text())
    from apus.node.main import main

    raise typer.Exit(main(cloud.state_dir, ",".join(settings.roles), "node"))


def check(settings: Settings) -> None:
    """Raise Invalid for roles that cannot work with what was given."""
    roles = set(settings.roles)
    unknown = sorted(roles - set(ROLES))
    if unknown or not roles:
        named = f"--roles: there is no role {', '.join(unknown)}" if unknown else "--roles: none is given"
        raise Invalid("node.roles", f"{named}; allowed: {', '.join(ROLES)}.", field="roles")
    if roles >= {"object", "object-proxy"}:
        shown = "--roles: object has drives of its own, object-proxy those of object-disk nodes; give one of them."
        raise Invalid("node.roles", shown, field="roles")
    if "object-proxy" in roles and not settings.bus_url:
        raise Invalid("node.alone", "--join: an object-proxy meets the others on the cloud's bus.", field="join")
    if roles & {"control", "identity"} or roles == {"object-disk"}:
        return
    if not settings.bus_url:
        raise Invalid("node.alone", "--join: a node without the control role needs the cloud's bus.", field="join")
    if "compute" in roles and not settings.control_url:
        raise Invalid(
            "node.no_control_url",
            "--control-url: a compute node without the control role takes images from there.",
            field="control_url",
        )
