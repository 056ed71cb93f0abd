"""A stand-in for a guest: a network namespace whose veth takes the place of the port's TAP."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

from apus.services.network.drivers.flat import netns

T = TypeVar("T")


def sh(line: str) -> str:
    return subprocess.run(line.split(), check=True, capture_output=True, text=True).stdout


class Guest:
    def __init__(self, namespace: str, tap_name: str, mac: str) -> None:
        self.namespace, self.tap_name, self.mac = namespace, tap_name, mac
        sh(f"ip netns add {namespace}")
        sh(f"ip link add {tap_name} type veth peer name eth0 address {mac} netns {namespace}")
        # no second of waiting for other owners of an address
        netns.inside(namespace, lambda: netns.write_settings({"net/ipv6/conf/eth0/accept_dad": "0"}))
        sh(f"ip -n {namespace} link set lo up")
        sh(f"ip -n {namespace} link set eth0 up")

    def close(self) -> None:
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False)

    def ip(self, line: str) -> str:
        return sh(f"ip -n {self.namespace} {line}")

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(netns.inside, self.namespace, work)

    async def take_lease(self) -> dict[int, bytes]:
        """DHCP as a guest does it; the address and routes are set, the options are returned."""
        options = await self.run(lambda: dhcp(self.mac))
        if not options:
            return options
        address = socket.inet_ntoa(options[0])
        length = bin(int.from_bytes(options[1])).count("1")
        self.ip(f"address add {address}/{length} dev eth0")
        if 3 in options:
            self.ip(f"route add default via {socket.inet_ntoa(options[3][:4])}")
        return options

    async def serve(self, port: int, host: str = "") -> Listener:
        listener = await self.run(lambda: _listen(port, host))
        return Listener(listener)

    async def reaches(self, ip: str, port: int, *, timeout_s: float = 0.4) -> bool:
        return await self.run(lambda: _connects(ip, port, timeout_s)) is not None

    async def stream_to(self, ip: str, listener: Listener) -> Stream:
        """A TCP connection to a listener that another guest opened."""
        port = listener.listener.getsockname()[1]
        near = await self.run(lambda: socket.create_connection((ip, port), timeout=5))
        far, _ = await asyncio.to_thread(listener.listener.accept)
        return Stream(near, far)

    async def local_address_towards(self, ip: str, port: int) -> str | None:
        return await self.run(lambda: _connects(ip, port, 0.4))

    async def http(self, url_ip: str, path: str) -> bytes:
        return await self.run(lambda: _http(url_ip, path))

    async def ask_name(self, server: str, name: str) -> str | None:
        return await self.run(lambda: _dns(server, name))


class Stream:
    """Both ends of one TCP connection."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far

    async def carries(self, *, timeout_s: float = 5.0) -> bool:
        """Whether a byte gets there and one comes back; what the kernel sends again counts."""
        return await self._passes(self.near, self.far, timeout_s) and await self._passes(self.far, self.near, timeout_s)

    async def answers(self, *, timeout_s: float) -> bool:
        """Whether a byte of the far end gets to the near one, which sends nothing of its own."""
        return await self._passes(self.far, self.near, timeout_s)

    async def _passes(self, sender: socket.socket, receiver: socket.socket, timeout_s: float) -> bool:
        def blocking() -> bool:
            sender.sendall(b"x")
            receiver.settimeout(timeout_s)
            try:
                return receiver.recv(1) == b"x"
            except TimeoutError:
                return False

        return await asyncio.to_thread(blocking)

    def close(self) -> None:
        self.near.close()
        self.far.close()


class Listener:
    """Accepts connections and remembers from where."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        listener.settimeout(5)
        self.peers: list[str] = []

    def accept(self) -> str:
        connection, peer = self.listener.accept()
        connection.close()
        return str(peer[0])

    def close(self) -> None:
        self.listener.close()


def _listen(port: int, host: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(16)
    return listener


def _connects(ip: str, port: int, timeout_s: float) -> str | None:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            client.connect((ip, port))
        except OSError:
            return None
        return str(client.getsockname()[0])


def _http(ip: str, path: str) -> bytes:
    scope = socket.if_nametoindex("eth0") if ":" in ip else 0
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(3)
        client.connect((ip, 80, 0, scope) if ":" in ip else (ip, 80))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: metadata\r\nConnection: close\r\n\r\n".encode())
        data = b""
        while chunk := client.recv(4096):
            data += chunk
        return data


def _dns(server: str, name: str) -> str | None:
    """The IPv4 address of a name, asked by hand."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0\0\1\0\1"
    query = struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 0) + question
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(2)
        client.sendto(query, (server, 53))
        answer = client.recv(512)
    if struct.unpack("!H", answer[6:8])[0] == 0:
        return None
    return socket.inet_ntoa(answer[-4:])


def dhcp(mac: str, *, patience_s: float = 3.0) -> dict[int, bytes]:
    """Discover and request; options by number, 0 is the address given.  Empty when nobody answers."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        client.bind(("0.0.0.0", 68))
        offer = _exchange(client, _dhcp_message(hardware, 1, b""), 2, patience_s)
        if not offer:
            return {}
        chosen = b"\x32\x04" + offer[0] + b"\x36\x04" + offer[54]
        return _exchange(client, _dhcp_message(hardware, 3, chosen), 5, patience_s)


def _dhcp_message(hardware: bytes, kind: int, more: bytes) -> bytes:
    head = struct.pack("!4BIHH16s", 1, 1, 6, 0, 0x4150, 0, 0x8000, bytes(16))
    options = bytes([53, 1, kind]) + b"\x37\x08\x01\x03\x06\x0f\x1a\x79\x0c\x33" + more + b"\xff"
    return head + hardware + bytes(10 + 192) + b"\x63\x82\x53\x63" + options


def _exchange(client: socket.socket, message: bytes, kind: int, patience_s: float) -> dict[int, bytes]:
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        client.sendto(message, ("255.255.255.255", 67))
        client.settimeout(0.3)
        try:
            reply = client.recv(2048)
        except TimeoutError:
            continue
        options = {0: reply[16:20]}
        rest = reply[240:]
        while rest and rest[0] != 255:
            if rest[0] == 0:
                rest = rest[1:]
                continue
            options[rest[0]] = rest[2 : 2 + rest[1]]
            rest = rest[2 + rest[1] :]
        if options.get(53) == bytes([kind]):
            return options
    return {}
