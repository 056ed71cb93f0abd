"""The kernel's small rooms: settings, policy, machines, log lines."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.caller import Caller, the_system
from apus.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from apus.kernel.log import get_logger
from apus.kernel.machine import Machine
from apus.kernel.policy import Rule, allows, require, require_visible
from apus.kernel.settings import Settings, dump_settings, load_settings, parse_settings


# ---------------------------------------------------------------------- settings
def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(Invalid, match="did you mean 'port'") as caught:
        parse_settings({"prot": 1}, "apus.toml")
    assert caught.value.field == "prot"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "x"), ("port", 0), ("port", 70_000), ("sim_hosts", -1), ("replicas", 0), ("network", "carrier"),
        ("log_level", "loud"), ("roles", ["king"]), ("cpu_allocation_ratio", 0.0), ("node", "a b"), ("node", ""),
    ],
)  # fmt: skip
def test_wrong_settings_name_their_field(name: str, value: Any) -> None:
    with pytest.raises(Invalid, match=name) as caught:
        parse_settings({name: value}, "apus.toml")
    assert str(caught.value.field).startswith(name)


texts = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20)


policies = st.dictionaries(texts, st.integers(1, 16) | texts, max_size=3)


@given(
    st.builds(
        Settings, region=texts, drives=st.tuples(texts, texts), port=st.integers(1, 65535), storage_policies=policies
    )
)
def test_settings_survive_the_file(settings: Settings) -> None:
    import tomllib

    assert parse_settings(tomllib.loads(dump_settings(settings)), "x") == settings


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    path = tmp_path / "apus.toml"
    path.write_text(dump_settings(Settings(port=9000)))
    assert "region" not in path.read_text()
    assert load_settings(path) == Settings(port=9000)


@pytest.mark.parametrize("data", [None, b"port = ", b"\xff\xfe"])
def test_unreadable_files_are_named(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "apus.toml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(Invalid, match=r"apus\.toml"):
        load_settings(path)


# ---------------------------------------------------------------------- policy
def caller(*roles: str, project: str | None = "p", user: str = "u") -> Caller:
    return Caller(user_id=user, project_id=project, roles=frozenset(roles))


@pytest.mark.parametrize(
    ("rule", "who", "project", "may"),
    [
        (Rule.PUBLIC, caller(), "other", True),
        (Rule.ANYONE, caller(), "other", True),
        (Rule.READER, caller("reader"), None, True),
        (Rule.READER, caller("reader"), "p", True),
        (Rule.READER, caller("reader"), "other", False),
        (Rule.READER, caller("reader", project=None), "p", False),
        (Rule.READER, caller(), "p", False),
        (Rule.MEMBER, caller("reader"), "p", False),
        (Rule.SERVICE, caller("service"), "other", True),
        (Rule.SERVICE, caller("member"), "p", False),
        (Rule.ADMIN, caller("manager"), "p", False),
        (Rule.ADMIN, caller("admin"), "other", True),
        (Rule.MEMBER, the_system(), "other", True),
    ],
)
def test_rules(rule: Rule, who: Caller, project: str | None, may: bool) -> None:
    assert allows(rule, who, project_id=project) is may


def test_owners() -> None:
    assert allows(Rule.OWNER, caller(), user_id="u")
    assert not allows(Rule.OWNER, caller("member"), user_id="else")
    with pytest.raises(Forbidden, match="reader"):
        require({"thing:make": Rule.MEMBER}, "thing:make", caller("reader"))


def test_what_is_another_tenants_does_not_exist() -> None:
    missing = NotFound("thing.missing", "There is no thing.")
    require_visible(caller("reader"), "p", missing)
    require_visible(caller("admin"), "other", missing)
    for who, project in ((caller("reader"), "other"), (caller("reader", project=None), None)):
        with pytest.raises(NotFound):
            require_visible(who, project, missing)


# ---------------------------------------------------------------------- machines
class Door(enum.StrEnum):
    OPEN = "open"
    SHUT = "shut"
    LOST = "lost"


DOOR: Machine[Door, str] = Machine("door", {(Door.OPEN, "shut"): Door.SHUT, (Door.SHUT, "open"): Door.OPEN})


def test_machines_move_and_say_when_they_cannot() -> None:
    assert DOOR.move(Door.OPEN, "shut") is Door.SHUT
    with pytest.raises(Conflict, match="possible when it is: open"):
        DOOR.move(Door.SHUT, "shut")
    with pytest.raises(Conflict, match="never"):
        DOOR.move(Door.SHUT, "burn")
    assert DOOR.reachable(Door.OPEN) == {Door.OPEN, Door.SHUT}


# ---------------------------------------------------------------------- log lines
def test_a_log_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    get_logger("apus.test").info("said", text='a\nb"c', odd=object, when={1: b"x"})
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["log"], said["level"], said["event"], said["text"]) == ("apus.test", "info", "said", 'a\nb"c')


def test_records_decode_older_rows() -> None:
    assert msgspec.json.decode(b'{"region": "R"}', type=Settings).port == 8774
