"""What is said of stores of any size: sums that have to agree, and a chance that dice confirm."""

from __future__ import annotations

import json
import math
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apus.cli.object_simulate import plan_of, report
from apus.kernel.errors import Invalid
from apus.services.object.logic.ring import DriveSpec
from apus.services.object.logic.simulate import TIERS, Group, Plan, Simulation, checked, in_all, room_bytes

PLANS = st.builds(
    lambda regions, zones, hosts, drives, power, copies: Plan(
        tuple(Group(f"r{number}", zones, hosts, drives) for number in range(regions)), part_power=power, copies=copies
    ),
    regions=st.integers(1, 3),
    zones=st.integers(1, 3),
    hosts=st.integers(1, 3),
    drives=st.integers(3, 6),
    power=st.integers(5, 8),
    copies=st.integers(1, 3),
)


@settings(max_examples=30, deadline=None)
@given(PLANS)
def test_what_is_lost_and_what_is_left_agree(plan: Plan) -> None:
    simulation = Simulation(plan)
    parts, copies = simulation.ring.parts, simulation.ring.copies
    for tier in TIERS:
        loss = simulation.lose(tier)
        assert sum(loss.left) == parts
        assert sum(count * (copies - left) for left, count in enumerate(loss.left)) == loss.copies
        survivors = len(simulation.specs) - loss.drives
        if survivors >= copies:
            assert loss.moved >= loss.copies, "each lost copy is made again"
            assert list(loss.repair_s) == sorted(loss.repair_s, reverse=True)
            assert loss.moved_bytes == pytest.approx(loss.moved * simulation.part_bytes)
    assert simulation.part_bytes * parts * copies == pytest.approx(room_bytes(plan) * plan.fill)


@settings(max_examples=20, deadline=None)
@given(PLANS, st.floats(0.001, 0.2))
def test_more_deaths_are_no_safer_and_more_bandwidth_is_no_riskier(plan: Plan, deaths: float) -> None:
    def chances(rate: float) -> list[float]:
        simulation = Simulation(msgspec.structs.replace(plan, drive_deaths=rate, host_deaths=rate / 10))
        return in_all(simulation.chances([simulation.lose(tier) for tier in TIERS]))

    few, many = chances(deaths), chances(2 * deaths)
    assert all(0 <= one <= 1 for one in (*few, *many))
    assert all(one <= other + 1e-15 for one, other in zip(few, many, strict=True))
    assert few == sorted(few, reverse=True)


def test_where_nothing_dies_nothing_is_lost() -> None:
    plan = Plan((Group("r", 3, 2, 3),), part_power=6, drive_deaths=0, host_deaths=0, zone_deaths=0, region_deaths=0)
    simulation = Simulation(plan)
    assert in_all(simulation.chances([simulation.lose(tier) for tier in TIERS])) == [0.0, 0.0, 0.0]


def test_a_region_that_is_the_only_one_takes_everything_with_it() -> None:
    simulation = Simulation(Plan((Group("r", 3, 2, 3),), part_power=6, region_deaths=0.01))
    (chance,) = simulation.chances([simulation.lose("region")])
    assert chance.chance == pytest.approx([1 - math.exp(-0.01)] * 3)


def test_copies_are_apart_so_a_host_or_a_zone_takes_one_of_each() -> None:
    simulation = Simulation(Plan(tuple(Group(f"r{number}", 2, 2, 3) for number in range(3)), part_power=8))
    for tier in TIERS:
        none, one, *_ = simulation.lose(tier).left
        assert none == 0
        assert one <= simulation.ring.parts / 100, "the few that weights leave together"


def test_fragments_are_reckoned_by_hand() -> None:
    """Six drives on hosts of their own keep every partition in 4+2 fragments."""
    plan = Plan(
        (Group("r", 1, 6, 1, tb=1.0),), part_power=4, code="4+2", fill=0.5, drive_deaths=2.0, host_deaths=0.0,
        zone_deaths=0.0, region_deaths=0.0, drive_mb_s=(100.0,), host_mb_s=1e9, region_mb_s=1e9, notice_s=0.0,
    )  # fmt: skip
    spare = msgspec.structs.replace(plan, groups=(Group("r", 1, 7, 1, tb=1.0),))
    simulation = Simulation(plan)
    assert simulation.part_bytes == pytest.approx(0.5e12 / 16), "half of each drive is full, whatever the code"
    (chance,) = simulation.chances([simulation.lose("drive")])
    rate_s, parts = 2.0 / (365.25 * 86_400), 16
    assert chance.events == 12.0
    assert chance.chance == (0.0,), "with nowhere to go, and no notice, repair takes no time"
    seven = Simulation(spare)
    loss = seven.lose("drive")
    assert loss.left[0] == loss.left[1] == 0
    assert (loss.left[2], loss.left[3]) == (loss.copies, parts - loss.copies)
    alive, part_s = 6, seven.part_bytes / 100e6
    assert loss.repair_s[0] >= 4 * loss.copies / alive * part_s, "four are read for each that is made"
    (said,) = seven.chances([loss])[0].chance
    sets = [frozenset(one) for one in np.frombuffer(seven.ring.rows, "<u2").reshape(6, parts).T.tolist()]
    shared = parts / len(set(sets))
    window_s = loss.repair_s[0] * shared / (shared + 1)
    deaths = 5 * rate_s * window_s * 4 * rate_s * window_s / 6  # two more of five; the second shares with six others
    mean = sum(len(one) for one in set(sets)) * deaths / 7
    assert said == pytest.approx(-math.expm1(-14.0 * -math.expm1(-mean)), rel=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(["2+1", "2+2", "4+2"]), st.integers(2, 4), st.integers(2, 4))
