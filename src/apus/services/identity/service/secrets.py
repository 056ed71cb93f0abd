"""Secrets that users keep with us or get from us: credentials, EC2 keys, application credentials, trusts."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from typing import Final

import msgspec

from apus.kernel import events
from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, Forbidden, Unavailable
from apus.kernel.table import Query
from apus.kernel.world import Transaction
from apus.services.identity import store as tables
from apus.services.identity.contract import DEFAULT_DOMAIN_ID
from apus.services.identity.drivers.passwords import hash_of_secret
from apus.services.identity.logic import claims as tokens
from apus.services.identity.logic.claims import Claims
from apus.services.identity.logic.may import Target, may, require
from apus.services.identity.model import (
    AccessRule,
    AppCredential,
    Credential,
    Role,
    Scope,
    Trust,
)
from apus.services.identity.service import kinds, rights
from apus.services.identity.service.core import Core, missing
from apus.services.identity.service.keeper import Keeper, duplicate, invalid

APP_CREDENTIALS_MAX: Final = 500
"""Of one user; a bound, not a quota."""


class NewRule(msgspec.Struct, frozen=True, kw_only=True):
    id: str | None = None
    service: str | None = None
    path: str | None = None
    method: str | None = None


class NewAppCredential(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str | None = None
    secret: str | None = None
    expires_at_s: float | None = None
    roles: tuple[tuple[str | None, str | None], ...] | None = None
    """(id, name); None: all that the token has."""
    unrestricted: bool = False
    access_rules: tuple[NewRule, ...] | None = None


class NewTrust(msgspec.Struct, frozen=True, kw_only=True):
    trustor_id: str
    trustee_id: str
    project_id: str | None
    roles: tuple[tuple[str | None, str | None], ...]
    impersonation: bool
    expires_at_s: float | None = None
    remaining_uses: int | None = None


class ShownAppCredential(msgspec.Struct, frozen=True):
    credential: AppCredential
    roles: Sequence[Role]
    rules: Sequence[AccessRule] | None
    secret: str | None = None


class Secrets:
    def __init__(self, core: Core, keeper: Keeper) -> None:
        self._core, self._keeper = core, keeper

    def seal(self, blob: str) -> str:
        return self._core.vault.seal(blob.encode("utf-8", "surrogatepass"), self._core.world.clock.now_s())

    def unseal(self, credential: Credential) -> str:
        data = self._core.vault.open(credential.sealed_blob)
        if data is None:
            raise Unavailable("identity.vault", "The key that sealed this credential is missing.")
        return data.decode("utf-8", "surrogatepass")

    # -------------------------------------------------------------------------------------------- EC2 keys
    async def new_ec2(self, caller: Caller, claims: Claims, user_id: str, project_id: str) -> Credential:
        """Who may make it with an application credential gets a key that can do no more than that."""
        require(caller, "identity:create_ec2_credential", made_by(caller, user_id))
        forbid_delegated(claims)
        access, secret = secrets.token_hex(16), secrets.token_hex(16)
        blob = json.dumps({"access": access, "secret": secret, "trust_id": None, "app_cred_id": None})
        record = Credential(
            id=id_of_access(access),
            user_id=user_id,
            project_id=project_id,
            type="ec2",
            sealed_blob=self.seal(blob),
            app_credential_id=caller.app_credential_id,
        )

        def work(tx: Transaction) -> Credential:
            if tables.users.get(tx, user_id) is None:
                raise missing("user", user_id)
            if tables.projects.get(tx, project_id) is None:
                raise missing("project", project_id)
            events.emit(tx, "identity.credential.created", record.id, project_id, caller=caller)
            return tables.credentials.insert(tx, record)

        return await self._core.write(work)

    async def ensure_ec2(self, user_name: str, project_id: str) -> tuple[str, str] | None:
        """Access key and secret of a tenant that the cloud began with, made if he has none; None when he is gone."""
        access, secret = secrets.token_hex(16), secrets.token_hex(16)
        blob = json.dumps({"access": access, "secret": secret, "trust_id": None, "app_cred_id": None})

        def work(tx: Transaction) -> Credential | None:
            user = tables.users.first(tx, domain_id=DEFAULT_DOMAIN_ID, name=user_name)
            if user is None:
                return None
            known = tables.credentials.first(tx, user_id=user.id, project_id=project_id, type="ec2")
            return known or tables.credentials.insert(
                tx,
                Credential(
                    id=id_of_access(access),
                    user_id=user.id,
                    project_id=project_id,
                    type="ec2",
                    sealed_blob=self.seal(blob),
                ),
            )

        credential = await self._core.write(work)
        if credential is None:
            return None
        kept = json.loads(self.unseal(credential))
        return str(kept["access"]), str(kept["secret"])

    async def ec2_of(self, caller: Caller, user_id: str) -> Sequence[Credential]:
        require(caller, "identity:list_ec2_credentials", made_by(caller, user_id))
        found = await self._core.read(lambda tx: tables.credentials.find(tx, user_id=user_id, type="ec2"))
        return [each for each in found if may(caller, "identity:get_ec2_credential", kinds.held_by(each))]

    async def ec2(self, caller: Caller, user_id: str, access: str, verb: str = "get") -> Credential:
        found = await self._core.read(lambda tx: tables.credential_of_key(tx, id_of_access(access)))
        if found is not None and found.user_id != user_id:
            found = None
        target = made_by(caller, user_id) if found is None else kinds.held_by(found)
        require(caller, f"identity:{verb}_ec2_credential", target)
        if found is None:
            raise missing("credential", access)
        return found

    async def drop_ec2(self, caller: Caller, user_id: str, access: str) -> None:
        record = await self.ec2(caller, user_id, access, "delete")

        def work(tx: Transaction) -> None:
            tables.credentials.delete(tx, record.id)
            tables.access_keys.delete_where(tx, credential_id=record.id)
            self._core.end(tx, (tokens.access_key_subject(record.id),))
            events.emit(tx, "identity.credential.deleted", record.id, record.project_id, caller=caller)

        await self._core.write(work)

    # -------------------------------------------------------------------------------- application credentials
    async def new_app_credential(
        self, caller: Caller, claims: Claims, user_id: str, new: NewAppCredential
    ) -> ShownAppCredential:
        require(caller, "identity:create_app_credential", Target(user_ids=(user_id,)))
        forbid_delegated(claims)
        if claims.scope is not Scope.PROJECT or claims.target is None:
            raise invalid("token", "an application credential is made with a token of a project")
        if new.expires_at_s is not None and new.expires_at_s <= self._core.world.clock.now_s():
            raise invalid("expires_at", "it is in the past")
        secret = new.secret or secrets.token_urlsafe(64)
        hashed = await self._core.passwords.hash(new.secret) if new.secret else hash_of_secret(secret)
        id, project_id = self._core.new_id(), claims.target.id

        def work(tx: Transaction) -> ShownAppCredential:
            role_ids = self._roles_to_pass_on(tx, claims, user_id, project_id, new)
            if tables.app_credentials.count(tx, user_id=user_id) >= APP_CREDENTIALS_MAX:
                raise Forbidden("identity.limit", f"A user has at most {APP_CREDENTIALS_MAX} application credentials.")
            rules = None
            if new.access_rules is not None:
                rules = [self._rule(tx, user_id, rule) for rule in new.access_rules]
            record = AppCredential(
                id=id,
                name=new.name,
                user_id=user_id,
                project_id=project_id,
                secret_hash=hashed,
                role_ids=role_ids,
                description=new.description,
                expires_at_s=new.expires_at_s,
                unrestricted=new.unrestricted,
                access_rule_ids=None if rules is None else tuple(rule.id for rule in rules),
            )
            try:
                tables.app_credentials.insert(tx, record)
            except Conflict as error:
                raise duplicate("application_credential", record) from error
            events.emit(tx, "identity.app_credential.created", id, project_id, caller=caller)
            return ShownAppCredential(record, _roles(tx, role_ids), rules, secret)

        return await self._core.write(work)

    def _roles_to_pass_on(
        self, tx: Transaction, claims: Claims, user_id: str, project_id: str, new: NewAppCredential
    ) -> tuple[str, ...]:
        """All of the token's roles, or those named: a person may name what he was given since he got the token,
        but what was delegated to a trustee or an application stays the most that they can pass on."""
        held = {role.id: role.name for role in claims.roles}
        if new.roles is None:
            return tuple(held)
        project = tables.projects.get(tx, project_id)
        if claims.app_credential is None and claims.trust is None and project is not None:
            held = {role.id: role.name for role in rights.roles_on(tx, user_id, Scope.PROJECT, project)}
        return chosen_roles(new.roles, held)

    def _rule(self, tx: Transaction, user_id: str, new: NewRule) -> AccessRule:
        if new.id is not None:
            rule = tables.access_rules.get(tx, new.id)
            if rule is None or rule.user_id != user_id:
                raise missing("access rule", new.id)
            return rule
        if not (new.service and new.path and new.method):
            raise invalid("access_rules", "a rule has an id, or a service, a path and a method")
        for rule in tables.access_rules.find(tx, user_id=user_id):
            if (rule.service, rule.path, rule.method) == (new.service, new.path, new.method):
                return rule
        made = AccessRule(
            id=self._core.new_id(), user_id=user_id, service=new.service, path=new.path, method=new.method
        )
        return tables.access_rules.insert(tx, made)

    async def app_credential(self, caller: Caller, user_id: str, id: str) -> ShownAppCredential:
        def work(tx: Transaction) -> ShownAppCredential:
            require(caller, "identity:get_app_credential", Target(user_ids=(user_id,)))
            record = tables.app_credentials.get(tx, id)
            if record is None or record.user_id != user_id:
                raise missing("application credential", id)
            return _shown(tx, record)

        return await self._core.read(work)

    async def app_credentials(self, caller: Caller, user_id: str, query: Query) -> Sequence[ShownAppCredential]:
        require(caller, "identity:list_app_credentials", Target(user_ids=(user_id,)))
        where = {**query.where, "user_id": user_id}
        own = msgspec.structs.replace(query, where=where)
        return await self._core.read(lambda tx: [_shown(tx, record) for record in tables.app_credentials.page(tx, own)])

    async def drop_app_credential(self, caller: Caller, claims: Claims, user_id: str, id: str) -> None:
        shown = await self.app_credential(caller, user_id, id)
        forbid_delegated(claims)
        await self._keeper.delete(kinds.APP_CREDENTIAL, caller, shown.credential.id)

    # ------------------------------------------------------------------------------------------ access rules
    async def access_rules(self, caller: Caller, user_id: str) -> Sequence[AccessRule]:
        require(caller, "identity:list_access_rules", Target(user_ids=(user_id,)))
        return await self._core.read(lambda tx: tables.access_rules.find(tx, user_id=user_id))

    async def access_rule(self, caller: Caller, user_id: str, id: str) -> AccessRule:
        require(caller, "identity:get_access_rule", Target(user_ids=(user_id,)))
        rule = await self._core.read(lambda tx: tables.access_rules.get(tx, id))
        if rule is None or rule.user_id != user_id:
            raise missing("access rule", id)
        return rule

    async def drop_access_rule(self, caller: Caller, user_id: str, id: str) -> None:
        require(caller, "identity:delete_access_rule", Target(user_ids=(user_id,)))
        rule = await self.access_rule(caller, user_id, id)
        await self._keeper.delete(kinds.ACCESS_RULE, caller, rule.id)

    # ------------------------------------------------------------------------------------------------ trusts
    async def new_trust(self, caller: Caller, claims: Claims, new: NewTrust) -> tuple[Trust, Sequence[Role]]:
        require(caller, "identity:create_trust", Target(user_ids=(new.trustor_id,)))
        if claims.trust is not None:
            raise Forbidden("identity.redelegation", "A token of a trust cannot make another trust.")
        forbid_delegated(claims)
        if new.expires_at_s is not None and new.expires_at_s <= self._core.world.clock.now_s():
            raise invalid("expires_at", "it is in the past")
        if new.project_id is None or not new.roles:
            raise Forbidden("identity.trust_roles", "At least one role on a project should be specified.")
        project_id, id = new.project_id, self._core.new_id()

        def work(tx: Transaction) -> tuple[Trust, Sequence[Role]]:
            if tables.users.get(tx, new.trustee_id) is None:
                raise missing("user", new.trustee_id)
            project = tables.projects.get(tx, project_id)
            if project is None:
                raise missing("project", project_id)
            held = {role.id: role.name for role in rights.roles_on(tx, new.trustor_id, Scope.PROJECT, project)}
            if claims.app_credential is not None:
                own = claims.target is not None and claims.target.id == project_id
                held = {role.id: role.name for role in claims.roles if own and role.id in held}
            for role_id, name in new.roles:
                if role_id not in held and name not in held.values():
                    raise missing("role", str(role_id or name))
            trust = Trust(
                id=id,
                trustor_id=new.trustor_id,
                trustee_id=new.trustee_id,
                project_id=project_id,
                role_ids=chosen_roles(new.roles, held),
                impersonation=new.impersonation,
                expires_at_s=new.expires_at_s,
                remaining_uses=new.remaining_uses,
            )
            tables.trusts.insert(tx, trust)
            events.emit(tx, "identity.trust.created", id, project_id, caller=caller)
            return trust, _roles(tx, trust.role_ids)

        return await self._core.write(work)

    async def trust(self, caller: Caller, id: str) -> tuple[Trust, Sequence[Role]]:
        def work(tx: Transaction) -> tuple[Trust, Sequence[Role]]:
            trust = self._trust(tx, caller, id)
            return trust, _roles(tx, trust.role_ids)

        return await self._core.read(work)

    async def trusts(self, caller: Caller, trustor_id: str | None, trustee_id: str | None) -> Sequence[Trust]:
        users = tuple(user_id for user_id in (trustor_id, trustee_id) if user_id is not None)
        require(caller, "identity:list_trusts", Target(user_ids=users))
        where = {"trustor_id": trustor_id, "trustee_id": trustee_id}
        given = {name: value for name, value in where.items() if value is not None}
        return await self._core.read(lambda tx: tables.trusts.page(tx, Query(where=given)))

    async def drop_trust(self, caller: Caller, id: str) -> None:
        def work(tx: Transaction) -> None:
            trust = self._trust(tx, caller, id)
            require(caller, "identity:delete_trust", Target(user_ids=(trust.trustor_id,)))
            tables.trusts.delete(tx, id)
            self._core.end(tx, [tokens.trust_subject(id)])
            events.emit(tx, "identity.trust.deleted", id, trust.project_id, caller=caller)

        await self._core.write(work)

    def _trust(self, tx: Transaction, caller: Caller, id: str) -> Trust:
        """Raise NotFound to anybody for one that is not there, as Keystone: nobody owns it who could be refused."""
        if tables.trusts.get(tx, id) is None:
            raise missing("trust", id)
        return self._keeper.load(tx, kinds.TRUST, caller, id, "identity:get_trust")


def id_of_access(access: str) -> str:
    """As Keystone: the id of an EC2 credential is the SHA-256 of its access key."""
    return hashlib.sha256(access.encode("utf-8", "surrogatepass")).hexdigest()


def ec2_parts(blob: str) -> tuple[str, str]:
    """Access key and secret in a blob.  Raise Invalid."""
    try:
        parts = json.loads(blob)
    except (ValueError, RecursionError):
        parts = None
    if not isinstance(parts, dict) or not all(isinstance(parts.get(key), str) for key in ("access", "secret")):
        raise invalid("blob", "of an EC2 credential it is a JSON object with the texts access and secret")
    return parts["access"], parts["secret"]


def ec2_secret(blob: str) -> str:
    return ec2_parts(blob)[1]


def made_by(caller: Caller, user_id: str) -> Target:
    """A secret of the user's that this caller makes, or might have made."""
    return Target(user_ids=(user_id,), app_credential_id=caller.app_credential_id)


