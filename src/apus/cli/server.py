"""`apus server-address NAME`: where this machine reaches a server's SSH, whatever network it is on."""

from __future__ import annotations

import re
import urllib.error
from typing import Annotated
from urllib.parse import urlencode

import typer

from apus.cli.places import StateDir, cloud_at
from apus.kernel.errors import Conflict, NotFound, Unavailable


def register(app: typer.Typer) -> None:
    app.command("server-address")(server_address)


def server_address(
    name: Annotated[str, typer.Argument(help="Name or id of a server.")],
    admin: Annotated[bool, typer.Option("--admin", help="Of the administrator's project, not of demo's.")] = False,
    state_dir: StateDir = None,
) -> None:
    """Print the address and the port of a server's SSH."""
    cloud = cloud_at(state_dir)
    try:
        token = cloud.token("admin" if admin else "demo")
        query = urlencode({"name": f"^{re.escape(name)}$"})
        found = cloud.get(f"/compute/v2.1/servers?{query}", token=token)["servers"]
        ids = [one["id"] for one in found] or [name]
        if len(ids) > 1:
            raise Conflict("cli.many_servers", f"{len(ids)} servers are named {name}; give the id.")
        ssh = cloud.get(f"/apus/v1/servers/{ids[0]}/access", token=token)["access"]["ssh"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            raise NotFound("cli.no_server", f"There is no server {name}.") from error
        raise Unavailable("cli.refused", error.read(1000).decode(errors="replace")) from error
    except OSError as error:
        raise Unavailable(
            "cli.no_answer", f"{cloud.url()} does not answer ({error}); `apus doctor` looks why."
        ) from error
    typer.echo(f"{ssh['address']} {ssh['port']}")
