"""Secrets of a cloud: made at its first start, readable by the owner alone, never on a command line."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.errors import Invalid
from apus.kernel.settings import Settings
from apus.services.object.logic.sealing import KEY_BYTES, Keyring, parse_keyring

_BYTES: Final = 18


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    admin_password: str
    demo_password: str
    alt_demo_password: str
    """Of the second tenant of an object store that stands alone."""
    cluster_key: str
    """Seals the token keys on their way between control and object nodes."""


def load_secrets(state_dir: Path) -> Secrets:
    """Read them, or make them if there are none; a field that is new in this release is made then."""
    path = state_dir / "secrets.json"
    with _alone_in(state_dir):  # two processes of a first start must not each make their own
        known = _known(path)
        names = [field.name for field in msgspec.structs.fields(Secrets)]
        missing = [name for name in names if name not in known]
        if missing:
            known |= {name: secrets.token_urlsafe(_BYTES) for name in missing}
            write_private(path, json.dumps(known, indent=2) + "\n")
    return Secrets(**{name: known[name] for name in names})


def load_root_secrets(state_dir: Path, *, make: bool) -> Keyring | None:
    """What objects are encrypted under; None where nothing ever was.  `make` the first one if there is none."""
    path = state_dir / "keys" / "object-root"
    with _alone_in(state_dir):
        if make and not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            secret = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
            write_private(path, f"# NAME SECRET, one on each line; the last one encrypts, all decrypt.\n1 {secret}\n")
        return parse_keyring(path.read_text()) if path.exists() else None


def load_drive_key(state_dir: Path) -> bytes:
    """What object proxies and disk hosts prove to each other.  Raise Invalid where it cannot be known.

    It follows from the cluster's key, which disk hosts are not given: theirs is the file alone.
    """
    path = state_dir / "keys" / "object-drives"
    if (state_dir / "secrets.json").exists():
        cluster_key = load_secrets(state_dir).cluster_key.encode()
        key = hashlib.blake2b(b"drives of objects", key=cluster_key[:64], digest_size=32).hexdigest()
        if not path.exists() or path.read_text().strip() != key:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_private(path, key + "\n")
    try:
        return bytes.fromhex(path.read_text().strip())
    except FileNotFoundError:
        shown = f"--drive-key: {path} is not there; give the file keys/object-drives of a control node."
        raise Invalid("node.no_drive_key", shown, field="drive_key") from None
    except ValueError as error:
        raise Invalid("node.drive_key", f"{path} is damaged: {error}.", field="drive_key") from error


def _known(path: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as error:
        shown = f"{path} is damaged ({error}); put the copy from your backup in its place."
        raise Invalid("secrets.damaged", shown) from error


def tenants(settings: Settings, known: Secrets) -> dict[str, str]:
    """Passwords of the tenants that a cloud begins with, by their name: a store alone has two, to share between."""
    first = {"demo": known.demo_password}
    return {**first, "alt_demo": known.alt_demo_password} if settings.alone else first


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, durable, mode 0600."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


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
    region = json.dumps(settings.region)  # a JSON string is a YAML one, whatever is in it
    entries = [("apus", "demo", known.demo_password, "demo"), ("apus-admin", "admin", known.admin_password, "admin")]
    text = "".join(
        _ENTRY.format(name=name, url=url, user=user, password=json.dumps(password), project=project, region=region)
        for name, user, password, project in entries
    )
    write_private(path, "clouds:\n" + text)
