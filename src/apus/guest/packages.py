"""Fetches Debian packages and unpacks them into a directory, without installing anything on this machine.

apt checks the signatures.  Only `apt-get download` and `dpkg-deb` are used, so that no root is needed.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from apus.kernel.errors import Unavailable

DOWNLOAD_TIMEOUT_S: Final = 600
"""A slow mirror may take minutes for the kernel's 27 MB; beyond that it is not answering."""


class BuildFailed(Unavailable):
    """A program that the build needs is absent or refused; the message says which and what it said."""


def run(argv: Sequence[str], *, cwd: Path | None = None, env: dict[str, str] | None = None, stdin: str = "") -> str:
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S
        )
    except FileNotFoundError:
        raise BuildFailed("guest.no_program", f"{argv[0]} is not installed on this machine") from None
    if done.returncode != 0:
        raise BuildFailed(
            "guest.program_failed", f"{' '.join(argv[:6])} failed ({done.returncode}): {done.stderr.strip()[-2000:]}"
        )
    return done.stdout


def kernel_package() -> str:
    """The versioned package that linux-image-cloud-amd64 stands for today."""
    for line in run(["apt-cache", "depends", "linux-image-cloud-amd64"]).splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind == "Depends" and name.startswith("linux-image-"):
            return name
    raise BuildFailed("guest.no_kernel", "apt knows no linux-image-cloud-amd64: run `apt-get update` first")


def unpack(names: Sequence[str], work_dir: Path, tree_name: str) -> Path:
    """Fetch the packages of these names and unpack them all into one fresh tree, which is returned."""
    debs, tree = work_dir / "debs", work_dir / tree_name
    shutil.rmtree(tree, ignore_errors=True)
    debs.mkdir(parents=True, exist_ok=True)
    tree.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not list(debs.glob(f"{name}_*.deb"))]
    if missing:
        run(["apt-get", "-q", "-o", "APT::Sandbox::User=", "download", *missing], cwd=debs)
    for name in names:
        found = sorted(debs.glob(f"{name}_*.deb"))
        if not found:
            raise BuildFailed("guest.no_package", f"apt-get downloaded no {name}")
        run(["dpkg-deb", "-x", str(found[-1]), str(tree)])
    return tree
