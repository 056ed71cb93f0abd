"""Every route of every door, with what it does not expect: from everybody, about everything.

Whatever is sent: no 5xx and no line of an error in the log; a refusal has the shape of its service and says what was
wrong; what the other tenant has appears in no answer of anybody else's, and is afterwards what it was.
`FUZZ_EXAMPLES` (default 12 a route) and `FUZZ_SEED` make it longer and different: `make fuzz-long`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from apus.kernel.policy import Rule
from apus.services.compute.api.actions import ACTIONS, NOT_HERE
from apus.services.identity.api import bodies as identity_bodies
from apus.services.identity.api.resources import RESOURCES
from apus.services.object.api.routes import no_account
from apus.wire.app import Api
from apus.wire.route import Route
from apus.wire.versions import text_of
from tests.contract.planted import MARK, PASSWORD, Tenant, Things, add_person, plant, throw_aways, view_of
from tests.contract.shapes import ODD_TEXT, Words, bodies, names_of, of_type
from tests.contract.whole_cloud import Answer, WholeCloud, whole_cloud

pytestmark = pytest.mark.xdist_group("fuzz")

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "12"))
SEED: Final = int(os.environ.get("FUZZ_SEED", "1"))
SOURCES: Final = Path(__file__).parents[2] / "src" / "apus"
ROOMS: Final = {
    "swift": "object",
    "swift-info": "object",
    "swift-health": "object",
    "swift-domains": "object",
    "swift-recon": "object",
    "apus": "../skins/apus",
}
NAMES: Final = (
    "identity",
    "image",
    "placement",
    "compute",
    "network",
    "apus",
    "swift",
    "swift-info",
    "swift-health",
    "swift-domains",
    "swift-recon",
)
ACTORS: Final = (
    "admin",
    "admin",
    "admin",
    "member",
    "member",
    "member",
    "member",
    "reader",
    "third",
    "revoked",
    "garbage",
    None,
)

_PARTS: Final = {
    "create_credential": ("credential", identity_bodies.NewCredential),
    "update_credential": ("credential", identity_bodies.ChangeCredential),
    "create_app_credential": ("application_credential", identity_bodies.AppCredentialBody),
    "create_trust": ("trust", identity_bodies.TrustBody),
    "put_region": ("region", identity_bodies.NewRegion),
    "change_password": ("user", identity_bodies.ChangePassword),
    "create_registered_limits": ("registered_limits", list[identity_bodies.NewRegisteredLimit]),
    "create_limits": ("limits", list[identity_bodies.NewLimit]),
    "set_tags": ("tags", list[str]),
    **{f"create_{one.kind.word}": (one.envelope, one.new) for one in RESOURCES},
    **{f"update_{one.kind.word}": (one.envelope, one.change) for one in RESOURCES},
}
"""Identity's handlers open the envelope themselves: operation -> its name and the type inside."""

_PATCHES: Final = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(("add", "replace", "remove", "move")),
         "path": st.sampled_from(("/name", "/tags", "/visibility", "/size", "/x", "name", "", "/a~1b/c", "/os_hidden"))},
        optional={"value": st.one_of(st.text(max_size=5), st.booleans(), st.none(), st.lists(st.text(max_size=3)))},
    ), max_size=3,
)  # fmt: skip


@dataclasses.dataclass
class Scene:
    """The cloud, who asks, and what there is to ask about."""

    cloud: WholeCloud
    runner: asyncio.Runner
    tokens: dict[str | None, str | None]
    own: Tenant
    other: Tenant
    rubble: Things
    """What an administrator may break."""
    before: Mapping[str, bytes | int]

    def ask(self, *arguments: Any, **options: Any) -> Answer | None:
        return self.runner.run(self.cloud.ask(*arguments, **options))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    directory = tmp_path_factory.mktemp("cloud")
    with asyncio.Runner() as runner:
        live = whole_cloud(directory)
        cloud = runner.run(live.__aenter__())
        try:
            yield runner.run(_scene(cloud, runner))
        finally:
            runner.run(live.__aexit__(None, None, None))


