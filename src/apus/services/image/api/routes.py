"""Glance v2, as one table.  The version is the path's; there are no microversions."""

from __future__ import annotations

from typing import Any, Final, cast

from apus.kernel.errors import Invalid, NotFound
from apus.services.image.api import bodies, views
from apus.services.image.api.faults import FAULTS
from apus.services.image.api.schemas import SCHEMAS
from apus.services.image.model import Event
from apus.services.image.service import POLICY, Images
from apus.wire.app import Api
from apus.wire.listing import next_query, whole_number
from apus.wire.route import ApiRequest, Reply, Route, decode_body, primed

PREFIX: Final = "/image"
_JSON: Final = "application/json; charset=UTF-8"
_BYTES: Final = "application/octet-stream"
_TASKS_MAX: Final = 1000


def image_api(images: Images) -> Api:
    """The door: Glance v2 under /image."""
    return Api(name="image", prefix=PREFIX, routes=ROUTES, service=images, policy=POLICY, faults=FAULTS)


def _images(request: ApiRequest) -> Images:
    return cast(Images, request.service)


# --------------------------------------------------------------------------------------- discovery, schemas, info
async def versions(request: ApiRequest) -> Reply:
    return Reply(views.versions_view(request.base_url + PREFIX))


async def schema(request: ApiRequest) -> Reply:
    found = SCHEMAS.get(request.params["name"])
    if found is None:
        raise NotFound("image.no_schema", f"There is no schema {request.params['name'][:80]!r}.")
    return Reply(found)


async def import_info(request: ApiRequest) -> Reply:
    return Reply(views.import_info(bodies.METHODS))


async def stores(request: ApiRequest) -> Reply:
    return Reply({"stores": [{"id": views.STORE, "default": "true", "description": "The cloud's object storage"}]})


async def stores_detail(request: ApiRequest) -> Reply:
    one = {"id": views.STORE, "default": "true", "type": "object", "weight": 0, "properties": {}}
    return Reply({"stores": [one]})


async def usage(request: ApiRequest) -> Reply:
    service = _images(request)
    found, settings = await service.usage(request.who), service.settings
    mib_max = settings.project_bytes_max if settings.project_bytes_max < 0 else settings.project_bytes_max >> 20
    return Reply(
        {
            "usage": {
                "image_size_total": {"usage": found.total_bytes >> 20, "limit": mib_max},
                "image_stage_total": {"usage": found.staged_bytes >> 20, "limit": mib_max},
                "image_count_total": {"usage": found.images, "limit": settings.project_images_max},
                "image_count_uploading": {"usage": found.in_transit, "limit": -1},
            }
        }
    )


# -------------------------------------------------------------------------------------------------------- images
async def create_image(request: ApiRequest) -> Reply:
    image = await _images(request).create(request.who, bodies.create_of(request.body))
    headers = {
        "Location": f"{request.base_url}{PREFIX}/v2/images/{image.id}",
        "OpenStack-image-import-methods": ",".join(bodies.METHODS),
        "OpenStack-image-store-ids": views.STORE,
    }
    return Reply(views.image_view(image), headers=headers, content_type=_JSON)


async def list_images(request: ApiRequest) -> Reply:
    query = bodies.query_of(request)
    found = await _images(request).list(request.who, query)
    first = "&".join(part for part in request.raw_query.split("&") if part and not part.startswith("marker="))
    body: dict[str, Any] = {
        "images": [views.image_view(image) for image in found],
        "first": "/v2/images" + (f"?{first}" if first else ""),
        "schema": "/v2/schemas/images",
    }
    if found and len(found) == query.limit:
        # without our prefix: clients put it behind the endpoint, which has it (openstacksdk: resource._get_next_link)
        body["next"] = f"/v2/images?{next_query(request, found[-1].id)}"
    return Reply(body, content_type=_JSON)


async def show_image(request: ApiRequest) -> Reply:
    image = await _images(request).get(request.who, request.params["id"])
    return Reply(views.image_view(image), content_type=_JSON)


