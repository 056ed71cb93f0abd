"""Accounts and containers of the Swift API."""

from __future__ import annotations

from apus.kernel.errors import Invalid, NotFound
from apus.services.object.api import views
from apus.services.object.api.bodies import listing_ask, listing_format, metadata_of, names_of, text_of
from apus.services.object.api.faults import page
from apus.services.object.logic.access import clean_acl
from apus.services.object.service import Objects
from apus.wire.route import ApiRequest, Reply

_ACLS = ("x-container-read", "x-container-write")
_PLAIN = ("x-container-sync-key", "x-container-sync-to")


async def show_account(request: ApiRequest) -> Reply:
    service: Objects = request.service
    account, _, _ = names_of(request)
    service.require(request.caller, account, None, to_write=False)
    ask, form = listing_ask(request), listing_format(request)
    head = await service.account(account)
    if head is not None and head.gone and not head.exists:
        raise NotFound("object.no_account", "The resource could not be found.")
    headers = views.account_headers(head, service.cluster.world.clock.now_s())
    reading = request.method == "GET"
    rows = await service.listing(account, "", ask) if reading and head is not None else ()
    return views.listing("account", account, rows, form, headers, body=reading)


async def put_account(request: ApiRequest) -> Reply:
    service: Objects = request.service
    account, _, _ = names_of(request)
    service.require(request.caller, account, None, to_write=True)
    service.require_reseller(request.caller)
    made = await service.make_account(account, metadata_of(request.headers, "account"))
    return page(201 if made else 202)


async def post_account(request: ApiRequest) -> Reply:
    service: Objects = request.service
    account, _, _ = names_of(request)
    service.require(request.caller, account, None, to_write=True)
    await service.make_account(account, metadata_of(request.headers, "account"))
    return page(204)


async def delete_account(request: ApiRequest) -> Reply:
    service: Objects = request.service
    account, _, _ = names_of(request)
    service.require(request.caller, account, None, to_write=True)
    service.require_reseller(request.caller)
    await service.delete_account(account)
    return page(204)


async def show_container(request: ApiRequest) -> Reply:
    service: Objects = request.service
    account, container, _ = names_of(request)
    reading = request.method == "GET"
    try:
        head = await service.container(account, container, fresh=True)
    except NotFound:
        service.require(request.caller, account, None, to_write=False)
        raise
    owner = service.require(
        request.caller,
        account,
        head,
        to_write=False,
        referrer=request.headers.get("referer", ""),
        listing=True,
    )
    ask, form = listing_ask(request), listing_format(request)
    rows = await service.listing(account, container, ask) if reading else ()
    headers = views.container_headers(head, to_owner=owner)
    return views.listing("container", container, rows, form, headers, body=reading)


async def put_container(request: ApiRequest) -> Reply:
    service: Objects = request.service
    account, container, _ = names_of(request)
    service.require(request.caller, account, None, to_write=True)
    made = await service.make_container(account, container, _said(request))
    return page(201 if made else 202)


async def post_container(request: ApiRequest) -> Reply:
    service: Objects = request.service
    account, container, _ = names_of(request)
    service.require(request.caller, account, None, to_write=True)
    await service.describe_container(account, container, _said(request))
    return page(204)


async def delete_container(request: ApiRequest) -> Reply:
    service: Objects = request.service
    account, container, _ = names_of(request)
    service.require(request.caller, account, None, to_write=True)
    await service.delete_container(account, container)
    return page(204)


def _said(request: ApiRequest) -> dict[str, str]:
    """Metadata and ACLs of a container."""
    headers, found = request.headers, metadata_of(request.headers, "container")
    policy = headers.get("x-storage-policy")
    if policy and policy.lower() != views.POLICY:
        raise Invalid("object.policy", f"Invalid X-Storage-Policy '{policy}'", field="X-Storage-Policy")
    for name in _ACLS:
        if name in headers:
            found[name] = clean_acl(name, text_of(headers[name], name))
        elif name.replace("x-", "x-remove-", 1) in headers:
            found[name] = ""
    for name in _PLAIN:
        if name in headers:
            found[name] = text_of(headers[name], name)
    return found
