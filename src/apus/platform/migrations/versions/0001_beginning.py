"""The beginning: a fresh database is made from the metadata, so there is nothing to add here."""

from __future__ import annotations

revision = "0001"
down_revision = None


def upgrade() -> None:
    pass
