"""Names in ACLs and policies mean those of the default domain, in accounts of the default domain, and nobody elsewhere:
whoever set them, whatever made the account, at both doors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator

import msgspec
import pytest

from apus.services.object.logic.access import ACL_DOMAIN
from apus.services.object.logic.account_access import DOMAIN
from apus.services.object.model import Change
from tests.contract.s3_server import S3Server
from tests.contract.swift_server import caller
from tests.contract.test_swift_bulk import packed

NAMES = ("b:n-b", "b", "*:n-b")
"""Bob's, and those of his namesake in the other domain.  Bob's project is called what its id is: see `bob`."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    # Ids and names apart, that only a name can fit; a namesake in another domain, who must never get in.
    bob = msgspec.structs.replace(caller("b"), user_id="bob-id", project_id="bobs-id")
    server.tokens.known |= {"bob": bob, "carol": caller("carol")}
    twin = msgspec.structs.replace(bob, user_id="twin-id", project_id="twins-id")
    server.tokens.known["twin"] = msgspec.structs.replace(twin, user_domain_id="d", project_domain_id="d")
    for name in ("bob", "twin"):
        server.keys.known[f"{name}-key"] = f"{name}-secret", server.tokens.known[name]
    yield server
    server.stop()


class Account:
    """One of a project in this domain, that nothing has made yet."""

    def __init__(self, server: S3Server, project: str, domain: str) -> None:
        self.server, self.project, self.domain = server, project, domain
        self.path, self.box = f"/v1/AUTH_{project}", f"box-{project}"
        server.tokens.known[project] = caller(project, domain=domain)
        server.keys.known[f"{project}-key"] = f"{project}-secret", server.tokens.known[project]

    def ask(self, method: str, where: str = "", body: bytes | None = None, token: str = "", **headers: str) -> int:
        return self.server.ask(method, self.path + where, body, token=token or self.project, **headers)[0]

    def fill(self, token: str = "", **headers: str) -> None:
        """A container with an object."""
        assert self.ask("PUT", f"/{self.box}", token=token, **headers) in (201, 202)
        assert self.ask("PUT", f"/{self.box}/o", b"data", token=token or "boss") == 201

    def admits(self) -> bool:
        """Whether Bob reads the object: both doors say the same, and his namesake never does."""
        url = f"{self.path}/{self.box}/o"
        self.server.run(self._claimed())
        found = {self.server.ask("GET", url, token="bob")[0], self.server.signed("GET", f"/{self.box}/o", who="bob")[0]}
        assert len(found) == 1
        twins = self.server.ask("GET", url, token="twin")[0], self.server.signed("GET", f"/{self.box}/o", who="twin")[0]
        assert twins == (403, 403)
        return found == {200}

    async def _claimed(self) -> None:
        """The name is a bucket's for others too."""
        await self.server.door.names.hold(self.box, f"AUTH_{self.project}")

    def kept(self, container: str = "") -> str:
        head = self.server.run(self.server.store.service.directory.head(f"AUTH_{self.project}", container))
        return head.metadata.get(ACL_DOMAIN if container else DOMAIN, "") if head is not None else ""

    def forget(self) -> None:
        """As it is where an older release wrote it."""
        directory, stamp = self.server.store.service.directory, self.server.store.cluster.stamp
        for container, name in (("", DOMAIN), (self.box, ACL_DOMAIN)):
            change = Change(f"AUTH_{self.project}", container, fields={name: ("", stamp())})
            self.server.run(directory.apply(change))
        assert (self.kept(), self.kept(self.box)) == ("", "")


Make = Callable[[str], Account]


@pytest.fixture(scope="module")
def make(server: S3Server) -> Make:
    numbers = itertools.count()
    return lambda domain: Account(server, f"p{next(numbers)}", domain)


DOMAINS = [("default", True), ("d", False)]


@pytest.mark.parametrize(("domain", "let_in"), DOMAINS)
def test_an_acl_that_the_owner_sets(make: Make, domain: str, let_in: bool) -> None:
    mine = make(domain)
    for acl in NAMES:
        mine.fill(X_Container_Read=acl)
        assert (mine.kept(), mine.kept(mine.box)) == (domain, domain)
        assert mine.admits() == let_in
    assert mine.ask("POST", f"/{mine.box}", X_Container_Read="bobs-id:bob-id") == 204
    assert mine.admits()


@pytest.mark.parametrize(("domain", "let_in"), DOMAINS)
@pytest.mark.parametrize("setter", ["boss", "carol"])
def test_an_acl_that_others_set(make: Make, domain: str, let_in: bool, setter: str) -> None:
    """A reseller, or somebody whom the account's ACL makes its administrator: both are of the default domain."""
    mine = make(domain)
    assert mine.ask("PUT", "/first") == 201
    access = json.dumps({"admin": ["carol:u-carol"]})
    assert mine.ask("POST", X_Account_Access_Control=access) == 204
    for acl in NAMES:
        mine.fill(token=setter, X_Container_Read=acl)
        assert mine.kept(mine.box) == domain
        assert mine.admits() == let_in
        assert mine.ask("POST", f"/{mine.box}", token=setter, X_Container_Read="") == 204
        assert not mine.admits()
    assert mine.ask("POST", token=setter, X_Account_Access_Control=json.dumps({"read-only": ["b:n-b"]})) == 204
    assert mine.ask("GET", f"/{mine.box}/o", token="bob") == (200 if let_in else 403)
    assert mine.ask("GET", f"/{mine.box}/o", token="twin") == 403


