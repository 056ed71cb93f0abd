"""The catalogue that a token shows: services with their endpoints, the project's id put into the URLs.

Endpoints whose URL needs a project are left out of tokens that have none, as Keystone does.  Only these names may
be substituted; anything else in a URL is refused when the endpoint is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from apus.services.identity.model import Endpoint, Service

_VARIABLE: Final = re.compile(r"[%$]\(([^)]*)\)s")
_PROJECT: Final = frozenset({"project_id", "tenant_id"})
_KNOWN: Final = _PROJECT | {"user_id"}


def unknown_variables(url: str) -> list[str]:
    """Names in the URL that cannot be substituted, and percent signs that stand for nothing."""
    rest = _VARIABLE.sub("", url)
    unknown = [name for name in _VARIABLE.findall(url) if name not in _KNOWN]
    return unknown + (["%"] if "%(" in rest or "$(" in rest else [])


def fill(url: str, project_id: str | None, user_id: str) -> str | None:
    """The URL for this token; None when it needs a project and there is none."""
    names = set(_VARIABLE.findall(url))
    if names & _PROJECT and project_id is None:
        return None
    values = {"project_id": project_id or "", "tenant_id": project_id or "", "user_id": user_id}
    return _VARIABLE.sub(lambda match: values.get(match.group(1), match.group(0)), url)


def catalogue(
    services: Iterable[Service], endpoints: Iterable[Endpoint], project_id: str | None, user_id: str
) -> list[dict[str, Any]]:
    by_service: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        if endpoint.enabled:
            by_service.setdefault(endpoint.service_id, []).append(endpoint)
    shown = []
    for service in services:
        if not service.enabled or service.id not in by_service:
            continue
        views = []
        for endpoint in sorted(by_service[service.id], key=lambda endpoint: endpoint.id):
            url = fill(endpoint.url, project_id, user_id)
            if url is not None:
                views.append(
                    {
                        "id": endpoint.id,
                        "interface": endpoint.interface,
                        "region": endpoint.region_id,
                        "region_id": endpoint.region_id,
                        "url": url,
                    }
                )
        shown.append({"endpoints": views, "id": service.id, "name": service.name, "type": service.type})
    return shown
