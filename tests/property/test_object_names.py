"""Whom names in ACLs and policies let in: nobody who could have chosen his name, or that of his project, himself."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.caller import Caller
from apus.services.object.logic.access import ACL_DOMAIN, acl_allows, told_domain
from apus.services.object.logic.account_access import level_of
from apus.services.object.logic.rights import POLICY, Answer, Ask, answer
from apus.services.object.model import IndexHead

WORDS = st.sampled_from(["a", "b", "c"])
DOMAINS = st.sampled_from(["default", "d"])
ROLES = st.frozensets(st.sampled_from(["auditor", "reader"]), max_size=2)
CALLERS = st.builds(
    lambda user, name, project, domains, roles: Caller(
        user_id=f"id-{user}", user_name=name, user_domain_id=domains[0],
        project_id=f"id-{project}", project_name=project, project_domain_id=domains[1], roles=roles,
    ),
    WORDS, WORDS, WORDS, st.tuples(DOMAINS, DOMAINS), ROLES,
)  # fmt: skip
WHO = st.sampled_from(["a", "b", "c", "id-a", "id-b", "id-c", "*"])
ELEMENTS = st.one_of(
    st.builds("{}:{}".format, WHO, WHO), WHO, st.sampled_from(["auditor", "reader", ".r:-x", ".rlistings"])
)
ACLS = st.lists(ELEMENTS, max_size=4).map(",".join)
ACCOUNTS = WORDS.map("AUTH_id-{}".format)
PRINCIPALS = st.one_of(
    WHO, st.builds("arn:aws:iam::{}:root".format, WHO), st.builds("arn:aws:iam::{}:user/{}".format, WHO | st.just(""), WHO)
)  # fmt: skip


def is_default(caller: Caller) -> bool:
    return caller.user_domain_id == caller.project_domain_id == "default"


def renamed(caller: Caller) -> Caller:
    return msgspec.structs.replace(caller, user_name="nobody", project_name="nothing")


def ask(caller: Caller, account: str, fields: dict[str, str], action: str = "s3:GetObject") -> Ask:
    kept = {name: (value, "2") for name, value in fields.items()}
    head = IndexHead(account, "c", made="1", fields=kept)
    return Ask(caller, head, action, "READ", key="o", on_object=True)


@given(ACLS, CALLERS, ACCOUNTS, st.booleans())
def test_a_name_adds_nothing_but_in_the_default_domain(acl: str, caller: Caller, account: str, names: bool) -> None:
    known, by_id = (acl_allows(acl, who, account, names=names) for who in (caller, renamed(caller)))
    assert known >= by_id
    if not (names and is_default(caller)):
        assert known == by_id
    text = json.dumps({"read-only": [element for element in acl.split(",") if element]})
    level, by_id_level = (level_of(text, who, account, names=names) for who in (caller, renamed(caller)))
    if not (names and is_default(caller)):
        assert level == by_id_level


@given(CALLERS, ACCOUNTS, st.booleans())
def test_a_role_is_one_in_the_accounts_own_project(caller: Caller, account: str, names: bool) -> None:
    has_it = "auditor" in caller.roles and account == f"AUTH_{caller.project_id}"
    assert acl_allows("auditor", caller, account, names=names) == has_it
    assert level_of('{"admin":["auditor"]}', caller, account, names=names) == ("admin" if has_it else "")


@given(CALLERS, ACCOUNTS)
def test_a_token_tells_the_domain_of_its_own_project_alone(caller: Caller, account: str) -> None:
    own = account == f"AUTH_{caller.project_id}"
    assert told_domain(caller, account) == (caller.project_domain_id if own else "")
    assert told_domain(None, account) == ""


@given(ACLS, st.lists(st.tuples(st.booleans(), PRINCIPALS), max_size=2), CALLERS, ACCOUNTS)
def test_what_hangs_on_the_domain_is_said_to(
    acl: str, said: list[tuple[bool, str]], caller: Caller, account: str
) -> None:
    """NAMED is what would be ALLOWED in the default domain and SILENT in another; all else is the same in both."""
    fields = {"x-container-read": acl}
    if said:
        every = {"Action": "s3:GetObject", "Resource": "arn:aws:s3:::c/*"}
        texts = [{"Effect": "Allow" if allow else "Deny", "Principal": {"AWS": who}, **every} for allow, who in said]
        fields[POLICY] = json.dumps({"Version": "2012-10-17", "Statement": texts})
    unknown, *known = (answer(ask(caller, account, {**fields, **more})) for more in (
        {}, {ACL_DOMAIN: "default"}, {ACL_DOMAIN: "d"}
    ))  # fmt: skip
    if unknown is Answer.NAMED:
        assert is_default(caller)
        assert known == [Answer.ALLOWED, Answer.SILENT]
    else:
        assert known[1] is unknown
        assert known[0] is unknown


def denied(caller: Caller, account: str, domain: str, **principals: dict[str, str]) -> bool:
    every = {"Effect": "Deny", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::c/*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [{**every, **principals}]})
    fields = {POLICY: text, "x-container-read": "*:*", ACL_DOMAIN: domain}
    return answer(ask(caller, account, fields)) is Answer.DENIED


@given(CALLERS, ACCOUNTS, PRINCIPALS, DOMAINS)
def test_a_denial_holds_for_whoever_may_be_meant(caller: Caller, account: str, who: str, domain: str) -> None:
    """Else an owner of another domain would let in whom he denies by the name that he knows."""
    assert denied(caller, account, domain, Principal={"AWS": who}) == denied(
        caller, account, "default", Principal={"AWS": who}
    )
    project, user = caller.project_name or "", caller.user_name
    for named in (project, f"arn:aws:iam::{project}:root", f"arn:aws:iam::{project}:user/{user}"):
        assert denied(caller, account, domain, Principal={"AWS": named})


@given(CALLERS, ACCOUNTS, DOMAINS)
def test_a_denial_spares_nobody_for_a_name(caller: Caller, account: str, domain: str) -> None:
    sure = is_default(caller) and domain == "default"
    assert denied(caller, account, domain, NotPrincipal={"AWS": caller.project_name or ""}) != sure
    assert not denied(caller, account, domain, NotPrincipal={"AWS": caller.project_id or ""})
