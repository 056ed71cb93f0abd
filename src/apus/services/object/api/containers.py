"""Containers of the Swift API: metadata, ACLs and kinds of versions, and listings."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from apus.kernel.errors import Forbidden, Invalid, NotFound
from apus.services.object.api import listings, signed, views
from apus.services.object.api.ask import LIST, LIST_VERSIONS, Ask
from apus.services.object.api.bodies import (
    check_kept,
    is_true,
    listing_ask,
    listing_format,
    metadata_of,
    text_of,
    versions_format,
)
from apus.services.object.api.faults import page
from apus.services.object.logic.access import ACL_DOMAIN, clean_acl, is_public_acl, told_domain
from apus.services.object.logic.history import ARCHIVE, archive_of
from apus.services.object.logic.quota import check_quotas
from apus.services.object.logic.rights import BLOCK_ACLS, PUBLIC_ACCESS
from apus.services.object.logic.sync import MARK, SYNC_KEY, SYNC_TO, check_target
from apus.services.object.logic.uploads import USED
from apus.services.object.logic.versions import State, state_of
from apus.services.object.model import IndexHead
from apus.wire.route import Reply

_ACLS = ("x-container-read", "x-container-write")
_ARCHIVES = {"x-versions-location": "stack", "x-history-location": "history"}


async def show_container(ask: Ask) -> Reply:
    try:
        head = await ask.service.container(ask.account, ask.container, fresh=True)
    except NotFound:
        await ask.require_account(ask.account, to_write=False)
        raise
    owner = await ask.require(head, LIST if ask.query("versions") is None else LIST_VERSIONS)
    wanted = listing_ask(ask.request)
    form = listing_format(ask.request) if ask.query("versions") is None else versions_format(ask.request)
    rows: listings.Rows = ()
    if ask.reading and ask.query("versions") is not None:
        marker = ask.query("version_marker") or ""
        rows = await ask.service.list_versions(ask.account, ask.container, wanted, marker)
    elif ask.reading:
        rows = await ask.service.listing(ask.account, ask.container, wanted)
    headers = views.container_headers(head, ask.service.policies[head.policy], to_owner=owner)
    return listings.container_page(ask.account, ask.container, rows, form, headers, body=ask.reading)


async def put_container(ask: Ask) -> Reply:
    owner = await ask.require_account(ask.account, to_write=True)
    known = await ask.service.directory.known(ask.account, ask.container)
    said = _said(ask, to_owner=owner)
    if known is not None:
        await _require_changes(ask, known, said)
    state = _versions(ask.headers, known.metadata if known is not None else {}, said)
    said |= await _domain(ask, said)
    policy = ask.headers.get("x-storage-policy") or None
    made = await ask.service.make_container(ask.account, ask.container, said, policy, caller=ask.request.caller)
    await _set_versions(ask, state)
    return page(201 if made else 202)


async def post_container(ask: Ask) -> Reply:
    if signed.is_form(ask):
        return await signed.post_form(ask)
    owner = await ask.require_account(ask.account, to_write=True)
    head = await ask.service.container(ask.account, ask.container)
    said = _said(ask, to_owner=owner)
    await _require_changes(ask, head, said)
    state = _versions(ask.headers, head.metadata, said)
    said |= await _domain(ask, said)
    await ask.service.domains.learn(ask.account, ask.request.caller)
    await ask.service.describe_container(ask.account, ask.container, said)
    await _set_versions(ask, state)
    return page(204)


async def delete_container(ask: Ask) -> Reply:
    await ask.may_delete(ask.container)
    await ask.service.delete_container(ask.account, ask.container)
    return page(204)


async def _require_changes(ask: Ask, head: IndexHead, said: Mapping[str, str]) -> None:
    """What a policy calls these changes: who may act on the account may make them, unless it denies them."""
    check_kept(head.metadata, said, "container")
    acls = [said[name] for name in _ACLS if name in said]
    if acls:
        await ask.require(head, "s3:PutBucketAcl")
    if any(name not in _ACLS for name in said):
        await ask.require(head, "s3:PutBucketTagging")
    if "x-versions-enabled" in ask.headers:
        await ask.require(head, "s3:PutBucketVersioning")
    if BLOCK_ACLS in head.metadata.get(PUBLIC_ACCESS, "") and any(map(is_public_acl, acls)):
        shown = "The container takes no ACLs that let everybody in: its public access is blocked."
        raise Forbidden("object.public_access", shown)


async def _set_versions(ask: Ask, state: State) -> None:
    if state:
        await ask.service.set_versioning(ask.account, ask.container, state)


def _said(ask: Ask, *, to_owner: bool) -> dict[str, str]:
    """Metadata and ACLs of a container, and where its old versions go.  What is the owner's to say is passed over
    when it comes from another."""
    headers, realms = ask.headers, ask.service.options.realms
    found = metadata_of(headers, "container")
    check_quotas(found)
    for name in _ACLS:
        if name in headers:
            found[name] = clean_acl(name, text_of(headers[name], name))
        elif _removed(name) in headers:
            found[name] = ""
    for name in (SYNC_TO, SYNC_KEY):
        if name in headers:
            found[name] = text_of(headers[name], name)
        elif _removed(name) in headers:
            found[name] = ""
    if found.get(SYNC_TO):
        check_target(found[SYNC_TO], realms)
        found[MARK] = ""  # what is there goes to the new place too
    for name, mode in _ARCHIVES.items():
        if headers.get(name):
            found[ARCHIVE] = f"{mode} {_archive(headers[name], name)}"
        elif name in headers or _removed(name) in headers:
            found.setdefault(ARCHIVE, "")
    if all(headers.get(name) for name in _ARCHIVES):
        shown = "Only one of X-History-Location or X-Versions-Location may be specified"
        raise Invalid("object.archives", shown, field="X-History-Location")
    return {name: value for name, value in found.items() if to_owner or name not in views.OWNERS}


async def _domain(ask: Ask, said: Mapping[str, str]) -> dict[str, str]:
    """What names in these ACLs go by: the account's domain, whoever sets them."""
    if not any(said.get(name) for name in _ACLS):
        return {}
    domain = told_domain(ask.request.caller, ask.account) or await ask.service.domains.of(ask.account)
    return {ACL_DOMAIN: domain} if domain else {}


def _removed(name: str) -> str:
    return name.replace("x-", "x-remove-", 1)


def _archive(value: str, name: str) -> str:
    container = unquote(text_of(value, name)).strip("/")
    if not container or "/" in container or "\0" in container:
        raise Invalid("object.archive_name", f"{name.title()} must be the name of a container", field=name)
    return container


def _versions(headers: Mapping[str, str], known: Mapping[str, str], said: Mapping[str, str]) -> State:
    """What `X-Versions-Enabled` asks for; raise Invalid where the older kind of versions is in use, or would be."""
    text = headers.get("x-versions-enabled")
    archive = archive_of({**known, **said})
    if archive is not None and USED in known:
        shown = "X-Versions-Location and X-History-Location cannot be used where there were uploads in parts"
        raise Invalid("object.archives", shown, field="X-Versions-Location")
    if archive is not None and (text is not None or state_of(known)):
        shown = "Cannot use X-Versions-Enabled together with X-Versions-Location or X-History-Location"
        raise Invalid("object.archives", shown, field="X-Versions-Enabled")
    if text is None:
        return ""
    if is_true(text):
        return "enabled"
    if text.strip().lower() not in ("false", "0", "no", "off", "f", "n"):
        raise Invalid("object.versions_enabled", "X-Versions-Enabled is true or false", field="X-Versions-Enabled")
    return "suspended" if state_of(known) else ""
