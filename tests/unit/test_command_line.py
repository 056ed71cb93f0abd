"""QEMU's command line, the plan, the config drive and the probe's ROM: plain values in, plain values out."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import pycdlib
import pytest

from apus.kernel.errors import Conflict, Invalid
from apus.services.compute.contract import HostForward
from apus.services.compute.drivers.config_drive import ConfigDrive, build
from apus.services.compute.drivers.hypervisor import DiskSpec, DomainSpec, Found, NicSpec, Power
from apus.services.compute.drivers.plan import Pause, PlugDisk, Resume, Start, Stop, UnplugNic, check, plan
from apus.services.compute.drivers.qemu.account import COUNT, FIRST, Accounts, rooms_dir
from apus.services.compute.drivers.qemu.command_line import PORTS, Places, command_line
from apus.services.compute.drivers.qemu.driver import version_of
from apus.services.network.contract import UserNetwork

PLACES = Places("/state", "/state/domains/inc-1", "/state/rooms/1")
LENT = {"port-1": ["17"]}
ROOT = DiskSpec(id="root", path="root.qcow2", kind="root", boot_index=1)
VOLUME = DiskSpec(id="vol-1", path="/volumes/1", format="raw", serial="0123456789abcdefghijklmn")
NIC = NicSpec(port_id="port-1", mac="52:54:00:00:00:01", kind="tap", tap_name="tap1", mtu=1400)
SPEC = DomainSpec(
    incarnation_id="inc-1", server_id="s-1", name="web", generation=1, vcpus=2, memory_mib=256, disks=(ROOT, VOLUME),
    nics=(NIC,),
)  # fmt: skip
FOUND = Found(
    incarnation_id="inc-1", power=Power.ON, boot_count=1, disks=("root", "vol-1"), nics=("port-1",), generation=1
)


def argv(spec: DomainSpec, accelerator: str = "tcg") -> list[str]:
    return command_line(spec, PLACES, LENT, program="qemu", machine="pc-q35-7.2", accelerator=accelerator)


def devices(arguments: list[str], flag: str = "-device") -> list[dict[str, Any]]:
    values = [value for name, value in itertools.pairwise(arguments) if name == flag]
    return [json.loads(value) for value in values if value.startswith("{")]


def test_nothing_is_there_that_was_not_asked_for() -> None:
    said = argv(SPEC)
    assert {"-nodefaults", "-no-user-config", "-sandbox"} <= set(said)
    assert said[said.index("-machine") + 1].startswith("pc-q35-7.2,")
    assert said == argv(SPEC)


def test_disks_and_cards() -> None:
    root, volume, nic = devices(argv(SPEC))
    assert root["bootindex"] == 1
    assert "bus" not in root, "the root disk is never unplugged"
    assert (volume["bus"], volume["serial"]) == ("port0", "0123456789abcdefghij")
    assert (nic["bus"], nic["host_mtu"]) == ("port1", 1400)
    assert devices(argv(SPEC), "-blockdev")[0]["file"]["filename"] == "domains/inc-1/root.qcow2"
    both = command_line(SPEC, PLACES, {"port-1": ["17", "18"]}, program="qemu", machine="q35", accelerator="kvm")
    assert devices(both, "-netdev")[0]["vhostfd"] == "18"


def test_user_network_forwards_ports() -> None:
    nic = NicSpec(
        port_id="p", mac="52:54:00:00:00:02", kind="user", host_forwards=(HostForward(host_port=7022, guest_port=22),)
    )
    (backend,) = devices(argv(msgspec.structs.replace(SPEC, nics=(nic,))), "-netdev")
    assert backend["hostfwd"] == [{"str": "tcp:127.0.0.1:7022-:22"}]


def test_user_network_gives_the_fixed_address() -> None:
    network = UserNetwork(cidr="10.0.0.0/24", gateway="10.0.0.1", dns="10.0.0.254", guest="10.0.0.5", outside=False)
    nic = NicSpec(port_id="p", mac="52:54:00:00:00:02", kind="user", user=network)
    (backend,) = devices(argv(msgspec.structs.replace(SPEC, nics=(nic,))), "-netdev")
    assert backend["net"] == "10.0.0.0/24"
    assert (backend["host"], backend["dns"], backend["dhcpstart"]) == ("10.0.0.1", "10.0.0.254", "10.0.0.5")
    assert backend["restrict"] is True


def test_too_many_devices() -> None:
    disks = tuple(msgspec.structs.replace(VOLUME, id=f"vol-{number}") for number in range(PORTS))
    with pytest.raises(Invalid) as refused:
        argv(msgspec.structs.replace(SPEC, disks=disks))
    assert refused.value.field == "disks"


OFF = msgspec.structs.replace(FOUND, power=Power.OFF, disks=(), nics=())


@pytest.mark.parametrize(
    ("wanted", "found", "actions"),
    [
        ({}, {}, []),
        ({"power": "off"}, {}, [Stop(60.0)]),
        ({"power": "paused"}, {}, [Pause()]),
        ({}, {"power": Power.PAUSED}, [Resume()]),
        ({"boot_count": 2}, {}, [Stop(0.0), Start()]),
        ({"boot_count": 2, "reboot_kind": "soft"}, {}, [Stop(60.0), Start()]),
        ({"disks": (ROOT,)}, {"disks": ("root",)}, []),
        ({}, {"disks": ("root",)}, [PlugDisk(VOLUME)]),
        ({"nics": ()}, {}, [UnplugNic("port-1")]),
        ({}, {"power": Power.CRASHED, "disks": (), "nics": ()}, []),
    ],
)
def test_plan(wanted: dict[str, Any], found: dict[str, Any], actions: list[Any]) -> None:
    assert plan(msgspec.structs.replace(SPEC, **wanted), msgspec.structs.replace(FOUND, **found)) == actions


def test_plan_of_a_domain_that_is_off() -> None:
    assert plan(SPEC, OFF) == [], "it powered itself off: that is not undone behind its back"
    assert plan(SPEC, msgspec.structs.replace(OFF, boot_count=0)) == [Start()]
    assert plan(msgspec.structs.replace(SPEC, power="off"), OFF) == []


def test_check() -> None:
    with pytest.raises(Conflict):
        check(SPEC, msgspec.structs.replace(SPEC, generation=2))
    with pytest.raises(Invalid):
        check(msgspec.structs.replace(SPEC, disks=(ROOT, ROOT)), None)


def test_deep_state_directories_get_a_shallow_socket(tmp_path: Any) -> None:
    open_to_all = Path("/var/lib/apus/compute")
    assert rooms_dir(open_to_all) == open_to_all / "rooms"
    deep = tmp_path / ("d" * 100)
    assert len(str(rooms_dir(deep))) < 80
    assert version_of("pc-q35-7.2") > version_of("pc-q35-2.12")


def test_no_two_guests_are_the_same_user() -> None:
    accounts = Accounts()
    first = accounts.give("a")
    accounts.know("b", (first + 1 - FIRST) % COUNT + FIRST)
    again = Accounts()
    again.know("somebody", first)
    assert accounts.give("a") == first
    assert again.give("a") == first + 1
    again.forget("somebody")
    assert {FIRST <= accounts.give(str(number)) < FIRST + COUNT for number in range(100)} == {True}


def test_config_drive_reads_back() -> None:
    drive = ConfigDrive(
        meta_data={"uuid": "u", "hostname": "web"}, user_data=b"#!/bin/sh\n", content={"0000": b"\x00\xff"},
        ec2_meta_data={"instance-id": "i-1"},
    )  # fmt: skip
    image = build(drive)
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(image))
    assert iso.pvd.volume_identifier.strip() == b"config-2"
    for kind in ("rr_path", "joliet_path"):
        out = io.BytesIO()
        iso.get_file_from_iso_fp(out, **{kind: "/openstack/latest/meta_data.json"})
        assert json.loads(out.getvalue()) == drive.meta_data
    out = io.BytesIO()
    iso.get_file_from_iso_fp(out, rr_path="/openstack/content/0000")
    assert out.getvalue() == b"\x00\xff"
    iso.close()
    with pytest.raises(Invalid):
        build(ConfigDrive(meta_data={}, content={"../x": b""}))