def test_a_code_loses_what_more_than_its_parity_held(code: str, zones: int, hosts: int) -> None:
    plan = checked(Plan((Group("r", zones, hosts, 2),), part_power=6, code=code, drive_mb_s=(50.0,)))
    if zones * hosts * 2 < plan.places:
        return
    simulation = Simulation(plan)
    table = np.frombuffer(simulation.ring.rows, "<u2").reshape(plan.places, simulation.ring.parts)
    for tier in TIERS:
        loss = simulation.lose(tier)
        assert sum(loss.left) == simulation.ring.parts
        gone = [place for place, spec in enumerate(simulation.specs) if _is_first(spec, tier)]
        too_many = np.sum(np.isin(table, gone), axis=0) > plan.places - plan.needed
        assert loss.left[0] == int(too_many.sum())
    assert 0 <= in_all(simulation.chances([simulation.lose(tier) for tier in TIERS]))[0] <= 1


def _is_first(spec: DriveSpec, tier: str) -> bool:
    """Whether it is in the first region, zone, host, or is the first drive."""
    _, zone, host, drive, _ = spec.id.split(".")
    return {"region": (), "zone": (zone,), "host": (zone, host), "drive": (zone, host, drive)}[tier] in (
        (), ("0",), ("0", "0"), ("0", "0", "0"),
    )  # fmt: skip


def test_the_chance_is_what_dice_say() -> None:
    """Two copies, drives that die often: every year is played, drive by drive."""
    plan = Plan(
        (Group("r", 1, 1, 8, tb=200.0),), part_power=8, copies=2, drive_deaths=4.0, drive_mb_s=(100.0,), host_mb_s=1e9,
        region_mb_s=1e9,
    )  # fmt: skip
    simulation = Simulation(plan)
    loss = simulation.lose("drive")
    (said,) = simulation.chances([loss])[0].chance
    year_s, dice = 365.25 * 86_400, Random(4)
    rows = np.frombuffer(simulation.ring.rows, "<u2").reshape(2, simulation.ring.parts)
    shared = {tuple(sorted((int(a), int(b)))): 0 for a, b in rows.T}
    for a, b in rows.T:
        shared[tuple(sorted((int(a), int(b))))] += 1
    years, bad = 3000, 0
    for _ in range(years):
        bad += _year(dice, shared, loss.repair_s[0], plan.drive_deaths, year_s)
    assert bad / years == pytest.approx(said, rel=0.25)


def _year(dice: Random, shared: dict[tuple[int, ...], int], repair_s: float, deaths: float, year_s: float) -> bool:
    """Whether anything was lost: a drive died, and the other of a pair before the last that they share was copied."""
    times: list[tuple[float, int]] = []
    for drive in range(8):
        at_s = dice.expovariate(deaths / year_s)
        while at_s < year_s:
            times.append((at_s, drive))
            at_s += dice.expovariate(deaths / year_s)
    times.sort()
    for at, (first_s, first) in enumerate(times):
        for second_s, second in times[at + 1 :]:
            if second_s - first_s >= repair_s:
                break
            count = shared.get(tuple(sorted((first, second))), 0)
            if first != second and count:
                last_s = max(dice.uniform(0, repair_s) for _ in range(count))
                if second_s - first_s < last_s:
                    return True
    return False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("copies = 0", "copies"), ("colour = 1", "colour"), ("code = '4+5'", "code"), ("part_power = 40", "part_power"), ("drive_mb_s = []", "drive_mb_s"),
        ("[[groups]]\nregion = 'r'\nzones = 1\nhosts = 1\ndrives = 2", "2 drives"), ("= 1", "line 1"),
        ("[[groups]]\nregion = 'r'\nhosts = 60000", "drives"), ("part_power = 22\ncopies = 9", "copies"),
        ("part_power = 22\ncopies = 8\n[[groups]]\nregion = 'r'", "part_power"),
    ],
)  # fmt: skip
def test_a_wrong_configuration_is_refused_by_its_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    if said == "part_power" and "copies" in text:
        assert plan_of(path).part_power == 22  # 2^25 copies are the most
        return
    with pytest.raises(Invalid, match=said):
        plan_of(path)
    with pytest.raises(Invalid, match="cannot be read"):
        plan_of(tmp_path / "none.toml")


def test_a_report_is_plain_data(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(msgspec.json.encode(Plan((Group("r", 2, 2, 3),), part_power=6)))
    found = report(Simulation(plan_of(path)), ["drive", "zone"])
    assert [loss["tier"] for loss in json.loads(json.dumps(found))["losses"]] == ["drive", "zone"]
