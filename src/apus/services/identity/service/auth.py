"""Who are you, and what for: proofs in, a token out.

Two snapshots: the first finds the user's hash, the second (after the hash was checked, which takes a while) finds
what he may and the epochs that the token carries.  The second asks again whether the user is still the one that was
proved, so that a password changed meanwhile wins.  Every failure looks the same from outside.
"""

from __future__ import annotations

import base64
import dataclasses
import secrets
from collections.abc import Sequence
from typing import Final

import msgspec

from apus.kernel import events
from apus.kernel.caller import Caller
from apus.kernel.errors import Forbidden, Unauthenticated
from apus.kernel.world import Transaction
from apus.services.identity import store as tables
from apus.services.identity.agent.verifier import Opened
from apus.services.identity.logic import claims as tokens
from apus.services.identity.logic.claims import AppCredentialClaim, Claims, Named, TrustClaim
from apus.services.identity.logic.may import Target, require
from apus.services.identity.model import ALL_SYSTEM, AppCredential, Credential, Project, Role, Scope, Trust, User
from apus.services.identity.service import rights
from apus.services.identity.service.core import Core, missing

NO: Final = "The request you have made requires authentication."

SYSTEM: Final = Named(ALL_SYSTEM, "all")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Something named by its id, or by its name in a domain that is named by id or name."""

    id: str | None = None
    name: str | None = None
    domain_id: str | None = None
    domain_name: str | None = None


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a token."""

    methods: tuple[str, ...]
    user: Place = Place()
    """Whose password, or whose application credential when that is named and not identified."""
    password: str | None = None
    token: str | None = None
    app_credential: Place = Place()
    secret: str | None = None
    scope: Scope | None = None
    """None: not said, so the user's default project if he has one."""
    target: Place = Place()
    trust_id: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Proven:
    """Who it is, and what the proof brings with it."""

    user: User
    methods: tuple[str, ...]
    from_token: Claims | None = None
    app_credential: AppCredential | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Granted:
    scope: Scope
    target: Project | None
    roles: Sequence[Role]
    app_credential: AppCredential | None = None
    trust: Trust | None = None


def refuse(why: str) -> Unauthenticated:
    return Unauthenticated("identity.unauthenticated", NO, hidden=why)