async def _scene(cloud: WholeCloud, runner: asyncio.Runner) -> Scene:
    admin = await cloud.login("admin", cloud.password, "admin")
    other, own = await plant(cloud, admin, MARK), await plant(cloud, admin, "fuzz")
    await add_person(cloud, admin, "reader", own.project, "reader")
    third = (await cloud.made("POST", "/identity/v3/projects", {"project": {"name": "third"}}, admin))["project"]["id"]
    await add_person(cloud, admin, "third", third, "member")
    revoked = await cloud.login("fuzz", PASSWORD, "fuzz")
    answer = await cloud.ask("DELETE", "/identity/v3/auth/tokens", None, admin, {"x-subject-token": revoked})
    assert answer is not None
    assert answer.status == 204
    rubble = await throw_aways(cloud, admin, {name: list(ids) for name, ids in own.things.items()})
    tokens: dict[str | None, str | None] = {
        "admin": admin, "member": own.token, "reader": await cloud.login("reader", PASSWORD, "fuzz"),
        "third": await cloud.login("third", PASSWORD, "third"), "revoked": revoked, "garbage": "gAAAAAB" + "x" * 200,
        None: None,
    }  # fmt: skip
    return Scene(cloud, runner, tokens, own, other, rubble, await view_of(cloud, other))


# ------------------------------------------------------------------------------------------- what is asked
def known_queries(api: Api) -> list[str]:
    """The parameters that the door's own source reads, and those that all lists share."""
    room = ROOMS.get(api.name, api.name)
    folder = SOURCES / "services" / room
    source = "".join(path.read_text() for path in sorted(folder.rglob("*.py")))
    found = set(re.findall(r"""query\w*\(\s*(?:request, )?"([a-z_A-Z:.-]+)\"""", source))
    shared = {
        "limit", "marker", "sort_key", "sort_dir", "sort", "fields", "page_reverse", "name", "id", "status", "tags",
        "not-tags", "name__icontains", "enabled", "domain_id", "project_id", "changes-since", "size_min", "created_at",
        "owner", "visibility", "member_status", "fixed_ips", "ip", "resources", "required", "member_of", "in_tree",
        "format", "prefix", "delimiter", "end_marker", "path", "multipart-manifest", "all_tenants", "x", "after", "effective",
    }  # fmt: skip
    return sorted(found | shared)


