"""What clients send, in Glance's words, lifted to ours.  Source: the Image API reference, v2.

An image's body is flat: its own fields and the user's custom properties side by side.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import msgspec

from apus.kernel.errors import Conflict, Forbidden, Invalid
from apus.services.image import limits
from apus.services.image.logic.change_image import (
    CONTAINER_FORMATS,
    DISK_FORMATS,
    FieldSet,
    Op,
    PropertyDropped,
    PropertySet,
)
from apus.services.image.logic.choose_images import COMPARE, ImageQuery
from apus.services.image.model import MemberStatus, Visibility
from apus.services.image.service import CreateImage
from apus.wire.listing import boolean, page_of, whole_number
from apus.wire.route import ApiRequest

Name = Annotated[str, msgspec.Meta(max_length=limits.NAME_MAX)]
Gib = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]

FIELDS: Final[Mapping[str, tuple[str, Any]]] = {
    "name": ("name", Name | None),
    "visibility": ("visibility", Visibility),
    "protected": ("protected", bool),
    "os_hidden": ("hidden", bool),
    "disk_format": ("disk_format", Literal[(*DISK_FORMATS, None)]),
    "container_format": ("container_format", Literal[(*CONTAINER_FORMATS, None)]),
    "min_disk": ("min_disk_gib", Gib),
    "min_ram": ("min_memory_mib", Gib),
    "tags": ("tags", list[Name]),
    "owner": ("project_id", Name),
}
"""Client's name -> (our field, its type)."""

READ_ONLY: Final = frozenset(
    {
        "checksum", "created_at", "direct_url", "file", "id", "locations", "os_hash_algo", "os_hash_value", "schema",
        "self", "size", "status", "stores", "updated_at", "virtual_size",
    }
)  # fmt: skip
_NULLABLE_PROPERTIES: Final = frozenset({"kernel_id", "ramdisk_id"})
_RESERVED: Final = "os_glance"
PATCH_2_1: Final = "application/openstack-images-v2.1-json-patch"
PATCH_2_0: Final = "application/openstack-images-v2.0-json-patch"
_PATCH_OPS_MAX: Final = 1000


def create_of(body: dict[str, Any]) -> CreateImage:
    ops: list[Op] = []
    for name, value in body.items():
        if name == "id":
            continue
        op = _set_op(name, value)
        if op is not None:
            ops.append(op)
    image_id = body.get("id")
    if image_id is not None and not isinstance(image_id, str):
        raise _no_match("id", "a UUID as a string is expected")
    return CreateImage(id=image_id, ops=tuple(ops))


def _set_op(name: str, value: Any, *, must_exist: bool = False) -> Op | None:
    _check_writable(name)
    if any(
        "\0" in text for text in (name, value, *(value if isinstance(value, list) else ())) if isinstance(text, str)
    ):
        raise _no_match(name.replace("\0", ""), "NUL characters are not possible")
    if name in FIELDS:
        field, type_ = FIELDS[name]
        try:
            return FieldSet(field, msgspec.convert(value, type_), name)
        except msgspec.ValidationError as error:
            raise _no_match(name, str(error).replace("`", "")) from None
    if not 0 < len(name) <= limits.NAME_MAX:
        raise _no_match(name[:40], f"a property's name has 1 to {limits.NAME_MAX} characters")
    if value is None and name in _NULLABLE_PROPERTIES:
        return None
    if not isinstance(value, str):
        raise _no_match(name, f"{value!r} is not of type 'string'"[:200])
    if len(value) > limits.VALUE_MAX:
        raise _no_match(name, f"a property's value has at most {limits.VALUE_MAX} characters")
    return PropertySet(name, value, must_exist)


def _check_writable(name: str) -> None:
    if name in READ_ONLY:
        raise Forbidden("image.read_only", f"Attribute '{name}' is read-only.")
    if name.startswith(_RESERVED):
        raise Forbidden("image.reserved", f"Attribute '{name}' is reserved.")


def _no_match(name: str, why: str) -> Invalid:
    return Invalid(
        "image.schema", f"Provided object does not match schema 'image': {why}. Failed property: {name}", field=name
    )


# ------------------------------------------------------------------------------------------------------ patch
def patch_of(content_type: str, body: Any, shown: Mapping[str, Any]) -> list[Op]:
    """`shown`: the image as the client saw it.

    openstacksdk takes fields that it does not know for custom properties: an update that names any custom property
    removes `stores` and `os_glance_*`, or sends them back (image.v2.image.Image).  That changes nothing here.
    """
    if not isinstance(body, list):
        raise Invalid("image.patch", "Request body must be a JSON array of operation objects.")
    if len(body) > _PATCH_OPS_MAX:
        raise Invalid("image.patch", f"At most {_PATCH_OPS_MAX} operations are possible in one request.")
    read = _op_2_0 if content_type == PATCH_2_0 else _op_2_1
    ops = []
    for item in body:
        if not isinstance(item, dict):
            raise Invalid("image.patch", "Operations must be JSON objects.")
        verb, name, value = read(item)
        if _is_echo(verb, name, value, shown):
            continue
        op = _patch_op(verb, name, value)
        if op is not None:
            ops.append(op)
    return ops


