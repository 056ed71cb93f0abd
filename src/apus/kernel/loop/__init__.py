"""Reconciling loops: wanted against found, driven by hints and scans."""

from apus.kernel.loop.loop import Loop, Mailbox, drive

__all__ = ["Loop", "Mailbox", "drive"]
