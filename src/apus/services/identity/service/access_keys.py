"""What EC2 keys are good for: the S3 door asks who signed, other services have a token given for a signed request."""

from __future__ import annotations

from collections.abc import Callable

from apus.kernel.caller import Caller
from apus.kernel.errors import NotFound, Unauthenticated
from apus.kernel.world import Transaction
from apus.services.identity import store as tables
from apus.services.identity.agent.verifier import Opened
from apus.services.identity.logic import claims as tokens
from apus.services.identity.logic.claims import Claims
from apus.services.identity.logic.may import require
from apus.services.identity.model import Credential
from apus.services.identity.service.auth import Auth, refuse
from apus.services.identity.service.core import Core
from apus.services.identity.service.secrets import Secrets, ec2_secret, id_of_access


class AccessKeys:
    def __init__(self, core: Core, auth: Auth, secrets: Secrets) -> None:
        self._core, self._auth, self._secrets = core, auth, secrets

    async def secret_of(self, access: str) -> tuple[str, Caller] | None:
        """What the owner may do now: as if he had asked for a token."""
        try:
            found = await self._find(access)
        except Unauthenticated:
            return None
        return None if found is None else (self._secret(found[0]), tokens.caller_of(found[1]))

    async def issue(self, caller: Caller, access: str, signed: Callable[[str], bool]) -> tuple[str, Opened]:
        """A token for who signed.  `signed` says whether a secret made the signature.  A signature that was seen on
        its way is no login (CVE-2025-65073): only services may ask.  Raise Forbidden, NotFound, Unauthenticated."""
        require(caller, "identity:issue_ec2_token")
        found = await self._find(access)
        if found is None:
            raise NotFound("identity.access_key_not_found", "EC2 access key not found.")
        credential, claims = found
        if not signed(self._secret(credential)):
            raise refuse("the key did not make this signature, or long ago")
        return self._core.verifier.seal(claims)

    async def _find(self, access: str) -> tuple[Credential, Claims] | None:
        def work(tx: Transaction) -> tuple[Credential, Claims] | None:
            credential = tables.credential_of_key(tx, id_of_access(access))
            return None if credential is None else (credential, self._auth.of_key(tx, credential))

        return await self._core.read(work)

    def _secret(self, credential: Credential) -> str:
        return ec2_secret(self._secrets.unseal(credential))
