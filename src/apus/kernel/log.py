"""Log lines: one JSON object each, on stderr.  Small, since every resident process pays for what it imports.

log = get_logger("apus.flow")
log.info("step done", flow=flow.id)
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_encode = msgspec.json.Encoder(enc_hook=repr).encode
_threshold = 20
_sink: Sink | None = None

Sink = Callable[[str, str, str, Mapping[str, Any]], None]
"""Takes level, logger, event and fields."""


def set_sink(sink: Sink | None) -> None:
    """Where lines go instead of stderr: a simulation keeps its own, in its own time."""
    global _sink
    _sink = sink


def set_level(name: str) -> None:
    """debug | info | warning | error, for the whole process."""
    global _threshold
    _threshold = _LEVELS[name]


class Logger:
    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def debug(self, event: str, **fields: Any) -> None:
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._write("error", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """An error with the traceback of what is being handled."""
        self._write("error", event, {**fields, "traceback": traceback.format_exc()})

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        if _LEVELS[level] < _threshold:
            return
        if _sink is not None:
            _sink(level, self._name, event, fields)
            return
        line = {"at": round(time.time(), 3), "level": level, "log": self._name, "event": event, **fields}
        try:
            sys.stderr.write(_encode(line).decode("utf-8", "replace") + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            return  # a full disk or a closed stderr must not stop what is being logged


def get_logger(name: str) -> Logger:
    return Logger(name)
