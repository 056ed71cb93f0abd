"""The transaction that both engines hand to a function."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from apus.kernel.log import get_logger
from apus.kernel.sql import Dialect, Rows

Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Execute = Callable[[str, Parameters], Rows]
UNCOUNTED: Final = -1
"""`rowcount` of a list of parameters: one engine does not tell it."""

log = get_logger("apus.store")


class SqlTransaction:
    """Runs statements through its engine's `execute`, which raises Taken.

    A statement that fails has lost the transaction, on either engine: PostgreSQL would refuse whatever follows, and
    answer a commit with a quiet rollback.  So the error must leave the function; what must not fail is asked first.
    """

    def __init__(self, dialect: Dialect, execute: Execute, now_s: float) -> None:
        self._dialect: Dialect = dialect
        self.hints: list[Callable[[], None]] = []
        self._execute, self._now_s = execute, now_s
        self._failed: Exception | None = None
        self._hinted: dict[str, None] = {}

    @property
    def dialect(self) -> Dialect:
        return self._dialect

    @property
    def now_s(self) -> float:
        return self._now_s

    def execute(self, statement: str, parameters: Parameters = ()) -> Rows:
        self.check_whole()
        try:
            return self._execute(statement, parameters)
        except Exception as error:
            self._failed = error
            raise

    def after_commit(self, hint: Callable[[], None]) -> None:
        self.hints.append(hint)

    def hint(self, subject: str) -> None:
        self._hinted[subject] = None

    @property
    def hinted(self) -> Collection[str]:
        return self._hinted.keys()

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