QUERY_VALUES: Final = (
    *ODD_TEXT, "1", "2", "-1", "abc", "name:desc", "name:up", "asc", "name", "id", "created_at", "updated_at", "json",
    "xml", "gt:2020-01-01T00:00:00Z", "in:a,b", "in:\"", "gte:x", "2020-13-45", "2020-01-01T00:00:00+99:99", "ACTIVE", "active",
    "VCPU:1", "VCPU:0,MEMORY_MB:x", "!HW_X", "in:,", "ip_address=1", "subnet_id=x", "%ff%fe", "any", "(", "[", "*", "^a",
)  # fmt: skip
HEADERS: Final = {
    "openstack-api-version": ("compute 2.1", "compute 2.26", "compute 2.60", "compute latest", "compute 9.9", "compute x",
                              "placement 1.39", "placement 1.10", "placement latest", "placement 1.", "compute", ",,", "é"),
    "x-openstack-nova-api-version": ("2.1", "2.37", "2.90", "latest", "2", "2.999999999999999999999", "-1.1", ""),
    "idempotency-key": ("a", "b", "", "x" * 256, "é", " "),
    "range": ("bytes=0-1", "bytes=-5", "bytes=5-1", "bytes=0-0,2-3", "bytes=99999999999999999999-", "lines=1", "bytes=",
              "bytes=-0", "bytes=0-0," * 200),
    "content-type": ("application/json", "text/xml", "application/octet-stream", "", "application/openstack-images-v2.1-json-patch",
                     "application/openstack-images-v2.0-json-patch", "x" * 9000),
    "if-match": ("*", '"x"', "x", "revision_number=0", "revision_number=x"),
    "if-none-match": ("*", '"x"'), "if-modified-since": ("x", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Jan 99999 00:00:00 GMT"),
    "host": ("x", "", "a:b:c", "[::1", "é", "evil.example\\@x"),
    "accept": ("application/xml", "text/plain", "*/*;q=x", "application/json;q=0"),
    "content-range": ("bytes 0-1/2", "x"), "x-subject-token": ("x", "", "é", "gAAAAAx"),
    "last-event-id": ("0", "x", "-1", "99999999999999999999", "٣"), "x-delete-after": ("-1", "x", "1", "9" * 30),
    "x-delete-at": ("1", "x", "9" * 30, "²"), "x-copy-from": ("/held/o-0", "x", "/", "%2Fheld%2Fo-0", "/held/%00"),
    "x-container-read": (".r:*", ".rlistings,,:", "*:*", ".r:-x", "x" * 300), "destination": ("held/y", "y", "/", "%ff/%fe"),
    "x-object-meta-x": ("é", "x" * 400, ""), "x-container-meta-x": ("é", "x" * 400), "etag": ("x", '"0"'), "expect": ("x",),
    "x-object-manifest": ("held/o", "x", "é/%ff"), "x-account-meta-temp-url-key": ("k",), "transfer-encoding": ("chunked",),
    "x-huge": ("x" * 60_000,), "x-auth-token-2": ("y",), "x-trans-id-extra": ("é",), "content-length": ("5",),
    "x-image-meta-name": ("x",), "x-openstack-request-id": ("req-x", "é"), "x-timestamp": ("x", "1", "9" * 30, "nan"),
}  # fmt: skip


def words_of(ids: list[str]) -> Words:
    """Texts by the name of their field."""
    plain = st.sampled_from(("a", "b", "fuzz", "x-1", "CUSTOM_X", "é"))
    some_id = st.sampled_from(ids)
    special: dict[str, st.SearchStrategy[str]] = {
        "cidr": st.sampled_from(("10.77.0.0/24", "fd00::/64", "10.77.0.0/31", "0.0.0.0/0")),
        "gateway_ip": st.sampled_from(("10.77.0.1", "fd00::1", "")), "start": st.just("10.77.0.10"), "end": st.just("10.77.0.20"),
        "ip_address": st.sampled_from(("10.90.0.77", "10.77.0.5", "fd00::5")), "nexthop": st.just("10.77.0.9"),
        "destination": st.just("10.1.0.0/16"), "mac_address": st.sampled_from(("fa:16:3e:00:00:09", "ff:ff:ff:ff:ff:ff")),
        "remote_ip_prefix": st.sampled_from(("10.0.0.0/8", "::/0")), "flavorRef": st.sampled_from(("1", "2", "throw-away")),
        "networks": st.sampled_from(("auto", "none")), "status": st.sampled_from(("enabled", "disabled", "accepted", "x")),
        "url": st.just("http://x/"), "blob": st.sampled_from(("{}", '{"access": "a", "secret": "b"}')), "policy": st.just("affinity"),
        "user_data": st.just("QQ=="), "contents": st.just("QQ=="), "hostname": st.just("h"), "uuid": some_id, "port": some_id,
        "direction": st.sampled_from(("ingress", "egress")), "ethertype": st.sampled_from(("IPv4", "IPv6")),
        "protocol": st.sampled_from(("tcp", "udp", "icmp", "58", "any")), "public_key": st.just("ssh-rsa AAAA x"),
        "expires_at": st.sampled_from(("2030-01-01T00:00:00Z", "2030-01-01", "99999-01-01T00:00:00Z", "1970-01-01T00:00:00.1Z")),
        "password": st.sampled_from(("p", PASSWORD)), "resource_name": plain, "methods": st.sampled_from(("password", "token")),
        "availability_zone": st.sampled_from(("nova", "nova:x", "a:b:c:d")), "path": st.sampled_from(("/v2.1/servers", "/x")),
    }  # fmt: skip

    def words(name: str) -> st.SearchStrategy[str]:
        if name in special:
            return st.one_of(special[name], special[name], special[name], plain)
        return some_id if re.search(r"(_id|_uuid|Ref|^id|groups|members?|port|aggregates)$", name) else plain

    return words


def right_body(route: Route, words: Words) -> st.SearchStrategy[Any]:
    if route.operation in _PARTS:
        envelope, inside = _PARTS[route.operation]
        return st.fixed_dictionaries({envelope: of_type(inside, words)})
    if route.operation == "act":
        arguments = (
            None, {}, {"type": "SOFT"}, {"type": "HARD"}, {"type": 1}, {"length": 5}, {"length": "x"}, {"length": -(10**30)},
            {"length": None}, {"state": "error"}, {"name": "x"}, {"networkId": "x"}, {"adminPass": "p"}, {"locked_reason": "é" * 300},
            {"flavorRef": "2"}, {"name": "\u0000", "metadata": {}}, [], "x", 5,
        )  # fmt: skip
        return st.dictionaries(
            st.sampled_from(sorted({*ACTIONS, *NOT_HERE})), st.sampled_from(arguments), min_size=1, max_size=1
        )
    if route.operation == "act_on_flavor":
        return st.sampled_from(("addTenantAccess", "removeTenantAccess")).map(lambda verb: {verb: {"tenant": "x"}})
    if route.operation == "act_on_aggregate":
        hosts = st.fixed_dictionaries({"host": words("host")})
        metadata = st.fixed_dictionaries(
            {"metadata": st.dictionaries(words("key"), st.none() | words("value"), max_size=2)}
        )
        return st.one_of(
            st.sampled_from(("add_host", "remove_host")).flatmap(lambda verb: st.fixed_dictionaries({verb: hosts})),
            st.fixed_dictionaries({"set_metadata": metadata}),
        )
    if route.operation == "create_image":
        fields = {
            "name": words("name"), "disk_format": st.sampled_from(("raw", "qcow2", "iso")), "container_format": st.just("bare"),
            "visibility": st.sampled_from(("private", "shared", "community")), "min_disk": st.integers(-1, 5), "x": words("x"),
            "tags": st.lists(words("tag"), max_size=3), "id": words("id"), "protected": st.booleans(), "owner": words("project_id"),
        }  # fmt: skip
        return st.fixed_dictionaries({}, optional=fields)
    if route.operation == "change_image":
        return _PATCHES
    if route.takes is not None:
        return of_type(route.takes, words)
    return st.fixed_dictionaries({})


def segment_before(route: Route) -> Mapping[str, str]:
    """Parameter -> the segment before it, which says what it is an id of."""
    parts = route.path.split("/")
    return {
        part.strip("{}").removesuffix(":path"): parts[index - 1]
        for index, part in enumerate(parts)
        if part.startswith("{")
    }


NOUNS: Final = {"account": "v1", "container": "container", "object": "object", "user_id": "users", "project_id": "projects",
                "user": "users", "group_id": "groups", "role_id": "roles", "domain_id": "domains", "consumer": "servers",
                "member": "projects", "prior_id": "roles", "implied_id": "roles"}  # fmt: skip


def parameter(name: str, segment: str, things: list[Things]) -> st.SearchStrategy[str]:
    """Its text in the path, mostly of something that exists."""
    if name == "noun":
        return st.sampled_from(("networks", "subnets", "ports", "security-groups", "routers", "x"))
    kind = NOUNS.get(name, segment)
    known = [quote(id, safe="") for tenant in things for id in tenant.get(kind, ())]
    some = [quote(id, safe="") for tenant in things for ids in tenant.values() for id in ids[:1]]
    odd = [quote(text[:3000], safe="") for text in ODD_TEXT if text]
    odd += [
        "%2F",
        "a%2Fb",
        "..",
        "%2e%2e",
        "%ff%fe",
        "%zz",
        "%",
        "a" * 6000,
        "%00",
        "a%00b",
        "model",
        "key",
        "fuzz",
        "~",
        ";",
        "a=b",
    ]
    choices = [st.sampled_from(known)] * 7 if known else []
    return st.one_of(*choices, st.sampled_from(odd), st.sampled_from(some))


NOT_PLANTED: Final = frozenset({
    "/v3/auth/tokens", "/v3/groups/{group_id}/users/{user_id}", "/v3/roles/{prior_id}/implies/{implied_id}",
    "/v3/projects/{target_id}/users/{actor_id}/roles/{role_id}", "/v3/system/users/{actor_id}/roles/{role_id}",
    "/v3/system/groups/{actor_id}/roles/{role_id}", "/v3/projects/{target_id}/groups/{actor_id}/roles/{role_id}",
    "/v3/domains/{target_id}/users/{actor_id}/roles/{role_id}",
    "/v3/domains/{target_id}/groups/{actor_id}/roles/{role_id}",
    "/v3/OS-INHERIT/domains/{target_id}/groups/{actor_id}/roles/{role_id}/inherited_to_projects",
    "/v3/OS-INHERIT/domains/{target_id}/users/{actor_id}/roles/{role_id}/inherited_to_projects",
    "/v3/OS-INHERIT/projects/{target_id}/users/{actor_id}/roles/{role_id}/inherited_to_projects",
    "/v3/OS-INHERIT/projects/{target_id}/groups/{actor_id}/roles/{role_id}/inherited_to_projects",
    "/v2/images/{id}/members/{member}", "/allocation_candidates", "/usages",
    "/v2.1/servers/{id}/os-instance-actions/{request_id}", "/v2.1/flavors/{id}/os-extra_specs/{key}",
    "/v2.1/flavors/{id}/os-flavor-access", "/v2.1/os-hypervisors/{id}/servers", "/v2.1/os-hypervisors/{id}/uptime",
    "/v1/servers/{id}/access", "/v1.0",
})  # fmt: skip
"""What joins two things that were planted apart, wants a header or a query, or is of other versions and drivers."""


@dataclasses.dataclass(frozen=True)
class Ask:
    actor: str | None
    target: str
    body: bytes | None
    headers: Mapping[str, str]
    cut: bool


def asks(scene: Scene, api: Api, route: Route) -> st.SearchStrategy[Ask]:
    queries, takes = known_queries(api), route.method in ("POST", "PUT", "PATCH")
    segments = segment_before(route)

    @st.composite
    def one(draw: st.DrawFn) -> Ask:
        actor = draw(st.sampled_from(ACTORS))
        things = [scene.rubble] if actor == "admin" else [scene.own.things, scene.other.things]
        path = route.path
        for name, segment in segments.items():
            value = draw(parameter(name, segment, things))
            path = path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)
        target = api.prefix + path
        if draw(st.integers(0, 9)) < (3 if takes else 6):
            pairs = draw(st.lists(st.tuples(st.sampled_from(queries), st.sampled_from(QUERY_VALUES)), max_size=3))
            target += "?" + "&".join(f"{quote(name)}={quote(value[:3000], safe='%:,=')}" for name, value in pairs)
        ids = sorted({id for tenant in things for ids in tenant.values() for id in ids})
        body = (
            draw(bodies(right_body(route, words_of(ids))))
            if takes
            else draw(st.sampled_from((None, None, b"{}", b"x")))
        )
        headers = {"content-type": "application/json"} if takes else {}
        if route.operation == "change_image":
            headers["content-type"] = draw(st.sampled_from(HEADERS["content-type"][4:6]))
        if api.name in ("compute", "placement") and draw(st.booleans()):
            headers["openstack-api-version"] = draw(
                st.sampled_from(("compute 2.96", "compute latest", "placement latest"))
            )
        for name in (
            draw(st.lists(st.sampled_from(sorted(HEADERS)), max_size=2)) if draw(st.integers(0, 3)) == 0 else ()
        ):
            headers[name] = draw(st.sampled_from(HEADERS[name]))
        return Ask(actor, target, body, headers, cut=draw(st.integers(0, 30)) == 0)

    return one()


