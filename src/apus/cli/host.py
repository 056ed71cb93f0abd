"""`apus host list`: the hosts of the cloud, and how full they are."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from apus.cli.places import StateDir, cloud_at, silence_of
from apus.kernel.errors import Unavailable

app = typer.Typer(no_args_is_help=True)


@app.callback()
def hosts() -> None:
    """The hosts of the cloud."""


@app.command("list")
def list_hosts(
    state_dir: StateDir = None,
    format: Annotated[str, typer.Option("-f", "--format", help="table | json")] = "table",
) -> None:
    """Hosts, whether they are heard, and what of them is used."""
    cloud = cloud_at(state_dir)
    try:
        found = cloud.get("/apus/v1/hosts", token=cloud.admin_token())["hosts"]
    except OSError as error:
        raise Unavailable(
            "cli.no_answer", f"{cloud.url()} does not answer ({error}); `apus doctor` looks why."
        ) from error
    if format == "json":
        typer.echo(json.dumps(found, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for title in ("host", "zone", "up", "enabled", "vCPU", "memory MiB", "disk GiB"):
        table.add_column(title)
    for host in found:
        have = host["resources"]
        shares = [
            f"{have[kind]['used']}/{have[kind]['capacity']}" if kind in have else "-"
            for kind in ("VCPU", "MEMORY_MB", "DISK_GB")
        ]
        up = "[green]up[/]" if host["up"] else f"[red]{silence_of(host)}[/]"
        table.add_row(host["name"], host["availability_zone"], up, str(host["enabled"]), *shares)
    Console().print(table)
