"""The `apus` command: one file per group of sub-commands; nothing heavy is imported before it is needed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from apus import __version__
from apus.cli import cloud, doctor, host, image, node, objects, server
from apus.kernel.errors import CloudError

app = typer.Typer(
    name="apus",
    help="A cloud operating system in one package.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich takes 0.3 s to import: only tables pay for it
    pretty_exceptions_enable=False,
)
cloud.register(app)
doctor.register(app)
node.register(app)
server.register(app)
app.add_typer(image.app, name="image", help="Build and import images.")
app.add_typer(host.app, name="host", help="The hosts of the cloud.")
app.add_typer(objects.app, name="object", help="The object store: its repair, drives and ring.")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"apus {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A cloud operating system in one package."""


def run() -> None:
    """The console script.  A refusal is one line on stderr and exit code 1, never a traceback."""
    try:
        app()
    except CloudError as error:
        typer.secho(f"apus: {error.shown}", fg=typer.colors.RED, err=True)
        sys.exit(1)