class Auth:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._own_tokens: dict[str, tuple[str, float]] = {}
        """By who of the cloud has it: the token, and when to make a new one."""

    # ------------------------------------------------------------------------------------------------ issue
    async def issue(self, ask: Ask) -> tuple[str, Opened]:
        """Raise Unauthenticated, Unavailable when too many passwords are being checked."""
        began_s = self._core.world.clock.now_s()
        proven = await self._prove(ask)

        def work(tx: Transaction) -> Claims:
            self._still(tx, proven)
            granted = self._grant(tx, ask, proven)
            return self._claims(tx, proven, granted, began_s)

        if ask.trust_id is not None:
            claims = await self._core.write(work)  # a use is counted
        else:
            claims = await self._core.read(work)
        return self._core.verifier.seal(claims)

    async def _prove(self, ask: Ask) -> _Proven:
        proofs: list[_Proven] = []
        for method in ask.methods:
            if method == "password":
                proofs.append(await self._by_password(ask))
            elif method == "token":
                proofs.append(await self._by_token(ask))
            elif method == "application_credential":
                proofs.append(await self._by_app_credential(ask))
            else:
                raise refuse(f"there is no method {method}")
        if not proofs or len({proof.user.id for proof in proofs}) != 1:
            raise refuse("the methods prove nobody, or several")
        methods = tuple(dict.fromkeys(name for proof in proofs for name in proof.methods))
        from_token = next((proof.from_token for proof in proofs if proof.from_token is not None), None)
        credential = next((proof.app_credential for proof in proofs if proof.app_credential is not None), None)
        return _Proven(proofs[0].user, methods, from_token, credential)

    async def _by_password(self, ask: Ask) -> _Proven:
        user = await self._core.read(lambda tx: find_user(tx, ask.user))
        right = await self._core.passwords.check(user.password_hash if user else None, ask.password or "")
        if user is None or not right:
            raise refuse("no such user, or another password")
        return _Proven(user, ("password",))

    async def _by_token(self, ask: Ask) -> _Proven:
        claims = self._core.verifier.opened(ask.token or "").claims
        if claims.trust is not None:
            raise Forbidden("identity.trust_token", "A token of a trust cannot be used to get another token.")
        user = await self._core.read(lambda tx: tables.users.get(tx, claims.user.id))
        if user is None:
            raise refuse("the token's user is gone")
        return _Proven(user, tuple(dict.fromkeys(("token", *claims.methods))), from_token=claims)

    async def _by_app_credential(self, ask: Ask) -> _Proven:
        def find(tx: Transaction) -> tuple[User, AppCredential] | None:
            if ask.app_credential.id is not None:
                credential = tables.app_credentials.get(tx, ask.app_credential.id)
            else:
                owner = find_user(tx, ask.user)
                credential = None
                if owner is not None:
                    name = ask.app_credential.name or ""
                    credential = tables.app_credentials.first(tx, user_id=owner.id, name=name)
            user = tables.users.get(tx, credential.user_id) if credential else None
            return (user, credential) if user is not None and credential is not None else None

        found = await self._core.read(find)
        right = await self._core.passwords.check(found[1].secret_hash if found else None, ask.secret or "")
        if found is None or not right:
            raise refuse("no such application credential, or another secret")
        return _Proven(found[0], ("application_credential",), app_credential=found[1])

    def _still(self, tx: Transaction, proven: _Proven) -> None:
        """The user is still the one that was proved, and enabled."""
        user = tables.users.get(tx, proven.user.id)
        if user is None or user.password_hash != proven.user.password_hash or not user.enabled:
            raise refuse("the user is gone, disabled, or has a new password")
        domain = tables.projects.get(tx, user.domain_id)
        if domain is None or not domain.enabled:
            raise refuse("the user's domain is disabled")
        claims = proven.from_token
        if claims is not None and tokens.revoked(claims, tables.epochs_of(tx, list(tokens.subjects(claims)))):
            raise refuse("the token was revoked")

    # ---------------------------------------------------------------------------------------------- what for
    def _grant(self, tx: Transaction, ask: Ask, proven: _Proven) -> _Granted:
        credential = proven.app_credential
        if proven.from_token is not None and proven.from_token.app_credential is not None:
            credential = tables.app_credentials.get(tx, proven.from_token.app_credential.id)
            if credential is None:
                raise refuse("the application credential is gone")
        if credential is not None:
            return self._by_credential(tx, ask, credential)
        if ask.trust_id is not None:
            return self._by_trust(tx, ask.trust_id, proven.user)
        if ask.scope is Scope.NONE:
            return _Granted(Scope.NONE, None, ())
        if ask.scope is None:
            return self._by_default(tx, proven.user)
        if ask.scope is Scope.SYSTEM:
            target = None
        else:
            target = find_project(tx, ask.target, is_domain=ask.scope is Scope.DOMAIN)
            if target is None or not is_live(tx, target):
                raise refuse("no such project or domain, or it is disabled")
        roles = rights.roles_on(tx, proven.user.id, ask.scope, target)
        if not roles:
            raise refuse(f"user {proven.user.id} has no role on {ask.scope} {target.id if target else ''}")
        return _Granted(ask.scope, target, roles)

    def _by_default(self, tx: Transaction, user: User) -> _Granted:
        target = tables.projects.get(tx, user.default_project_id) if user.default_project_id else None
        if target is None or target.is_domain or not is_live(tx, target):
            return _Granted(Scope.NONE, None, ())
        roles = rights.roles_on(tx, user.id, Scope.PROJECT, target)
        return _Granted(Scope.PROJECT, target, roles) if roles else _Granted(Scope.NONE, None, ())

    def _by_credential(self, tx: Transaction, ask: Ask, credential: AppCredential) -> _Granted:
        asked = find_project(tx, ask.target) if ask.scope is Scope.PROJECT else None
        if ask.scope is not None and (asked is None or asked.id != credential.project_id):
            raise refuse("an application credential has a scope of its own")
        if credential.expires_at_s is not None and credential.expires_at_s <= tx.now_s:
            raise refuse("the application credential has expired")
        target = tables.projects.get(tx, credential.project_id)
        if target is None or not is_live(tx, target):
            raise refuse("the application credential's project is gone or disabled")
        held = rights.roles_on(tx, credential.user_id, Scope.PROJECT, target)
        wanted = rights.implied_roles(tx, credential.role_ids)
        roles = [role for role in held if role.id in wanted]
        if not roles:
            raise refuse("the user has none of the application credential's roles any more")
        return _Granted(Scope.PROJECT, target, roles, app_credential=credential)

    def _by_trust(self, tx: Transaction, trust_id: str, user: User) -> _Granted:
        trust = tables.trusts.get(tx, trust_id)
        if trust is None or trust.deleted_at_s is not None:
            raise refuse("no such trust")
        if trust.trustee_id != user.id:
            raise Forbidden("identity.not_trustee", "The trust is for another user.")
        if trust.expires_at_s is not None and trust.expires_at_s <= tx.now_s:
            raise refuse("the trust has expired")
        trustor = tables.users.get(tx, trust.trustor_id)
        if trustor is None or not trustor.enabled:
            raise Forbidden("identity.trustor", "The user who gave the trust is gone or disabled.")
        target = tables.projects.get(tx, trust.project_id) if trust.project_id else None
        if target is None or not is_live(tx, target):
            raise refuse("the trust's project is gone or disabled")
        held = rights.roles_on(tx, trust.trustor_id, Scope.PROJECT, target)
        wanted = rights.implied_roles(tx, trust.role_ids)
        if not set(trust.role_ids) <= {role.id for role in held}:
            raise Forbidden("identity.trust_roles", "The user who gave the trust has not all of its roles any more.")
        if trust.remaining_uses is not None:
            if trust.remaining_uses <= 0:
                raise refuse("the trust is used up")
            tables.trusts.put(tx, msgspec.structs.replace(trust, remaining_uses=trust.remaining_uses - 1))
        return _Granted(Scope.PROJECT, target, [role for role in held if role.id in wanted], trust=trust)

    def of_key(self, tx: Transaction, credential: Credential) -> Claims:
        """What a token says that is given for an EC2 key: what its owner may now, or the application credential that
        it was made with.  Raise Unauthenticated when that is nothing."""
        user = tables.users.get(tx, credential.user_id)
        if user is None:
            raise refuse("the key's owner is gone")
        app_credential = None
        if credential.app_credential_id is not None:
            app_credential = tables.app_credentials.get(tx, credential.app_credential_id)
            if app_credential is None:
                raise refuse("the application credential that made the key is gone")
        proven = _Proven(user, (tokens.EC2,), app_credential=app_credential)
        self._still(tx, proven)
        ask = Ask(methods=(tokens.EC2,), scope=Scope.PROJECT, target=Place(id=credential.project_id))
        claims = self._claims(tx, proven, self._grant(tx, ask, proven), tx.now_s)
        return self._with_epochs(tx, msgspec.structs.replace(claims, access_key_id=credential.id))

    # --------------------------------------------------------------------------------------------- the token
    def _claims(self, tx: Transaction, proven: _Proven, granted: _Granted, began_s: float) -> Claims:
        user = proven.user
        trust, credential = granted.trust, granted.app_credential
        if trust is not None and trust.impersonation:
            user = tables.users.require(tx, trust.trustor_id)
        expires = [began_s + self._core.settings.token_lifetime_s]
        expires += [thing.expires_at_s for thing in (trust, credential) if thing and thing.expires_at_s is not None]
        chain = proven.from_token
        if chain is not None:
            expires.append(chain.expires_at_s)
        audit_id = new_audit_id()
        target = SYSTEM if granted.scope is Scope.SYSTEM else None
        target_domain = None
        if granted.target is not None:
            target = Named(granted.target.id, granted.target.name)
            if granted.target.domain_id:
                target_domain = _named(tx, granted.target.domain_id)
        claims = Claims(
            version=tokens.VERSION,
            user=Named(user.id, user.name),
            user_domain=_named(tx, user.domain_id),
            scope=granted.scope,
            target=target,
            target_domain=target_domain,
            roles=tuple(Named(role.id, role.name) for role in granted.roles),
            methods=proven.methods,
            audit_ids=(audit_id,) if chain is None else (audit_id, chain.audit_ids[-1]),
            issued_at_s=began_s,
            expires_at_s=min(expires),
            app_credential=None if credential is None else _credential_claim(tx, credential),
            trust=None
            if trust is None
            else TrustClaim(trust.id, trust.trustor_id, trust.trustee_id, trust.impersonation),
        )
        return self._with_epochs(tx, claims)

    def _with_epochs(self, tx: Transaction, claims: Claims) -> Claims:
        epochs = tables.epochs_of(tx, list(tokens.subjects(claims)))
        return msgspec.structs.replace(claims, epochs=epochs) if epochs else claims

    async def service_token(self) -> str:
        """Of the cloud itself; a new one when half of its life is over."""
        return self._own_token("service", ("admin", "manager", "member", "reader", "service"))

    async def image_token(self) -> str:
        """Of the cloud's hosts: for the bytes of images, and for nothing else."""
        may = AppCredentialClaim("hosts", "hosts", False, (("image", "GET", "/v2/images/*/file"),))
        return self._own_token("hosts", ("reader", "service"), may)

    def _own_token(self, name: str, roles: tuple[str, ...], only: AppCredentialClaim | None = None) -> str:
        now_s = self._core.world.clock.now_s()
        token, renew_s = self._own_tokens.get(name, ("", 0.0))
        if now_s < renew_s:
            return token
        lifetime_s = self._core.settings.token_lifetime_s
        claims = Claims(
            version=tokens.VERSION,
            user=Named("apus", "apus"),
            user_domain=Named("default", "Default"),
            scope=Scope.SYSTEM,
            target=SYSTEM,
            target_domain=None,
            roles=tuple(Named(role, role) for role in roles),
            methods=("service",),
            audit_ids=(new_audit_id(),),
            issued_at_s=now_s,
            expires_at_s=now_s + lifetime_s,
            app_credential=only,
            system_user=True,
        )
        token, _ = self._core.verifier.seal(claims)
        self._own_tokens[name] = (token, now_s + lifetime_s / 2)
        return token

    # --------------------------------------------------------------------------------------- look and revoke
    def subject(self, caller: Caller, token: str, action: str) -> Opened:
        """The token that somebody asks about.  Raise NotFound when it is worth nothing, Forbidden."""
        try:
            opened = self._core.verifier.opened(token)
        except Unauthenticated:
            raise missing("token", "the one in X-Subject-Token") from None
        require(caller, action, Target(user_ids=(opened.claims.user.id,)))
        return opened

    async def revoke(self, caller: Caller, token: str) -> None:
        claims = self.subject(caller, token, "identity:revoke_token").claims

        def work(tx: Transaction) -> None:
            self._core.end(tx, [tokens.audit_subject(claims.audit_ids[0])])
            events.emit(tx, "identity.token.revoked", claims.audit_ids[0], caller.project_id, caller=caller)

        await self._core.write(work)