# ------------------------------------------------------------------------------------------- what must hold
def reason_in(api: Api, answer: Answer) -> str:
    """The text of a refusal; fails when it has not the shape of its service."""
    if api.name == "identity":
        error = answer.json["error"]
        assert error["code"] == answer.status
        assert error["title"]
        return str(error["message"])
    if api.name == "compute":
        ((_, fault),) = answer.json.items()
        assert fault["code"] == answer.status
        return str(fault["message"])
    if api.name == "network":
        assert set(answer.json["NeutronError"]) == {"type", "message", "detail"}
        return str(answer.json["NeutronError"]["message"])
    if api.name in ("placement", "apus"):
        (error,) = answer.json["errors"]
        assert error["status"] == answer.status
        return str(error["detail"])
    if api.name == "image":
        assert answer.body.startswith(b"<html>")
    return answer.body.decode()


def field_names(value: Any) -> set[str]:
    if isinstance(value, dict):
        return (
            {str(key) for key in value}.union(*(field_names(inside) for inside in value.values())) if value else set()
        )
    return set().union(*(field_names(item) for item in value[:5])) if isinstance(value, list) else set()


def check_refusal(api: Api, route: Route, ask: Ask, answer: Answer) -> None:
    if route.method == "HEAD" or answer.status in (304, 416):
        return
    reason = reason_in(api, answer)
    assert reason.strip(), "a refusal without a reason"
    assert "Traceback" not in reason
    assert "sqlite" not in reason.lower()
    if answer.status == 400 and route.takes is not None and ask.body is not None:
        try:
            sent = json.loads(ask.body)
        except (ValueError, RecursionError):
            return
        typed = names_of(_PARTS.get(route.operation, ("", route.takes))[1]) | set(
            re.findall(r"[\w-]+", json.dumps(sorted(field_names(sent)), ensure_ascii=False))
        )
        told = set(re.findall(r"[\w-]+", reason))
        general = {
            "body",
            "JSON",
            "version",
            "Version",
            "NUL",
            "field",
            "field/attribute",
            "attribute",
            "Idempotency-Key",
        } | set(HEADERS)
        queries = set(re.findall(r"[\w-]+", ask.target))
        assert told & (typed | general | queries), f"it does not say which field is wrong: {reason[:300]}"


