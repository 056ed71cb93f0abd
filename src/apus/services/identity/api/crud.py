"""The five calls of a collection, once for all of them: list, create, show, update, delete.

What differs between collections is data (`Resource`).  Lists know Keystone's filters (`name=`, `name__contains=` …),
its paging (limit, marker) and its links.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import UNSET

from apus.kernel.record import Record
from apus.kernel.table import Query
from apus.services.identity.api.bodies import part
from apus.services.identity.model import NO_DOMAIN
from apus.services.identity.service import Identity
from apus.services.identity.service.keeper import Kind
from apus.wire.listing import next_href, page_of
from apus.wire.route import ApiRequest, Handler, Reply, Route

R = TypeVar("R", bound=Record)

_FALSE: Final = frozenset({"0", "false", "f", "no", "off", "n"})

_COMPARE: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "contains": lambda value, wanted: wanted in value,
    "icontains": lambda value, wanted: wanted.lower() in value.lower(),
    "startswith": lambda value, wanted: value.startswith(wanted),
    "istartswith": lambda value, wanted: value.lower().startswith(wanted.lower()),
    "endswith": lambda value, wanted: value.endswith(wanted),
    "iendswith": lambda value, wanted: value.lower().endswith(wanted.lower()),
}

PREFIX: Final = "/identity"


def base_of(request: ApiRequest) -> str:
    return f"{request.base_url}{PREFIX}/v3"


def identity_of(request: ApiRequest) -> Identity:
    service: Identity = request.service
    return service


@dataclasses.dataclass(frozen=True, slots=True)
class Resource(Generic[R]):
    kind: Kind[R]
    path: str
    """Below the prefix: /v3/users."""
    envelope: str
    collection: str
    new: type
    change: type
    create: Callable[[ApiRequest, Any, dict[str, Any]], Awaitable[R]]
    view: Callable[[R, str], Mapping[str, Any]]
    update: Callable[[ApiRequest, str, Any, dict[str, Any]], Awaitable[R]] | None = None
    filters: Sequence[str] = ("name",)
    """Texts of the record that may be compared."""
    narrow: Callable[[ApiRequest, Query], Query] | None = None
    """Further conditions of a list."""


def query_of(request: ApiRequest, filters: Sequence[str], columns: Sequence[str]) -> Query:
    """Filters that are columns go to the database, the others are tests on the record."""
    where: dict[str, Any] = {}
    tests: list[Callable[[Any], bool]] = []
    for key, value in request.queries:
        field, _, compare = key.partition("__")
        if field == "enabled" and not compare:
            tests.append(_same("enabled", value.lower() not in _FALSE))
        elif field in filters and not compare:
            if field in columns:
                where[field] = value
            else:
                tests.append(_same(field, value))
        elif field in filters and compare in _COMPARE:
            tests.append(_compared(field, _COMPARE[compare], value))
    page = page_of(request)
    return Query(
        where=where,
        matches=all_of(tests),
        marker=page.marker,
        limit=page.limit if page.limit_given else None,
    )


def all_of(tests: Sequence[Callable[[Any], bool]]) -> Callable[[Any], bool] | None:
    return (lambda record: all(test(record) for test in tests)) if tests else None


def _same(field: str, wanted: Any) -> Callable[[Any], bool]:
    return lambda record: bool(getattr(record, field, None) == wanted)


def _compared(field: str, compare: Callable[[str, str], bool], wanted: str) -> Callable[[Any], bool]:
    return lambda record: compare(str(getattr(record, field, "") or ""), wanted)


def collection(
    request: ApiRequest, name: str, views: Sequence[Mapping[str, Any]], *, limit: int | None = None
) -> Reply:
    """A list in Keystone's form."""
    links: dict[str, str | None] = {
        "self": f"{request.base_url}{request.raw_path}" + (f"?{request.raw_query}" if request.raw_query else ""),
        "previous": None,
        "next": None,
    }
    body: dict[str, Any] = {name: views, "links": links}
    if limit is not None and len(views) == limit and views:
        links["next"] = next_href(request, str(views[-1]["id"]))
        body["truncated"] = True
    return Reply(body)


def changes_of(body: Any, record: Record) -> dict[str, Any]:
    """Fields that the body sets, as the record's."""
    given: dict[str, Any] = {}
    for field in msgspec.structs.fields(type(body)):
        value = getattr(body, field.name)
        if value is not UNSET and field.name in type(record).__struct_fields__:
            given[field.name] = tuple(value) if isinstance(value, list) else value
    if "domain_id" in given and given["domain_id"] is None:
        given["domain_id"] = NO_DOMAIN
    return given


def merged(record: R, body: Any, extra: dict[str, Any]) -> R:
    """The record with what the body sets; options are merged, a null takes one away."""
    given = changes_of(body, record)
    if "options" in given:
        both = {**getattr(record, "options", {}), **given["options"]}
        given["options"] = {key: value for key, value in both.items() if value is not None}
    if extra and "extra" in type(record).__struct_fields__:
        given["extra"] = {**getattr(record, "extra", {}), **extra}
    return msgspec.structs.replace(record, **given)


def crud_routes(resource: Resource[R]) -> list[Route]:
    word, plural = resource.kind.word, resource.kind.plural
    list_all, create, show, update, delete = _handlers(resource)
    one = f"{resource.path}/{{id}}"
    body = dict[str, Any]
    return [
        Route("GET", resource.path, list_all, f"identity:list_{plural}", name=f"list_{plural}"),
        Route("POST", resource.path, create, f"identity:create_{word}", body, 201, name=f"create_{word}"),
        Route("GET", one, show, f"identity:get_{word}", name=f"get_{word}"),
        Route("PATCH", one, update, f"identity:update_{word}", body, name=f"update_{word}"),
        Route("DELETE", one, delete, f"identity:delete_{word}", status=204, name=f"delete_{word}"),
    ]


def _handlers(resource: Resource[R]) -> tuple[Handler, Handler, Handler, Handler, Handler]:
    kind = resource.kind

    def reply(request: ApiRequest, record: R) -> Reply:
        return Reply({resource.envelope: resource.view(record, base_of(request))})

    async def list_all(request: ApiRequest) -> Reply:
        query = query_of(request, resource.filters, kind.table.columns)
        if resource.narrow is not None:
            query = resource.narrow(request, query)
        records = await identity_of(request).keeper.list(kind, request.who, query)
        base = base_of(request)
        views = [resource.view(record, base) for record in records]
        return collection(request, resource.collection, views, limit=query.limit)

    async def create(request: ApiRequest) -> Reply:
        body: Any
        body, extra = part(request, resource.envelope, resource.new)
        return reply(request, await resource.create(request, body, extra))

    async def show(request: ApiRequest) -> Reply:
        return reply(request, await identity_of(request).keeper.show(kind, request.who, request.params["id"]))

    async def update(request: ApiRequest) -> Reply:
        body: Any
        body, extra = part(request, resource.envelope, resource.change)
        id = request.params["id"]
        if resource.update is not None:
            return reply(request, await resource.update(request, id, body, extra))
        keeper = identity_of(request).keeper
        return reply(request, await keeper.update(kind, request.who, id, lambda record: merged(record, body, extra)))

    async def delete(request: ApiRequest) -> Reply:
        await identity_of(request).keeper.delete(kind, request.who, request.params["id"])
        return Reply()

    return list_all, create, show, update, delete