def _is_echo(verb: str, name: str, value: Any, shown: Mapping[str, Any]) -> bool:
    ours = name == "stores" or name.startswith(_RESERVED)
    return ours and name in shown and (verb == "remove" or shown[name] == value)


def _op_2_1(item: dict[str, Any]) -> tuple[str, str, Any]:
    verb, path = item.get("op"), item.get("path")
    if verb not in ("add", "replace", "remove"):
        raise Invalid("image.patch", f"op: {verb!r} is not possible; possible: add, replace, remove.", field="op")
    return verb, _name_in(path), _value_of(item, verb)


def _op_2_0(item: dict[str, Any]) -> tuple[str, str, Any]:
    verbs = [verb for verb in ("add", "replace", "remove") if verb in item]
    if len(verbs) != 1:
        raise Invalid("image.patch", "An operation has exactly one of: add, replace, remove.", field="op")
    return verbs[0], _name_in(item[verbs[0]]), _value_of(item, verbs[0])


def _value_of(item: dict[str, Any], verb: str) -> Any:
    if verb != "remove" and "value" not in item:
        raise Invalid("image.patch", f'Operation "{verb}" requires a member named "value".', field="value")
    return item.get("value")


def _name_in(path: Any) -> str:
    """A JSON pointer of one level (RFC 6901)."""
    if not isinstance(path, str):
        raise Invalid("image.patch", "path: a string is expected.", field="path")
    if not path.startswith("/") or "//" in path or path.endswith("/") or re.search("~(?![01])", path):
        raise Invalid("image.patch", f"path: {path[:80]!r} is not a JSON pointer.", field="path")
    parts = [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    if len(parts) == 2 and parts[0] in READ_ONLY:
        raise Forbidden("image.read_only", f"Attribute '{parts[0]}' is read-only.")
    if len(parts) != 1:
        raise Invalid("image.patch", f"path: {path[:80]!r} is not a property of an image.", field="path")
    return parts[0]


def _patch_op(verb: str, name: str, value: Any) -> Op | None:
    if verb != "remove":
        return _set_op(name, value, must_exist=verb == "replace" and name not in FIELDS)
    _check_writable(name)
    if name in FIELDS:
        raise Forbidden("image.not_removable", f"Attribute '{name}' may not be removed.")
    return PropertyDropped(name)


# -------------------------------------------------------------------------------------------- members, import
class MemberBody(msgspec.Struct):
    member: Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_MAX)]


class MemberAnswer(msgspec.Struct):
    status: MemberStatus


class ImportMethod(msgspec.Struct):
    name: str
    uri: str | None = None


class ImportBody(msgspec.Struct):
    method: ImportMethod
    stores: list[str] = []
    all_stores: bool = False
    all_stores_must_succeed: bool = True


METHODS: Final = ("glance-direct", "web-download")


def import_of(body: ImportBody, stores: Sequence[str]) -> tuple[str, str | None]:
    if body.method.name == "copy-image":
        raise Conflict("image.one_store", "copy-image needs a second store; this cloud keeps all images in one.")
    if body.method.name not in METHODS:
        raise Invalid(
            "image.method",
            f"method.name: {body.method.name[:80]!r} is not enabled; possible: {', '.join(METHODS)}.",
            field="method.name",
        )
    for store in body.stores:
        if store not in stores:
            raise Invalid("image.store", f"stores: there is no store {store[:80]!r}.", field="stores")
    return body.method.name, body.method.uri


# -------------------------------------------------------------------------------------------------------- lists
_SORT_KEYS: Final = {
    "name": "name", "status": "status", "container_format": "container_format", "disk_format": "disk_format",
    "size": "size_bytes", "id": "id", "created_at": "created_at_s", "updated_at": "updated_at_s",
    "min_ram": "min_memory_mib", "min_disk": "min_disk_gib", "owner": "project_id", "visibility": "visibility",
    "protected": "protected",
}  # fmt: skip
_AMONG: Final = {
    "id": "id", "name": "name", "status": "status", "container_format": "container_format",
    "disk_format": "disk_format",
}  # fmt: skip
_EXACT: Final = {"owner": "project_id"}
_NUMBERS: Final = {"min_ram": "min_memory_mib", "min_disk": "min_disk_gib"}
_PAGING: Final = frozenset({"limit", "marker", "sort", "sort_key", "sort_dir", "fields", "page_reverse"})


