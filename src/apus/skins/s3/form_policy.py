"""The policy of a POST form: until when, and with which fields and how large a file, it may be sent.

Every field of the form has to be named by a condition, but for those that prove the policy itself.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from apus.skins.s3.errors import S3Error

_RANGE: Final = "content-length-range"
_EXEMPT: Final = ("x-amz-signature", "file", "policy", "awsaccesskeyid", "signature")
_IGNORED: Final = "x-ignore-"
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    operator: str
    """eq, starts-with"""
    field: str
    value: str


@dataclasses.dataclass(frozen=True, slots=True)
class FormPolicy:
    expires_s: float
    conditions: tuple[Condition, ...]
    least_bytes: int = 0
    most_bytes: int | None = None


def form_policy_of(encoded: str) -> FormPolicy:
    """Raise S3Error (InvalidPolicyDocument) for what is none."""
    try:
        text = base64.b64decode(encoded, validate=True)
        # a policy may say `\$`, which JSON does not know
        document = msgspec.json.decode(_ESCAPED.sub(lambda match: b"$" if match[1] == b"$" else match[0], text))
    except (binascii.Error, ValueError, RecursionError):
        raise _invalid("Invalid Policy: Invalid JSON.") from None
    if not isinstance(document, dict) or not isinstance(document.get("expiration"), str):
        raise _invalid("Invalid Policy: Policy missing expiration.")
    wanted = document.get("conditions")
    if not isinstance(wanted, list):
        raise _invalid("Invalid Policy: Policy missing conditions.")
    conditions: list[Condition] = []
    least, most = 0, None
    for item in wanted:
        if isinstance(item, list) and item and isinstance(item[0], str) and item[0].lower() == _RANGE:
            least, most = _range(item)
        else:
            conditions.append(_condition(item))
    return FormPolicy(_moment(document["expiration"]), tuple(conditions), least, most)


def _moment(text: str) -> float:
    try:
        parsed = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise _invalid(f"Invalid Policy: Invalid 'expiration' value: '{text}'") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp()


def _range(item: list[Any]) -> tuple[int, int]:
    numbers = []
    for value in item[1:]:
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _invalid("Invalid Policy: Invalid content-length-range.")
        numbers.append(value)
    if len(numbers) != 2:
        raise _invalid("Invalid Policy: content-length-range has two numbers.")
    return numbers[0], numbers[1]


def _condition(item: Any) -> Condition:
    if isinstance(item, dict) and len(item) == 1:
        (field, value), operator = next(iter(item.items())), "eq"
    elif isinstance(item, list) and len(item) == 3 and isinstance(item[0], str):
        operator, field, value = item[0].lower(), item[1], item[2]
        if not isinstance(field, str) or not field.startswith("$"):
            raise _invalid("Invalid Policy: Invalid Condition: a field begins with $.")
        field = field[1:]
    else:
        raise _invalid("Invalid Policy: Invalid Simple-Condition: a Simple-Condition has one property.")
    if operator not in ("eq", "starts-with") or not isinstance(value, str):
        raise _invalid("Invalid Policy: Invalid Condition.")
    return Condition(operator, field.lower(), value)


def check_form(policy: FormPolicy, fields: Mapping[str, str], now_s: float) -> None:
    """`fields` in lower case, with the bucket among them.  Raise S3Error (AccessDenied)."""
    if now_s >= policy.expires_s:
        raise S3Error("AccessDenied", "Invalid according to Policy: Policy expired.")
    for condition in policy.conditions:
        value = fields.get(condition.field, "")
        good = value == condition.value if condition.operator == "eq" else value.startswith(condition.value)
        if not good:
            shown = f'["{condition.operator}", "${condition.field}", "{condition.value}"]'
            raise S3Error("AccessDenied", f"Invalid according to Policy: Policy Condition failed: {shown}")
    named = {condition.field for condition in policy.conditions}
    exempt = {*named, *_EXEMPT, "bucket"}
    extra = sorted(name for name in fields if name not in exempt and not name.startswith(_IGNORED))
    if extra:
        raise S3Error("AccessDenied", f"Invalid according to Policy: Extra input fields: {', '.join(extra)}")


def _invalid(shown: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", shown)
