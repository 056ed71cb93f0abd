"""Laws of identity's pure parts: tokens survive the trip, roles close over implication, policy never leaks upwards."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from apus.kernel.caller import AccessRule, Caller
from apus.services.identity.drivers.keys import TokenKeys
from apus.services.identity.logic import claims as tokens
from apus.services.identity.logic.catalogue import fill, unknown_variables
from apus.services.identity.logic.claims import AppCredentialClaim, Claims, Named, TrustClaim
from apus.services.identity.logic.may import WAYS, Target, Way, may
from apus.services.identity.logic.roles import closure, effective
from apus.services.identity.model import Actor, Assignment, Scope
from apus.wire.access import listed

texts = st.text(alphabet="aZ09-_ é漢", max_size=12)
named = st.builds(Named, texts, texts)
times = st.floats(0, 4e9)
claims_ = st.builds(
    Claims,
    version=st.just(tokens.VERSION),
    user=named,
    user_domain=named,
    scope=st.sampled_from(Scope),
    target=st.none() | named,
    target_domain=st.none() | named,
    roles=st.lists(named, max_size=4).map(tuple),
    methods=st.lists(st.sampled_from(["password", "token"]), min_size=1, max_size=2).map(tuple),
    audit_ids=st.lists(texts, min_size=1, max_size=2).map(tuple),
    issued_at_s=times,
    expires_at_s=times,
    epochs=st.dictionaries(texts, st.integers(1, 2**60), max_size=3),
    app_credential=st.none()
    | st.builds(
        AppCredentialClaim, texts, texts, st.booleans(), st.none() | st.just((("compute", "GET", "/v2.1/servers"),))
    ),
    trust=st.none() | st.builds(TrustClaim, texts, texts, texts, st.booleans()),
)
KEYS = TokenKeys.in_memory()


@settings(max_examples=40, deadline=None)
@given(claims_)
def test_a_token_comes_back_as_it_was(claims: Claims) -> None:
    sealed = KEYS.seal(tokens.pack(claims), claims.issued_at_s)
    opened = KEYS.open(sealed)
    assert opened is not None
    assert tokens.unpack(opened) == claims
    assert "=" not in sealed


@settings(max_examples=40, deadline=None)
@given(claims_, st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_token_is_none(claims: Claims, place: int, change: int) -> None:
    sealed = KEYS.seal(tokens.pack(claims), claims.issued_at_s)
    place %= len(sealed)
    other = sealed[:place] + chr((ord(sealed[place]) + change) % 256) + sealed[place + 1 :]
    opened = KEYS.open(other)
    # the last character of base64 may hold bits that mean nothing
    assert opened is None or opened == KEYS.open(sealed)


@given(st.binary(max_size=200))
def test_what_is_no_token_is_none(data: bytes) -> None:
    assert tokens.unpack(data) is None or tokens.unpack(data).version == tokens.VERSION  # type: ignore[union-attr]


@settings(max_examples=40, deadline=None)
@given(claims_, st.data())
def test_a_token_ends_with_any_of_its_subjects_and_with_no_other(claims: Claims, data: st.DataObject) -> None:
    fresh = msgspec.structs.replace(claims, epochs={})
    assert not tokens.revoked(fresh, {"u:somebody-else\0": 1})
    subject = data.draw(st.sampled_from(sorted(set(tokens.subjects(fresh)))))
    assert tokens.revoked(fresh, {subject: 7})
    # issued after that end, it carries it and is good; ended again, it is not
    assert not tokens.revoked(msgspec.structs.replace(fresh, epochs={subject: 7}), {subject: 7})
    assert tokens.revoked(msgspec.structs.replace(fresh, epochs={subject: 7}), {subject: 8})


roles = st.sampled_from("abcdef")
graphs = st.dictionaries(roles, st.sets(roles), max_size=6)


@given(st.sets(roles), graphs)
def test_implied_roles_are_the_least_closed_set(held: set[str], implied: dict[str, set[str]]) -> None:
    closed = closure(held, implied)
    assert held <= closed
    assert all(implied.get(role, set()) <= closed for role in closed)
    assert closure(closed, implied) == closed
    for role in closed - held:
        assert any(role in implied.get(prior, set()) for prior in closed)


assignments = st.lists(
    st.builds(
        Assignment,
        id=st.just(""),
        actor=st.just(Actor.USER),
        actor_id=st.just("u"),
        scope=st.sampled_from([Scope.PROJECT, Scope.DOMAIN, Scope.SYSTEM]),
        target_id=st.sampled_from(["p", "q", "d", "system"]),
        role_id=roles,
        inherited=st.booleans(),
    ),
    max_size=6,
)


@given(assignments)
def test_rights_stay_in_their_scope(given: list[Assignment]) -> None:
    on_system = effective(given, {}, Scope.SYSTEM, "system")
    assert on_system == {a.role_id for a in given if a.scope == Scope.SYSTEM and not a.inherited}
    on_project = effective(given, {}, Scope.PROJECT, "p", above=["q", "d"])
    for role in on_project:
        assert any(
            a.role_id == role
            and a.scope != Scope.SYSTEM
            and ((a.target_id == "p" and not a.inherited) or (a.inherited and a.target_id in ("q", "d")))
            for a in given
        )
    assert effective([a for a in given if a.inherited], {}, Scope.DOMAIN, "d") == set()


callers = st.builds(
    Caller,
    user_id=st.sampled_from(["u", "v"]),
    project_id=st.sampled_from([None, "p", "q"]),
    project_domain_id=st.sampled_from([None, "d"]),
    domain_id=st.sampled_from([None, "d", "e"]),
    system=st.booleans(),
    roles=st.frozensets(st.sampled_from(["admin", "manager", "member", "reader", "service"])),
)
targets = st.builds(
    Target,
    domain_ids=st.lists(st.sampled_from(["d", "e", "?"]), max_size=2).map(tuple),
    project_id=st.sampled_from([None, "p", "q"]),
    user_ids=st.lists(st.sampled_from(["u", "v"]), max_size=1).map(tuple),
    role_name=st.sampled_from([None, "admin", "manager", "reader"]),
    app_credential_id=st.sampled_from([None, "c", "e"]),
)


@given(callers, targets, st.sampled_from(sorted(WAYS)))
def test_policy(caller: Caller, target: Target, action: str) -> None:
    ways, allowed = set(WAYS[action]), may(caller, action, target)
    if caller.is_admin and Way.ADMIN in ways:
        assert allowed
    if not caller.roles and not ways & {Way.PUBLIC, Way.ANYONE, Way.DOMAIN_USER, Way.PROJECT_USER}:
        assert allowed == (caller.user_id in target.user_ids and bool(ways & {Way.OWNER, Way.OWNER_ALONE, Way.HOLDER}))
    if ways == {Way.OWNER_ALONE}:
        assert allowed == (caller.user_id in target.user_ids)
    # what was delegated to somebody is no way to the user's other secrets
    if Way.HOLDER in ways and not caller.roles:
        trustee = msgspec.structs.replace(caller, trust_id="t")
        application = msgspec.structs.replace(caller, app_credential_id="c")
        assert not may(trustee, action, target)
        assert may(application, action, target) == (allowed and target.app_credential_id == "c")
    # more roles never mean fewer rights
    more: Any = msgspec.structs.replace(caller, roles=caller.roles | {"reader", "manager"})
    assert may(more, action, target) or not allowed
    # nobody but an administrator gives the role admin
    if action in ("identity:create_grant", "identity:revoke_grant") and target.role_name == "admin":
        assert allowed == caller.is_admin


def test_urls_of_the_catalogue() -> None:
    assert fill("http://h/v1/AUTH_%(project_id)s", "p", "u") == "http://h/v1/AUTH_p"
    assert fill("http://h/v1/AUTH_$(tenant_id)s", None, "u") is None
    assert fill("http://h/identity", None, "u") == "http://h/identity"
    assert unknown_variables("http://%(host)s/%(project_id)s") == ["host"]
    assert unknown_variables("http://h/%(project_id)") == ["%"]


def test_access_rules() -> None:
    rules = [AccessRule("compute", "GET", "/v2.1/servers/*"), AccessRule("image", "GET", "/v2/**")]
    assert listed(rules, "compute", "GET", "/compute/v2.1/servers/1")
    assert listed(rules, "compute", "GET", "/v2.1/servers/1")
    assert not listed(rules, "compute", "GET", "/compute/v2.1/servers/1/action")
    assert not listed(rules, "compute", "DELETE", "/compute/v2.1/servers/1")
    assert listed(rules, "image", "GET", "/image/v2/images/1/file")
    assert not listed(rules, "network", "GET", "/image/v2/images")
    assert not listed((), "compute", "GET", "/compute/v2.1/servers/1")
