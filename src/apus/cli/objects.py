"""`apus object status | repair | drive | ring | shards`: the object store as its operator sees and changes it."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from apus.cli import object_drives
from apus.cli.object_simulate import simulate
from apus.cli.places import StateDir, cloud_at
from apus.cli.shown import Format, in_bytes, in_time, show_table
from apus.kernel.errors import Invalid

PREFIX: Final = "/apus/v1/object"
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B?)(?:/s)?", re.IGNORECASE)

app = typer.Typer(no_args_is_help=True)
repair = typer.Typer(no_args_is_help=True)
app.add_typer(repair, name="repair", help="What is made again after a loss, and how fast.")
ring = typer.Typer(no_args_is_help=True)
app.add_typer(ring, name="ring", help="Which drives keep which partition.")
app.add_typer(object_drives.app, name="drive", help="Drives join, change and leave while the store serves.")


app.command("simulate")(simulate)


@app.command("status")
def show_status(state_dir: StateDir = None, format: Format = "table") -> None:
    """The store in one view: its drives, and its repair."""
    found = cloud_at(state_dir).ask("GET", f"{PREFIX}/status")
    if format == "json":
        return typer.echo(json.dumps(found, indent=2))
    object_drives.show(found["drives"], format)
    typer.echo("")
    _show_repair(found["repair"])
    return None


@repair.command("status")
def repair_status(state_dir: StateDir = None, format: Format = "table") -> None:
    """Copies at risk, how fast they are made again, and how long it will take."""
    _told(cloud_at(state_dir).ask("GET", f"{PREFIX}/repair"), format)


@repair.command("pause")
def pause(state_dir: StateDir = None, format: Format = "table") -> None:
    """Copy nothing until `resume`, also after a restart."""
    _told(cloud_at(state_dir).ask("PATCH", f"{PREFIX}/repair", {"paused": True}), format)


@repair.command("resume")
def resume(state_dir: StateDir = None, format: Format = "table") -> None:
    """Go on."""
    _told(cloud_at(state_dir).ask("PATCH", f"{PREFIX}/repair", {"paused": False}), format)


@repair.command("cap")
def cap(
    rate: Annotated[str, typer.Argument(help="Bytes a second: 64MiB, 1.5G, 500K; none: as fast as it goes.")],
    state_dir: StateDir = None,
    format: Format = "table",
) -> None:
    """Copy no more than so much in a second."""
    _told(cloud_at(state_dir).ask("PATCH", f"{PREFIX}/repair", {"cap_bytes_s": bytes_of(rate)}), format)


@ring.command("show")
def show_ring(state_dir: StateDir = None, format: Format = "table") -> None:
    """Partitions, copies, and changes that still move data."""
    _show_ring(cloud_at(state_dir).ask("GET", f"{PREFIX}/ring")["ring"], format)


@ring.command("grow")
def grow(state_dir: StateDir = None, format: Format = "table") -> None:
    """Cut every partition in two: for more drives than there were when the store began.  Nothing travels."""
    _show_ring(cloud_at(state_dir).ask("POST", f"{PREFIX}/ring/grow", timeout_s=600)["ring"], format)


@app.command("shards")
def show_shards(
    account: Annotated[str, typer.Argument(help="AUTH_…")],
    container: Annotated[str, typer.Argument(help="Without: the account's own list of containers.")] = "",
    state_dir: StateDir = None,
    format: Format = "table",
) -> None:
    """How the index of a container, or of an account, is cut: from where to where, how much, and on which drives."""
    path = "/".join(quote(name, safe="") for name in (account, container) if name)
    found = cloud_at(state_dir).ask("GET", f"{PREFIX}/shards/{path}")
    if format == "json":
        return typer.echo(json.dumps(found, indent=2))
    rows = [
        (repr(one["bound"]), repr(one["upto"]) if one["upto"] else "", f"{one['totals']['rows']:,}",
         in_bytes(one["totals"]["size_bytes"]), one["state"], ", ".join(one["drives"]))
        for one in found["shards"]
    ]  # fmt: skip
    show_table(("behind", "up to", "names", "bytes", "state", "drives"), rows)
    return None


def _show_ring(found: dict[str, Any], format: str) -> None:
    if format == "json":
        typer.echo(json.dumps(found, indent=2))
    else:
        policies = found.pop("policies")
        rows = [(name.replace("_", " "), f"{value:,}") for name, value in found.items()]
        rows += [(name, f"{one['copies']} copies, quorum {one['quorum']}") for name, one in policies.items()]
        show_table(("", ""), rows, header=False)


def bytes_of(text: str) -> int:
    """`64MiB` and `64M` are the same; `none` is 0.  Raise Invalid."""
    if text.lower() == "none":
        return 0
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise Invalid("cli.size", f"{text!r} is not a size; like 64MiB, 1.5G, 500K, or none.", field="rate")
    size = int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
    if not size:
        raise Invalid("cli.size", "0 bytes a second is a pause: `apus object repair pause`; none takes the cap away.")
    return size


def _told(answer: Any, format: str) -> None:
    if format == "json":
        typer.echo(json.dumps(answer["repair"], indent=2))
    else:
        _show_repair(answer["repair"])


_COLOURS: Final = {"idle": "green", "repairing": "yellow", "waiting": "yellow", "paused": "red"}


def _show_repair(found: dict[str, Any]) -> None:
    risk = found["copies_at_risk"]
    rows = [
        ("repair", f"[{_COLOURS[found['state']]}]{found['state']}[/]"),
        ("copies at risk", f"[red]{risk:,}[/]" if risk else "[green]0[/]"),
        ("one copy left", f"[bold red]{found['versions_alone']:,}[/]" if found["versions_alone"] else "[green]0[/]"),
        ("copies to make", f"{found['copies_to_make']:,}"),
        ("rate", f"{found['copies_per_s']:,.0f} copies/s, {in_bytes(found['bytes_per_s'])}/s"),
        ("time left", in_time(found["seconds_left"])),
        ("cap", f"{in_bytes(found['cap_bytes_s'])}/s" if found["cap_bytes_s"] else "none"),
        ("partitions in doubt", f"{found['partitions_in_doubt']:,} ({found['partitions_queued']:,} can be looked at)"),
        ("hosts away", ", ".join(found["hosts_away"]) or "[green]none[/]"),
        ("drives away", ", ".join(found["drives_away"]) or "[green]none[/]"),
        ("made since the start", f"{found['copies_made']:,} copies, {in_bytes(found['bytes_copied'])}"),
    ]
    show_table(("", ""), rows, header=False)
