"""Bucket policies: what a document allows and denies, by principal, action, resource and condition.

A denial wins over every permission; what no statement speaks of is left to ACLs and ownership.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from apus.kernel.caller import Caller
from apus.kernel.errors import Invalid
from apus.services.object.logic.access import has_names
from apus.services.object.logic.policy_conditions import Context, filled, holds, is_operator, like

POLICY_BYTES_MAX: Final = 20 << 10
ARN: Final = "arn:aws:s3:::"
_VERSIONS: Final = ("2012-10-17", "2008-10-17")
_FIELDS: Final = {
    "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition",
}  # fmt: skip


class Verdict(enum.Enum):
    ALLOW = "allow"
    DENY = "deny"
    SILENT = "silent"


@dataclasses.dataclass(frozen=True, slots=True)
class Statement:
    allows: bool
    principals: tuple[tuple[str, str], ...]
    """(kind, who): AWS, CanonicalUser, Federated, Service or `*`."""
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]
    """(operator, key, values): all of them must hold."""
    not_principals: bool = False
    not_actions: bool = False
    not_resources: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """May he do this to that?"""

    caller: Caller | None
    action: str
    """`s3:GetObject`."""
    resource: str
    """`BUCKET` or `BUCKET/KEY`."""
    context: Context
    names: bool = False
    """Projects may be said by name."""


def parse_policy(text: str | bytes, bucket: str) -> tuple[Statement, ...]:
    """Raise Invalid, saying what is wrong, for what is no policy of this bucket."""
    data = text.encode() if isinstance(text, str) else text
    if len(data) > POLICY_BYTES_MAX:
        raise _wrong(f"Policies are at most {POLICY_BYTES_MAX} bytes long.")
    try:
        document = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _wrong("Policies must be valid JSON and the first byte must be '{'") from None
    if not isinstance(document, dict) or not document.get("Statement"):
        raise _wrong("Missing required field Statement")
    unknown = document.keys() - {"Version", "Id", "Statement"}
    if unknown:
        raise _wrong(f"Unknown field {min(unknown)}")
    if document.get("Version", _VERSIONS[1]) not in _VERSIONS:
        raise _wrong("The policy must contain a valid version string")
    statements = document["Statement"]
    return tuple(_statement(item, bucket) for item in (statements if isinstance(statements, list) else [statements]))


@lru_cache(maxsize=1024)
def known_policy(text: str, bucket: str) -> tuple[Statement, ...]:
    """One that was checked when it was stored."""
    return parse_policy(text, bucket)


def _wrong(shown: str) -> Invalid:
    return Invalid("object.policy_document", shown, field="Policy")


def _statement(item: Any, bucket: str) -> Statement:
    if not isinstance(item, dict):
        raise _wrong("Each Statement is an object")
    unknown = item.keys() - _FIELDS
    if unknown:
        raise _wrong(f"Unknown field {min(unknown)}")
    if item.get("Effect") not in ("Allow", "Deny"):
        raise _wrong(f"Invalid effect: {item.get('Effect')}")
    principals, not_principals = _one_of(item, "Principal")
    actions, not_actions = _one_of(item, "Action")
    resources, not_resources = _one_of(item, "Resource")
    found = tuple(action.lower() for action in _texts(actions, "Action"))
    if any(action != "*" and not action.startswith("s3:") for action in found):
        raise _wrong("Policy has invalid action")
    wanted = tuple(_resource(resource, bucket) for resource in _texts(resources, "Resource"))
    return Statement(
        item["Effect"] == "Allow", _principals(principals), found, wanted, _conditions(item.get("Condition")),
        not_principals, not_actions, not_resources,
    )  # fmt: skip


def _one_of(item: Mapping[str, Any], name: str) -> tuple[Any, bool]:
    given, negated = item.get(name), item.get("Not" + name)
    if (given is None) == (negated is None):
        raise _wrong(f"Missing required field {name}" if given is None else f"Both {name} and Not{name} are given")
    return (given, False) if given is not None else (negated, True)


def _texts(value: Any, name: str) -> list[str]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(text, str) and text for text in values):
        raise _wrong(f"Policy has invalid {name.lower()}")
    return values


def _resource(text: str, bucket: str) -> str:
    if text == "*":
        return text
    path = text.removeprefix(ARN)
    if path == text or not like(path.partition("/")[0].partition("${")[0] or "*", bucket):
        raise _wrong("Policy has invalid resource")
    return path


def _principals(value: Any) -> tuple[tuple[str, str], ...]:
    if value == "*":
        return (("*", "*"),)
    if not isinstance(value, dict) or not value:
        raise _wrong("Invalid principal in policy")
    found = []
    for kind, names in value.items():
        if kind not in ("AWS", "CanonicalUser", "Federated", "Service"):
            raise _wrong("Invalid principal in policy")
        found += [(kind, name) for name in _texts(names, "principal")]
    return tuple(found)


def _conditions(value: Any) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict):
        raise _wrong("Conditions are an object")
    found = []
    for operator, keys in value.items():
        if not is_operator(operator) or not isinstance(keys, dict):
            raise _wrong(f"Invalid Condition type : {operator}")
        for key, values in keys.items():
            texts = values if isinstance(values, list) else [values]
            if not all(isinstance(text, str | bool | int | float) for text in texts):
                raise _wrong(f"Invalid Condition value of {key}")
            found.append((operator, key, tuple(_text(text) for text in texts)))
    return tuple(found)


def _text(value: str | bool | int | float) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def decide(statements: Sequence[Statement], question: Question) -> Verdict:
    verdict = Verdict.SILENT
    for statement in statements:
        if not _speaks_of(statement, question):
            continue
        if not statement.allows:
            return Verdict.DENY
        verdict = Verdict.ALLOW
    return verdict


def _speaks_of(statement: Statement, question: Question) -> bool:
    action = question.action.lower()
    if any(like(pattern, action) for pattern in statement.actions) == statement.not_actions:
        return False
    context = question.context
    about = any(like(filled(pattern, context), question.resource) for pattern in statement.resources)
    if about == statement.not_resources:
        return False
    named = question.names and has_names(question.caller)
    named = named or (not statement.allows and not statement.not_principals)  # a doubt gives nothing away
    spoken_of = any(is_principal(kind, who, question.caller, names=named) for kind, who in statement.principals)
    if spoken_of == statement.not_principals:
        return False
    return all(holds(operator, key, values, context) for operator, key, values in statement.conditions)


def is_principal(kind: str, who: str, caller: Caller | None, *, names: bool) -> bool:
    """`*`, a project (`arn:aws:iam::PROJECT:root`) or one of its users (`…:user/NAME`), by id or, with `names`, name.

    Who acts in a project that is said by its id may always be said by name: that project chose whom it lets in.
    """
    if who == "*":
        return kind in ("*", "AWS")
    if caller is None or caller.project_id is None:
        return False
    projects = {caller.project_id, caller.project_name} if names else {caller.project_id}
    if kind == "CanonicalUser":
        return who in (caller.project_id, caller.user_id)
    if kind != "AWS":
        return False
    if not who.startswith("arn:aws:iam::"):
        return who in projects
    project, _, name = who.removeprefix("arn:aws:iam::").partition(":")
    if project and project not in projects:
        return False
    if name == "root":
        return bool(project)
    users = {"*", caller.user_id}
    if names or project == caller.project_id:
        users.add(caller.user_name)
    return name.startswith("user/") and name.removeprefix("user/") in users


def is_public(statements: Sequence[Statement]) -> bool:
    """Whether it lets in everybody, without a condition that says from where."""
    narrowing = {"aws:sourceip", "aws:sourcearn", "aws:sourcevpc", "aws:sourcevpce", "aws:userid", "aws:principalorgid"}
    for statement in statements:
        everybody = statement.not_principals or any(who == "*" for _, who in statement.principals)
        narrowed = any(
            key.lower() in narrowing and not any(value in ("*", "0.0.0.0/0", "::/0") for value in values)
            for _, key, values in statement.conditions
        )
        if statement.allows and everybody and not narrowed:
            return True
    return False
