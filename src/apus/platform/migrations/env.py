"""What Alembic runs for each command.  The connection is the store's, in the store's transaction: see `migrate`."""

from __future__ import annotations

from alembic import context

context.run_migrations()
