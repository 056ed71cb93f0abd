"""Access rules of application credentials: the only calls that such a token may make.

A rule names a service's type, a method and a path as the service's own endpoint has it (`/v2.1/servers/*`): with or
without the prefix that our one port puts before each service.  Source: keystonemiddleware's matching of rules.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from apus.kernel.caller import AccessRule
from apus.kernel.errors import Unauthenticated


@functools.lru_cache(maxsize=1024)
def _pattern(path: str) -> re.Pattern[str]:
    """`**` any number of segments, `*` and `{name}` one."""
    parts = re.split(r"(\*\*|\*|\{[^}]*\})", path)
    shown = {"**": ".*", "*": "[^/]+"}
    return re.compile("".join(shown.get(part, "[^/]+" if part[:1] == "{" else re.escape(part)) for part in parts))


def listed(rules: Sequence[AccessRule], service_type: str, method: str, path: str) -> bool:
    """Whether one of the rules allows this call."""
    below = "/" + path[1:].partition("/")[2]
    return any(
        rule.service == service_type
        and rule.method == method
        and (_pattern(rule.path).fullmatch(path) or _pattern(rule.path).fullmatch(below))
        for rule in rules
    )


def require_listed(rules: Sequence[AccessRule], service_type: str, method: str, path: str) -> None:
    if not listed(rules, service_type, method, path):
        raise Unauthenticated(
            "wire.access_rules",
            "The request you have made requires authentication: the access rules of the application credential do "
            f"not list {method} {path} of {service_type}.",
        )
