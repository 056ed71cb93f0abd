"""`apus node`: one node of a cloud on many machines, in the foreground (its service manager restarts it)."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from apus.cli.places import StateDir, cloud_at
from apus.kernel.settings import Settings, dump_settings, load_settings
from apus.node.secrets import write_private


def register(app: typer.Typer) -> None:
    app.command()(node)


def node(
    roles: Annotated[str, typer.Option(help="control,compute,network,object: what this node does.")],
    state_dir: StateDir = None,
    name: Annotated[str | None, typer.Option(help="This node's name; the host's unless given.")] = None,
    store: Annotated[str | None, typer.Option(help="postgresql://… (control nodes).")] = None,
    join: Annotated[str | None, typer.Option(help="nats://…: the bus of the cloud.")] = None,
    control_url: Annotated[
        str | None, typer.Option(help="http://…: the APIs (nodes without the control role).")
    ] = None,
    bind: Annotated[str | None, typer.Option(help="Address of the APIs.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the APIs.")] = None,
    network: Annotated[str | None, typer.Option(help="flat | user | simulated | auto")] = None,
    sim_hosts: Annotated[int | None, typer.Option(help="Simulated hypervisors instead of a real one.")] = None,
    secrets_file: Annotated[Path | None, typer.Option(help="secrets.json of the cloud's first node.")] = None,
) -> None:
    """Run one node with these roles until told to stop."""
    cloud = cloud_at(state_dir)
    cloud.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    given = {
        "node": name, "store_url": store, "bus_url": join, "control_url": control_url, "bind": bind, "port": port,
        "network": network, "sim_hosts": sim_hosts,
    }  # fmt: skip
    if cloud.settings_path.exists():
        settings = load_settings(cloud.settings_path)
    else:
        settings = Settings(cloud_id=secrets.token_hex(4), node=socket.gethostname())
    settings = msgspec.structs.replace(
        settings,
        roles=tuple(role for role in roles.split(",") if role),
        **{key: value for key, value in given.items() if value is not None},
    )
    write_private(cloud.settings_path, dump_settings(settings))
    if secrets_file is not None:
        write_private(cloud.state_dir / "secrets.json", secrets_file.read_text())
    from apus.node.main import main

    raise typer.Exit(main(cloud.state_dir, roles, "node"))
