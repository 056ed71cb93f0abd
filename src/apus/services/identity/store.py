"""The only SQL of identity: its tables, and the epochs that end tokens.

An epoch is raised in the transaction that takes something away from a subject (a user, a project, a grant …).  A
token carries the epochs of its subjects as the snapshot that it was issued from had them, so whichever of the two
came first is known without comparing clocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from apus.kernel.sql import Column, Table, where
from apus.kernel.table import RecordTable, metadata
from apus.kernel.world import Transaction
from apus.services.identity import model

projects: Final = RecordTable(
    "identity_project",
    model.Project,
    columns=("domain_id", "name", "parent_id", "is_domain", "enabled"),
    unique=(("domain_id", "name"),),
    indexes=(("parent_id",),),
)
users: Final = RecordTable(
    "identity_user", model.User, columns=("domain_id", "name", "enabled"), unique=(("domain_id", "name"),)
)
groups: Final = RecordTable(
    "identity_group", model.Group, columns=("domain_id", "name"), unique=(("domain_id", "name"),)
)
memberships: Final = RecordTable(
    "identity_membership",
    model.Membership,
    columns=("group_id", "user_id"),
    unique=(("group_id", "user_id"),),
    indexes=(("user_id",),),
)
roles: Final = RecordTable("identity_role", model.Role, columns=("domain_id", "name"), unique=(("domain_id", "name"),))
implications: Final = RecordTable(
    "identity_implication",
    model.Implication,
    columns=("prior_id", "implied_id"),
    unique=(("prior_id", "implied_id"),),
)
assignments: Final = RecordTable(
    "identity_assignment",
    model.Assignment,
    columns=("actor", "actor_id", "scope", "target_id", "role_id", "inherited"),
    indexes=(("actor_id",), ("target_id",), ("role_id",)),
)
regions: Final = RecordTable("identity_region", model.Region, columns=("parent_region_id",))
services: Final = RecordTable("identity_service", model.Service, columns=("type", "name"), indexes=(("type",),))
endpoints: Final = RecordTable(
    "identity_endpoint",
    model.Endpoint,
    columns=("service_id", "interface", "region_id"),
    indexes=(("service_id",),),
)
credentials: Final = RecordTable(
    "identity_credential",
    model.Credential,
    columns=("user_id", "type", "project_id", "app_credential_id"),
    indexes=(("user_id",), ("project_id",)),
)
access_keys: Final = RecordTable(
    "identity_access_key", model.AccessKey, columns=("credential_id",), indexes=(("credential_id",),)
)
access_rules: Final = RecordTable(
    "identity_access_rule", model.AccessRule, columns=("user_id",), indexes=(("user_id",),)
)
app_credentials: Final = RecordTable(
    "identity_app_credential",
    model.AppCredential,
    columns=("user_id", "name", "project_id"),
    unique=(("user_id", "name"),),
    indexes=(("project_id",),),
)
trusts: Final = RecordTable(
    "identity_trust",
    model.Trust,
    columns=("trustor_id", "trustee_id", "project_id"),
    indexes=(("trustor_id",), ("trustee_id",), ("project_id",)),
)
registered_limits: Final = RecordTable(
    "identity_registered_limit",
    model.RegisteredLimit,
    columns=("service_id", "region_id", "resource_name"),
)
limits: Final = RecordTable(
    "identity_limit",
    model.Limit,
    columns=("service_id", "region_id", "resource_name", "project_id", "domain_id"),
    indexes=(("project_id",), ("domain_id",)),
)

EPOCHS: Final = metadata.add(
    Table(
        "identity_epoch",
        (Column("subject", "text"), Column("epoch", "integer"), Column("stamp_s", "real")),
        key=("subject",),
        indexes=(("stamp_s",),),
    )
)

_CHUNK: Final = 500
"""Values in one IN (…): SQLite and PostgreSQL both take more, but plans are cached by their number."""


def raise_epochs(tx: Transaction, subjects: Iterable[str]) -> dict[str, int]:
    """End the tokens that carry one of these subjects; returns the new epochs."""
    wanted = sorted(set(subjects))
    if not wanted:
        return {}
    known = epochs_of(tx, wanted)
    now_us = int(tx.now_s * 1e6)
    # never lower than before, also when the clock steps back or the row was pruned meanwhile
    new = {subject: max(now_us, known.get(subject, 0) + 1) for subject in wanted}
    for subject, epoch in new.items():
        values = {"subject": subject, "epoch": epoch, "stamp_s": tx.now_s}
        if subject in known:
            tx.execute("UPDATE identity_epoch SET epoch = :epoch, stamp_s = :stamp_s WHERE subject = :subject", values)
        else:
            tx.execute(EPOCHS.insert(), values)
    return new


def epochs_of(tx: Transaction, subjects: Sequence[str]) -> dict[str, int]:
    """Epochs of the subjects that have one."""
    found: dict[str, int] = {}
    for start in range(0, len(subjects), _CHUNK):
        text, parameters = where({"subject": list(subjects[start : start + _CHUNK])})
        statement = f"SELECT subject, epoch FROM identity_epoch{text}"  # noqa: S608  # `where` makes placeholders
        found.update(tx.execute(statement, parameters))
    return found


def epochs_since(tx: Transaction, stamp_s: float) -> Mapping[str, int]:
    rows = tx.execute("SELECT subject, epoch FROM identity_epoch WHERE stamp_s >= :stamp_s", {"stamp_s": stamp_s})
    return dict(rows)


def forget_epochs(tx: Transaction, before_s: float) -> int:
    """Drop epochs older than any living token."""
    return int(tx.execute("DELETE FROM identity_epoch WHERE stamp_s < :before_s", {"before_s": before_s}).rowcount)


def credential_of_key(tx: Transaction, key_id: str) -> model.Credential | None:
    """The EC2 credential whose access key has this hash now."""
    known = access_keys.get(tx, key_id)
    credential = credentials.get(tx, key_id if known is None else known.credential_id)
    if credential is None or credential.type != "ec2" or (credential.access_key_id or credential.id) != key_id:
        return None
    return credential
