"""The JSON schemas that Glance serves: glanceclient validates and finds its fields with them."""

from __future__ import annotations

from typing import Any, Final

from apus.services.image.logic.change_image import CONTAINER_FORMATS, DISK_FORMATS
from apus.services.image.model import MemberStatus, Visibility

_UUID: Final = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"
_STATUSES: Final = ("queued", "saving", "active", "killed", "deleted", "uploading", "importing", "pending_delete",
                    "deactivated")  # fmt: skip


def _text(what: str, *, read_only: bool = False, null: bool = False, **more: Any) -> dict[str, Any]:
    kind: Any = ["null", "string"] if null else "string"
    return {"type": kind, "description": what, **({"readOnly": True} if read_only else {}), **more}


def _number(what: str, *, read_only: bool = False, null: bool = False) -> dict[str, Any]:
    kind: Any = ["null", "integer"] if null else "integer"
    return {"type": kind, "description": what, **({"readOnly": True} if read_only else {})}


_IMAGE_PROPERTIES: Final[dict[str, Any]] = {
    "id": _text("An identifier for the image", pattern=_UUID),
    "name": _text("Descriptive name for the image", null=True, maxLength=255),
    "status": _text("Status of the image", read_only=True, enum=list(_STATUSES)),
    "visibility": _text("Scope of image accessibility", enum=[one.value for one in Visibility]),
    "protected": {"type": "boolean", "description": "If true, image will not be deletable."},
    "os_hidden": {"type": "boolean", "description": "If true, image will not appear in default image list response."},
    "checksum": _text("md5 hash of image contents.", read_only=True, null=True, maxLength=32),
    "os_hash_algo": _text("Algorithm to calculate the os_hash_value", read_only=True, null=True, maxLength=64),
    "os_hash_value": _text("Hexdigest of the image contents", read_only=True, null=True, maxLength=128),
    "owner": _text("Owner of the image", null=True, maxLength=255),
    "size": _number("Size of image file in bytes", read_only=True, null=True),
    "virtual_size": _number("Virtual size of image in bytes", read_only=True, null=True),
    "container_format": _text("Format of the container", null=True, enum=[None, *CONTAINER_FORMATS]),
    "disk_format": _text("Format of the disk", null=True, enum=[None, *DISK_FORMATS]),
    "created_at": _text("Date and time of image registration", read_only=True),
    "updated_at": _text("Date and time of the last image modification", read_only=True),
    "tags": {
        "type": "array",
        "description": "List of strings related to the image",
        "items": {"type": "string", "maxLength": 255},
    },
    "min_ram": _number("Amount of ram (in MB) required to boot image."),
    "min_disk": _number("Amount of disk space (in GB) required to boot image."),
    "self": _text("An image self url", read_only=True),
    "file": _text("An image file url", read_only=True),
    "schema": _text("An image schema url", read_only=True),
    "stores": _text("Store in which image data resides", read_only=True),
    "kernel_id": _text("ID of image stored in Glance that should be used as the kernel.", null=True, is_base=False),
    "ramdisk_id": _text("ID of image stored in Glance that should be used as the ramdisk.", null=True, is_base=False),
    "architecture": _text("Operating system architecture", is_base=False),
    "os_distro": _text("Common name of operating system distribution", is_base=False),
    "os_version": _text("Operating system version as specified by the distributor.", is_base=False),
    "instance_uuid": _text("ID of the instance used to create this image.", is_base=False),
}

_MEMBER_PROPERTIES: Final[dict[str, Any]] = {
    "image_id": _text("An identifier for the image", pattern=_UUID),
    "member_id": _text("An identifier for the image member (tenantId)"),
    "status": _text("The status of this image member", enum=[one.value for one in MemberStatus]),
    "created_at": _text("Date and time of image member creation"),
    "updated_at": _text("Date and time of last modification of image member"),
    "schema": _text("The schema of this member", read_only=True),
}

_TASK_PROPERTIES: Final[dict[str, Any]] = {
    "id": _text("An identifier for the task", pattern=_UUID),
    "type": _text("The type of task", enum=["api_image_import"]),
    "status": _text("The current status of this task.", enum=["pending", "processing", "success", "failure"]),
    "input": {"type": ["null", "object"], "description": "The parameters required by task"},
    "result": {"type": ["null", "object"], "description": "The result of current task"},
    "owner": _text("An identifier for the owner of this task", null=True),
    "message": _text("Human-readable informative message"),
    "expires_at": _text("When the resource is subject to removal", null=True),
    "created_at": _text("When the task was made"),
    "updated_at": _text("When the task last changed"),
    "self": _text("A task self url", read_only=True),
    "schema": _text("A task schema url", read_only=True),
}


def _collection(name: str, one: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "properties": {
            name: {"type": "array", "items": one},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


_IMAGE: Final = {
    "name": "image",
    "properties": _IMAGE_PROPERTIES,
    "additionalProperties": {"type": "string"},
    "links": [
        {"rel": "self", "href": "{self}"},
        {"rel": "enclosure", "href": "{file}"},
        {"rel": "describedby", "href": "{schema}"},
    ],
}
_MEMBER: Final = {"name": "member", "properties": _MEMBER_PROPERTIES}
_TASK: Final = {"name": "task", "properties": _TASK_PROPERTIES}

SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "image": _IMAGE,
    "images": _collection("images", _IMAGE),
    "member": _MEMBER,
    "members": {
        "name": "members",
        "properties": {"members": {"type": "array", "items": _MEMBER}, "schema": {"type": "string"}},
    },
    "task": _TASK,
    "tasks": _collection("tasks", _TASK),
}
