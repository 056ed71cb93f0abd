"""The few programs that the driver runs, and the answers that it reads from them."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from apus.kernel.errors import CloudError, Unavailable
from apus.kernel.world import ProcessRef, Runner
from apus.services.network.drivers.flat import netns
from apus.services.network.drivers.flat.plan import FoundHost, FoundNamespace

_TIMEOUT_S = 30.0
_LINKS = Path("/sys/class/net")


class Commands:
    def __init__(self, run: Runner) -> None:
        self._run = run
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._committer: asyncio.Task[None] | None = None

    async def ip(self, lines: Sequence[str], *, namespace: str | None = None) -> None:
        if lines:
            where = ["-n", namespace] if namespace else []
            await self._checked(["ip", *where, "-batch", "-"], "\n".join(lines) + "\n")

    async def absent(self, devices: Collection[str], namespaces: Collection[str]) -> None:
        """What goes by itself meanwhile (a guest ends, its namespace takes a link along) is as good."""
        links, spaces = present_links(), present_namespaces()
        lines = [f"link delete {device}" for device in devices if device in links]
        lines += [f"netns delete {namespace}" for namespace in namespaces if namespace in spaces]
        if not lines:
            return
        argv = ["ip", "-force", "-batch", "-"]
        done = await self._run.run(argv, stdin="".join(f"{line}\n" for line in lines).encode(), timeout_s=_TIMEOUT_S)
        left = sorted((set(devices) & present_links()) | (set(namespaces) & present_namespaces()))
        if left:
            said = done.stderr.decode(errors="replace")
            raise Unavailable("network.not_removed", f"{', '.join(left)} cannot be removed from the host", hidden=said)

    async def nft(self, rules: str) -> None:
        """One transaction: all of it or nothing.

        What arrives while another one commits goes together in the next, as each waits for the kernel's readers of
        the old rules (10 ms and more), however much it changes.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((rules, done))
        if self._committer is None:
            self._committer = asyncio.create_task(self._commit_waiting())
        await done

    async def _commit_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._checked(["nft", "-f", "-"], "".join(rules for rules, _ in batch))
                outcomes: list[CloudError | None] = [None] * len(batch)
            except CloudError as error:
                # one of them is refused: each alone, so that only that one is told
                outcomes = [error] if len(batch) == 1 else [await self._refusal(rules) for rules, _ in batch]
            for (_, done), outcome in zip(batch, outcomes, strict=True):
                if not done.done():
                    done.set_exception(outcome) if outcome else done.set_result(None)
        self._committer = None

    async def _refusal(self, rules: str) -> CloudError | None:
        try:
            await self._checked(["nft", "-f", "-"], rules)
        except CloudError as error:
            return error
        return None

    async def nft_inside(self, namespace: str, rules: str) -> None:
        await self._checked(["nsenter", f"--net={netns.NAMESPACES / namespace}", "nft", "-f", "-"], rules)

    async def nft_would_take(self, rules: str) -> bool:
        done = await self._run.run(["nft", "-c", "-f", "-"], stdin=rules.encode(), timeout_s=_TIMEOUT_S)
        return done.exit_code == 0

    async def nft_chains(self, table: str) -> list[str]:
        out = await self._checked(["nft", "-j", "list", "chains"], "")
        shown = msgspec.json.decode(out, type=dict[str, list[dict[str, Any]]])["nftables"]
        chains = [item["chain"] for item in shown if "chain" in item]
        return [chain["name"] for chain in chains if chain["table"] == table]

    async def _checked(self, argv: Sequence[str], stdin: str) -> bytes:
        try:
            done = await self._run.run(argv, stdin=stdin.encode(), timeout_s=_TIMEOUT_S)
        except FileNotFoundError:
            raise Unavailable("network.program_missing", f"the program {argv[0]!r} is not installed") from None
        except TimeoutError:
            raise Unavailable("network.program_hangs", f"{argv[0]!r} did not end within {_TIMEOUT_S:g} s") from None
        if done.exit_code != 0:
            said = done.stderr.decode(errors="replace").strip()
            first = said.splitlines()[0] if said else f"exit code {done.exit_code}"
            raise Unavailable(
                "network.command_failed", f"{' '.join(argv[:3])}: {first}", hidden=f"{said}\n{stdin[:4000]}"
            )
        return done.stdout

    async def _json(self, argv: Sequence[str]) -> list[dict[str, Any]]:
        out = await self._checked(argv, "")
        return msgspec.json.decode(out or b"[]", type=list[dict[str, Any]])

    async def found_host(self) -> FoundHost:
        addresses, routes = await asyncio.gather(
            self._json(["ip", "-j", "-4", "address", "show"]), self._json(["ip", "-j", "-4", "route", "show"])
        )
        return FoundHost(
            links=present_links(),
            namespaces=present_namespaces(),
            addresses=_addresses(addresses),
            routes=tuple((r["dst"], r.get("dev", "?")) for r in routes if r.get("dst", "default") != "default"),
        )

    async def found_namespace(self, namespace: str) -> FoundNamespace:
        return FoundNamespace(addresses=_addresses(await self._json(["ip", "-n", namespace, "-j", "address", "show"])))


def lacking() -> list[str]:
    """Which of the things that the driver cannot do without are not on this machine."""
    found = [f"the program {name}" for name in ("ip", "nft", "dnsmasq", "nsenter") if shutil.which(name) is None]
    if not Path("/dev/net/tun").exists():
        found.append("/dev/net/tun")
    if os.geteuid() != 0:
        found.append("the rights of root")
    return found


def _addresses(shown: Sequence[dict[str, Any]]) -> dict[str, tuple[str, ...]]:
    return {
        link["ifname"]: tuple(f"{a['local']}/{a['prefixlen']}" for a in link.get("addr_info", ()))
        for link in shown
        if link.get("addr_info")
    }


def present_links() -> frozenset[str]:
    return frozenset(os.listdir(_LINKS))


def present_namespaces() -> frozenset[str]:
    return frozenset(os.listdir(netns.NAMESPACES)) if netns.NAMESPACES.exists() else frozenset()


def link_exists(device: str) -> bool:
    return (_LINKS / device).exists()


def link_alias(device: str) -> str:
    try:
        return (_LINKS / device / "ifalias").read_text().strip()
    except OSError:
        return ""


def link_index(device: str) -> int:
    return int((_LINKS / device / "ifindex").read_text())


def process_with_config(pid_file: Path, config: Path) -> ProcessRef | None:
    """The daemon that wrote the pid file, if it is still that one: its command line names our configuration."""
    try:
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return None
    if f"--conf-file={config}".encode() not in command.split(b"\0"):
        return None
    return ProcessRef(pid=pid, started_ticks=int(stat.rpartition(")")[2].split()[19]))


def ended(pid: int, *, within_s: float) -> bool:
    """Wait, blocking, for the end of a process that need not be our child."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], within_s)[0])
    finally:
        os.close(handle)


RELOAD, STOP, KILL = int(signal.SIGHUP), int(signal.SIGTERM), int(signal.SIGKILL)
