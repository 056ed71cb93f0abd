"""The transaction that both engines hand to a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy
import structlog

log = structlog.get_logger("apus.store")


class CoreTransaction:
    """Runs statements on a SQLAlchemy connection.

    A statement that fails has lost the transaction, on either engine: PostgreSQL would refuse whatever follows, and
    answer a commit with a quiet rollback.  So the error must leave the function; what must not fail is asked first.
    """

    def __init__(self, connection: sqlalchemy.Connection, now_s: float) -> None:
        self.connection = connection
        """For `MetaData.create_all` and migrations alone."""
        self.hints: list[Callable[[], None]] = []
        self._now_s = now_s
        self._failed: Exception | None = None

    @property
    def now_s(self) -> float:
        return self._now_s

    def execute(self, statement: Any, parameters: Any = None) -> Any:
        self.check_whole()
        try:
            return self.connection.execute(statement, parameters)
        except sqlalchemy.exc.DBAPIError as error:
            self._failed = error
            raise

    def after_commit(self, hint: Callable[[], None]) -> None:
        self.hints.append(hint)

    def check_whole(self) -> None:
        """Raise if a statement has failed and the function went on regardless."""
        if self._failed is not None:
            raise RuntimeError("a statement failed, so this transaction is lost: let its error out") from self._failed


def give(hints: list[Callable[[], None]]) -> None:
    """Call the hints of a committed transaction; one that fails is logged and harms nobody."""
    for hint in hints:
        try:
            hint()
        except Exception:
            log.exception("a hint after a commit failed")
