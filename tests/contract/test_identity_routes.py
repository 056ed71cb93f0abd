"""Every route of identity, from its own table: refused to strangers and other tenants, and never a 5xx."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apus.services.identity.api import bodies
from apus.services.identity.api.resources import RESOURCES
from apus.services.identity.api.routes import ROUTES
from apus.services.identity.logic.may import WAYS, Way
from apus.wire.route import Route
from tests.identity_cloud import ADMIN_PASSWORD, DEMO_PASSWORD, identity_cloud
from tests.unit.test_identity_service import Client, on

OPEN = {Way.PUBLIC, Way.ANYONE}


class Standing:
    """A cloud in a loop of its own, with things of the administrator's to reach for."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.context = identity_cloud()
        app, identity = self.loop.run_until_complete(self.context.__aenter__())
        self.client = Client(app, identity)
        self.client.token = self.run(self.client.login("admin", ADMIN_PASSWORD, on("admin")))
        self.demo = self.run(self.client.login("demo", DEMO_PASSWORD, on("demo")))
        self.ids = self.run(self._make())

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def _make(self) -> dict[str, str]:
        ok, caller = self.client.ok, self.client.identity.verifier.verify(self.client.token)
        user, project = caller.user_id, caller.project_id or ""
        ids = {"/v3/users": user, "/v3/projects": project, "/v3/domains": "default", "/v3/regions": "RegionOne"}
        ids["/v3/groups"] = (await ok("POST", "/v3/groups", {"group": {"name": "secret-group"}}))["group"]["id"]
        ids["/v3/roles"] = (await ok("GET", "/v3/roles?name=reader"))["roles"][0]["id"]
        ids["/v3/services"] = (await ok("GET", "/v3/services"))["services"][0]["id"]
        ids["/v3/endpoints"] = (await ok("GET", "/v3/endpoints"))["endpoints"][0]["id"]
        secret = {"credential": {"type": "cert", "blob": "secret-blob"}}
        ids["/v3/credentials"] = (await ok("POST", "/v3/credentials", secret))["credential"]["id"]
        rule = {"service": "compute", "method": "GET", "path": "/secret-path"}
        new = {"application_credential": {"name": "secret-robot", "access_rules": [rule]}}
        path = f"/v3/users/{user}/application_credentials"
        robot = (await ok("POST", path, new))["application_credential"]
        ids[path], ids[f"/v3/users/{user}/access_rules"] = robot["id"], robot["access_rules"][0]["id"]
        ec2 = f"/v3/users/{user}/credentials/OS-EC2"
        ids["access"] = (await ok("POST", ec2, {"tenant_id": project}))["credential"]["access"]
        trust = {
            "trustor_user_id": user,
            "trustee_user_id": user,
            "project_id": project,
            "impersonation": False,
            "roles": [{"name": "admin"}],
        }
        ids["/v3/OS-TRUST/trusts"] = (await ok("POST", "/v3/OS-TRUST/trusts", {"trust": trust}))["trust"]["id"]
        service = ids["/v3/services"]
        registered = {"service_id": service, "resource_name": "secret-things", "default_limit": 5}
        made = await ok("POST", "/v3/registered_limits", {"registered_limits": [registered]})
        ids["/v3/registered_limits"] = made["registered_limits"][0]["id"]
        limit = {"service_id": service, "resource_name": "secret-things", "resource_limit": 3, "project_id": project}
        ids["/v3/limits"] = (await ok("POST", "/v3/limits", {"limits": [limit]}))["limits"][0]["id"]
        return ids

    def path(self, route: Route) -> str:
        """The route's path with the administrator's ids in it."""
        user, role = self.ids["/v3/users"], self.ids["/v3/roles"]
        fixed = {
            "user_id": user,
            "project_id": self.ids["/v3/projects"],
            "group_id": self.ids["/v3/groups"],
            "role_id": role,
            "prior_id": role,
            "implied_id": role,
            "tag": "a",
            "access": self.ids["access"],
        }
        path = re.sub(r"\{(\w+)\}", lambda match: fixed.get(match[1], match[0]), route.path)
        actor = self.ids["/v3/groups"] if "/groups/{actor_id}" in path else user
        target = "default" if "/domains/{target_id}" in path else self.ids["/v3/projects"]
        path = path.replace("{actor_id}", actor).replace("{target_id}", target)
        return path.replace("{id}", self.ids.get(path.partition("/{id}")[0], "x"))

    def close(self) -> None:
        self.run(self.context.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture(scope="module")
def standing() -> Iterator[Standing]:
    cloud = Standing()
    yield cloud
    cloud.close()


def label(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.mark.parametrize("route", ROUTES, ids=label)
def test_nobody_passes_without_a_token(standing: Standing, route: Route) -> None:
    status, headers, _ = standing.run(standing.client.call(route.method, standing.path(route), {}, token=""))
    if Way.PUBLIC in WAYS[route.may or ""]:
        assert status in (200, 300, 400, 401)
    else:
        assert status == 401
        assert "Keystone uri=" in headers["www-authenticate"]


BODIES: dict[str, Any] = {
    "trust": {"trustor_user_id": "x", "trustee_user_id": "x", "impersonation": True},
    "application_credential": {"name": "x"},
    "credential": {"type": "cert", "blob": "x", "access": "x", "signature": "x", "token": "x", "params": {}},
    "registered_limits": [{"service_id": "x", "resource_name": "x", "default_limit": 1}],
    "limits": [{"service_id": "x", "resource_name": "x", "resource_limit": 1, "project_id": "x"}],
    "limit": {"resource_limit": 1},
    "registered_limit": {"default_limit": 1},
    "tenant_id": "x",
    "tags": ["x"],
    **{
        name: {"name": "x", "type": "x", "interface": "public", "url": "http://x", "service_id": "x"}
        for name in ("domain", "project", "user", "group", "role", "region", "service", "endpoint")
    },
}


@pytest.mark.parametrize("route", ROUTES, ids=label)
def test_another_tenant_neither_sees_nor_touches(standing: Standing, route: Route) -> None:
    path = standing.path(route)
    body = None
    if route.takes is not None:
        user = standing.ids["/v3/users"]
        body = {**BODIES, "credential": {**BODIES["credential"], "user_id": user}}
    subject = standing.client.token
    status, _, reply = standing.run(
        standing.client.call(route.method, path, body, token=standing.demo, subject=subject)
    )
    ways = set(WAYS[route.may or ""])
    if ways & OPEN or (route.operation == "get_domain" and Way.DOMAIN_USER in ways):
        assert status < 500
        text = str(reply)
        assert "secret-blob" not in text
        assert "secret-robot" not in text
    else:
        assert status in (403, 404), (status, reply)
    # and the administrator's things are as they were
    assert standing.client.identity.verifier.verify(standing.client.token).is_admin


STRUCTS = {resource.envelope: (resource.new, resource.change) for resource in RESOURCES} | {
    "credential": (bodies.NewCredential, bodies.ChangeCredential),
    "application_credential": (bodies.AppCredentialBody, bodies.AppCredentialBody),
    "trust": (bodies.TrustBody, bodies.TrustBody),
}
FIELDS = sorted({name for pair in STRUCTS.values() for each in pair for name in each.__struct_fields__})

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["default", "x", "public", "ec2", "http://x/%(project_id)s", "%(", '{"access": 1}', "a" * 300]),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8), below, max_size=4),
    max_leaves=8,
)
contents = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), values, max_size=8)
ENVELOPES = [*STRUCTS, "limits", "registered_limits", "limit", "registered_limit", "tags", "tenant_id"]


