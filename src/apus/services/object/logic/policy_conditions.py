"""Conditions of bucket policies: operators that hold a key of the request against values of the policy."""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

Context = Mapping[str, Sequence[str]]
"""Keys of the request in lower case; one that is absent is not there."""


@lru_cache(maxsize=4096)
def _pattern(text: str) -> re.Pattern[str]:
    """`*` is any run and `?` any character; nothing else is special."""
    translated = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in text)
    return re.compile(translated, re.DOTALL)


def like(pattern: str, text: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return pattern == text
    return _pattern(re.sub(r"\*+", "*", pattern)).fullmatch(text) is not None


def moment(text: str) -> float:
    """ISO 8601 or seconds since the epoch, as seconds.  Raise ValueError."""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return float(text)
    parsed = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp()


def _address(wanted: str, given: str) -> bool:
    return ipaddress.ip_address(given) in ipaddress.ip_network(wanted, strict=False)


_Test = Callable[[str, str], bool]
"""(the policy's value, the request's); a ValueError means no."""

_TESTS: Final[Mapping[str, _Test]] = {
    "StringEquals": lambda wanted, given: wanted == given,
    "StringEqualsIgnoreCase": lambda wanted, given: wanted.casefold() == given.casefold(),
    "StringLike": like,
    "ArnEquals": like,
    "ArnLike": like,
    "Bool": lambda wanted, given: wanted.lower() == given.lower(),
    "BinaryEquals": lambda wanted, given: wanted == given,
    "IpAddress": _address,
    "NumericEquals": lambda wanted, given: float(given) == float(wanted),
    "NumericLessThan": lambda wanted, given: float(given) < float(wanted),
    "NumericLessThanEquals": lambda wanted, given: float(given) <= float(wanted),
    "NumericGreaterThan": lambda wanted, given: float(given) > float(wanted),
    "NumericGreaterThanEquals": lambda wanted, given: float(given) >= float(wanted),
    "DateEquals": lambda wanted, given: moment(given) == moment(wanted),
    "DateLessThan": lambda wanted, given: moment(given) < moment(wanted),
    "DateLessThanEquals": lambda wanted, given: moment(given) <= moment(wanted),
    "DateGreaterThan": lambda wanted, given: moment(given) > moment(wanted),
    "DateGreaterThanEquals": lambda wanted, given: moment(given) >= moment(wanted),
}
_NEGATED: Final = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NotIpAddress": "IpAddress",
    "NumericNotEquals": "NumericEquals",
    "DateNotEquals": "DateEquals",
}
_SETS: Final = ("ForAnyValue:", "ForAllValues:")
_VARIABLE: Final = re.compile(r"\$\{([^}]*)\}")


def is_operator(name: str) -> bool:
    for prefix in _SETS:
        name = name.removeprefix(prefix)
    name = name.removesuffix("IfExists")
    return name == "Null" or name in _TESTS or name in _NEGATED


def holds(operator: str, key: str, wanted: Sequence[str], context: Context) -> bool:
    """Whether one line of a Condition holds of the request.  A negation holds where the key is absent."""
    given = context.get(key.lower())
    if operator == "Null":
        return any((value.lower() == "true") == (given is None) for value in wanted)
    every = operator.startswith("ForAllValues:")
    for prefix in _SETS:
        operator = operator.removeprefix(prefix)
    if given is None and (every or operator.endswith("IfExists")):
        return True
    operator = operator.removesuffix("IfExists")
    negated = operator in _NEGATED
    if given is None:
        return negated
    test = _TESTS[_NEGATED.get(operator, operator)]
    values = [filled(value, context) for value in wanted]

    def one(text: str) -> bool:
        return any(_passes(test, value, text) for value in values) != negated

    return all(map(one, given)) if every or negated else any(map(one, given))


def _passes(test: _Test, wanted: str, given: str) -> bool:
    try:
        return test(wanted, given)
    except ValueError:
        return False


def filled(text: str, context: Context) -> str:
    """`${aws:username}` and its like replaced; `${*}`, `${?}` and `${$}` are those characters."""
    if "${" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        name = match[1].partition(",")[0].strip()
        if name in ("*", "?", "$"):
            return name
        found = context.get(name.lower())
        return found[0] if found and len(found) == 1 else match[0]

    return _VARIABLE.sub(value, text)
