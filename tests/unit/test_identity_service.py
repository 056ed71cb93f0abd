"""The identity service through its HTTP door, in process: shapes, refusals, and tokens that end at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from apus.kernel.errors import Unauthenticated, Unavailable
from apus.services.identity.drivers.passwords import WAITING_MAX
from apus.services.identity.logic.signing import signing_key
from apus.services.identity.service import Identity
from tests.identity_cloud import ADMIN_PASSWORD, DEMO_PASSWORD, identity_cloud


class Client:
    """Speaks ASGI to the App; `token` is sent unless another one is given."""

    def __init__(self, app: Any, identity: Identity, token: str = "") -> None:
        self.app, self.identity, self.token = app, identity, token

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, subject: str | None = None
    ) -> tuple[int, dict[str, str], Any]:
        data = body if isinstance(body, bytes) else (b"" if body is None else json.dumps(body).encode())
        raw_path, _, query = f"/identity{path}".partition("?")
        headers = [(b"host", b"cloud.test"), (b"x-auth-token", (self.token if token is None else token).encode())]
        if subject is not None:
            headers.append((b"x-subject-token", subject.encode()))
        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": data, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "headers": [header for header in headers if header[1]],
        }
        await self.app(scope, receive, send)
        text = sent[1]["body"]
        got = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], got, json.loads(text) if text else None

    async def ok(self, method: str, path: str, body: Any = None, **kwargs: Any) -> Any:
        status, _, reply = await self.call(method, path, body, **kwargs)
        assert status < 300, (status, reply)
        return reply

    async def login(self, user: str, password: str, scope: Any = None, domain: str = "default") -> str:
        proof = {"user": {"name": user, "domain": {"id": domain}, "password": password}}
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": proof}}
        if scope is not None:
            auth["scope"] = scope
        status, headers, reply = await self.call("POST", "/v3/auth/tokens", {"auth": auth}, token="")
        assert status == 201, reply
        return headers["x-subject-token"]


def on(project: str) -> Any:
    return {"project": {"name": project, "domain": {"id": "default"}}}


async def _client() -> AsyncIterator[Client]:
    async with identity_cloud() as (app, identity):
        client = Client(app, identity)
        client.token = await client.login("admin", ADMIN_PASSWORD, on("admin"))
        yield client


def run(work: Any) -> None:
    """Run `work(client)` on a fresh cloud."""

    async def body() -> None:
        async for client in _client():
            await work(client)

    asyncio.run(body())


def test_versions() -> None:
    async def work(client: Client) -> None:
        status, _, reply = await client.call("GET", "", token="")
        assert status == 300
        assert reply["versions"]["values"][0]["links"][0]["href"] == "http://cloud.test/identity/v3/"
        reply = await client.ok("GET", "/v3", token="")
        assert reply["version"]["status"] == "stable"

    run(work)


def test_a_token_shows_what_it_is_for() -> None:
    async def work(client: Client) -> None:
        token = await client.login("demo", DEMO_PASSWORD, on("demo"))
        shown = (await client.ok("GET", "/v3/auth/tokens", subject=token))["token"]
        assert shown["project"]["name"] == "demo"
        assert shown["project"]["domain"] == {"id": "default", "name": "Default"}
        assert {role["name"] for role in shown["roles"]} == {"member", "reader"}
        assert shown["catalog"][0]["endpoints"][0]["region_id"] == "RegionOne"
        assert shown["methods"] == ["password"]
        bare = (await client.ok("GET", "/v3/auth/tokens?nocatalog", subject=token))["token"]
        assert "catalog" not in bare
        unscoped = (await client.ok("GET", "/v3/auth/tokens", subject=await client.login("demo", DEMO_PASSWORD)))[
            "token"
        ]
        assert not {"project", "roles", "catalog"} & set(unscoped)
        status, _, _ = await client.call("HEAD", "/v3/auth/tokens", subject=token)
        assert status == 200

    run(work)


@pytest.mark.parametrize("cause", ["disable", "password", "delete", "revoke", "role", "project", "domain", "group"])
def test_what_is_taken_away_ends_tokens_at_once(cause: str) -> None:
    async def work(client: Client) -> None:
        domain = (await client.ok("POST", "/v3/domains", {"domain": {"name": "d"}}))["domain"]["id"]
        user = await client.ok("POST", "/v3/users", {"user": {"name": "u", "password": "p", "domain_id": domain}})
        user_id = user["user"]["id"]
        project = await client.ok("POST", "/v3/projects", {"project": {"name": "p", "domain_id": domain}})
        project_id = project["project"]["id"]
        role_id = (await client.ok("GET", "/v3/roles?name=member"))["roles"][0]["id"]
        group_id = (await client.ok("POST", "/v3/groups", {"group": {"name": "g"}}))["group"]["id"]
        await client.ok("PUT", f"/v3/groups/{group_id}/users/{user_id}")
        holder = f"groups/{group_id}" if cause == "group" else f"users/{user_id}"
        await client.ok("PUT", f"/v3/projects/{project_id}/{holder}/roles/{role_id}")
        token = await client.login("u", "p", {"project": {"id": project_id}}, domain)
        verify = client.identity.verifier.verify
        assert verify(token).project_id == project_id
        causes: dict[str, tuple[str, str, Any]] = {
            "disable": ("PATCH", f"/v3/users/{user_id}", {"user": {"enabled": False}}),
            "password": ("PATCH", f"/v3/users/{user_id}", {"user": {"password": "other"}}),
            "delete": ("DELETE", f"/v3/users/{user_id}", None),
            "role": ("DELETE", f"/v3/projects/{project_id}/users/{user_id}/roles/{role_id}", None),
            "project": ("PATCH", f"/v3/projects/{project_id}", {"project": {"enabled": False}}),
            "domain": ("PATCH", f"/v3/domains/{domain}", {"domain": {"enabled": False}}),
            "group": ("DELETE", f"/v3/groups/{group_id}/users/{user_id}", None),
        }
        if cause == "revoke":
            await client.ok("DELETE", "/v3/auth/tokens", subject=token)
        else:
            await client.ok(*causes[cause])
        with pytest.raises(Unauthenticated):
            verify(token)
        assert (await client.call("GET", "/v3/auth/tokens", subject=token))[0] == 404
        # another process hears of it from the source alone
        news = await client.identity.revocations(0.0)
        assert news.epochs.items() <= client.identity.core.view.epochs.items()

    run(work)


def test_a_user_changes_his_password_with_the_old_one() -> None:
    async def work(client: Client) -> None:
        token = await client.login("demo", DEMO_PASSWORD, on("demo"))
        user_id = client.identity.verifier.verify(token).user_id
        path = f"/v3/users/{user_id}/password"
        wrong = {"user": {"password": "new", "original_password": "wrong"}}
        assert (await client.call("POST", path, wrong, token=""))[0] == 401
        right = {"user": {"password": "new", "original_password": DEMO_PASSWORD}}
        assert (await client.call("POST", path, right, token=""))[0] == 204
        with pytest.raises(Unauthenticated):
            client.identity.verifier.verify(token)
        await client.login("demo", "new", on("demo"))

    run(work)


def test_lists_are_filtered_and_paged() -> None:
    async def work(client: Client) -> None:
        for name in ("alpha", "alpine", "beta"):
            await client.ok("POST", "/v3/projects", {"project": {"name": name, "tags": [name[0]]}})
        names = lambda reply: [project["name"] for project in reply["projects"]]  # noqa: E731
        assert sorted(names(await client.ok("GET", "/v3/projects?name__startswith=alp"))) == ["alpha", "alpine"]
        assert names(await client.ok("GET", "/v3/projects?tags=b")) == ["beta"]
        assert names(await client.ok("GET", "/v3/projects?name=alpha&enabled=false")) == []
        seen: list[str] = []
        path = "/v3/projects?limit=2"
        while path:
            reply = await client.ok("GET", path)
            seen += names(reply)
            following = reply["links"]["next"]
            path = following.partition("/identity")[2] if following else ""
        assert len(seen) == len(set(seen)) == 6

    run(work)


def test_projects_have_families() -> None:
    async def work(client: Client) -> None:
        parent = (await client.ok("POST", "/v3/projects", {"project": {"name": "a"}}))["project"]["id"]
        child = (await client.ok("POST", "/v3/projects", {"project": {"name": "b", "parent_id": parent}}))["project"]
        shown = (await client.ok("GET", f"/v3/projects/{child['id']}?parents_as_ids"))["project"]
        assert shown["parents"] == {parent: None}
        shown = (await client.ok("GET", f"/v3/projects/{parent}?subtree_as_list"))["project"]
        assert [each["project"]["id"] for each in shown["subtree"]] == [child["id"]]
        assert (await client.call("DELETE", f"/v3/projects/{parent}"))[0] == 403
        assert (await client.call("PATCH", f"/v3/projects/{parent}", {"project": {"enabled": False}}))[0] == 403
        domain_role = (await client.ok("GET", "/v3/roles?name=member"))["roles"][0]["id"]
        demo = (await client.ok("GET", "/v3/users?name=demo"))["users"][0]["id"]
        inherit = f"/v3/OS-INHERIT/projects/{parent}/users/{demo}/roles/{domain_role}/inherited_to_projects"
        await client.ok("PUT", inherit)
        token = await client.login("demo", DEMO_PASSWORD, {"project": {"id": child["id"]}})
        found = await client.ok("GET", f"/v3/role_assignments?effective&user.id={demo}&scope.project.id={child['id']}")
        assert len(found["role_assignments"]) == 2
        await client.ok("DELETE", inherit)
        with pytest.raises(Unauthenticated):
            client.identity.verifier.verify(token)

    run(work)


def test_roles_of_a_domain_imply_but_no_token_shows_them() -> None:
    async def work(client: Client) -> None:
        domain = (await client.ok("POST", "/v3/domains", {"domain": {"name": "d"}}))["domain"]["id"]
        local = (await client.ok("POST", "/v3/roles", {"role": {"name": "l", "domain_id": domain}}))["role"]["id"]
        reader = (await client.ok("GET", "/v3/roles?name=reader"))["roles"][0]["id"]
        demo = (await client.ok("GET", "/v3/users?name=demo"))["users"][0]["id"]
        project = (await client.ok("POST", "/v3/projects", {"project": {"name": "p"}}))["project"]["id"]
        await client.ok("PUT", f"/v3/projects/{project}/users/{demo}/roles/{local}")
        listed = f"/v3/role_assignments?effective&user.id={demo}&scope.project.id={project}"
        assert (await client.ok("GET", listed))["role_assignments"] == []
        await client.ok("PUT", f"/v3/roles/{local}/implies/{reader}")
        found = (await client.ok("GET", listed))["role_assignments"]
        assert [each["role"]["id"] for each in found] == [reader]
        other = (await client.ok("POST", "/v3/domains", {"domain": {"name": "e"}}))["domain"]["id"]
        theirs = (await client.ok("POST", "/v3/roles", {"role": {"name": "t", "domain_id": other}}))["role"]["id"]
        await client.ok("PUT", f"/v3/roles/{local}/implies/{theirs}")
        assert (await client.call("PUT", f"/v3/roles/{reader}/implies/{local}"))[0] == 403

    run(work)


def test_an_application_gets_roles_given_since_the_token_but_never_more_than_a_delegate_has() -> None:
    async def work(client: Client) -> None:
        token = await client.login("demo", DEMO_PASSWORD, on("demo"))
        who = client.identity.verifier.verify(token)
        path = f"/v3/users/{who.user_id}/application_credentials"
        role = (await client.ok("POST", "/v3/roles", {"role": {"name": "late"}}))["role"]["id"]
        body = {"application_credential": {"name": "free", "unrestricted": True, "roles": [{"name": "member"}]}}
        free = (await client.ok("POST", path, body, token=token))["application_credential"]
        await client.ok("PUT", f"/v3/projects/{who.project_id}/users/{who.user_id}/roles/{role}")
        late = {"application_credential": {"name": "late", "roles": [{"id": role}]}}
        proof = {"id": free["id"], "secret": free["secret"]}
        auth = {"identity": {"methods": ["application_credential"], "application_credential": proof}}
        _, headers, _ = await client.call("POST", "/v3/auth/tokens", {"auth": auth}, token="")
        assert (await client.call("POST", path, late, token=headers["x-subject-token"]))[0] == 400
        made = (await client.ok("POST", path, late, token=token))["application_credential"]
        assert [each["id"] for each in made["roles"]] == [role]

    run(work)


def test_an_endpoint_makes_the_region_that_it_names() -> None:
    async def work(client: Client) -> None:
        service = (await client.ok("POST", "/v3/services", {"service": {"type": "t"}}))["service"]["id"]
        body = {"service_id": service, "interface": "public", "url": "http://cloud.test"}
        assert (await client.call("POST", "/v3/endpoints", {"endpoint": {**body, "region_id": "far"}}))[0] == 400
        for _ in range(2):
            await client.ok("POST", "/v3/endpoints", {"endpoint": {**body, "region": "far"}})
        assert (await client.ok("GET", "/v3/regions/far"))["region"]["id"] == "far"
        id = (await client.ok("GET", f"/v3/endpoints?service_id={service}"))["endpoints"][0]["id"]
        await client.ok("PATCH", f"/v3/endpoints/{id}", {"endpoint": {"region": "farther"}})
        assert (await client.ok("GET", "/v3/regions/farther"))["region"]["id"] == "farther"

    run(work)


def test_access_rules_are_enforced_at_the_edge() -> None:
    async def work(client: Client) -> None:
        token = await client.login("demo", DEMO_PASSWORD, on("demo"))
        user_id = client.identity.verifier.verify(token).user_id
        rule = {"service": "identity", "method": "GET", "path": "/v3/auth/projects"}
        body = {"application_credential": {"name": "narrow", "access_rules": [rule]}}
        made = await client.ok("POST", f"/v3/users/{user_id}/application_credentials", body, token=token)
        credential = made["application_credential"]
        proof = {"id": credential["id"], "secret": credential["secret"]}
        auth = {"identity": {"methods": ["application_credential"], "application_credential": proof}}
        _, headers, _ = await client.call("POST", "/v3/auth/tokens", {"auth": auth}, token="")
        narrow = headers["x-subject-token"]
        assert (await client.call("GET", "/v3/auth/projects", token=narrow))[0] == 200
        assert (await client.call("GET", "/v3/auth/domains", token=narrow))[0] == 401
        rule_id = credential["access_rules"][0]["id"]
        assert (await client.call("DELETE", f"/v3/users/{user_id}/access_rules/{rule_id}", token=token))[0] == 403

    run(work)


def test_trusts_let_another_act() -> None:
    async def work(client: Client) -> None:
        demo = await client.login("demo", DEMO_PASSWORD, on("demo"))
        trustor = client.identity.verifier.verify(demo)
        trustee = client.identity.verifier.verify(client.token).user_id
        body = {
            "trust": {
                "trustor_user_id": trustor.user_id,
                "trustee_user_id": trustee,
                "project_id": trustor.project_id,
                "impersonation": True,
                "roles": [{"name": "member"}],
                "remaining_uses": 1,
            }
        }
        assert (await client.call("POST", "/v3/OS-TRUST/trusts", body))[0] == 403
        trust_id = (await client.ok("POST", "/v3/OS-TRUST/trusts", body, token=demo))["trust"]["id"]
        auth = {
            "identity": {"methods": ["token"], "token": {"id": await client.login("admin", ADMIN_PASSWORD)}},
            "scope": {"OS-TRUST:trust": {"id": trust_id}},
        }
        status, headers, reply = await client.call("POST", "/v3/auth/tokens", {"auth": auth}, token="")
        assert status == 201, reply
        assert reply["token"]["user"]["id"] == trustor.user_id
        assert (await client.call("POST", "/v3/auth/tokens", {"auth": auth}, token=""))[0] == 401
        assert [trust["id"] for trust in (await client.ok("GET", "/v3/OS-TRUST/trusts/"))["trusts"]] == [trust_id]
        await client.ok("DELETE", f"/v3/OS-TRUST/trusts/{trust_id}", token=demo)
        assert (await client.call("GET", f"/v3/OS-TRUST/trusts/{trust_id}", token=demo))[0] == 404
        with pytest.raises(Unauthenticated):
            client.identity.verifier.verify(headers["x-subject-token"])

    run(work)


def test_ec2_keys_give_their_owner() -> None:
    async def work(client: Client) -> None:
        demo = await client.login("demo", DEMO_PASSWORD, on("demo"))
        caller = client.identity.verifier.verify(demo)
        path = f"/v3/users/{caller.user_id}/credentials/OS-EC2"
        made = (await client.ok("POST", path, {"tenant_id": caller.project_id}, token=demo))["credential"]
        asked = (made["access"], "20260131", "RegionOne", "s3")
        found = await client.identity.signing_key(*asked)
        assert found is not None
        assert found[0] == signing_key(made["secret"], *asked[1:])
        assert (found[1].user_id, found[1].project_id) == (caller.user_id, caller.project_id)
        assert found[1].roles == {"member", "reader"}
        before = client.identity.core.view.version
        await client.ok("DELETE", f"{path}/{made['access']}", token=demo)
        assert await client.identity.signing_key(*asked) is None
        assert client.identity.core.view.version > before, "who remembers the key is not told"

    run(work)


def test_an_access_key_may_be_changed_and_signs_from_then_on() -> None:
    async def work(client: Client) -> None:
        caller = client.identity.verifier.verify(client.token)

        def of(access: str, secret: str) -> dict[str, object]:
            return {"blob": json.dumps({"access": access, "secret": secret})}

        async def signs(access: str, secret: str) -> bool:
            found = await client.identity.signing_key(access, "20260131", "RegionOne", "s3")
            return found is not None and found[0] == signing_key(secret, "20260131", "RegionOne", "s3")

        kept = {"type": "ec2", "user_id": caller.user_id, "project_id": caller.project_id}
        body = {"credential": {**kept, **of("first", "s1")}}
        id = (await client.ok("POST", "/v3/credentials", body))["credential"]["id"]
        assert id == hashlib.sha256(b"first").hexdigest()
        other = (await client.ok("POST", "/v3/credentials", {"credential": {**kept, **of("other", "s9")}}))[
            "credential"
        ]
        assert await signs("first", "s1")

        path = f"/v3/credentials/{id}"
        changed = (await client.ok("PATCH", path, {"credential": of("second", "s2")}))["credential"]
        assert (changed["id"], json.loads(changed["blob"])["access"]) == (id, "second")
        assert await signs("second", "s2")
        assert await client.identity.signing_key("first", "20260131", "RegionOne", "s3") is None
        mine = f"/v3/users/{caller.user_id}/credentials/OS-EC2"
        assert (await client.ok("GET", f"{mine}/second"))["credential"]["secret"] == "s2"
        assert (await client.call("GET", f"{mine}/first"))[0] == 404

        taken = f"/v3/credentials/{other['id']}"
        assert (await client.call("PATCH", taken, {"credential": of("second", "x")}))[0] == 409
        assert (await client.call("POST", "/v3/credentials", {"credential": {**kept, **of("second", "x")}}))[0] == 409
        assert await signs("other", "s9")
        await client.ok("PATCH", path, {"credential": of("third", "s3")})
        assert await client.identity.signing_key("second", "20260131", "RegionOne", "s3") is None
        await client.ok("PATCH", path, {"credential": of("first", "s4")})
        assert await signs("first", "s4")
        await client.ok("PATCH", path, {"credential": of("fourth", "s5")})
        await client.ok("DELETE", path)
        assert await client.identity.signing_key("fourth", "20260131", "RegionOne", "s3") is None
        await client.ok("PATCH", taken, {"credential": of("fourth", "s6")})
        assert await signs("fourth", "s6")

    run(work)


def test_bootstrap_again_changes_nothing_but_addresses() -> None:
    async def work(client: Client) -> None:
        from apus.services.identity.contract import CatalogueEntry
        from apus.services.identity.service import Bootstrap

        before = await client.ok("GET", "/v3/role_assignments")
        moved = CatalogueEntry(type="compute", name="nova", url="http://moved/compute/v2.1")
        await client.identity.bootstrap(Bootstrap(admin_password="x", tenants={"demo": "y"}, catalogue=[moved]))
        assert (await client.ok("GET", "/v3/role_assignments"))["role_assignments"] == before["role_assignments"]
        catalog = (await client.ok("GET", "/v3/auth/catalog"))["catalog"]
        compute = next(service for service in catalog if service["type"] == "compute")
        assert {endpoint["url"] for endpoint in compute["endpoints"]} == {"http://moved/compute/v2.1"}

    run(work)


def test_too_many_passwords_at_once_are_told_to_come_back() -> None:
    async def work(client: Client) -> None:
        passwords = client.identity.core.passwords
        asks = [passwords.check(None, "x") for _ in range(WAITING_MAX + 20)]
        answers = await asyncio.gather(*asks, return_exceptions=True)
        assert sum(isinstance(answer, Unavailable) for answer in answers) == 20

    run(work)


def test_the_service_token_is_the_cloud_itself() -> None:
    async def work(client: Client) -> None:
        token = await client.identity.service_token()
        assert token == await client.identity.service_token()
        caller = client.identity.verifier.verify(token)
        assert caller.is_admin
        assert "service" in caller.roles
        await client.ok("GET", "/v3/users", token=token)

    run(work)


def test_a_host_s_token_is_for_images_alone() -> None:
    async def work(client: Client) -> None:
        token = await client.identity.image_token()
        assert token == await client.identity.image_token()
        assert token != await client.identity.service_token()
        caller = client.identity.verifier.verify(token)
        assert not caller.is_admin
        assert [(rule.method, rule.path) for rule in caller.access_rules or ()] == [("GET", "/v2/images/*/file")]

    run(work)


def test_others_learn_who_there_is_and_of_which_domain() -> None:
    async def work(client: Client) -> None:
        domain = (await client.ok("POST", "/v3/domains", {"domain": {"name": "far"}}))["domain"]["id"]
        wanted = {"project": {"name": "demo", "domain_id": domain}}
        there = (await client.ok("POST", "/v3/projects", wanted))["project"]["id"]
        here = (await client.ok("GET", "/v3/projects?name=demo&domain_id=default"))["projects"][0]["id"]
        user = (await client.ok("GET", "/v3/users?name=demo"))["users"][0]["id"]
        identity = client.identity
        assert [await identity.project_domain(id) for id in (there, here, user)] == [domain, "default", None]
        asked = ["none", there, user, here, "demo", there, ""]
        assert sorted(await identity.principals_among(asked)) == sorted([there, user, here])
        assert await identity.principals_among([]) == []

    run(work)
