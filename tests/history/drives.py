"""Four small file systems as drives, and what can befall each.  Needs root: each is a tmpfs that is mounted twice,
once for us and once where the store looks for its drive.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from random import Random
from typing import Final

NAMES: Final = "abcd"
FLIPS: Final = 20
"""Bytes turned over in one go."""


class Drives:
    def __init__(self, room: Path, size_mib: int = 512) -> None:
        self._room, self._size_mib = room, size_mib
        self._kept = dict[str, Path]()
        self._made = 0
        self._mounts: list[Path] = []
        for name in NAMES:
            self._kept[name] = self._file_system()
            self.path(name).mkdir(parents=True)
            self.come_back(name)

    def path(self, name: str) -> Path:
        """Where the store looks."""
        return self._room / "drives" / name

    @property
    def option(self) -> str:
        return ",".join(str(self.path(name)) for name in NAMES)

    def go_away(self, name: str) -> None:
        _run("umount", "-l", str(self.path(name)))

    def come_back(self, name: str) -> None:
        _run("mount", "--bind", str(self._kept[name]), str(self.path(name)))

    def snapshot(self, name: str) -> Path:
        """A copy of it as it is now, to come back as later.  The store goes on meanwhile, and may remove files."""

        def if_there(source: str, target: str) -> None:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(source, target)

        copy = self._file_system()
        shutil.copytree(self._kept[name], copy, dirs_exist_ok=True, copy_function=if_there)
        return copy

    def become(self, name: str, other: Path) -> None:
        """While it is away: another file system is what comes back, and this one is gone."""
        gone = self._kept[name]
        self._kept[name] = other
        _run("umount", "-l", str(gone))
        self._mounts.remove(gone)

    def empty(self, name: str) -> Path:
        """A new file system with the mark of this drive and nothing else: what an operator puts in its place."""
        fresh = self._file_system()
        shutil.copy2(self._kept[name] / "drive.json", fresh / "drive.json")
        assert json.loads((fresh / "drive.json").read_text())["drive"]
        return fresh

    def read_only(self, name: str, yes: bool) -> bool:
        """False when it cannot be, as files are open for writing: kill who has them, and try again."""
        options = f"remount,bind,{'ro' if yes else 'rw'}"
        return subprocess.run(["mount", "-o", options, str(self.path(name))], capture_output=True).returncode == 0

    def fill(self, name: str) -> None:
        with open(self._kept[name] / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(b"\0" * (1 << 20)):
                pass

    def unfill(self, name: str) -> None:
        (self._kept[name] / "filler").unlink()

    def rot(self, name: str, dice: Random) -> list[str]:
        """Turn bytes over in files of this drive, any kind but its mark.  Returns where."""
        files = sorted(path for path in self._kept[name].rglob("*") if path.is_file() and path.name != "drive.json")
        flipped = []
        for path in dice.choices(files, k=FLIPS):
            with contextlib.suppress(FileNotFoundError), open(path, "r+b") as file:  # the store may remove it meanwhile
                size_bytes = os.fstat(file.fileno()).st_size
                if size_bytes == 0:
                    continue
                at = dice.randrange(size_bytes)
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ dice.randrange(1, 256)]))
                flipped.append(f"{path.relative_to(self._kept[name])}@{at}")
        return flipped

    def close(self) -> None:
        for name in NAMES:
            subprocess.run(["umount", "-l", str(self.path(name))], capture_output=True)
        for mount in self._mounts:
            subprocess.run(["umount", "-l", str(mount)], capture_output=True)

    def _file_system(self) -> Path:
        self._made += 1
        place = self._room / "kept" / str(self._made)
        place.mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size_mib}m", "tmpfs", str(place))
        self._mounts.append(place)
        return place


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
