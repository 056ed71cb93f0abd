"""Placement microversions 1.0 to 1.39 as translations.

Source: Placement's "REST API Version History".
"""

from __future__ import annotations

from typing import Any, Final

from apus.wire.versions import Body, Change, VersionChain

_PROVIDERS: Final = ("list_providers", "show_provider", "create_provider", "update_provider")


def _without_tree(body: Body) -> Body:
    for view in body.get("resource_providers", [body]):
        view.pop("parent_provider_uuid", None)
        view.pop("root_provider_uuid", None)
    return body


def _links(*hidden: str) -> Any:
    def down(body: Body) -> Body:
        for view in body.get("resource_providers", [body]):
            view["links"] = [link for link in view.get("links", ()) if link["rel"] not in hidden]
        return body

    return down


def _summaries_without(*keys: str) -> Any:
    def down(body: Body) -> Body:
        for summary in body["provider_summaries"].values():
            for key in keys:
                summary.pop(key, None)
        return body

    return down


def _requests_without_mappings(body: Body) -> Body:
    for item in body["allocation_requests"]:
        item.pop("mappings", None)
    return body


def _requests_as_lists(body: Body) -> Body:
    for item in body["allocation_requests"]:
        item["allocations"] = [
            {"resource_provider": {"uuid": provider}, "resources": value["resources"]}
            for provider, value in item["allocations"].items()
        ]
    return body


def _drop(*keys: str) -> Any:
    return lambda body: {key: value for key, value in body.items() if key not in keys}


def _list_to_mapping(body: Body) -> Body:
    """Before 1.12 allocations were a list."""
    items = body.get("allocations")
    if not isinstance(items, list):
        return body
    found = {}
    for item in items:
        if isinstance(item, dict) and isinstance(item.get("resource_provider"), dict):
            found[str(item["resource_provider"].get("uuid"))] = {"resources": item.get("resources")}
    return {**body, "allocations": found}


def _any_generation(body: Body) -> Body:
    return {**body, "_any_generation": True}


def _each_consumer(change: Any) -> Any:
    return lambda body: {key: change(value) if isinstance(value, dict) else value for key, value in body.items()}




CHANGES: Final = (
    *(Change((1, 1), operation, down=_links("aggregates")) for operation in _PROVIDERS),
    *(Change((1, 6), operation, down=_links("traits")) for operation in _PROVIDERS),
    *(Change((1, 11), operation, down=_links("allocations")) for operation in _PROVIDERS),
    Change((1, 12), "put_allocations", up=_list_to_mapping),
    Change((1, 12), "show_allocations", down=_drop("project_id", "user_id")),
    Change((1, 12), "list_candidates", down=_requests_as_lists),
    *(Change((1, 14), operation, down=_without_tree) for operation in _PROVIDERS),
    Change((1, 17), "list_candidates", down=_summaries_without("traits")),
    Change((1, 19), "show_aggregates", down=_drop("resource_provider_generation")),
    Change((1, 19), "put_aggregates", down=_drop("resource_provider_generation")),
    Change((1, 28), "show_allocations", down=_drop("consumer_generation")),
    Change((1, 28), "put_allocations", up=_any_generation),
    Change((1, 28), "post_allocations", up=_each_consumer(_any_generation)),
    Change((1, 29), "list_candidates", down=_summaries_without("parent_provider_uuid", "root_provider_uuid")),
    Change((1, 34), "list_candidates", down=_requests_without_mappings),
    Change((1, 38), "show_allocations", down=_drop("consumer_type")),
)  # fmt: skip

VERSIONS: Final = VersionChain("placement", (1, 0), (1, 39), CHANGES)