def find_user(tx: Transaction, place: Place) -> User | None:
    if place.id is not None:
        return tables.users.get(tx, place.id)
    domain_id = place.domain_id or _domain_id(tx, place.domain_name)
    return tables.users.first(tx, domain_id=domain_id or "", name=place.name or "")


def find_project(tx: Transaction, place: Place, *, is_domain: bool = False) -> Project | None:
    if place.id is not None:
        project = tables.projects.get(tx, place.id)
    elif is_domain:
        project = tables.projects.first(tx, domain_id="", name=place.name or "")
    else:
        domain_id = place.domain_id or _domain_id(tx, place.domain_name)
        project = tables.projects.first(tx, domain_id=domain_id or "?", name=place.name or "")
    return project if project is not None and project.is_domain == is_domain else None


def is_live(tx: Transaction, project: Project) -> bool:
    """It and its domain are enabled."""
    if not project.enabled:
        return False
    domain = tables.projects.get(tx, project.domain_id) if project.domain_id else project
    return domain is not None and domain.enabled


def new_audit_id() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode("ascii")


def _domain_id(tx: Transaction, name: str | None) -> str | None:
    domain = tables.projects.first(tx, domain_id="", name=name) if name is not None else None
    return domain.id if domain is not None else None


def _named(tx: Transaction, project_id: str) -> Named:
    project = tables.projects.require(tx, project_id)
    return Named(project.id, project.name)


def _credential_claim(tx: Transaction, credential: AppCredential) -> AppCredentialClaim:
    rules = None
    if credential.access_rule_ids is not None:
        found = tables.access_rules.find(tx, id=list(credential.access_rule_ids))
        rules = tuple((rule.service, rule.method, rule.path) for rule in found)
    return AppCredentialClaim(credential.id, credential.name, credential.unrestricted, rules)