def learn(things: Things, route: Route, answer: Answer) -> None:
    """What was made may be asked for next."""
    made = answer.json if answer.body.startswith(b"{") else {}
    one = made if "id" in made else next((value for value in made.values() if isinstance(value, dict)), {})
    if isinstance(one.get("id"), str):
        things.setdefault(route.path.rsplit("/", 1)[-1], []).insert(0, one["id"])


def check(scene: Scene, api: Api, route: Route, ask: Ask) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as log:
        token = scene.tokens[ask.actor]
        answer = scene.ask(route.method, ask.target, ask.body, token, ask.headers, cut=ask.cut)
    lines = log.getvalue().splitlines()
    errors = [line for line in lines if '"level":"info"' not in line and '"level":"warning"' not in line]
    assert not errors, "\n".join(errors)[-6000:].replace("\\n", "\n")
    if answer is None:
        assert ask.cut
        return
    if route.method == "POST" and answer.status in (201, 202) and ask.actor in ("admin", "member"):
        learn(scene.rubble if ask.actor == "admin" else scene.own.things, route, answer)
    assert answer.status < 500, answer.body[:600]
    if answer.status >= 400:
        check_refusal(api, route, ask, answer)
    if ask.actor != "admin":
        told = answer.body + json.dumps(dict(answer.headers)).encode()
        assert MARK.encode() not in told, f"the other tenant's: {answer.body[:600]!r}"
    if ask.actor in ("revoked", "garbage", None) and answer.status < 300 and route.may is not None:
        assert api.policy[route.may] is Rule.PUBLIC


