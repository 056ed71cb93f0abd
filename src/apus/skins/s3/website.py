"""Buckets as web sites: an index for every directory, an error page, redirects.  Everybody reads what everybody may.

They answer at `BUCKET.s3-website.DOMAIN`.
"""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from apus.services.object.engine import Found
from apus.skins.s3 import rights
from apus.skins.s3.configs import Config
from apus.skins.s3.errors import S3Error
from apus.skins.s3.metadata import REDIRECT, shown_headers
from apus.skins.s3.xml import Node, malformed
from apus.wire.route import Reply

if TYPE_CHECKING:
    from apus.skins.s3.request import S3Request

LABEL: Final = "s3-website"
ROUTES_MAX: Final = 50
HTML: Final = "text/html; charset=utf-8"


def _check(root: Node) -> None:
    root.only("IndexDocument", "ErrorDocument", "RedirectAllRequestsTo", "RoutingRules")
    everywhere = root.find("RedirectAllRequestsTo")
    if everywhere is not None:
        if len(root.children) > 1:
            shown = "RedirectAllRequestsTo cannot be provided in conjunction with other Routing Rules."
            raise S3Error("InvalidRequest", shown)
        everywhere.need("HostName")
        _check_protocol(everywhere)
        return
    index = root.find("IndexDocument")
    if index is None or not index.need("Suffix") or "/" in index.need("Suffix"):
        raise S3Error(
            "InvalidArgument", "The IndexDocument Suffix is not well formed", fields={"ArgumentName": "Suffix"}
        )
    error = root.find("ErrorDocument")
    if error is not None and not error.need("Key"):
        raise malformed("An ErrorDocument has a Key.")
    routing = root.find("RoutingRules")
    rules = list(routing.all("RoutingRule")) if routing is not None else []
    if len(rules) > ROUTES_MAX:
        raise S3Error("InvalidRequest", f"A website has {ROUTES_MAX} routing rules at most, not {len(rules)}.")
    for rule in rules:
        _check_rule(rule)


def _check_rule(rule: Node) -> None:
    redirect, condition = rule.find("Redirect"), rule.find("Condition")
    if redirect is None or not redirect.children:
        raise malformed("A RoutingRule has a Redirect.")
    redirect.only("HostName", "HttpRedirectCode", "Protocol", "ReplaceKeyPrefixWith", "ReplaceKeyWith")
    if redirect.find("ReplaceKeyPrefixWith") is not None and redirect.find("ReplaceKeyWith") is not None:
        raise S3Error("InvalidRequest", "You can only define ReplaceKeyPrefix or ReplaceKey but not both.")
    if not re.fullmatch("30[1-8]", redirect.get("HttpRedirectCode") or "301"):
        raise S3Error("InvalidRequest", "The provided HTTP redirect code is not valid.")
    _check_protocol(redirect)
    if condition is not None:
        condition.only("KeyPrefixEquals", "HttpErrorCodeReturnedEquals")
        if not re.fullmatch("[45][0-9]{2}", condition.get("HttpErrorCodeReturnedEquals") or "404"):
            raise S3Error("InvalidRequest", "The provided HTTP error code is not valid.")


def _check_protocol(node: Node) -> None:
    if node.get("Protocol") not in (None, "http", "https"):
        raise S3Error("InvalidRequest", "Invalid protocol, protocol can be http or https.")


WEBSITE: Final = Config("WebsiteConfiguration", "x-container-sysmeta-s3-website", "NoSuchWebsiteConfiguration", _check)


def site_of(host: str, domains: tuple[str, ...]) -> str | None:
    """The bucket whose web site this host is."""
    name = re.sub(r":[0-9]*$", "", host).lower()
    for domain in domains:
        match = re.fullmatch(rf"(.+)\.{LABEL}[^.]*\.{re.escape(domain)}", name)
        if match:
            return match[1]
    return None


async def serve(request: S3Request, bucket: str) -> Reply:
    """Every answer is a page, errors too."""
    request.operation = "Website"
    try:
        request.bucket = bucket
        request.key = unquote(request.raw_path[1:])
        if request.method not in ("GET", "HEAD"):
            raise S3Error("MethodNotAllowed")
        await request.door.enter(request)
        config = WEBSITE.of(request.head)
        if config is None:
            raise S3Error("NoSuchWebsiteConfiguration")
    except S3Error as error:
        return _error_page(error)
    everywhere = config.find("RedirectAllRequestsTo")
    if everywhere is not None:
        return _redirect(request, everywhere, request.key)
    return await _page(request, config)


