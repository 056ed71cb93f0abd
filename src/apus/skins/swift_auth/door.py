"""`GET /auth/v1.0`: a user and a key in headers, a token and the account's URL in the answer.

A user is named `project:user`, both in the default domain; the token is an ordinary one of identity.
Source: https://docs.openstack.org/swift/latest/overview_auth.html ("TempAuth"), and what swiftclient sends.
"""

from __future__ import annotations

from typing import Final, cast

from apus.kernel.errors import Unauthenticated
from apus.kernel.policy import Policy, Rule
from apus.kernel.world import Clock
from apus.services.identity.contract import IdentityService
from apus.wire.app import Api
from apus.wire.faults import Faults, plain_fault
from apus.wire.route import ApiRequest, Reply, Route

PREFIX: Final = "/auth"
POLICY: Final[Policy] = {"swift-auth:log_in": Rule.PUBLIC}


class SwiftAuth:
    """What the handler needs; `storage_url` holds %(project_id)s, as in the catalogue."""

    def __init__(self, identity: IdentityService, clock: Clock, storage_url: str) -> None:
        self.identity, self.clock, self.storage_url = identity, clock, storage_url


async def log_in(request: ApiRequest) -> Reply:
    door = cast(SwiftAuth, request.service)
    who = request.headers.get("x-auth-user") or request.headers.get("x-storage-user") or ""
    key = request.headers.get("x-auth-key") or request.headers.get("x-storage-pass") or ""
    project, colon, user = who.partition(":")
    if not (project and colon and user and key):
        raise Unauthenticated("swift_auth.headers", "X-Auth-User (project:user) and X-Auth-Key are expected.")
    login = await door.identity.log_in(project, user, key)
    url = door.storage_url % {"project_id": login.project_id}
    headers = {
        "X-Storage-Url": url,
        "X-Auth-Token": login.token,
        "X-Storage-Token": login.token,
        "X-Auth-Token-Expires": str(int(login.expires_at_s - door.clock.now_s())),
    }
    return Reply({"storage": {"default": "local", "local": url}}, headers=headers)


ROUTES: Final = (Route("GET", "/v1.0", log_in, "swift-auth:log_in"),)


def swift_auth_api(door: SwiftAuth) -> Api:
    return Api(name="swift-auth", prefix=PREFIX, routes=ROUTES, service=door, policy=POLICY, faults=Faults(plain_fault))
