"""Reconciling loops: wanted against found, driven by hints and scans."""

from apus.kernel.loop.loop import Loop, Mailbox, attempted, drive

__all__ = ["Loop", "Mailbox", "attempted", "drive"]
