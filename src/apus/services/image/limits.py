"""Every bound of the image service, with its reason."""

from __future__ import annotations

from typing import Final

import msgspec

TAGS_MAX: Final = 128
"""As Glance: image_tag_quota."""
PROPERTIES_MAX: Final = 128
"""As Glance: image_property_quota."""
MEMBERS_MAX: Final = 128
"""As Glance: image_member_quota."""
NAME_MAX: Final = 255
VALUE_MAX: Final = 65_535
"""Of a custom property: a TEXT column in Glance."""
PAGE_DEFAULT: Final = 25
"""As Glance: limit_param_default."""

CHUNK_BYTES: Final = 1 << 20
"""Bytes are hashed and written by the mebibyte: large enough that a thread pays, small enough to hold many uploads."""

WRITER_LEASE_S: Final = 300.0
"""An upload that moved nothing for so long is dead.  Longer than any pause of a client worth waiting for."""
WRITER_BEAT_S: Final = 30.0

STAGED_FOR_S: Final = 24 * 3600.0
"""Staged data that nobody imports within a day is removed."""

DOWNLOAD_WITHIN_S: Final = 3600.0
ANSWER_WITHIN_S: Final = 20.0
"""A source that did not answer for so long is given up, and the image's owner told; what breaks later is retried."""
REDIRECTS_MAX: Final = 3


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may change."""

    image_size_max_bytes: int = 1 << 40
    """As Glance: image_size_cap."""
    segment_bytes: int = 1 << 30
    """Larger images are kept as several objects: one object is at most 5 GiB, and a repair moves whole objects."""
    web_download_private_targets: bool = False
    """Let web-download fetch from loopback, link-local and private addresses."""
    project_images_max: int = -1
    """Images of one project; -1: no limit."""
    project_bytes_max: int = -1
    """Bytes of all images of one project together; -1: no limit."""
