"""`apus object simulate`: a store of any size as a ring, and what losses would mean for it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from apus.cli.shown import Format, in_bytes, in_time, show_table
from apus.kernel.errors import Invalid

if TYPE_CHECKING:
    from apus.services.object.logic.simulate import Plan, Simulation

TIERS: Final = ("drive", "host", "zone", "region")


def simulate(
    config: Annotated[Path | None, typer.Argument(help="TOML or JSON; else 10,080 drives in 3 regions.")] = None,
    kill: Annotated[str, typer.Option(help="What is lost, one at a time: drive,host,zone,region.")] = ",".join(TIERS),
    show_config: Annotated[bool, typer.Option(help="Print the configuration, and do nothing.")] = False,
    format: Format = "table",
) -> None:
    """Build its ring, lose a drive, a host, a zone, a region; say what moves, how long, and how likely a loss is."""
    from apus.services.object.logic.simulate import Simulation  # numpy

    plan = plan_of(config)
    if show_config:
        return typer.echo(json.dumps(msgspec.to_builtins(plan), indent=2))
    tiers = [tier for tier in kill.split(",") if tier]
    for tier in tiers:
        if tier not in TIERS:
            raise Invalid("cli.kill", f"--kill has {tier!r}; allowed: {', '.join(TIERS)}.", field="kill")
    if format != "json":
        typer.echo("making the ring …", err=True)
    found = report(Simulation(plan), tiers)
    if format == "json":
        return typer.echo(json.dumps(found, indent=2))
    _show(found)
    return None


def plan_of(path: Path | None) -> Plan:
    """Raise Invalid, naming the field."""
    from apus.services.object.logic.simulate import Plan, checked

    if path is None:
        return checked(Plan())
    try:
        data = path.read_bytes()
        decode = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
        return checked(decode(data, type=Plan))
    except OSError as error:
        raise Invalid("cli.config", f"{path} cannot be read: {error.strerror}.", field="config") from error
    except msgspec.DecodeError as error:
        raise Invalid("cli.config", f"{path}: {error}.", field="config") from error


def report(simulation: Simulation, tiers: list[str]) -> dict[str, Any]:
    from apus.services.object.logic.ring_builder import balance, crowded_parts
    from apus.services.object.logic.simulate import in_all, nines, room_bytes

    plan, ring = simulation.plan, simulation.ring
    losses = [simulation.lose(tier) for tier in TIERS if tier in tiers]
    chances = simulation.chances(losses)
    total = in_all(chances) if chances else []
    return {
        "ring": {
            "drives": len(ring.drives),
            "partitions": ring.parts,
            "copies": ring.copies,
            "needed": plan.needed,
            "room_bytes": room_bytes(plan),
            "partition_bytes": simulation.part_bytes,
            "fullest_above_its_share": balance(ring, plan.overload),
            "partitions_with_copies_together": crowded_parts(ring),
        },
        "drive_mb_s": plan.drive_mb_s,
        "losses": [msgspec.to_builtins(loss) for loss in losses],
        "chances": [msgspec.to_builtins(chance) for chance in chances],
        "loss_in_a_year": [{"chance": one, "nines": None if one <= 0 else nines(one)} for one in total],
    }


def _show(found: dict[str, Any]) -> None:
    ring = found["ring"]
    together = ", ".join(f"{count:,} in one {tier}" for tier, count in ring["partitions_with_copies_together"].items())
    rows = [
        ("drives", f"{ring['drives']:,}"),
        ("room", in_bytes(ring["room_bytes"])),
        ("partitions", f"{ring['partitions']:,} of {in_bytes(ring['partition_bytes'])}, {_kept(ring)}"),
        ("the fullest drive", f"{100 * ring['fullest_above_its_share']:.1f} % above its share"),
        ("two copies", together),
    ]
    show_table(("", ""), rows, header=False)
    rates = [f"at {rate:g} MB/s" for rate in found["drive_mb_s"]]
    coded = ring["needed"] > 1
    by = "fragments left beyond those needed" if coded else "copies left"
    typer.echo(f"\nOne of these is lost for good: partitions by {by}, and what mending takes\n")
    left = ("too few", "none", "one") if coded else ("none", "one", "two")
    titles = (
        "lost",
        "drives",
        *left,
        "fragments lost" if coded else "copies lost",
        "moved",
        "bytes",
        *rates,
        "narrowest",
    )
    show_table(titles, [_loss(one) for one in found["losses"]])
    typer.echo("\nThe chance that something is lost in a year, by what goes first\n")
    lines = [(one["tier"], f"{one['events']:.3g}", *map(_chance, one["chance"])) for one in found["chances"]]
    if found["loss_in_a_year"]:
        lines.append(("in all", "", *(f"[bold]{_chance(one['chance'])}[/]" for one in found["loss_in_a_year"])))
    show_table(("first", "a year", *rates), lines)


def _kept(ring: dict[str, Any]) -> str:
    copies, needed = ring["copies"], ring["needed"]
    return f"{copies} copies" if needed == 1 else f"{copies} fragments, any {needed} are enough"


def _loss(one: dict[str, Any]) -> tuple[str, ...]:
    none, alone, two = (*one["left"], 0, 0, 0)[:3]
    return (
        one["tier"], f"{one['drives']:,}", f"[red]{none:,}[/]" if none else "[green]0[/]", f"{alone:,}", f"{two:,}",
        f"{one['copies']:,}", f"{one['moved']:,}", in_bytes(one["moved_bytes"]), *map(in_time, one["repair_s"]),
        ", ".join(dict.fromkeys(one["narrowest"])),
    )  # fmt: skip


def _chance(chance: float) -> str:
    return f"{chance:.2g} ({-math.log10(chance):.1f} nines)" if chance > 0 else "0"
