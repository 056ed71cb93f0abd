"""`apus image build | import`: the micro guest, and images from files."""

from __future__ import annotations

import json
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated

import typer

from apus.cli.places import StateDir, cloud_at
from apus.kernel.errors import Invalid, Unavailable

app = typer.Typer(no_args_is_help=True)


@app.command()
def build(
    what: Annotated[str, typer.Argument(help="micro: the small guest of Debian packages.")] = "micro",
    out: Annotated[Path | None, typer.Option(help="Where to put it; the usual cache unless given.")] = None,
) -> None:
    """Build a guest image.  The same packages give the same bytes."""
    if what != "micro":
        raise Invalid("cli.image", f"There is no recipe for {what!r}; there is: micro.")
    from apus.guest.build import build_micro
    from apus.guest.places import micro_dir

    target = out or micro_dir()
    with tempfile.TemporaryDirectory(prefix="apus-micro-") as work:
        image = build_micro(target, Path(work), lambda line: typer.echo(f"- {line}"))
    typer.echo(f"built in {target}: {image}")


@app.command("import")
def import_image(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The image's file.")],
    name: Annotated[str | None, typer.Option(help="Its name; the file's unless given.")] = None,
    disk_format: Annotated[str, typer.Option(help="qcow2 | raw | iso | …")] = "qcow2",
    public: Annotated[bool, typer.Option(help="Visible to all projects.")] = True,
    state_dir: StateDir = None,
) -> None:
    """Upload a file as an image of this cloud."""
    cloud = cloud_at(state_dir)
    body = {
        "name": name or file.stem,
        "disk_format": disk_format,
        "container_format": "bare",
        "visibility": "public" if public else "private",
    }
    try:
        token = cloud.admin_token()
        headers = {"X-Auth-Token": token, "Content-Type": "application/json"}
        made = _send(cloud.url() + "/image/v2/images", json.dumps(body).encode(), headers, "POST")
        image = json.loads(made)
        headers = {"X-Auth-Token": token, "Content-Type": "application/octet-stream"}
        headers["Content-Length"] = str(file.stat().st_size)
        with file.open("rb") as data:
            _send(f"{cloud.url()}/image/v2/images/{image['id']}/file", data, headers, "PUT")
    except OSError as error:
        reason = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else str(error)
        raise Unavailable("cli.import", f"{file} was not imported: {reason.strip()}") from error
    typer.echo(f"{image['id']}  {body['name']}")


def _send(url: str, data: object, headers: dict[str, str], method: str) -> bytes:
    request = urllib.request.Request(url, data=data, headers=headers, method=method)  # type: ignore[arg-type]  # noqa: S310
    with urllib.request.urlopen(request, timeout=600) as reply:  # noqa: S310 - our own http URL
        return bytes(reply.read())
