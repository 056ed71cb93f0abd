"""Accounts of the Swift API."""

from __future__ import annotations

from apus.kernel.errors import NotFound
from apus.services.object.api import views
from apus.services.object.api.ask import Ask
from apus.services.object.api.bodies import listing_ask, listing_format, metadata_of
from apus.services.object.api.faults import page
from apus.wire.route import Reply


async def show_account(ask: Ask) -> Reply:
    owner = ask.require(ask.account, None, to_write=False)
    wanted, form = listing_ask(ask.request), listing_format(ask.request)
    head = await ask.service.account(ask.account)
    if head is not None and head.gone and not head.exists:
        raise NotFound("object.no_account", "The resource could not be found.")
    headers = views.account_headers(head, ask.now_s, to_owner=owner)
    rows = await ask.service.listing(ask.account, "", wanted) if ask.reading and head is not None else ()
    return views.listing("account", ask.account, rows, form, headers, body=ask.reading)


async def put_account(ask: Ask) -> Reply:
    ask.require(ask.account, None, to_write=True)
    ask.service.require_reseller(ask.request.caller)
    made = await ask.service.make_account(ask.account, metadata_of(ask.headers, "account"))
    return page(201 if made else 202)


async def post_account(ask: Ask) -> Reply:
    ask.require(ask.account, None, to_write=True)
    await ask.service.make_account(ask.account, metadata_of(ask.headers, "account"))
    return page(204)


async def delete_account(ask: Ask) -> Reply:
    ask.require(ask.account, None, to_write=True)
    ask.service.require_reseller(ask.request.caller)
    await ask.service.delete_account(ask.account)
    return page(204)
