"""Secrets of a cloud: made at its first start, readable by the owner alone, never on a command line."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.settings import Settings

_BYTES: Final = 18


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    admin_password: str
    demo_password: str
    object_suffix: str
    """Mixed into the hashes that place objects: fixed for the life of the data."""
    cluster_key: str
    """Seals the token keys on their way between control and object nodes."""


def load_secrets(state_dir: Path) -> Secrets:
    """Read them, or make them if there are none; a field that is new in this release is made then."""
    path = state_dir / "secrets.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    names = [field.name for field in msgspec.structs.fields(Secrets)]
    missing = [name for name in names if name not in known]
    if missing:
        known |= {name: secrets.token_urlsafe(_BYTES) for name in missing}
        write_private(path, json.dumps(known, indent=2) + "\n")
    return Secrets(**{name: known[name] for name in names})


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, durable, mode 0600."""
    part = path.with_name(path.name + ".part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


_ENTRY: Final = """\
  {name}:
    auth:
      auth_url: {url}/identity/v3
      username: {user}
      password: {password}
      project_name: {project}
      user_domain_id: default
      project_domain_id: default
    region_name: {region}
    identity_api_version: 3
    volume_api_version: 3
"""


def write_clouds_yaml(path: Path, url: str, settings: Settings, known: Secrets) -> None:
    """Clouds `apus` (a member of an ordinary project) and `apus-admin`, for every OpenStack client."""
    entries = [("apus", "demo", known.demo_password, "demo"), ("apus-admin", "admin", known.admin_password, "admin")]
    text = "".join(
        _ENTRY.format(name=name, url=url, user=user, password=password, project=project, region=settings.region)
        for name, user, password, project in entries
    )
    write_private(path, "clouds:\n" + text)
