"""`python -m apus` is the `apus` command."""

from apus.cli.main import run

run()