async def change_image(request: ApiRequest) -> Reply:
    content_type = _content_type(request)
    if content_type not in (bodies.PATCH_2_1, bodies.PATCH_2_0):
        raise Invalid(
            "image.content_type",
            f"Content-Type {content_type or 'is missing'}; possible: {bodies.PATCH_2_1}, {bodies.PATCH_2_0}.",
        )
    body, service, image_id = decode_body(await request.read(), Any), _images(request), request.params["id"]
    shown = views.image_view(await service.get(request.who, image_id))
    image = await service.change(request.who, image_id, bodies.patch_of(content_type, body, shown))
    return Reply(views.image_view(image), content_type=_JSON)


async def delete_image(request: ApiRequest) -> Reply:
    await _images(request).delete(request.who, request.params["id"])
    return Reply()


async def add_tag(request: ApiRequest) -> Reply:
    await _images(request).add_tag(request.who, request.params["id"], request.params["tag"])
    return Reply()


async def drop_tag(request: ApiRequest) -> Reply:
    await _images(request).drop_tag(request.who, request.params["id"], request.params["tag"])
    return Reply()


async def deactivate(request: ApiRequest) -> Reply:
    await _images(request).switch(request.who, request.params["id"], Event.DEACTIVATE)
    return Reply()


async def reactivate(request: ApiRequest) -> Reply:
    await _images(request).switch(request.who, request.params["id"], Event.REACTIVATE)
    return Reply()


# --------------------------------------------------------------------------------------------------------- bytes
async def upload(request: ApiRequest) -> Reply:
    size = _incoming_size(request)
    await _images(request).upload(request.who, request.params["id"], request.stream(), size_bytes=size)
    return Reply()


async def stage(request: ApiRequest) -> Reply:
    size = _incoming_size(request)
    await _images(request).stage(request.who, request.params["id"], request.stream(), size_bytes=size)
    return Reply()


async def download(request: ApiRequest) -> Reply:
    service = _images(request)
    image = await service.download(request.who, request.params["id"])
    data = image.data
    if data is None:
        return Reply(status=204)  # as Glance: an image without data yet
    size = data.finding.size_bytes
    headers = {"Content-Length": str(size), "Content-MD5": data.checksum_md5, "Accept-Ranges": "bytes"}
    if size == 0:
        return Reply(b"", headers=headers, content_type=_BYTES)
    part = bodies.range_of(request.headers.get("range"), size)
    if part is None:
        return Reply(stream=await primed(service.contents(data)), headers=headers, content_type=_BYTES)
    offset, length = part
    headers = {
        "Content-Length": str(length),
        "Content-Range": f"bytes {offset}-{offset + length - 1}/{size}",
        "Accept-Ranges": "bytes",
    }
    stream = await primed(service.contents(data, offset=offset, length=length))
    return Reply(status=206, stream=stream, headers=headers, content_type=_BYTES)


async def start_import(request: ApiRequest) -> Reply:
    method, uri = bodies.import_of(request.body, (views.STORE,))
    await _images(request).start_import(request.who, request.params["id"], method, uri)
    return Reply()


def _content_type(request: ApiRequest) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _incoming_size(request: ApiRequest) -> int | None:
    """The size that the client declares, by either header; None for a chunked body."""
    content_type = _content_type(request)
    if content_type != _BYTES:
        raise Invalid("image.content_type", f"Content-Type {content_type or 'is missing'}; possible: {_BYTES}.")
    sizes = {
        whole_number(name, request.headers[name], minimum=0)
        for name in ("content-length", "x-openstack-image-size")
        if name in request.headers
    }
    if len(sizes) > 1:
        raise Invalid("image.size", "content-length and x-openstack-image-size differ.", field="x-openstack-image-size")
    return sizes.pop() if sizes else None


# ------------------------------------------------------------------------------------------------ members, tasks
async def add_member(request: ApiRequest) -> Reply:
    member = await _images(request).sharing.add(request.who, request.params["id"], request.body.member)
    return Reply(views.member_view(member), content_type=_JSON)


async def list_members(request: ApiRequest) -> Reply:
    found = await _images(request).sharing.members(request.who, request.params["id"])
    return Reply({"members": [views.member_view(member) for member in found], "schema": "/v2/schemas/members"})