async def _page(request: S3Request, config: Node) -> Reply:
    asked = request.key
    rule = _route(config, asked, None)
    if rule is not None:
        return _routed(request, rule, asked)
    index = config.find("IndexDocument")
    suffix = index.need("Suffix") if index is not None else ""
    try:
        if asked and not asked.endswith("/"):
            try:
                return await _shown(request, asked)
            except S3Error as missing:
                if missing.status == 404 and await _readable(request, f"{asked}/{suffix}"):
                    return Reply(b"", 302, {"location": quote(f"/{asked}/")})
                raise
        return await _shown(request, asked + suffix)
    except S3Error as error:
        rule = _route(config, asked, error.status)
        if rule is not None:
            return _routed(request, rule, asked)
        return await _sorry(request, config, error)


async def _readable(request: S3Request, key: str) -> Found | None:
    found = await request.door.objects.find(request.account, request.bucket, key)
    if found is None:
        return None
    existing = found.head
    readable = await rights.may(request, "s3:GetObject", "READ", key=key, existing=existing, on_object=True)
    return found if readable else None


async def _shown(request: S3Request, key: str, status: int = 200) -> Reply:
    found = await _readable(request, key)
    if found is None:
        request.key = key
        if await request.door.objects.find(request.account, request.bucket, key) is not None:
            raise S3Error("AccessDenied")
        raise await rights.missing_key(request)
    redirect = found.head.shown_headers.get(REDIRECT)
    if redirect is not None:
        return Reply(b"", 301, {"location": redirect})
    found = await request.door.objects.follow(found)
    opened = await request.door.objects.open_parts(found)
    headers = shown_headers(found.head, etag=opened.etag, size_bytes=opened.size_bytes)
    if request.method == "GET" and status == 200:
        from apus.services.object.logic.conditions import check
        from apus.services.object.logic.merge import seconds_of

        if check(request.headers, opened.etag, seconds_of(found.head.stamp), reading=True) == 304:
            return Reply(b"", 304, {"etag": headers["etag"]})
    stream = opened.stream(0, opened.size_bytes)
    return Reply(None, status, headers, stream=stream, content_type=found.head.shown_type)


async def _sorry(request: S3Request, config: Node, error: S3Error) -> Reply:
    """The bucket's own page for errors, or ours."""
    page = config.find("ErrorDocument")
    if page is not None and 400 <= error.status < 500:
        try:
            return await _shown(request, page.need("Key"), error.status)
        except S3Error:
            return _error_page(error)
    return _error_page(error)


def _error_page(error: S3Error) -> Reply:
    text = f"<h1>{error.status} {escape(error.code)}</h1><p>{escape(error.message)}</p>"
    body = f"<html><head><title>{error.status} {escape(error.code)}</title></head><body>{text}</body></html>"
    return Reply(body.encode(), error.status, {"x-amz-error-code": error.code}, content_type=HTML)


def _route(config: Node, key: str, status: int | None) -> Node | None:
    """The first rule for this key: those that wait for an error only when there was that one."""
    rules = config.find("RoutingRules")
    for rule in rules.all("RoutingRule") if rules is not None else ():
        condition = rule.find("Condition")
        prefix = condition.get("KeyPrefixEquals") if condition is not None else None
        code = condition.get("HttpErrorCodeReturnedEquals") if condition is not None else None
        if (prefix is None or key.startswith(prefix)) and code == (str(status) if status is not None else None):
            return rule
    return None


def _routed(request: S3Request, rule: Node, key: str) -> Reply:
    redirect, condition = rule.find("Redirect"), rule.find("Condition")
    assert redirect is not None
    prefix = (condition.get("KeyPrefixEquals") if condition is not None else None) or ""
    whole, begin = redirect.get("ReplaceKeyWith"), redirect.get("ReplaceKeyPrefixWith")
    if whole is not None:
        key = whole
    elif begin is not None:
        key = begin + key.removeprefix(prefix)
    return _redirect(request, redirect, key)


def _redirect(request: S3Request, node: Node, key: str) -> Reply:
    protocol = node.get("Protocol") or request.scope.get("scheme", "http")
    host = node.get("HostName") or request.headers.get("host", "")
    location = f"{protocol}://{host}/{quote(key, safe='/?=&#~')}"
    return Reply(b"", int(node.get("HttpRedirectCode") or "301"), {"location": location})
