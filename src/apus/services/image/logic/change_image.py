"""What a change does to an image: applied op by op, in order, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from apus.kernel.errors import Conflict, Forbidden, Invalid, TooLarge
from apus.kernel.record import changed
from apus.services.image import limits
from apus.services.image.logic.inspect import ACCEPTED
from apus.services.image.model import Image, Status, Visibility

CONTAINER_FORMATS: Final = ("ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed")
DISK_FORMATS: Final = tuple(ACCEPTED)
_ONLY_WHILE_QUEUED: Final = frozenset({"disk_format", "container_format"})
_ONLY_ADMIN: Final = frozenset({"project_id"})


class FieldSet(msgspec.Struct, frozen=True):
    """One of the image's own fields gets this value; `shown` is the client's name for it."""

    field: str
    value: Any
    shown: str


class PropertySet(msgspec.Struct, frozen=True):
    name: str
    value: str
    must_exist: bool = False


class PropertyDropped(msgspec.Struct, frozen=True):
    name: str


Op = FieldSet | PropertySet | PropertyDropped


def change_image(image: Image, ops: Sequence[Op], *, is_admin: bool) -> Image:
    """Raise Forbidden, Conflict or Invalid; `updated_at_s` and the generation are the caller's."""
    for op in ops:
        if isinstance(op, FieldSet):
            image = _set_field(image, op, is_admin)
        elif isinstance(op, PropertySet):
            if op.must_exist and op.name not in image.properties:
                raise _no_property(op.name)
            image = changed(image, properties={**image.properties, op.name: op.value})
        else:
            if op.name not in image.properties:
                raise _no_property(op.name)
            kept = {name: value for name, value in image.properties.items() if name != op.name}
            image = changed(image, properties=kept)
    check_image(image)
    return image


def _set_field(image: Image, op: FieldSet, is_admin: bool) -> Image:
    if op.field in _ONLY_WHILE_QUEUED and image.status is not Status.QUEUED:
        raise Forbidden("image.not_queued", f"Attribute {op.shown} can be only replaced for a queued image.")
    if op.field in _ONLY_ADMIN and not is_admin:
        raise Forbidden("image.admin_field", f"Attribute {op.shown} is for an administrator to change.")
    if op.field == "visibility" and op.value is Visibility.PUBLIC and image.visibility is not op.value and not is_admin:
        raise Forbidden("image.publicize", "Making an image public is for an administrator.")
    value = tuple(dict.fromkeys(op.value)) if op.field == "tags" else op.value
    return changed(image, **{op.field: value})


def check_image(image: Image) -> None:
    """The bounds that hold whatever was changed."""
    if len(image.properties) > limits.PROPERTIES_MAX:
        raise TooLarge("image.properties", f"Attempted {len(image.properties)} properties, "
                       f"the limit is {limits.PROPERTIES_MAX}.")  # fmt: skip
    check_tags(image.tags)
    container, disk = image.container_format, image.disk_format
    if container in ("ami", "ari", "aki") and disk in ("ami", "ari", "aki") and container != disk:
        raise Invalid(
            "image.formats",
            f"disk_format {disk} and container_format {container} do not go together: they must be the same.",
            field="disk_format",
        )


def check_tags(tags: Sequence[str]) -> None:
    if len(tags) > limits.TAGS_MAX:
        raise TooLarge("image.tags", f"Attempted {len(tags)} tags, the limit is {limits.TAGS_MAX}.")
    for tag in tags:
        if not 0 < len(tag) <= limits.NAME_MAX:
            raise Invalid("image.tag", f"tags: {tag[:40]!r} is not 1 to {limits.NAME_MAX} characters.", field="tags")


def _no_property(name: str) -> Conflict:
    return Conflict("image.no_property", f"Property {name} does not exist.")
