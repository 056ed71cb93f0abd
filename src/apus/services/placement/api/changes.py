"""What became different in which microversion of the Placement API, as translations.

Source: https://docs.openstack.org/placement/latest/placement-api-microversion-history.html
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from apus.kernel.errors import Invalid
from apus.wire.versions import Body, Change, VersionChain


def _allocations_from_list(body: Body) -> Body:
    """Before 1.12 allocations were a list of (resource_provider, resources)."""
    items = body.get("allocations")
    if not isinstance(items, list):
        raise Invalid(
            "placement.allocations", "allocations: before version 1.12 a list is expected.", field="allocations"
        )
    made: dict[str, Any] = {}
    for item in items:
        try:
            made[item["resource_provider"]["uuid"]] = {"resources": item["resources"]}
        except (TypeError, KeyError):
            shown = "allocations: each item wants resource_provider.uuid and resources."
            raise Invalid("placement.allocations", shown, field="allocations") from None
    return {**body, "allocations": made}


def _without_owner(body: Body) -> Body:
    """Before 1.8 a consumer had no project and user."""
    return {"project_id": "unknown", "user_id": "unknown", **body}


def _unchecked(body: Body) -> Body:
    """Before 1.28 the last writer won."""
    return {**body, "checked": False}


def _of_unknown_type(body: Body) -> Body:
    """Before 1.38 consumers had no type."""
    return {"consumer_type": "unknown", **body}


def _each_consumer(up: Callable[[Body], Body]) -> Callable[[Body], Body]:
    """The same for a body of several consumers."""

    def all_of(body: Body) -> Body:
        return {id: up(item) if isinstance(item, dict) else item for id, item in body.items()}

    return all_of


def _within(field: str, up: Callable[[Body], Body]) -> Callable[[Body], Body]:
    return lambda body: {**body, field: up(body[field])} if isinstance(body.get(field), dict) else body


def _drop(*names: str) -> Any:
    return lambda view: {key: value for key, value in view.items() if key not in names}


def _candidates_as_lists(view: Body) -> Body:
    requests = []
    for request in view["allocation_requests"]:
        allocations = [
            {"resource_provider": {"uuid": provider}, "resources": item["resources"]}
            for provider, item in request["allocations"].items()
        ]
        requests.append({**request, "allocations": allocations})
    return {**view, "allocation_requests": requests}


def _candidates_without_mappings(view: Body) -> Body:
    kept = [_drop("mappings")(request) for request in view["allocation_requests"]]
    return {**view, "allocation_requests": kept}


def _summaries_without(*names: str) -> Any:
    def down(view: Body) -> Body:
        summaries = {key: _drop(*names)(item) for key, item in view["provider_summaries"].items()}
        return {**view, "provider_summaries": summaries}

    return down


def _summaries_of_what_was_asked(view: Body) -> Body:
    """Before 1.27 summaries had the classes of the request alone."""
    asked = {
        name
        for request in view["allocation_requests"]
        for item in request["allocations"].values()
        for name in item["resources"]
    }
    summaries = {
        id: {**item, "resources": {name: each for name, each in item["resources"].items() if name in asked}}
        for id, item in view["provider_summaries"].items()
    }
    return {**view, "provider_summaries": summaries}


def _providers_without(*names: str) -> Any:
    def down(view: Body) -> Body:
        if "resource_providers" in view:
            return {**view, "resource_providers": [_drop(*names)(item) for item in view["resource_providers"]]}
        return dict(_drop(*names)(view))

    return down


_CHANGES: Final = (
    Change((1, 8), "put_allocations", up=_without_owner),
    Change((1, 12), "put_allocations", up=_allocations_from_list),
    Change((1, 28), "put_allocations", up=_unchecked),
    Change((1, 38), "put_allocations", up=_of_unknown_type),
    Change((1, 28), "post_allocations", up=_each_consumer(_unchecked)),
    Change((1, 38), "post_allocations", up=_each_consumer(_of_unknown_type)),
    Change((1, 38), "reshape", up=_within("allocations", _each_consumer(_of_unknown_type))),
    Change((1, 12), "get_allocations", down=_drop("project_id", "user_id")),
    Change((1, 28), "get_allocations", down=_drop("consumer_generation")),
    Change((1, 38), "get_allocations", down=_drop("consumer_type")),
    Change((1, 12), "get_candidates", down=_candidates_as_lists),
    Change((1, 17), "get_candidates", down=_summaries_without("traits")),
    Change((1, 27), "get_candidates", down=_summaries_of_what_was_asked),
    Change((1, 29), "get_candidates", down=_summaries_without("parent_provider_uuid", "root_provider_uuid")),
    Change((1, 34), "get_candidates", down=_candidates_without_mappings),
    Change((1, 14), "list_providers", down=_providers_without("parent_provider_uuid", "root_provider_uuid")),
    Change((1, 14), "show_provider", down=_providers_without("parent_provider_uuid", "root_provider_uuid")),
    Change((1, 14), "update_provider", down=_providers_without("parent_provider_uuid", "root_provider_uuid")),
    Change((1, 19), "get_aggregates", down=_drop("resource_provider_generation")),
    Change((1, 19), "put_aggregates", down=_drop("resource_provider_generation")),
)

VERSIONS: Final = VersionChain("placement", (1, 0), (1, 39), _CHANGES)
