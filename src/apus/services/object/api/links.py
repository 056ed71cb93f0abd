"""Symbolic links: the headers that make one, and the answer to who would describe what it leads to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

from apus.kernel.errors import Conflict, Invalid
from apus.services.object.api.ask import Ask
from apus.services.object.api.bodies import content_length_of, path_header, text_of
from apus.services.object.api.faults import HTML
from apus.services.object.engine import Intent
from apus.services.object.logic.listed import MANIFEST, own_etag
from apus.services.object.logic.symlink import Target, link_headers, target_of
from apus.services.object.model import Head
from apus.wire.route import Reply

TYPE: Final = "application/symlink"


def asked(headers: Mapping[str, str]) -> bool:
    return "x-symlink-target" in headers


async def intent_of(ask: Ask, intent: Intent) -> Intent:
    """The empty object that is the link.  A static one (`X-Symlink-Target-Etag`) is checked against its target."""
    if content_length_of(ask.request, needed=True):
        raise Invalid("object.symlink_body", "Symlink requests require a zero byte body", field="Content-Length")
    container, name = path_header(ask.headers, "x-symlink-target")
    target = Target(_named_account(ask) or ask.account, container, name)
    if target[:3] == ask.place:
        raise Invalid("object.symlink_self", "Symlink cannot target itself", field="X-Symlink-Target")
    etag = ask.headers.get("x-symlink-target-etag", "").strip().strip('"')
    content_type, slo_etag = TYPE, ""
    if etag:
        head = await _checked(ask, target._replace(etag=etag))
        target = target._replace(etag=etag, size_bytes=head.shown_size_bytes)
        content_type, slo_etag = head.shown_type, head.shown_etag if MANIFEST in head.headers else ""
    if ask.headers.get("content-type"):
        content_type = intent.content_type
    headers = {**intent.headers, **link_headers(target, slo_etag)}
    return dataclasses.replace(intent, content_type=content_type, headers=headers)


async def copied(ask: Ask, head: Head, account: str) -> Target | None:
    """Where the copy of a link in this account leads: what led to its own account leads to the new one, unless the
    request names another.  None: it is no link."""
    target, named = target_of(head), _named_account(ask)
    if target is None:
        return None
    if named:
        target = target._replace(account=named)
        if target.etag:
            await _checked(ask, target)
    elif target.account == head.account:
        target = target._replace(account=account)
    return target


def _named_account(ask: Ask) -> str:
    """Of a link's target, or empty.  Raise Invalid."""
    account = unquote(text_of(ask.headers.get("x-symlink-target-account", ""), "x-symlink-target-account"))
    if "/" in account or "\0" in account or account.startswith("."):
        raise Invalid("object.symlink_account", "Account name cannot contain slashes", field="X-Symlink-Target-Account")
    return account


async def _checked(ask: Ask, target: Target) -> Head:
    """What it leads to, itself or by further static links; raise Conflict for another ETag."""
    await ask.may_read(target.account, target.container, target.name)
    found = await ask.service.find(target.account, target.container, target.name, newest=True)
    if found is None:
        raise Conflict("object.symlink_etag", "X-Symlink-Target does not exist")
    head = (await ask.service.follow(found, ask.may_read, static_only=True)).head
    if own_etag(head) != target.etag:
        shown = f"Object Etag {own_etag(head)!r} does not match X-Symlink-Target-Etag header {target.etag!r}"
        raise Conflict("object.symlink_etag", shown)
    return head


def redirected(target: Target) -> Reply:
    """A POST describes the link itself; who meant the target is sent there."""
    text = "The requested POST was applied to a symlink. POST directly to the target to apply requested metadata."
    headers = {"location": quote(f"/v1/{target.path}")}
    if target.etag:
        headers["x-symlink-target-etag"] = target.etag
    return Reply(text.encode(), 307, headers, content_type=HTML)
