"""`apus object drive list | add | set | drain | remove | adopt`: the drives of a store that serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from apus.cli.places import Cloud, StateDir, cloud_at
from apus.cli.shown import Format, in_bytes, show_table
from apus.services.object.logic.drive_places import parse_place

DRIVES: Final = "/apus/v1/object/drives"
Id = Annotated[str, typer.Argument(help="Its id: drive3.")]
_COLOURS: Final = {"in use": "green", "draining": "yellow", "empty": "cyan", "away": "red"}

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_drives(state_dir: StateDir = None, format: Format = "table") -> None:
    """Every drive: where it stands, what it holds, how it is."""
    show(cloud_at(state_dir).ask("GET", DRIVES)["drives"], format)


@app.command("add")
def add(
    path: Annotated[str, typer.Argument(help="An empty directory, best one file system: PATH, or HOST:PATH.")],
    weight: Annotated[float, typer.Option(help="Its share, against those of the others.", min=0)] = 1.0,
    region: Annotated[str, typer.Option(help="Copies are kept in different regions, …")] = "region1",
    zone: Annotated[str, typer.Option(help="… zones, …")] = "zone1",
    host: Annotated[str | None, typer.Option(help="… and hosts; as in HOST:PATH unless given.")] = None,
    state_dir: StateDir = None,
    format: Format = "table",
) -> None:
    """Take a directory as a new drive.  Its share moves there by and by."""
    body: dict[str, Any] = {"path": _absolute(path), "weight": weight, "region": region, "zone": zone}
    body |= {"host": host} if host else {}
    show([cloud_at(state_dir).ask("POST", DRIVES, body)["drive"]], format)


@app.command("set")
def change(
    id: Id,
    weight: Annotated[float | None, typer.Option(help="0 drains it.", min=0)] = None,
    region: Annotated[str | None, typer.Option()] = None,
    zone: Annotated[str | None, typer.Option()] = None,
    host: Annotated[str | None, typer.Option()] = None,
    state_dir: StateDir = None,
    format: Format = "table",
) -> None:
    """Give it another weight or place."""
    asked = {"weight": weight, "region": region, "zone": zone, "host": host}
    _change(cloud_at(state_dir), id, {name: value for name, value in asked.items() if value is not None}, format)


@app.command("drain")
def drain(id: Id, state_dir: StateDir = None, format: Format = "table") -> None:
    """Move everything off it; then it can be removed.  `set --weight` takes it back."""
    _change(cloud_at(state_dir), id, {"weight": 0}, format)


@app.command("remove")
def remove(id: Id, state_dir: StateDir = None) -> None:
    """Let it go.  Refused while that would lose a copy of anything."""
    cloud_at(state_dir).ask("DELETE", f"{DRIVES}/{quote(id, safe='')}")
    typer.echo(f"{id} is removed")


@app.command("adopt")
def adopt(
    id: Id,
    path: Annotated[str | None, typer.Option(help="Where it is now, if not where it was.")] = None,
    state_dir: StateDir = None,
    format: Format = "table",
) -> None:
    """Say that a drive is meant to be what it is now (new, or emptied): it is marked, and filled.

    Look first that its disk is mounted: an empty mount point looks the same.
    """
    body = {"path": _absolute(path)} if path else {}
    show([cloud_at(state_dir).ask("POST", f"{DRIVES}/{quote(id, safe='')}/adopt", body)["drive"]], format)


def _absolute(path: str) -> str:
    return path if parse_place(path).host else str(Path(path).absolute())


def _change(cloud: Cloud, id: str, asked: dict[str, Any], format: str) -> None:
    show([cloud.ask("PATCH", f"{DRIVES}/{quote(id, safe='')}", asked)["drive"]], format)


def show(drives: list[dict[str, Any]], format: str) -> None:
    if format == "json":
        typer.echo(json.dumps(drives, indent=2))
        return
    titles = ("drive", "region", "zone", "host", "weight", "partitions", "versions", "free", "state", "path")
    show_table(titles, [_row(one) for one in drives])


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    versions = "-" if one["versions"] is None else f"{one['versions']:,}"
    state = f"[{_COLOURS[one['state']]}]{one['state']}[/]"
    return (
        one["id"], one["region"], one["zone"], one["host"], f"{one['weight']:g}", f"{one['partitions']:,}", versions,
        in_bytes(one["free_bytes"]), state, one["path"],
    )  # fmt: skip
