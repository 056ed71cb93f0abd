"""Tokens for requests that were signed with an EC2 key: POST /ec2tokens and /s3tokens, asked by services."""

from __future__ import annotations

from typing import Final

from apus.services.identity.api import bodies
from apus.services.identity.api.auth import shown
from apus.services.identity.api.crud import identity_of
from apus.services.identity.logic.signed_request import SignedRequest, is_fresh, is_right, is_right_text
from apus.services.identity.service.keeper import invalid
from apus.wire.route import ApiRequest, Reply, Route


def _credentials(body: bodies.SignedBody) -> bodies.SignedCredentials:
    given = body.credentials or body.credential or body.ec2_credentials
    if given is None:
        raise invalid("credentials", "who signed what is expected: access, signature, and the request")
    return given


async def issue_ec2_token(request: ApiRequest) -> Reply:
    given = _credentials(request.body)
    if given.params is None and given.headers is None:
        raise invalid("credentials.params", "the parameters or the headers of the signed request are expected")
    signed = SignedRequest(
        verb=given.verb or "GET",
        host=given.host or "",
        path=given.path or "/",
        params=given.params or {},
        headers={name.lower(): value for name, value in (given.headers or {}).items()},
        body_hash=given.body_hash or "",
    )
    identity, now_s = identity_of(request), identity_of(request).core.world.clock.now_s()
    token, opened = await identity.access_keys.issue(
        request.who,
        given.access,
        lambda secret: is_fresh(signed.stamp, now_s) and is_right(signed, secret, given.signature),
    )
    body = await shown(request, opened)
    return Reply(body, headers={"X-Subject-Token": token}, content_type="application/json")


async def issue_s3_token(request: ApiRequest) -> Reply:
    """Without the token itself, as Keystone: who asks needs to know who it is, and acts for himself.  The time is
    part of the text that was signed, and his to judge: a presigned URL is good for days."""
    given = _credentials(request.body)
    if given.token is None:
        raise invalid("credentials.token", "the text that was signed is expected, in Base64")
    text = given.token
    issue = identity_of(request).access_keys.issue
    _, opened = await issue(request.who, given.access, lambda secret: is_right_text(text, secret, given.signature))
    return Reply(await shown(request, opened), content_type="application/json")


ROUTES: Final = (
    Route("POST", "/v3/ec2tokens", issue_ec2_token, "identity:issue_ec2_token", bodies.SignedBody),
    Route("POST", "/v3/s3tokens", issue_s3_token, "identity:issue_ec2_token", bodies.SignedBody),
)
