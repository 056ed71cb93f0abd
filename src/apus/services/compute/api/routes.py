"""The Compute API as one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

from apus.services.compute.api import actions, aggregates, bodies, documents, estate, hosts, servers, things
from apus.services.compute.api.changes import OLDEST, VERSIONS
from apus.services.compute.api.faults import FAULTS
from apus.services.compute.policy import POLICY
from apus.services.compute.service import Compute
from apus.wire.app import Api
from apus.wire.route import Route
from apus.wire.versions import VersionChain

AnyBody = dict[str, Any]
_S: Final = "/v2.1/servers"
_F: Final = "/v2.1/flavors"
_A: Final = "/v2.1/os-aggregates"

ROUTES: Final = (
    Route("GET", "", documents.list_versions, "versions"),
    Route("GET", "/", documents.list_versions, "versions"),
    Route("GET", "/v2.1", documents.show_version, "versions"),
    Route("GET", "/v2.1/", documents.show_version, "versions"),
    Route("GET", "/v2.1/extensions", estate.list_extensions, "zone:show"),
    # servers
    Route("GET", _S, servers.list_servers, "server:list"),
    Route("POST", _S, servers.create_server, "server:create", takes=bodies.CreateServerBody, status=202),
    Route("GET", f"{_S}/detail", servers.list_servers_detail, "server:list"),
    Route("GET", f"{_S}/{{id}}", servers.show_server, "server:show"),
    Route("PUT", f"{_S}/{{id}}", servers.update_server, "server:update", takes=bodies.UpdateServerBody),
    Route("DELETE", f"{_S}/{{id}}", servers.delete_server, "server:delete", status=204),
    Route("POST", f"{_S}/{{id}}/action", actions.act, None, takes=AnyBody, status=202),
    Route("GET", f"{_S}/{{id}}/ips", servers.list_addresses, "server:show"),
    Route("GET", f"{_S}/{{id}}/ips/{{label}}", servers.show_addresses, "server:show"),
    Route("GET", f"{_S}/{{id}}/metadata", servers.list_metadata, "server:show"),
    Route("PUT", f"{_S}/{{id}}/metadata", servers.replace_metadata, "server:update", takes=bodies.MetadataBody),
    Route("POST", f"{_S}/{{id}}/metadata", servers.merge_metadata, "server:update", takes=bodies.MetadataBody),
    Route("GET", f"{_S}/{{id}}/metadata/{{key}}", servers.show_metadata_item, "server:show"),
    Route("PUT", f"{_S}/{{id}}/metadata/{{key}}", servers.set_metadata_item, "server:update",
          takes=bodies.MetadataItemBody),
    Route("DELETE", f"{_S}/{{id}}/metadata/{{key}}", servers.delete_metadata_item, "server:update", status=204),
    Route("GET", f"{_S}/{{id}}/tags", servers.list_tags, "server:show", since=(2, 26)),
    Route("PUT", f"{_S}/{{id}}/tags", servers.replace_tags, "server:update", takes=bodies.TagsBody, since=(2, 26)),
    Route("DELETE", f"{_S}/{{id}}/tags", servers.delete_tags, "server:update", status=204, since=(2, 26)),
    Route("GET", f"{_S}/{{id}}/tags/{{tag}}", servers.check_tag, "server:show", status=204, since=(2, 26)),
    Route("PUT", f"{_S}/{{id}}/tags/{{tag}}", servers.add_tag, "server:update", status=201, since=(2, 26)),
    Route("DELETE", f"{_S}/{{id}}/tags/{{tag}}", servers.delete_tag, "server:update", status=204, since=(2, 26)),
    Route("GET", f"{_S}/{{id}}/os-instance-actions", servers.list_actions, "server:show"),
    Route("GET", f"{_S}/{{id}}/os-instance-actions/{{request_id}}", servers.show_action, "server:show"),
    Route("GET", f"{_S}/{{id}}/os-security-groups", servers.list_security_groups, "server:show"),
    Route("GET", f"{_S}/{{id}}/os-interface", servers.list_interfaces, "server:show"),
    Route("GET", f"{_S}/{{id}}/os-interface/{{port_id}}", servers.show_interface, "server:show"),
    Route("GET", f"{_S}/{{id}}/os-volume_attachments", servers.list_volume_attachments, "server:show"),
    Route("GET", f"{_S}/{{id}}/diagnostics", servers.diagnostics, "hypervisor:show"),
    Route("GET", f"{_S}/{{id}}/os-server-password", servers.show_password, "server:show"),
    Route("DELETE", f"{_S}/{{id}}/os-server-password", servers.forget_password, "server:update", status=204),
    Route("GET", f"{_S}/{{id}}/migrations", hosts.list_server_migrations, "host:show", since=(2, 23)),
    Route("GET", f"{_S}/{{id}}/topology", servers.show_topology, "server:show", since=(2, 78)),
    # flavors
    Route("GET", _F, things.list_flavors, "flavor:show"),
    Route("POST", _F, things.create_flavor, "flavor:manage", takes=bodies.FlavorBody),
    Route("GET", f"{_F}/detail", things.list_flavors_detail, "flavor:show"),
    Route("GET", f"{_F}/{{id}}", things.show_flavor, "flavor:show"),
    Route("PUT", f"{_F}/{{id}}", things.update_flavor, "flavor:manage", takes=bodies.FlavorChangeBody, since=(2, 55)),
    Route("DELETE", f"{_F}/{{id}}", things.delete_flavor, "flavor:manage", status=202),
    Route("GET", f"{_F}/{{id}}/os-extra_specs", things.list_extra_specs, "flavor:show"),
    Route("POST", f"{_F}/{{id}}/os-extra_specs", things.create_extra_specs, "flavor:manage",
          takes=bodies.ExtraSpecsBody),
    Route("GET", f"{_F}/{{id}}/os-extra_specs/{{key}}", things.show_extra_spec, "flavor:show"),
    Route("PUT", f"{_F}/{{id}}/os-extra_specs/{{key}}", things.update_extra_spec, "flavor:manage", takes=AnyBody),
    Route("DELETE", f"{_F}/{{id}}/os-extra_specs/{{key}}", things.delete_extra_spec, "flavor:manage"),
    Route("GET", f"{_F}/{{id}}/os-flavor-access", things.list_flavor_access, "flavor:manage"),
    Route("POST", f"{_F}/{{id}}/action", things.act_on_flavor, "flavor:manage", takes=AnyBody),
    # key pairs and groups
    Route("GET", "/v2.1/os-keypairs", things.list_keypairs, "keypair:use"),
    Route("POST", "/v2.1/os-keypairs", things.create_keypair, "keypair:use", takes=bodies.KeypairBody),
    Route("GET", "/v2.1/os-keypairs/{name}", things.show_keypair, "keypair:use"),
    Route("DELETE", "/v2.1/os-keypairs/{name}", things.delete_keypair, "keypair:use"),
    Route("GET", "/v2.1/os-server-groups", things.list_groups, "group:show"),
    Route("POST", "/v2.1/os-server-groups", things.create_group, "group:manage", takes=bodies.GroupBody),
    Route("GET", "/v2.1/os-server-groups/{id}", things.show_group, "group:show"),
    Route("DELETE", "/v2.1/os-server-groups/{id}", things.delete_group, "group:manage", status=204),
    # limits, quotas, the estate
    Route("GET", "/v2.1/limits", estate.limits, "limits:show"),
    Route("GET", "/v2.1/os-quota-sets/{project_id}", estate.show_quota, "quota:show"),
    Route("GET", "/v2.1/os-quota-sets/{project_id}/defaults", estate.default_quota, "limits:show"),
    Route("GET", "/v2.1/os-quota-sets/{project_id}/detail", estate.detail_quota, "quota:show"),
    Route("PUT", "/v2.1/os-quota-sets/{project_id}", estate.update_quota, "quota:manage", takes=bodies.QuotaBody),
    Route("DELETE", "/v2.1/os-quota-sets/{project_id}", estate.reset_quota, "quota:manage", status=202),
    Route("GET", "/v2.1/os-quota-class-sets/{id}", estate.show_quota_class, "quota:manage"),
    Route("PUT", "/v2.1/os-quota-class-sets/{id}", estate.update_quota_class, "quota:manage",
          takes=bodies.QuotaClassBody),
    Route("GET", "/v2.1/os-hypervisors", estate.list_hypervisors, "hypervisor:show"),
    Route("GET", "/v2.1/os-hypervisors/detail", estate.list_hypervisors_detail, "hypervisor:show"),
    Route("GET", "/v2.1/os-hypervisors/statistics", estate.hypervisor_statistics, "hypervisor:show"),
    Route("GET", "/v2.1/os-hypervisors/{id}", estate.show_hypervisor, "hypervisor:show"),
    Route("GET", "/v2.1/os-hypervisors/{id}/search", estate.search_hypervisors, "hypervisor:show"),
    Route("GET", "/v2.1/os-hypervisors/{id}/servers", estate.hypervisor_servers, "hypervisor:show", until=(2, 52)),
    Route("GET", "/v2.1/os-hypervisors/{id}/uptime", estate.hypervisor_uptime, "hypervisor:show", until=(2, 87)),
    Route("GET", "/v2.1/os-migrations", hosts.list_migrations, "host:show"),
    Route("GET", "/v2.1/os-hosts", hosts.list_hosts, "host:show", until=(2, 42)),
    Route("GET", "/v2.1/os-hosts/{name}", hosts.show_host, "host:show", until=(2, 42)),
    Route("PUT", "/v2.1/os-hosts/{name}", hosts.update_host, "service:manage", takes=bodies.HostBody, until=(2, 42)),
    Route("GET", _A, aggregates.list_aggregates, "aggregate:show"),
    Route("POST", _A, aggregates.create_aggregate, "aggregate:manage", takes=bodies.NewAggregateBody),
    Route("GET", f"{_A}/{{id}}", aggregates.show_aggregate, "aggregate:show"),
    Route("PUT", f"{_A}/{{id}}", aggregates.update_aggregate, "aggregate:manage", takes=bodies.AggregateBody),
    Route("DELETE", f"{_A}/{{id}}", aggregates.delete_aggregate, "aggregate:manage"),
    Route("POST", f"{_A}/{{id}}/action", aggregates.act_on_aggregate, "aggregate:manage", takes=AnyBody),
    Route("GET", "/v2.1/os-services", estate.list_services, "service:show"),
    Route("PUT", "/v2.1/os-services/{id}", estate.update_service, "service:manage", takes=bodies.ServiceBody,
          since=(2, 53)),
    Route("DELETE", "/v2.1/os-services/{id}", estate.delete_service, "service:manage", status=204),
    Route("PUT", "/v2.1/os-services/{verb}", estate.act_on_service, "service:manage", takes=bodies.OldServiceBody,
          until=(2, 52)),
    Route("GET", "/v2.1/os-availability-zone", estate.list_zones, "zone:show"),
    Route("GET", "/v2.1/os-availability-zone/detail", estate.list_zones_detail, "zone:detail"),
    Route("GET", "/v2.1/os-simple-tenant-usage", estate.list_usage, "usage:all"),
    Route("GET", "/v2.1/os-simple-tenant-usage/{project_id}", estate.show_usage, "usage:show"),
)  # fmt: skip


_OLD: Final = tuple(
    dataclasses.replace(route, path=route.path.removeprefix("/v2.1"))
    for route in ROUTES
    if route.path.startswith("/v2.1/") and route.path != "/v2.1/" and route.since is None
)


def compute_apis(service: Compute) -> tuple[Api, Api]:
    """The API, and the same below `/v2` for clients from before microversions."""
    front = Route("GET", "", documents.show_oldest_version, "versions")
    slashed = dataclasses.replace(front, path="/")
    return (
        _api("/compute", ROUTES, service, VERSIONS),
        _api("/compute/v2", (front, slashed, *_OLD), service, OLDEST),
    )


def _api(prefix: str, routes: Sequence[Route], service: Compute, versions: VersionChain) -> Api:
    return Api(
        name="compute",
        prefix=prefix,
        routes=routes,
        service=service,
        policy=POLICY,
        faults=FAULTS,
        versions=versions,
    )