@pytest.mark.parametrize(("domain", "let_in"), DOMAINS)
@pytest.mark.parametrize("how", ["container", "archive", "bucket", "account"])
def test_whatever_makes_an_account_tells_its_domain(make: Make, domain: str, let_in: bool, how: str) -> None:
    mine = make(domain)
    if how == "container":
        mine.fill()
    elif how == "archive":
        assert mine.ask("PUT", f"/{mine.box}?extract-archive=tar", packed("w", {"o": b"data"})) == 200
    elif how == "bucket":
        assert mine.server.signed("PUT", f"/{mine.box}", who=mine.project)[0] == 200
    else:
        assert mine.ask("POST", X_Account_Meta_Colour="red") == 204
    assert mine.kept() == domain
    mine.fill(token="boss", X_Container_Read="b:n-b")
    assert mine.admits() == let_in


@pytest.mark.parametrize(("domain", "let_in"), DOMAINS)
@pytest.mark.parametrize("how", ["account", "container", "again"])
def test_an_account_that_others_made_learns_from_its_owner(make: Make, domain: str, let_in: bool, how: str) -> None:
    mine = make(domain)
    mine.fill(token="boss", X_Container_Read="b:n-b")
    assert (mine.kept(), mine.kept(mine.box)) == ("", "")
    assert not mine.admits(), "nobody knows of which domain it is"
    if how == "account":
        assert mine.ask("POST", X_Account_Meta_Colour="red") == 204
    elif how == "container":
        assert mine.ask("POST", f"/{mine.box}", X_Container_Meta_Colour="red") == 204
    else:
        assert mine.ask("PUT", f"/{mine.box}") == 202
    assert mine.kept() == domain
    assert mine.admits() == let_in


@pytest.mark.parametrize(("domain", "let_in"), DOMAINS)
def test_acls_of_an_older_release(make: Make, domain: str, let_in: bool) -> None:
    """Neither the container nor the account says anything, until the owner sets something or identity is asked."""
    mine = make(domain)
    mine.fill(X_Container_Read="b:n-b")
    mine.forget()
    assert not mine.admits()
    assert mine.ask("POST", f"/{mine.box}", X_Container_Read="bobs-id") == 204
    mine.forget()
    assert mine.admits(), "an id is nobody else's"
    assert mine.ask("POST", f"/{mine.box}", X_Container_Read="b") == 204
    mine.forget()
    assert mine.ask("PUT", "/another") == 201
    assert mine.kept(mine.box) == ""
    assert mine.admits() == let_in


@pytest.mark.parametrize(("domain", "let_in"), DOMAINS)
def test_identity_is_asked_where_nothing_is_kept(server: S3Server, make: Make, domain: str, let_in: bool) -> None:
    mine = make(domain)
    server.everybody.domains[mine.project] = domain
    mine.fill(X_Container_Read="b:n-b")
    asked = server.everybody.asked
    assert mine.admits() == let_in
    assert server.everybody.asked == asked, "what the container knows nobody else is asked"
    mine.forget()
    server.everybody.silent = True
    assert not mine.admits(), "who cannot be asked lets in nobody"
    server.everybody.silent = False
    server.store.service.domains._told.clear()
    assert mine.admits() == let_in
    asked = server.everybody.asked
    assert mine.admits() == let_in
    assert server.everybody.asked == asked, "it is remembered"
    assert mine.ask("PUT", f"/{mine.box}", token="boss", X_Container_Read="b:n-b") == 202
    assert mine.kept(mine.box) == domain, "a reseller's ACL keeps what identity says"


def test_an_account_without_a_project_has_ids_alone(server: S3Server, make: Make) -> None:
    mine = make("d")
    mine.fill(token="boss", X_Container_Read="b:n-b")
    assert not mine.admits()
    assert mine.ask("POST", f"/{mine.box}", token="boss", X_Container_Read="bobs-id:*") == 204
    assert mine.admits()


@pytest.mark.parametrize(("domain", "let_in"), DOMAINS)
def test_principals_of_policies(server: S3Server, make: Make, domain: str, let_in: bool) -> None:
    """A project may be said by its name too; a denial by name holds whoever is meant."""
    mine = make(domain)
    mine.fill()

    def say(effect: str, who: str) -> None:
        what = {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{mine.box}/*"}
        statement = {"Effect": effect, "Principal": {"AWS": who}, **what}
        text = json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode()
        assert server.signed("PUT", f"/{mine.box}?policy", text, who=mine.project)[0] in (200, 204)

    for who in ("b", "arn:aws:iam::b:root", "arn:aws:iam::b:user/n-b", "arn:aws:iam:::user/n-b"):
        say("Allow", who)
        assert mine.admits() == let_in, who
    for who in ("bobs-id", "arn:aws:iam::bobs-id:root", "arn:aws:iam::bobs-id:user/n-b"):
        say("Allow", who)
        assert mine.admits(), who
    assert mine.ask("POST", f"/{mine.box}", X_Container_Read="bobs-id") == 204
    for who in ("b", "arn:aws:iam::b:root", "bobs-id"):
        say("Deny", who)
        assert not mine.admits(), who
