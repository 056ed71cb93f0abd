"""Accounts of the Swift API."""

from __future__ import annotations

from apus.kernel.errors import Forbidden, NotFound
from apus.services.object.api import listings, views
from apus.services.object.api.ask import Ask
from apus.services.object.api.bodies import check_kept, listing_ask, listing_format, metadata_of, text_of
from apus.services.object.api.faults import page
from apus.services.object.logic.access import is_reseller, told_domain
from apus.services.object.logic.account_access import ACCESS, DOMAIN, clean_access
from apus.services.object.logic.quota import account_quotas, check_quotas, is_account_quota
from apus.services.object.policy_totals import policy_totals
from apus.wire.route import Reply


async def show_account(ask: Ask) -> Reply:
    owner = await ask.require_account(ask.account, to_write=False)
    wanted, form = listing_ask(ask.request), listing_format(ask.request)
    head = await ask.service.account(ask.account)
    if head is not None and head.gone and not head.exists:
        raise NotFound("object.no_account", "The resource could not be found.")
    names = ask.service.policies
    totals = await policy_totals(ask.service.directory, ask.account, head, len(names))
    headers = views.account_headers(head, ask.now_s, dict(zip(names, totals, strict=True)), to_owner=owner)
    rows = await ask.service.listing(ask.account, "", wanted) if ask.reading and head is not None else ()
    return listings.account_page(ask.account, rows, form, headers, names, body=ask.reading)


async def put_account(ask: Ask) -> Reply:
    await _require_owner(ask)
    ask.service.permissions.require_reseller(ask.request.caller)
    made = await ask.service.make_account(ask.account, await _changes(ask))
    return page(201 if made else 202)


async def post_account(ask: Ask) -> Reply:
    await _require_owner(ask)
    await ask.service.make_account(ask.account, await _changes(ask))
    return page(204)


async def delete_account(ask: Ask) -> Reply:
    await _require_owner(ask)
    ask.service.permissions.require_reseller(ask.request.caller)
    await ask.service.delete_account(ask.account)
    return page(204)


async def _require_owner(ask: Ask) -> None:
    """Whom an account's ACL lets write in it may not change the account itself."""
    if not await ask.require_account(ask.account, to_write=True):
        raise Forbidden("object.forbidden", "Access was denied to this resource.")


async def _changes(ask: Ask) -> dict[str, str]:
    said = _said(ask)
    domain = told_domain(ask.request.caller, ask.account) or await ask.service.domains.of(ask.account)
    if domain:
        said[DOMAIN] = domain
    known = await ask.service.directory.known(ask.account, "")
    check_kept(known.metadata if known is not None else {}, said, "account")
    return said


def _said(ask: Ask) -> dict[str, str]:
    """Metadata, whom it lets in besides its owner, and its quota, which only a reseller sets."""
    found = metadata_of(ask.headers, "account")
    for header, name in account_quotas(ask.service.policies).items():
        if header in ask.headers:
            found[name] = text_of(ask.headers[header], header)
        elif header.replace("x-", "x-remove-", 1) in ask.headers:
            found[name] = ""
    check_quotas(found)
    if any(map(is_account_quota, found)) and not is_reseller(ask.request.caller):
        raise Forbidden("object.reseller_only", "Only a reseller may set the quota of an account.")
    if "x-account-access-control" in ask.headers:
        found[ACCESS] = clean_access(text_of(ask.headers["x-account-access-control"], "X-Account-Access-Control"))
    elif "x-remove-account-access-control" in ask.headers:
        found[ACCESS] = ""
    return found