def envelope(names: list[str]) -> st.SearchStrategy[Any]:
    inner = contents | st.lists(contents, max_size=2) | values
    return st.fixed_dictionaries({name: inner for name in names}) | values


WRITES = [route for route in ROUTES if route.takes is not None]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_body_breaks_it(standing: Standing, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(WRITES))
    if route.path.startswith("/v3/users/{user_id}/password"):
        return
    word = route.path.split("/{", 1)[0].rpartition("/")[2]
    likely = [name for name in ENVELOPES if route.path.find(name) >= 0 or name in word] or ENVELOPES
    body = data.draw(envelope(likely))
    # the administrator's own things are not to be changed from under the test
    path = standing.path(route).replace(standing.ids["/v3/users"], "nobody") if route.method == "PATCH" else None
    status, _, reply = standing.run(standing.client.call(route.method, path or standing.path(route), body))
    assert status < 500, (label(route), body, reply)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_break_it(standing: Standing, data: bytes) -> None:
    status, _, reply = standing.run(standing.client.call("POST", "/v3/auth/tokens", data))
    assert status < 500, reply


auth_parts = st.fixed_dictionaries(
    {},
    optional={
        "methods": st.lists(st.sampled_from(["password", "token", "application_credential", "x"]), max_size=3),
        "password": st.fixed_dictionaries({"user": values | contents}),
        "token": st.fixed_dictionaries({"id": values}),
        "application_credential": contents | values,
    },
)
scopes = st.one_of(
    values,
    st.dictionaries(st.sampled_from(["project", "domain", "system", "OS-TRUST:trust", "unscoped"]), values | contents),
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(identity=auth_parts, scope=scopes)
def test_no_ask_for_a_token_breaks_it(standing: Standing, identity: Any, scope: Any) -> None:
    body = {"auth": {"identity": identity, "scope": scope}}
    status, _, reply = standing.run(standing.client.call("POST", "/v3/auth/tokens", body, token=""))
    assert status in (400, 401, 403), (body, reply)


READS = [route for route in ROUTES if route.method == "GET"]
queries = st.lists(
    st.tuples(
        st.sampled_from(["limit", "marker", "name", "name__icontains", "enabled", "tags", "user.id", "effective"])
        | st.sampled_from(["scope.system", "sort_key", "domain_id", "is_domain", "page_reverse", "include_names"]),
        st.text(alphabet="abc019%&=_-,.", max_size=6),
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(route=st.sampled_from(READS), query=queries, ids=st.text(alphabet="abc%0.-_~", min_size=1, max_size=8))
def test_no_query_breaks_it(standing: Standing, route: Route, query: list[tuple[str, str]], ids: str) -> None:
    path = re.sub(r"\{(\w+)\}", ids, route.path) if len(ids) % 2 else standing.path(route)
    text = "&".join(f"{key}={value}" for key, value in query)
    status, _, reply = standing.run(standing.client.call("GET", f"{path}?{text}", subject=standing.demo))
    assert status < 500, (label(route), text, reply)
