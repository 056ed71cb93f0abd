"""The closed family of errors that services raise.  There is no HTTP in it: the `faults.py` of each door maps it.

`code` is stable for ever (`service.what_happened`); `shown` goes to the user and says what was asked, what there
was and what would have been possible; `hidden` goes to the log alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class CloudError(Exception):
    """One of: NotFound, Conflict, Invalid, Forbidden, Unauthenticated, OverQuota, NoRoom, Unavailable."""

    retry: ClassVar[bool] = False
    """May the same call succeed later, unchanged?"""

    def __init__(self, code: str, shown: str, *, hidden: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(shown)
        self.code, self.shown, self.hidden = code, shown, hidden
        self.details: Mapping[str, Any] = details or {}


class NotFound(CloudError):
    """There is no such thing, or it is not the caller's to see."""


class Conflict(CloudError):
    """The thing is not in the state, or not of the generation, that the call needs."""


class Invalid(CloudError):
    """The request is wrong; `field` names where, when one field is to blame."""

    def __init__(
        self,
        code: str,
        shown: str,
        *,
        field: str | None = None,
        hidden: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code, shown, hidden=hidden, details=details)
        self.field = field


class TooLarge(Invalid):
    """The request's body, or a part of it, is larger than its limit."""


class Forbidden(CloudError):
    """The caller is known, and may not."""


class Unauthenticated(CloudError):
    """The caller is not known: no token, a wrong one, an expired or revoked one."""


class OverQuota(CloudError):
    """The project's limit would be passed."""


class NoRoom(CloudError):
    """No host, address or drive fits; `details` counts which filter refused how many.

    An answer, not a hiccup: a flow says no instead of asking again.
    """


class Unavailable(CloudError):
    """Something that is needed does not answer now."""

    retry = True
