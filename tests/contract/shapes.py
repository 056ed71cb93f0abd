"""Bodies from the types that routes take: first right ones, then ones that are wrong in one place, then rubbish.

`of_type` builds a hypothesis strategy from any msgspec type; `bodies` spoils what it gives.  Text is drawn by the name
of its field (`words`), so that a fair share of the bodies passes validation and reaches the service itself.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any, Final

import msgspec.inspect as mi
from hypothesis import strategies as st

Words = Callable[[str], st.SearchStrategy[str]]
"""The name of a field -> what to write there."""

ODD_TEXT: Final = (
    "", " ", "\t\n", "x" * 300, "y" * 70_000, "\u0000", "a\u0000b", "é", "\u202e\u200d", "日本語", "\U0001f426", "\U0010fffd",
    "\ufffe", "../../etc/passwd", "a/b", "%2F%00", "'; DROP TABLE flow; --", "<script>", "-1", "0", "99999999999999999999",
    "true", "null", "None", "{}", "0.0.0.0/0", "::/0", "10.0.0.0/33", "fe80::1%lo", "00:00:00:00:00:00", "1e400", "\r\nX: y",
)  # fmt: skip
ODD: Final = (
    *ODD_TEXT, None, True, False, 0, -1, 1, 65_536, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 1.5, -0.0, 1e308, [], {},
    [[]], [None], [""], [{}], {"": ""}, {"a": {"b": {"c": []}}}, ["x"] * 2_000, {str(number): number for number in range(500)},
)  # fmt: skip
_DEEP: Final = 50_000
RUBBISH: Final = (
    b"", b" ", b"null", b"[]", b"{}", b"0", b'"text"', b"true", b"{", b'{"a":', b"nul", b"NaN", b"-Infinity", b"1e999",
    b"\x00", b"\xff\xfe{}", b'"\\ud800"', b'{"\\ud800": "\\udfff"}', b'{"a": 1, "a": 2}', b"\xef\xbb\xbf{}", b"9" * 5_000,
    b"[" * _DEEP, b"[" * _DEEP + b"]" * _DEEP, b'{"a":' * _DEEP + b"1" + b"}" * _DEEP, b"x" * 70_000, b"a=b&c=d",
    b'{"' + b"k" * 100_000 + b'": 1}',
)  # fmt: skip


def of_type(type_: Any, words: Words) -> st.SearchStrategy[Any]:
    """Values that msgspec would accept for this type (texts may miss a pattern)."""
    return _of(mi.type_info(type_), words, "", 0)


def _of(info: Any, words: Words, name: str, depth: int) -> st.SearchStrategy[Any]:
    if isinstance(info, mi.Metadata):
        return _of(info.type, words, name, depth)
    if isinstance(info, mi.StructType):
        return _struct(info, words, depth)
    if isinstance(info, mi.UnionType):
        kinds = [kind for kind in info.types if not isinstance(kind, mi.NoneType)]
        some = st.one_of([_of(kind, words, name, depth) for kind in kinds])
        return st.one_of(some, some, st.none()) if len(kinds) < len(info.types) else some
    if isinstance(info, (mi.ListType, mi.VarTupleType, mi.SetType)):
        least = info.min_length or 0
        most = max(least, min(3, 3 if info.max_length is None else info.max_length))
        return st.lists(_of(info.item_type, words, name, depth + 1), min_size=least, max_size=most)
    if isinstance(info, mi.DictType):
        keys = _of(info.key_type, words, name, depth + 1).filter(lambda key: isinstance(key, str))
        return st.dictionaries(keys, _of(info.value_type, words, name, depth + 1), max_size=3)
    if isinstance(info, mi.StrType):
        longest = info.max_length
        return words(name).map(lambda text: text if longest is None else text[:longest])
    if isinstance(info, mi.LiteralType):
        return st.sampled_from(info.values)
    if isinstance(info, mi.EnumType):
        return st.sampled_from([one.value for one in info.cls])
    if isinstance(info, mi.IntType):
        least, most = info.ge if info.ge is not None else -1, info.le if info.le is not None else 2**40
        return st.one_of(st.integers(least, min(most, least + 64)), st.sampled_from((least, most)))
    if isinstance(info, mi.FloatType):
        return st.floats(0, 16, allow_nan=False)
    if isinstance(info, mi.BoolType):
        return st.booleans()
    if isinstance(info, mi.NoneType):
        return st.none()
    return st.sampled_from(ODD)  # Any, Raw


def _struct(info: mi.StructType, words: Words, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    fields = {field.encode_name: _of(field.type, words, field.encode_name, depth + 1) for field in info.fields}
    required = {field.encode_name for field in info.fields if field.required}
    return st.fixed_dictionaries(
        {name: fields[name] for name in fields if name in required},
        optional={name: fields[name] for name in fields if name not in required} if depth < 6 else {},
    )


def names_of(type_: Any) -> set[str]:
    """The names of all its fields, at any depth."""
    found: set[str] = set()

    def walk(info: Any) -> None:
        if isinstance(info, mi.StructType):
            found.update(field.encode_name for field in info.fields)
        for name in ("fields", "types", "item_type", "value_type", "type"):
            below = getattr(info, name, ())
            for one in below if isinstance(below, tuple) else (below,):
                walk(one)

    walk(mi.type_info(type_))
    return found


def places(value: Any) -> list[tuple[Any, ...]]:
    """The path of everything inside."""
    found: list[tuple[Any, ...]] = [()]
    if isinstance(value, dict):
        found += [(key, *rest) for key in value for rest in places(value[key])]
    elif isinstance(value, list):
        found += [(index, *rest) for index, item in enumerate(value[:5]) for rest in places(item)]
    return found


def spoil(value: Any, dice: Random) -> Any:
    """The same with one thing wrong: a value of another kind, a field too many or too few, another envelope."""
    value = copy.deepcopy(value)
    path = dice.choice(places(value))
    odd, how = dice.choice(ODD), dice.random()
    if not path:
        return dice.choice(
            (odd, {"wrong": value}, [value], {**value, "extra": odd} if isinstance(value, dict) else odd)
        )
    inside = value
    for key in path[:-1]:
        inside = inside[key]
    if how < 0.6:
        inside[path[-1]] = odd
    elif how < 0.75:
        del inside[path[-1]]
    elif how < 0.9 and isinstance(inside, dict):
        inside[dice.choice(("extra", "", "id", "project_id", "é\u0000", "k" * 400))] = odd
    else:
        inside[path[-1]] = [inside[path[-1]]] * dice.choice((1, 2, 1_500))
    return value


def bodies(right: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """What is sent: right, wrong in one or two places, rubbish."""

    def spoilt(value: Any, seed: int) -> Any:
        dice = Random(seed)
        for _ in range(dice.choice((1, 1, 2))):
            value = spoil(value, dice)
        return value

    seeds = st.integers(0, 2**32)
    wrong = st.builds(spoilt, right, seeds).map(encode)
    return st.one_of(right.map(encode), right.map(encode), wrong, wrong, wrong, st.sampled_from(RUBBISH))


def encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
