"""Hints to host agents, from inside transactions: where to look, never what to do."""

from __future__ import annotations

from apus.kernel.hints import Hints


def wanted_subject(host: str) -> str:
    """A bus subject is dotted words, and host names have dots."""
    return f"compute.wanted.{host.replace('.', '_')}"


def host_subject(host: str) -> str:
    return f"compute.host.{host.replace('.', '_')}"


class Kicks(Hints):
    def kick(self, host: str) -> None:
        self.give(wanted_subject(host))
