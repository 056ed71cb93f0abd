"""Quotas: limits are rows, use is counted from what there is, in the transaction that adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from apus.kernel.caller import Caller
from apus.kernel.errors import Invalid, OverQuota
from apus.kernel.record import changed
from apus.kernel.world import Transaction, World
from apus.services.compute import store
from apus.services.compute.logic.quota import DEFAULTS, check, limits_of
from apus.services.compute.model import Quota, Server
from apus.services.compute.store import GROUPS, KEYPAIRS, QUOTAS, SERVERS

CLASS: Final = "class/default"
"""The row whose limits hold for projects that have none of their own; no project has such an id."""


class Quotas:
    def __init__(self, world: World, defaults: Mapping[str, int] | None = None) -> None:
        self._world = world
        self.defaults: dict[str, int] = {**DEFAULTS, **(defaults or {})}

    async def limits(self, project_id: str) -> dict[str, int]:
        return await self._world.store.read(lambda tx: self._limits(tx, project_id))

    async def used(self, project_id: str, user_id: str | None = None) -> dict[str, int]:
        def work(tx: Transaction) -> dict[str, int]:
            groups = GROUPS.count(tx, project_id=project_id)
            return {**_servers(tx, project_id), "server_groups": groups}

        return await self._world.store.read(work)

    async def set(self, project_id: str, limits: Mapping[str, int], *, force: bool) -> dict[str, int]:
        """Raise Invalid for a limit below what is used already, unless forced."""

        def work(tx: Transaction) -> dict[str, int]:
            used = _servers(tx, project_id)
            for name, limit in limits.items():
                if not force and 0 <= limit < used.get(name, 0):
                    raise Invalid(
                        "compute.quota_below_use",
                        f"{name}: Quota limit {limit} must be greater than or equal to already used and reserved "
                        f"{used[name]}.",
                        field=name,
                    )
            _keep(tx, project_id, limits)
            return self._limits(tx, project_id)

        return await self._world.store.write(work)

    async def default_limits(self) -> dict[str, int]:
        return await self._world.store.read(self._defaults)

    async def set_defaults(self, limits: Mapping[str, int]) -> dict[str, int]:
        def work(tx: Transaction) -> dict[str, int]:
            _keep(tx, CLASS, limits)
            return self._defaults(tx)

        return await self._world.store.write(work)

    async def reset(self, project_id: str) -> None:
        await self._world.store.write(lambda tx: QUOTAS.delete(tx, project_id))

    # ------------------------------------------------------------------ inside creating transactions
    def check_servers(self, tx: Transaction, project_id: str, one: Server, least: int, most: int) -> int:
        """How many such servers there is room for, at least `least`.  Raise OverQuota."""
        limits, used = self._limits(tx, project_id), _servers(tx, project_id)
        for count in range(most, least - 1, -1):
            asked = {"instances": count, "cores": count * one.vcpus, "ram": count * one.memory_mib}
            try:
                check(limits, used, asked)
            except OverQuota:
                if count == least:
                    raise
            else:
                self.check_metadata(one.metadata, limits)
                return count
        raise AssertionError("the loop returns or raises")

    def check_metadata(self, metadata: Mapping[str, str], limits: Mapping[str, int] | None = None) -> None:
        most = (limits or self.defaults)["metadata_items"]
        if 0 <= most < len(metadata):
            raise OverQuota("compute.over_quota", f"Maximum number of metadata items exceeds {most}")

    def check_group_members(self, tx: Transaction, caller: Caller, group_id: str, count: int) -> None:
        limit = self._limits(tx, caller.project_id or "")["server_group_members"]
        if 0 <= limit < SERVERS.count(tx, group_id=group_id, deleted=False) + count:
            raise OverQuota("compute.over_quota", f"Quota exceeded, too many servers in group: {limit} are allowed.")

    def check_groups(self, tx: Transaction, project_id: str) -> None:
        limit = self._limits(tx, project_id)["server_groups"]
        if 0 <= limit <= GROUPS.count(tx, project_id=project_id):
            raise OverQuota("compute.over_quota", f"Quota exceeded, too many server groups: {limit} are allowed.")

    def _limits(self, tx: Transaction, project_id: str) -> dict[str, int]:
        known = QUOTAS.get(tx, project_id)
        return limits_of({} if known is None else known.limits, self._defaults(tx))

    def _defaults(self, tx: Transaction) -> dict[str, int]:
        known = QUOTAS.get(tx, CLASS)
        return limits_of({} if known is None else known.limits, self.defaults)


def _keep(tx: Transaction, id: str, limits: Mapping[str, int]) -> None:
    known = QUOTAS.get(tx, id)
    if known is None:
        QUOTAS.insert(tx, Quota(id=id, limits=dict(limits)))
    else:
        QUOTAS.put(tx, changed(known, limits={**known.limits, **limits}))


def check_keypairs(tx: Transaction, user_id: str) -> None:
    if KEYPAIRS.count(tx, user_id=user_id) >= DEFAULTS["key_pairs"]:
        raise OverQuota(
            "compute.over_quota", f"Quota exceeded, too many key pairs: {DEFAULTS['key_pairs']} are allowed."
        )


def _servers(tx: Transaction, project_id: str) -> dict[str, int]:
    instances, cores, memory_mib = store.usage(tx, project_id)
    return {"instances": instances, "cores": cores, "ram": memory_mib}
