"""The Placement API as one table."""

from __future__ import annotations

from typing import Any, Final

from apus.services.placement.api import bodies, handlers
from apus.services.placement.api.changes import VERSIONS
from apus.services.placement.policy import POLICY
from apus.services.placement.service import Placement
from apus.wire.app import Api
from apus.wire.faults import Faults, errors_fault
from apus.wire.route import Route

_P: Final = "/resource_providers"
_M: Final = "placement:manage"

ROUTES: Final = (
    Route("GET", "", handlers.list_versions, "versions"),
    Route("GET", "/", handlers.list_versions, "versions"),
    Route("GET", _P, handlers.list_providers, _M),
    Route("POST", _P, handlers.create_provider, _M, takes=bodies.ProviderBody),
    Route("GET", f"{_P}/{{id}}", handlers.show_provider, _M),
    Route("PUT", f"{_P}/{{id}}", handlers.update_provider, _M, takes=bodies.ProviderBody),
    Route("DELETE", f"{_P}/{{id}}", handlers.delete_provider, _M, status=204),
    Route("GET", f"{_P}/{{id}}/inventories", handlers.list_inventories, _M),
    Route("PUT", f"{_P}/{{id}}/inventories", handlers.put_inventories, _M, takes=bodies.InventoriesBody),
    Route("POST", f"{_P}/{{id}}/inventories", handlers.post_inventory, _M, takes=dict[str, Any], status=201),
    Route("DELETE", f"{_P}/{{id}}/inventories", handlers.delete_inventories, _M, status=204, since=(1, 5)),
    Route("GET", f"{_P}/{{id}}/inventories/{{name}}", handlers.show_inventory, _M),
    Route("PUT", f"{_P}/{{id}}/inventories/{{name}}", handlers.put_inventory, _M, takes=bodies.InventoryItem),
    Route("DELETE", f"{_P}/{{id}}/inventories/{{name}}", handlers.delete_inventory, _M, status=204),
    Route("GET", f"{_P}/{{id}}/usages", handlers.show_usages, _M),
    Route("GET", f"{_P}/{{id}}/traits", handlers.show_provider_traits, _M, since=(1, 6)),
    Route("PUT", f"{_P}/{{id}}/traits", handlers.put_provider_traits, _M, takes=bodies.TraitsBody, since=(1, 6)),
    Route("DELETE", f"{_P}/{{id}}/traits", handlers.delete_provider_traits, _M, status=204, since=(1, 6)),
    Route("GET", f"{_P}/{{id}}/aggregates", handlers.show_aggregates, _M, since=(1, 1)),
    Route("PUT", f"{_P}/{{id}}/aggregates", handlers.put_aggregates, _M, since=(1, 1)),
    Route("GET", f"{_P}/{{id}}/allocations", handlers.show_provider_allocations, _M),
    Route("GET", "/traits", handlers.list_traits, _M, since=(1, 6)),
    Route("GET", "/traits/{name}", handlers.show_trait, _M, status=204, since=(1, 6)),
    Route("PUT", "/traits/{name}", handlers.put_trait, _M, status=201, since=(1, 6)),
    Route("DELETE", "/traits/{name}", handlers.delete_trait, _M, status=204, since=(1, 6)),
    Route("GET", "/resource_classes", handlers.list_classes, _M, since=(1, 2)),
    Route("POST", "/resource_classes", handlers.create_class, _M, takes=bodies.ClassBody, status=201, since=(1, 2)),
    Route("GET", "/resource_classes/{name}", handlers.show_class, _M, since=(1, 2)),
    Route("PUT", "/resource_classes/{name}", handlers.put_class, _M, status=201, since=(1, 7)),
    Route("DELETE", "/resource_classes/{name}", handlers.delete_class, _M, status=204, since=(1, 2)),
    Route("GET", "/usages", handlers.list_usages, "placement:usages", since=(1, 9)),
    Route("GET", "/allocation_candidates", handlers.list_candidates, _M, since=(1, 10)),
    Route("POST", "/allocations", handlers.post_allocations, _M, takes=dict[str, Any], status=204, since=(1, 13)),
    Route("GET", "/allocations/{consumer}", handlers.show_allocations, _M),
    Route("PUT", "/allocations/{consumer}", handlers.put_allocations, _M, takes=bodies.AllocationsBody, status=204),
    Route("DELETE", "/allocations/{consumer}", handlers.delete_allocations, _M, status=204),
)


def placement_api(service: Placement) -> Api:
    return Api(
        name="placement",
        prefix="/placement",
        routes=ROUTES,
        service=service,
        policy=POLICY,
        faults=Faults(errors_fault),
        versions=VERSIONS,
    )
