"""Credentials, EC2 keys, application credentials with their access rules, and trusts."""

from __future__ import annotations

import datetime
from typing import Any, Final

from apus.kernel.errors import NotFound
from apus.services.identity.api import bodies, views
from apus.services.identity.api.crud import base_of, collection, identity_of, query_of
from apus.services.identity.api.resources import change_credential, new_credential
from apus.services.identity.logic.claims import Claims
from apus.services.identity.model import Credential
from apus.services.identity.service import kinds
from apus.services.identity.service.keeper import invalid
from apus.services.identity.service.secrets import NewAppCredential, NewRule, NewTrust, ec2_parts
from apus.wire.route import ApiRequest, Reply, Route


def claims_of(request: ApiRequest) -> Claims:
    return identity_of(request).verifier.opened(request.headers["x-auth-token"]).claims


def moment(field: str, text: str | None) -> float | None:
    """An ISO 8601 time, UTC unless it says otherwise."""
    if text is None:
        return None
    try:
        at = datetime.datetime.fromisoformat(text)
        return (at if at.tzinfo is not None else at.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        raise invalid(field, f"{text!r} is not a time in ISO 8601") from None


# -------------------------------------------------------------------------------------------------- credentials
def _credential(request: ApiRequest, record: Credential) -> dict[str, Any]:
    return views.credential(record, identity_of(request).secrets.unseal(record), base_of(request))


async def list_credentials(request: ApiRequest) -> Reply:
    query = query_of(request, ("user_id", "type"), kinds.CREDENTIAL.table.columns)
    records = await identity_of(request).keeper.list(kinds.CREDENTIAL, request.who, query)
    return collection(request, "credentials", [_credential(request, each) for each in records], limit=query.limit)


async def create_credential(request: ApiRequest) -> Reply:
    body, extra = bodies.part(request, "credential", bodies.NewCredential)
    return Reply({"credential": _credential(request, await new_credential(request, body, extra))})


async def get_credential(request: ApiRequest) -> Reply:
    record = await identity_of(request).keeper.show(kinds.CREDENTIAL, request.who, request.params["id"])
    return Reply({"credential": _credential(request, record)})


async def update_credential(request: ApiRequest) -> Reply:
    body, extra = bodies.part(request, "credential", bodies.ChangeCredential)
    record = await change_credential(request, request.params["id"], body, extra)
    return Reply({"credential": _credential(request, record)})


async def delete_credential(request: ApiRequest) -> Reply:
    await identity_of(request).keeper.delete(kinds.CREDENTIAL, request.who, request.params["id"])
    return Reply()


# ----------------------------------------------------------------------------------------------------- EC2 keys
def _ec2(request: ApiRequest, record: Credential) -> dict[str, Any]:
    access, secret = ec2_parts(identity_of(request).secrets.unseal(record))
    return views.ec2(record, access, secret, base_of(request))


async def list_ec2_credentials(request: ApiRequest) -> Reply:
    records = await identity_of(request).secrets.ec2_of(request.who, request.params["user_id"])
    return collection(request, "credentials", [_ec2(request, record) for record in records])


async def create_ec2_credential(request: ApiRequest) -> Reply:
    body: bodies.Ec2Body = request.body
    record = await identity_of(request).secrets.new_ec2(
        request.who, claims_of(request), request.params["user_id"], body.tenant_id
    )
    return Reply({"credential": _ec2(request, record)})


async def get_ec2_credential(request: ApiRequest) -> Reply:
    params = request.params
    record = await identity_of(request).secrets.ec2(request.who, params["user_id"], params["access"])
    return Reply({"credential": _ec2(request, record)})


async def delete_ec2_credential(request: ApiRequest) -> Reply:
    params = request.params
    await identity_of(request).secrets.drop_ec2(request.who, params["user_id"], params["access"])
    return Reply()


# -------------------------------------------------------------------------------------- application credentials
async def list_app_credentials(request: ApiRequest) -> Reply:
    query = query_of(request, ("name",), kinds.APP_CREDENTIAL.table.columns)
    found = await identity_of(request).secrets.app_credentials(request.who, request.params["user_id"], query)
    shown = [views.app_credential(each, base_of(request)) for each in found]
    return collection(request, "application_credentials", shown, limit=query.limit)


async def create_app_credential(request: ApiRequest) -> Reply:
    body, _ = bodies.part(request, "application_credential", bodies.AppCredentialBody)
    rules = None
    if body.access_rules is not None:
        rules = tuple(
            NewRule(id=rule.id, service=rule.service, path=rule.path, method=rule.method) for rule in body.access_rules
        )
    new = NewAppCredential(
        name=body.name,
        description=body.description,
        secret=body.secret,
        expires_at_s=moment("expires_at", body.expires_at),
        roles=None if body.roles is None else tuple((role.id, role.name) for role in body.roles),
        unrestricted=bool(body.unrestricted),
        access_rules=rules,
    )
    shown = await identity_of(request).secrets.new_app_credential(
        request.who, claims_of(request), request.params["user_id"], new
    )
    return Reply({"application_credential": views.app_credential(shown, base_of(request))})


async def get_app_credential(request: ApiRequest) -> Reply:
    params = request.params
    shown = await identity_of(request).secrets.app_credential(request.who, params["user_id"], params["id"])
    return Reply({"application_credential": views.app_credential(shown, base_of(request))})


async def delete_app_credential(request: ApiRequest) -> Reply:
    params = request.params
    await identity_of(request).secrets.drop_app_credential(
        request.who, claims_of(request), params["user_id"], params["id"]
    )
    return Reply()


async def list_access_rules(request: ApiRequest) -> Reply:
    rules = await identity_of(request).secrets.access_rules(request.who, request.params["user_id"])
    return collection(request, "access_rules", [views.access_rule(rule, base_of(request)) for rule in rules])


async def get_access_rule(request: ApiRequest) -> Reply:
    params = request.params
    rule = await identity_of(request).secrets.access_rule(request.who, params["user_id"], params["id"])
    return Reply({"access_rule": views.access_rule(rule, base_of(request))})


async def delete_access_rule(request: ApiRequest) -> Reply:
    params = request.params
    await identity_of(request).secrets.drop_access_rule(request.who, params["user_id"], params["id"])
    return Reply()


# ------------------------------------------------------------------------------------------------------- trusts
async def create_trust(request: ApiRequest) -> Reply:
    body, _ = bodies.part(request, "trust", bodies.TrustBody)
    new = NewTrust(
        trustor_id=body.trustor_user_id,
        trustee_id=body.trustee_user_id,
        project_id=body.project_id,
        roles=tuple((role.id, role.name) for role in body.roles),
        impersonation=body.impersonation,
        expires_at_s=moment("expires_at", body.expires_at),
        remaining_uses=body.remaining_uses,
    )
    trust, roles = await identity_of(request).secrets.new_trust(request.who, claims_of(request), new)
    return Reply({"trust": views.trust(trust, roles, base_of(request))})


async def list_trusts(request: ApiRequest) -> Reply:
    found = await identity_of(request).secrets.trusts(
        request.who, request.query("trustor_user_id"), request.query("trustee_user_id")
    )
    return collection(request, "trusts", [views.trust(trust, None, base_of(request)) for trust in found])


async def get_trust(request: ApiRequest) -> Reply:
    trust, roles = await identity_of(request).secrets.trust(request.who, request.params["id"])
    return Reply({"trust": views.trust(trust, roles, base_of(request))})


async def delete_trust(request: ApiRequest) -> Reply:
    await identity_of(request).secrets.drop_trust(request.who, request.params["id"])
    return Reply()


async def list_trust_roles(request: ApiRequest) -> Reply:
    _, roles = await identity_of(request).secrets.trust(request.who, request.params["id"])
    return collection(request, "roles", [views.role(role, base_of(request)) for role in roles])


async def get_trust_role(request: ApiRequest) -> Reply:
    _, roles = await identity_of(request).secrets.trust(request.who, request.params["id"])
    for role in roles:
        if role.id == request.params["role_id"]:
            return Reply({"role": views.role(role, base_of(request))})
    raise NotFound("identity.role_not_found", f"Could not find role: {request.params['role_id']} in the trust.")


_BODY: Final = dict[str, Any]
_EC2: Final = "/v3/users/{user_id}/credentials/OS-EC2"
_APP: Final = "/v3/users/{user_id}/application_credentials"
_RULES: Final = "/v3/users/{user_id}/access_rules"
_TRUSTS: Final = "/v3/OS-TRUST/trusts"

ROUTES: Final = (
    Route("GET", "/v3/credentials", list_credentials, "identity:list_credentials"),
    Route("POST", "/v3/credentials", create_credential, "identity:create_credential", _BODY, 201),
    Route("GET", "/v3/credentials/{id}", get_credential, "identity:get_credential"),
    Route("PATCH", "/v3/credentials/{id}", update_credential, "identity:update_credential", _BODY),
    Route("DELETE", "/v3/credentials/{id}", delete_credential, "identity:delete_credential", status=204),
    Route("GET", _EC2, list_ec2_credentials, "identity:list_ec2_credentials"),
    Route("POST", _EC2, create_ec2_credential, "identity:create_ec2_credential", bodies.Ec2Body, 201),
    Route("GET", f"{_EC2}/{{access}}", get_ec2_credential, "identity:get_ec2_credential"),
    Route("DELETE", f"{_EC2}/{{access}}", delete_ec2_credential, "identity:delete_ec2_credential", status=204),
    Route("GET", _APP, list_app_credentials, "identity:list_app_credentials"),
    Route("POST", _APP, create_app_credential, "identity:create_app_credential", _BODY, 201),
    Route("GET", f"{_APP}/{{id}}", get_app_credential, "identity:get_app_credential"),
    Route("DELETE", f"{_APP}/{{id}}", delete_app_credential, "identity:delete_app_credential", status=204),
    Route("GET", _RULES, list_access_rules, "identity:list_access_rules"),
    Route("GET", f"{_RULES}/{{id}}", get_access_rule, "identity:get_access_rule"),
    Route("DELETE", f"{_RULES}/{{id}}", delete_access_rule, "identity:delete_access_rule", status=204),
    Route("GET", _TRUSTS, list_trusts, "identity:list_trusts"),
    Route("POST", _TRUSTS, create_trust, "identity:create_trust", _BODY, 201),
    Route("GET", f"{_TRUSTS}/{{id}}", get_trust, "identity:get_trust"),
    Route("DELETE", f"{_TRUSTS}/{{id}}", delete_trust, "identity:delete_trust", status=204),
    Route("GET", f"{_TRUSTS}/{{id}}/roles", list_trust_roles, "identity:get_trust"),
    Route("GET", f"{_TRUSTS}/{{id}}/roles/{{role_id}}", get_trust_role, "identity:get_trust"),
)
