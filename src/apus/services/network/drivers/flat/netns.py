"""Work inside a network namespace: sockets and settings of the kernel that only exist there.

A thread enters the namespace, does the work and returns; a socket stays in the namespace that it was made in.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17
_IP_FREEBIND = 15


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def inside(namespace: str, work: Callable[[], T]) -> T:
    """Run blocking work in the namespace, on the thread that calls."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(NAMESPACES / namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
            try:
                return work()
            finally:
                _setns(home)
        finally:
            os.close(there)
    finally:
        os.close(home)


def listening_socket(ip: str, port: int, device: str) -> socket.socket:
    """A TCP socket of this namespace; link-local addresses are taken on the device."""
    if ":" in ip:
        listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        address: tuple[str, int] | tuple[str, int, int, int] = (ip, port, 0, socket.if_nametoindex(device))
    else:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        address = (ip, port)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def write_settings(settings: dict[str, str]) -> None:
    """Kernel settings (`net/ipv4/ip_forward`) of the namespace that the thread is in."""
    for name, value in settings.items():
        path = Path("/proc/sys") / name
        if path.read_text().strip() != value:
            path.write_text(value)


def full_checksums(device: str) -> None:
    """Make the kernel finish checksums before the device: DHCP clients that read raw frames verify them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        value = bytearray(struct.pack("II", _ETHTOOL_STXCSUM, 0))
        address = (ctypes.c_char * len(value)).from_buffer(value)
        request = struct.pack("16sP16x", device.encode(), ctypes.addressof(address))
        fcntl.ioctl(any_socket.fileno(), _SIOCETHTOOL, request)