def query_of(request: ApiRequest) -> ImageQuery:
    """Every parameter that is not known is a custom property that must be equal: as Glance has it."""
    page = page_of(request, sort_keys=_SORT_KEYS)
    limit = page.limit if page.limit_given else limits.PAGE_DEFAULT
    if request.query("limit") is not None and whole_number("limit", request.query("limit") or "") == 0:
        limit = 0
    asked: dict[str, Any] = {}
    among: dict[str, frozenset[Any]] = {}
    times: list[tuple[str, str, float]] = []
    properties: dict[str, str] = {}
    tags: set[str] = set()
    for name, value in request.queries:
        if name in _PAGING:
            continue
        if name in _AMONG:
            among[_AMONG[name]] = frozenset(_values(name, value))
        elif name in _EXACT:
            among[_EXACT[name]] = frozenset({value})
        elif name in _NUMBERS:
            among[_NUMBERS[name]] = frozenset({whole_number(name, value)})
        elif name == "tag":
            tags.add(value)
        elif name in ("created_at", "updated_at"):
            times.append(_time(name, value))
        elif name in _READERS:
            asked.update(_READERS[name](name, value))
        else:
            properties[name] = value
    return ImageQuery(
        among=among,
        tags=frozenset(tags),
        times=times,
        properties=properties,
        sort=page.sort,
        marker=page.marker,
        limit=limit,
        **asked,
    )


def _values(name: str, value: str) -> list[str]:
    """`in:a,"b,c"`: values in quotes may hold commas."""
    if not value.startswith("in:"):
        return [value]
    rest = value[3:]
    found = re.fullmatch(r'(?:"[^"]*"|[^",]+)(?:,(?:"[^"]*"|[^",]+))*', rest)
    if found is None:
        raise Invalid("image.filter", f"Invalid filter value {rest[:80]!r} of {name}: check its quotes.", field=name)
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|([^",]+)', rest)]


def _time(name: str, value: str) -> tuple[str, str, float]:
    """`gt:2026-01-31T10:00:00Z`; without an operator it is `eq`."""
    how, colon, rest = value.partition(":")
    if not colon or how not in COMPARE:
        how, rest = "eq", value
    text = unquote(rest).strip()
    for form in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d"):
        try:
            return f"{name}_s", how, float(calendar.timegm(time.strptime(text, form)))
        except ValueError:
            continue
    raise Invalid("image.filter", f"{name}: {value[:80]!r} is not [operator:]ISO-8601 time.", field=name)


def _visibility(name: str, value: str) -> dict[str, Any]:
    if value == "all":
        return {"every_visibility": True}
    try:
        return {"visibility": Visibility(value)}
    except ValueError:
        raise Invalid("image.filter", f"Invalid visibility value: {value[:80]}", field=name) from None


def _member_status(name: str, value: str) -> dict[str, Any]:
    if value == "all":
        return {"member_status": None}
    try:
        return {"member_status": MemberStatus(value)}
    except ValueError:
        raise Invalid("image.filter", f"Invalid status: {value[:80]}", field=name) from None


_READERS: Final[Mapping[str, Callable[[str, str], dict[str, Any]]]] = {
    "visibility": _visibility,
    "member_status": _member_status,
    "size_min": lambda name, value: {"size_min_bytes": whole_number(name, value, minimum=0)},
    "size_max": lambda name, value: {"size_max_bytes": whole_number(name, value, minimum=0)},
    "protected": lambda name, value: {"protected": boolean(name, value)},
    "os_hidden": lambda name, value: {"hidden": boolean(name, value)},
}


# ------------------------------------------------------------------------------------------------------- ranges
class OutOfRange(Invalid):
    """416."""


def range_of(header: str | None, size: int) -> tuple[int, int] | None:
    """(offset, length) of one range (RFC 9110, 14.1); None when the whole is asked for.  Raise OutOfRange."""
    if header is None or not header.startswith("bytes=") or "," in header:
        return None
    found = re.fullmatch(r"bytes=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", header, re.ASCII)
    if found is None or not (found[1] or found[2]):
        return None
    first = int(found[1]) if found[1] else max(0, size - int(found[2]))
    last = min(int(found[2]), size - 1) if found[1] and found[2] else size - 1
    if found[1] and found[2] and int(found[2]) < int(found[1]):
        return None
    if first >= size or last < first:
        raise OutOfRange("image.range", f"Range {header} is outside of the image's {size} bytes.")
    return first, last - first + 1
