"""How far a start has come: a line per stage in run/stages.jsonl, which `apus up` shows as it grows."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path


class Stages:
    def __init__(self, state_dir: Path, process: str, began_s: float) -> None:
        self._path = state_dir / "run" / "stages.jsonl"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._process, self._began_s = process, began_s

    def reached(self, stage: str) -> None:
        line = {"process": self._process, "stage": stage, "at_s": round(time.monotonic() - self._began_s, 3)}
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, (json.dumps(line) + "\n").encode())
        finally:
            os.close(handle)