def check_reached(scene: Scene, api: Api, route: Route) -> None:
    """What was planted is shown to its owner or to an administrator: else all this tests the door's bell."""
    path = route.path
    for name, segment in segment_before(route).items():
        kind = NOUNS.get(name, segment)
        planted = scene.own.things.get(kind) or scene.rubble.get(kind)
        if not planted:
            return
        path = path.replace(f"{{{name}}}", quote(planted[0], safe="")).replace(f"{{{name}:path}}", planted[0])
    version = text_of(route.until) if route.until is not None else "latest"
    headers = {"openstack-api-version": f"{api.name} {version}"} if api.name in ("compute", "placement") else {}
    answers = [scene.ask("GET", api.prefix + path, None, scene.tokens[who], headers) for who in ("member", "admin")]
    statuses = [answer.status for answer in answers if answer is not None]
    assert min(statuses) < 400, (path, statuses)


def every_route() -> list[Any]:
    """(door, number of the route) without starting anything: the tables are there at import."""
    from apus.services.compute.api.routes import ROUTES as COMPUTE
    from apus.services.identity.api.routes import ROUTES as IDENTITY
    from apus.services.image.api.routes import ROUTES as IMAGE
    from apus.services.network.api.routes import ROUTES as NETWORK
    from apus.services.object.api.operator import ROUTES as OPERATOR
    from apus.services.object.api.routes import ROUTES as OBJECT
    from apus.services.placement.api.routes import ROUTES as PLACEMENT
    from apus.skins.apus.routes import ROUTES as APUS
    from apus.skins.swift_auth.door import ROUTES as SWIFT_AUTH

    tables = {
        "identity": IDENTITY, "image": IMAGE, "placement": PLACEMENT, "compute": COMPUTE, "network": NETWORK, "apus": APUS,
        "swift": OBJECT, "object-operator": OPERATOR, "swift-auth": SWIFT_AUTH,
    }  # fmt: skip

    def last_deletes(item: tuple[int, Route]) -> tuple[bool, int]:
        """What deletes comes last, the inner things before the outer: else there is soon nothing to ask about."""
        deletes = item[1].method == "DELETE"
        return deletes, -item[1].path.count("/") if deletes else item[0]

    return [
        pytest.param(name, number, id=f"{name}-{route.method}-{route.path}")
        for name, table in tables.items()
        for number, route in sorted(enumerate(table), key=last_deletes)
    ]


@pytest.mark.parametrize(("door", "number"), every_route())
def test_a_route_bears_anything(scene: Scene, door: str, number: int) -> None:
    api = next(api for api in scene.cloud.apis if api.name == door)
    route = api.routes[number]

    if route.method == "GET" and route.path not in NOT_PLANTED and route.to is not no_account:
        check_reached(scene, api, route)

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES, database=None, deadline=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(asks(scene, api, route))
    def story(ask: Ask) -> None:
        check(scene, api, route, ask)

    story()


def test_every_table_was_walked(scene: Scene) -> None:
    walked = {param.values[0] for param in every_route()} | {
        "swift-info",
        "swift-health",
        "swift-domains",
        "swift-recon",
    }
    assert {api.name for api in scene.cloud.apis} == walked


def test_the_other_tenant_noticed_nothing(scene: Scene) -> None:
    after = scene.runner.run(view_of(scene.cloud, scene.other))
    for path, seen in scene.before.items():
        assert after[path] == seen, path
