"""Writes the config drive: the ISO 9660 disk that tells a guest who it is without a network.

Documents in, bytes out; which documents there are and what they say is decided elsewhere.  The names are those
that cloud-init and its like look for: Rock Ridge and Joliet both, since guests differ in which they read.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import pycdlib

from apus.kernel.errors import Invalid

LABEL: Final = "config-2"

VERSIONS: Final = ("2012-08-10", "2013-04-04", "2013-10-17", "2015-10-15", "2016-06-30", "2016-10-06", "2018-08-27",
                   "2020-10-14", "latest")  # fmt: skip
"""Directories under openstack/; all hold the same documents, since readers skip keys that they do not know."""

BYTES_MAX: Final = 16 << 20
"""Far more than 64 KiB of user data and the largest set of injected files; a drive is built in memory."""


class ConfigDrive(msgspec.Struct, frozen=True, kw_only=True):
    meta_data: Mapping[str, Any]
    network_data: Mapping[str, Any] = {}
    vendor_data: Mapping[str, Any] = {}
    user_data: bytes | None = None
    ec2_meta_data: Mapping[str, Any] | None = None
    content: Mapping[str, bytes] = {}
    """Injected files by the name that meta_data's `files` gives them, `0000` and so on."""


def build(drive: ConfigDrive) -> bytes:
    """The drive as an ISO image."""
    return iso(documents(drive))


def iso(files: Mapping[str, bytes]) -> bytes:
    """Files by path, as the ISO image that guests look for.  Raise Invalid when they are too much."""
    total = sum(len(data) for data in files.values())
    if total > BYTES_MAX:
        raise Invalid(
            "compute.config_drive_too_large",
            f"the config drive would hold {total} bytes; {BYTES_MAX} are possible",
            field="personality",
        )
    made_of = pycdlib.PyCdlib()
    made_of.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=LABEL, sys_ident="")
    made: dict[str, str] = {"": ""}
    for number, (path, data) in enumerate(sorted(files.items())):
        parent, _, name = path.rpartition("/")
        short = f"{_directory(made_of, made, parent)}/F{number:05d}.;1"
        made_of.add_fp(io.BytesIO(data), len(data), short, rr_name=name, joliet_path=f"/{path}")
    image = io.BytesIO()
    made_of.write_fp(image)
    made_of.close()
    return image.getvalue()


def documents(drive: ConfigDrive) -> dict[str, bytes]:
    """Every file of the drive by its path."""
    shared = {
        "meta_data.json": msgspec.json.encode(drive.meta_data),
        "network_data.json": msgspec.json.encode(drive.network_data),
        "vendor_data.json": msgspec.json.encode(drive.vendor_data),
        "vendor_data2.json": b"{}",
    }
    if drive.user_data is not None:
        shared["user_data"] = drive.user_data
    files = {f"openstack/{version}/{name}": data for version in VERSIONS for name, data in shared.items()}
    for name, data in drive.content.items():
        if not name or "/" in name or name.startswith("."):
            raise Invalid("compute.config_drive_name", f"{name!r} is no name of a content file", field="content")
        files[f"openstack/content/{name}"] = data
    if drive.ec2_meta_data is not None:
        files["ec2/latest/meta-data.json"] = msgspec.json.encode(drive.ec2_meta_data)
        if drive.user_data is not None:
            files["ec2/latest/user-data"] = drive.user_data
    return files


def _directory(iso: Any, made: dict[str, str], path: str) -> str:
    """The ISO name of a directory, made with its parents at first use (ISO names are short and plain)."""
    if path not in made:
        parent, _, name = path.rpartition("/")
        short = f"{_directory(iso, made, parent)}/D{len(made):05d}"
        iso.add_directory(short, rr_name=name, joliet_path=f"/{path}")
        made[path] = short
    return made[path]
