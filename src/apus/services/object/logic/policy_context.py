"""What every request says of itself to a bucket policy, whichever door it comes through."""

from __future__ import annotations

import dataclasses
import datetime

from apus.kernel.caller import Caller
from apus.services.object.logic.tags import tags_of
from apus.services.object.model import Head


@dataclasses.dataclass(frozen=True, slots=True)
class Circumstances:
    now_s: float
    account: str
    """Of the bucket."""
    caller: Caller | None
    secure: bool = False
    source_ip: str = ""
    referrer: str = ""
    user_agent: str = ""
    existing: Head | None = None
    """The object that the request is about, when it is there."""


def context_of(what: Circumstances) -> dict[str, list[str]]:
    """The keys of a request's conditions, in lower case."""
    found: dict[str, list[str]] = {
        "aws:currenttime": [datetime.datetime.fromtimestamp(what.now_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")],
        "aws:epochtime": [str(int(what.now_s))],
        "aws:securetransport": ["true" if what.secure else "false"],
        "s3:resourceaccount": [what.account.removeprefix("AUTH_")],
    }
    for key, value in (
        ("aws:sourceip", what.source_ip),
        ("aws:referer", what.referrer),
        ("aws:useragent", what.user_agent),
    ):
        if value:
            found[key] = [value]
    found |= _of_caller(what.caller)
    if what.existing is not None:
        for name, value in tags_of(what.existing.shown_headers).items():
            found[f"s3:existingobjecttag/{name}".lower()] = [value]
    return found


def _of_caller(caller: Caller | None) -> dict[str, list[str]]:
    if caller is None:
        return {"aws:principaltype": ["Anonymous"]}
    return {
        "aws:userid": [caller.user_id],
        "aws:username": [caller.user_name],
        "aws:principaltype": ["User"],
        "aws:principalaccount": [caller.project_id or ""],
        "aws:principalarn": [f"arn:aws:iam::{caller.project_id}:user/{caller.user_name}"],
    }