def forbid_delegated(claims: Claims) -> None:
    """A secret outlives the token that it was made with, so who has only a part of a user's rights makes none: but for
    an application credential that was made unrestricted, and whose secrets end with it."""
    if claims.trust is not None:
        how = "a token of a trust"
    elif tokens.EC2 in claims.methods:
        how = "a token of an EC2 key"
    elif claims.app_credential is not None and not claims.app_credential.unrestricted:
        how = "method 'application_credential'"
    elif claims.app_credential is not None and claims.app_credential.access_rules is not None:
        how = "an application credential that has access rules"
    else:
        return
    raise Forbidden(
        "identity.restricted",
        f"Using {how} is not allowed for managing additional secrets: what it may do is restricted.",
    )


def chosen_roles(wanted: Sequence[tuple[str | None, str | None]], held: dict[str, str]) -> tuple[str, ...]:
    """Role ids of those wanted by id or name; raise Invalid when one is not held."""
    by_name = {name: id for id, name in held.items()}
    chosen = []
    for id, name in wanted:
        role_id = id if id is not None else by_name.get(name or "")
        if role_id not in held:
            raise invalid("roles", f"{id or name} is not among the roles held: {', '.join(sorted(held.values()))}")
        chosen.append(role_id)
    return tuple(dict.fromkeys(chosen))


def _roles(tx: Transaction, ids: Sequence[str]) -> Sequence[Role]:
    return tables.roles.find(tx, id=list(ids)) if ids else []


def _shown(tx: Transaction, record: AppCredential) -> ShownAppCredential:
    rules = None
    if record.access_rule_ids is not None:
        rules = tables.access_rules.find(tx, id=list(record.access_rule_ids))
    return ShownAppCredential(record, _roles(tx, record.role_ids), rules)
