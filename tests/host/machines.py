"""Machines of a test: network namespaces on one bridge, each with an address, that can be cut off from each other."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Sequence
from typing import Literal

from tests.host.guest import sh

Way = Literal["both", "in", "out"]
"""Which packets are dropped, as the machine sees them."""


class Machine:
    def __init__(self, namespace: str, address: str, cable: str, bridge: str, prefix: int) -> None:
        self.namespace, self.address, self._cable = namespace, address, cable
        sh(f"ip netns add {namespace}")
        sh(f"ip link add {cable} type veth peer name up0 netns {namespace}")
        sh(f"ip link set {cable} master {bridge} up")
        for words in (f"address add {address}/{prefix} dev up0", "link set up0 up", "link set lo up"):
            sh(f"ip -n {namespace} {words}")

    @property
    def enter(self) -> Sequence[str]:
        """Begins the command line of what runs there."""
        return ["ip", "netns", "exec", self.namespace]

    def cut(self, *others: Machine, way: Way = "both") -> None:
        """Drop what comes from these, or goes to them; without any, all that is not its own."""
        rules = ["table inet cut {"]
        for chain, hook, field, device in (("in", "input", "saddr", "iif"), ("out", "output", "daddr", "oif")):
            rules.append(f"chain {chain} {{ type filter hook {hook} priority 0; {device} lo accept;")
            if way in ("both", chain):
                rules += [f"ip {field} {other.address} drop;" for other in others] or ["drop;"]
            rules.append("}")
        self._nft("\n".join([*rules, "}"]))

    def heal(self) -> None:
        self._nft("table inet cut {}\ndelete table inet cut\n")

    def _nft(self, rules: str) -> None:
        subprocess.run([*self.enter, "nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)

    def close(self) -> None:
        subprocess.run(["ip", "netns", "delete", self.namespace], check=False)
        subprocess.run(["ip", "link", "delete", self._cable], check=False, capture_output=True)


class Machines:
    """`here` is our own address on the bridge."""

    def __init__(self) -> None:
        self._tag = secrets.token_hex(3)
        self._net = f"10.218.{secrets.randbelow(250)}."
        self.bridge, self.here = f"ms{self._tag}", f"{self._net}1"
        self._made: list[Machine] = []
        sh(f"ip link add {self.bridge} type bridge")
        sh(f"ip address add {self.here}/24 dev {self.bridge}")
        sh(f"ip link set {self.bridge} up")

    def add(self) -> Machine:
        number = len(self._made) + 1
        name = f"ms{self._tag}-{number}"
        machine = Machine(name, f"{self._net}{number + 1}", f"ms{self._tag}c{number}", self.bridge, 24)
        self._made.append(machine)
        return machine

    def close(self) -> None:
        for machine in self._made:
            machine.close()
        subprocess.run(["ip", "link", "delete", self.bridge], check=False, capture_output=True)
