"""Where things are: the state directory, its files, and the processes of the cloud that lives there."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import secrets
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from apus.kernel.errors import CloudError, Conflict, Invalid, NotFound, Unavailable
from apus.kernel.settings import Settings, load_settings

StateDir = Annotated[
    Path | None, typer.Option("--state-dir", help="Where this cloud keeps everything.", envvar="APUS_STATE_DIR")
]


def default_state_dir() -> Path:
    """`/var/lib/apus` as root, `~/.local/state/apus` else."""
    if os.geteuid() == 0:
        return Path("/var/lib/apus")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "apus"


@dataclasses.dataclass(frozen=True, slots=True)
class Cloud:
    """One cloud on this machine, by its state directory."""

    state_dir: Path

    @property
    def settings_path(self) -> Path:
        return self.state_dir / "apus.toml"

    @property
    def clouds_yaml(self) -> Path:
        return self.state_dir / "clouds.yaml"

    def settings(self) -> Settings:
        if not self.settings_path.exists():
            raise Invalid("cli.no_cloud", f"There is no cloud in {self.state_dir}; `apus up` makes one.")
        return load_settings(self.settings_path)

    def first_settings(self) -> Settings:
        """To start with: those of the file, if there is one.  A cloud that nobody has started yet gets its id."""
        settings = self.settings() if self.settings_path.exists() else Settings()
        return settings if settings.cloud_id else msgspec.structs.replace(settings, cloud_id=secrets.token_hex(4))

    def log_path(self, name: str) -> Path:
        return self.state_dir / "log" / f"{name}.log"

    def supervisor_pid(self) -> int | None:
        """The supervisor's pid, if it holds its lock."""
        path = self.state_dir / "run" / "supervisor.lock"
        try:
            handle = os.open(path, os.O_RDWR)
        except OSError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(handle, 32).decode().strip()
            return int(text) if text.isdigit() else None
        finally:
            os.close(handle)
        return None

    def url(self) -> str:
        settings = self.settings()
        host = "127.0.0.1" if settings.bind in ("0.0.0.0", "::") else settings.bind  # noqa: S104 - compared, not bound
        return f"http://{host}:{settings.port}"

    @property
    def status_path(self) -> str:
        """Where this cloud says how it feels."""
        return "/apus/v1/object/status" if self.settings().alone else "/apus/v1/status"

    def secrets(self) -> dict[str, str]:
        return dict(json.loads((self.state_dir / "secrets.json").read_text()))

    def get(self, path: str, *, token: str | None = None, timeout_s: float = 5.0) -> Any:
        """JSON from our own API.  Raises OSError when nothing answers."""
        request = urllib.request.Request(self.url() + path, headers={"X-Auth-Token": token} if token else {})  # noqa: S310
        with urllib.request.urlopen(request, timeout=timeout_s) as reply:  # noqa: S310 - our own http URL
            return json.loads(reply.read())

    def ask(self, method: str, path: str, body: Any = None, *, timeout_s: float = 60.0) -> Any:
        """The same as the administrator, with a body of JSON.  Raises the error of the API, or Unavailable."""
        data = None if body is None else json.dumps(body).encode()
        try:
            headers = {"X-Auth-Token": self.admin_token(), "Content-Type": "application/json"}
            request = urllib.request.Request(self.url() + path, data=data, headers=headers, method=method)  # noqa: S310
            with urllib.request.urlopen(request, timeout=timeout_s) as reply:  # noqa: S310 - our own http URL
                return json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as error:
            raise refusal_of(error) from error
        except OSError as error:
            raise Unavailable(
                "cli.no_answer", f"{self.url()} does not answer ({error}); `apus doctor` looks why."
            ) from error

    def admin_token(self) -> str:
        """A token of the administrator.  Raises OSError when nothing answers."""
        return self.token("admin")

    def token(self, name: str) -> str:
        """A token of a user that the cloud began with, in the project of the same name: `admin` or `demo`."""
        user = {"name": name, "domain": {"id": "default"}, "password": self.secrets()[f"{name}_password"]}
        body = {
            "auth": {
                "identity": {"methods": ["password"], "password": {"user": user}},
                "scope": {"project": {"name": name, "domain": {"id": "default"}}},
            }
        }
        request = urllib.request.Request(  # noqa: S310 - our own http URL
            self.url() + "/identity/v3/auth/tokens",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
            return str(reply.headers["X-Subject-Token"])


def refusal_of(error: urllib.error.HTTPError) -> CloudError:
    """What our own API refused, as the error that it was."""
    try:
        first = json.loads(error.read())["errors"][0]
    except (ValueError, KeyError, IndexError, TypeError):
        return Unavailable("cli.odd_answer", f"{error.url} answered {error.code} {error.reason}.")
    families: dict[int, type[CloudError]] = {400: Invalid, 404: NotFound, 409: Conflict}
    return families.get(error.code, Unavailable)(first["code"], first["detail"])


def cloud_at(state_dir: Path | None) -> Cloud:
    return Cloud((state_dir or default_state_dir()).absolute())


def silence_of(host: dict[str, Any]) -> str:
    """How long a host has said nothing, in words."""
    silent_s = host["silent_s"]
    return "never heard" if silent_s is None else f"silent for {silent_s:.0f} s"
