"""Records of the image service, and how an image's status moves."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from apus.kernel.machine import Machine
from apus.kernel.record import Record
from apus.services.image.logic.inspect import Finding


class Status(enum.StrEnum):
    QUEUED = "queued"
    SAVING = "saving"
    """Its data is being uploaded."""
    UPLOADING = "uploading"
    """Data is staged, or being staged, for an import."""
    IMPORTING = "importing"
    ACTIVE = "active"
    DEACTIVATED = "deactivated"


class Event(enum.StrEnum):
    UPLOAD = "upload data to"
    STAGE = "stage data for"
    IMPORT = "import data into"
    DOWNLOAD = "web-download into"
    FAIL = "give up the data of"
    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    REACTIVATE = "reactivate"


MOVES: Final = Machine[Status, Event](
    "image",
    {
        (Status.QUEUED, Event.UPLOAD): Status.SAVING,
        (Status.QUEUED, Event.STAGE): Status.UPLOADING,
        (Status.QUEUED, Event.DOWNLOAD): Status.IMPORTING,
        (Status.UPLOADING, Event.IMPORT): Status.IMPORTING,
        (Status.SAVING, Event.ACTIVATE): Status.ACTIVE,
        (Status.IMPORTING, Event.ACTIVATE): Status.ACTIVE,
        (Status.SAVING, Event.FAIL): Status.QUEUED,
        (Status.UPLOADING, Event.FAIL): Status.QUEUED,
        (Status.IMPORTING, Event.FAIL): Status.QUEUED,
        (Status.ACTIVE, Event.DEACTIVATE): Status.DEACTIVATED,
        (Status.DEACTIVATED, Event.DEACTIVATE): Status.DEACTIVATED,
        (Status.DEACTIVATED, Event.REACTIVATE): Status.ACTIVE,
        (Status.ACTIVE, Event.REACTIVATE): Status.ACTIVE,
    },
)


class Visibility(enum.StrEnum):
    PUBLIC = "public"
    PRIVATE = "private"
    SHARED = "shared"
    COMMUNITY = "community"


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that are kept, and what was found in them as they passed."""

    object: str
    """The name that its segments begin with, in the service's container."""
    segment_bytes: int
    checksum_md5: str
    checksum_sha512: str
    finding: Finding


class Image(Record, frozen=True, kw_only=True):
    project_id: str | None
    """Its owner."""
    status: Status = Status.QUEUED
    visibility: Visibility = Visibility.SHARED
    name: str | None = None
    disk_format: str | None = None
    container_format: str | None = None
    min_disk_gib: int = 0
    min_memory_mib: int = 0
    protected: bool = False
    hidden: bool = False
    tags: tuple[str, ...] = ()
    properties: dict[str, str] = {}
    created_at_s: float
    updated_at_s: float
    size_bytes: int | None = None
    data: Data | None = None
    """What it is made of, once it is active."""
    staged: Data | None = None
    """What waits for its import."""
    incoming: str | None = None
    """The object that is being written for it now; its Debris row says whether the writer still lives."""
    failure: str | None = None
    """Why its last upload or import came to nothing."""


class MemberStatus(enum.StrEnum):
    PENDING = "pending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"


class Member(Record, frozen=True, kw_only=True):
    """A project that an image is shared with."""

    image_id: str
    project_id: str
    status: MemberStatus = MemberStatus.PENDING
    created_at_s: float
    updated_at_s: float


class Debris(Record, frozen=True, kw_only=True):
    """An object that must be gone after this time.  Its id is the object's name.

    Written before the first byte of the object is, put off while the writer lives, and taken back in the transaction
    that makes the object an image's data: so no crash leaves an object that nobody knows of.
    """

    after_s: float
    image_id: str
