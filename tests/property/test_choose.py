"""Laws of the chooser: what it picks fits, and what it refuses is counted to the last host."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from apus.services.placement.contract import Inventory, Need
from apus.services.placement.logic.choose import HostTable, choose
from apus.services.placement.model import Provider
from apus.services.placement.service import fits

_amounts = st.integers(min_value=0, max_value=64)


@st.composite
def hosts(draw: st.DrawFn) -> list[Provider]:
    made = []
    for index in range(draw(st.integers(0, 8))):
        total, memory = draw(st.integers(1, 64)), draw(st.integers(1, 64))
        made.append(
            Provider(
                id=f"id-{index}",
                name=f"host-{index}",
                inventories={"VCPU": Inventory(total=total), "MEMORY_MB": Inventory(total=memory)},
                used={"VCPU": draw(st.integers(0, total)), "MEMORY_MB": draw(st.integers(0, memory))},
                traits=draw(st.sampled_from([(), ("HW_A",), ("HW_A", "HW_B")])),
                availability_zone=draw(st.sampled_from(["nova", "east"])),
                enabled=draw(st.booleans()),
                is_host=True,
            )
        )
    return made


needs = st.builds(
    Need,
    resources=st.fixed_dictionaries({"VCPU": st.integers(1, 64), "MEMORY_MB": st.integers(1, 64)}),
    required_traits=st.sampled_from([(), ("HW_A",), ("HW_NONE",)]),
    forbidden_traits=st.sampled_from([(), ("HW_B",)]),
    availability_zone=st.sampled_from([None, "nova", "east", "west"]),
)


@given(hosts(), needs, st.integers())
def test_the_chosen_host_fits_and_the_refused_are_counted(found: list[Provider], need: Need, seed: int) -> None:
    table = HostTable(found, {host.id: 100.0 for host in found})
    choice = choose(table, need, Random(seed), silent_before_s=50.0)
    refused = sum(refusal.hosts for refusal in choice.refusals)
    able = [
        host
        for host in found
        if host.enabled
        and need.availability_zone in (None, host.availability_zone)
        and set(need.required_traits) <= set(host.traits)
        and not set(need.forbidden_traits) & set(host.traits)
        and fits(host, need.resources)
    ]
    assert refused == len(found) - len(able)
    if choice.host is None:
        assert not able
    else:
        assert choice.host in able


@given(hosts(), needs, st.integers())
def test_the_same_snapshot_and_dice_give_the_same_choice(found: list[Provider], need: Need, seed: int) -> None:
    table = HostTable(found, {host.id: 100.0 for host in found})
    first = choose(table, need, Random(seed), silent_before_s=0.0)
    assert choose(table, need, Random(seed), silent_before_s=0.0) == first


@given(hosts(), needs)
def test_silent_hosts_take_nothing(found: list[Provider], need: Need) -> None:
    table = HostTable(found, {})
    choice = choose(table, need, Random(1), silent_before_s=1.0)
    assert choice.host is None
    assert sum(refusal.hosts for refusal in choice.refusals if refusal.filter == "heard") == len(found)


def test_a_refusal_says_what_would_have_fitted() -> None:
    host = Provider(id="a", name="a", inventories={"MEMORY_MB": Inventory(total=512)}, is_host=True)
    choice = choose(HostTable([host], {"a": 1.0}), Need(resources={"MEMORY_MB": 1024}), Random(1), silent_before_s=0.0)
    assert choice.host is None
    assert choice.would_fit == "MEMORY_MB ≤ 512"
    assert choice.refusals[0].filter == "MEMORY_MB"
    assert "512" in choice.refusals[0].hint
