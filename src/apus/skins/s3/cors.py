"""Cross-origin rules: which web pages may ask what, as browsers want to hear it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from apus.services.object.logic.policy_conditions import like
from apus.skins.s3.configs import Config
from apus.skins.s3.errors import S3Error
from apus.skins.s3.request import S3Request
from apus.skins.s3.xml import Node, malformed
from apus.wire.route import Reply

METHODS: Final = ("GET", "PUT", "HEAD", "POST", "DELETE")
RULES_MAX: Final = 100


def _check(root: Node) -> None:
    rules = list(root.all("CORSRule"))
    if not 1 <= len(rules) <= RULES_MAX:
        raise malformed(f"There are 1 to {RULES_MAX} rules.")
    for rule in rules:
        rule.only("ID", "AllowedOrigin", "AllowedMethod", "AllowedHeader", "ExposeHeader", "MaxAgeSeconds")
        if rule.find("AllowedOrigin") is None or rule.find("AllowedMethod") is None:
            raise malformed("A rule has an AllowedOrigin and an AllowedMethod.")
        for method in _texts(rule, "AllowedMethod"):
            if method not in METHODS:
                shown = f"Found unsupported HTTP method in CORS config. Unsupported method is {method}"
                raise S3Error("InvalidRequest", shown)
        for name in ("AllowedOrigin", "AllowedHeader"):
            for text in _texts(rule, name):
                if text.count("*") > 1:
                    raise S3Error("InvalidRequest", f'{name} "{text}" can not have more than one wildcard.')
        age = rule.get("MaxAgeSeconds")
        if age is not None and not (age.isascii() and age.isdigit() and len(age) < 10):
            raise malformed("MaxAgeSeconds is a number.")


CORS: Final = Config("CORSConfiguration", "x-container-sysmeta-s3-cors", "NoSuchCORSConfiguration", _check)


def _texts(rule: Node, name: str) -> list[str]:
    return [node.text.strip() for node in rule.all(name)]


def _rule_for(rules: Sequence[Node], origin: str, method: str, headers: Sequence[str]) -> Node | None:
    """The first rule that allows all of it."""
    for rule in rules:
        allowed = [text.lower() for text in _texts(rule, "AllowedHeader")]
        if (
            any(like(text, origin) for text in _texts(rule, "AllowedOrigin"))
            and method in _texts(rule, "AllowedMethod")
            and all(any(like(text, header) for text in allowed) for header in headers)
        ):
            return rule
    return None


def _said(rule: Node, origin: str) -> dict[str, str]:
    anybody = "*" in _texts(rule, "AllowedOrigin")
    headers = {
        "access-control-allow-origin": "*" if anybody else origin,
        "access-control-allow-methods": ", ".join(_texts(rule, "AllowedMethod")),
        "vary": "Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
    }
    if not anybody:
        headers["access-control-allow-credentials"] = "true"
    exposed = _texts(rule, "ExposeHeader")
    if exposed:
        headers["access-control-expose-headers"] = ", ".join(exposed)
    age = rule.get("MaxAgeSeconds")
    if age is not None:
        headers["access-control-max-age"] = age
    return headers


async def preflight(request: S3Request) -> Reply:
    """`OPTIONS`: nobody signs it, and it tells only what the rules say."""
    origin, method = request.headers.get("origin"), request.headers.get("access-control-request-method")
    if not origin:
        shown = "Insufficient information. Origin request header needed."
        raise S3Error("InvalidRequest", shown)
    if not method or method not in METHODS:
        raise S3Error("InvalidRequest", "Invalid Access-Control-Request-Method.")
    if not request.bucket:
        raise S3Error("AccessForbidden")
    await request.door.enter(request)
    root = CORS.of(request.head)
    if root is None:
        raise S3Error("AccessForbidden", "CORSResponse: CORS is not enabled for this bucket.")
    asked = request.headers.get("access-control-request-headers", "")
    names = [name.strip().lower() for name in asked.split(",") if name.strip()]
    rule = _rule_for(list(root.all("CORSRule")), origin, method, names)
    if rule is None:
        shown = "CORSResponse: This CORS request is not allowed: no rule of the bucket fits it."
        raise S3Error("AccessForbidden", shown)
    headers = _said(rule, origin)
    if names:
        headers["access-control-allow-headers"] = ", ".join(names)
    return Reply(b"", 200, headers)


def with_headers(request: S3Request, reply: Reply) -> Reply:
    """The answer to a request of a web page, with what the first rule that fits says."""
    if not hasattr(request, "head"):
        return reply
    root = CORS.of(request.head)
    rule = root and _rule_for(list(root.all("CORSRule")), request.headers["origin"], request.method, ())
    if not rule:
        return reply
    return reply.having(_said(rule, request.headers["origin"]))