async def show_member(request: ApiRequest) -> Reply:
    params = request.params
    return Reply(views.member_view(await _images(request).sharing.member(request.who, params["id"], params["member"])))


async def answer_member(request: ApiRequest) -> Reply:
    params, status = request.params, request.body.status
    member = await _images(request).sharing.answer(request.who, params["id"], params["member"], status)
    return Reply(views.member_view(member))


async def remove_member(request: ApiRequest) -> Reply:
    await _images(request).sharing.remove(request.who, request.params["id"], request.params["member"])
    return Reply()


async def image_tasks(request: ApiRequest) -> Reply:
    flows = await _images(request).tasks_of(request.who, request.params["id"])
    return Reply({"tasks": [views.task_view(flow) for flow in flows]})


async def list_tasks(request: ApiRequest) -> Reply:
    raw = request.query("limit")
    limit = _TASKS_MAX if raw is None else min(_TASKS_MAX, whole_number("limit", raw, minimum=0))
    flows = await _images(request).tasks(limit)
    return Reply(
        {
            "tasks": [views.task_view(flow, whole=False) for flow in flows],
            "first": "/v2/tasks",
            "schema": "/v2/schemas/tasks",
        }
    )


async def show_task(request: ApiRequest) -> Reply:
    return Reply(views.task_view(await _images(request).task(request.params["id"])))


ROUTES: Final = (
    Route("GET", "", to=versions, may="image:versions", status=300),
    Route("GET", "/", to=versions, may="image:versions", status=300),
    Route("GET", "/versions", to=versions, may="image:versions"),
    Route("GET", "/v2/schemas/{name}", to=schema, may="image:schemas"),
    Route("GET", "/v2/info/import", to=import_info, may="image:info"),
    Route("GET", "/v2/info/stores", to=stores, may="image:info"),
    Route("GET", "/v2/info/stores/detail", to=stores_detail, may="store:detail"),
    Route("GET", "/v2/info/usage", to=usage, may="image:info"),
    Route("GET", "/v2/images", to=list_images, may="image:list"),
    Route("POST", "/v2/images", to=create_image, may="image:create", takes=dict[str, Any], status=201),
    Route("GET", "/v2/images/{id}", to=show_image, may="image:show"),
    Route("PATCH", "/v2/images/{id}", to=change_image, may="image:change"),
    Route("DELETE", "/v2/images/{id}", to=delete_image, may="image:delete", status=204),
    Route("PUT", "/v2/images/{id}/file", to=upload, may="image:upload", status=204),
    Route("GET", "/v2/images/{id}/file", to=download, may="image:download"),
    Route("PUT", "/v2/images/{id}/stage", to=stage, may="image:upload", status=204),
    Route("POST", "/v2/images/{id}/import", to=start_import, may="image:upload", takes=bodies.ImportBody, status=202),
    Route("PUT", "/v2/images/{id}/tags/{tag}", to=add_tag, may="image:change", status=204),
    Route("DELETE", "/v2/images/{id}/tags/{tag}", to=drop_tag, may="image:change", status=204),
    Route("POST", "/v2/images/{id}/actions/deactivate", to=deactivate, may="image:deactivate", status=204),
    Route("POST", "/v2/images/{id}/actions/reactivate", to=reactivate, may="image:reactivate", status=204),
    Route("GET", "/v2/images/{id}/members", to=list_members, may="member:list"),
    Route("POST", "/v2/images/{id}/members", to=add_member, may="member:create", takes=bodies.MemberBody),
    Route("GET", "/v2/images/{id}/members/{member}", to=show_member, may="member:show"),
    Route("PUT", "/v2/images/{id}/members/{member}", to=answer_member, may="member:update", takes=bodies.MemberAnswer),
    Route("DELETE", "/v2/images/{id}/members/{member}", to=remove_member, may="member:delete", status=204),
    Route("GET", "/v2/images/{id}/tasks", to=image_tasks, may="image:show"),
    Route("GET", "/v2/tasks", to=list_tasks, may="task:list"),
    Route("GET", "/v2/tasks/{id}", to=show_task, may="task:list"),
)
