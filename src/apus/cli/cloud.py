"""`apus up | down | status | logs`: the life of a cloud on this machine."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from apus.cli.places import Cloud, StateDir, cloud_at, silence_of
from apus.kernel.errors import Conflict, Invalid, Unavailable
from apus.kernel.settings import Settings, dump_settings
from apus.node.catalogue import s3_url
from apus.node.secrets import write_private

START_TIMEOUT_S = 120.0
DEATHS_MAX = 3
"""A process that dies this often while the cloud starts will not live."""


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(logs)


def up(
    state_dir: StateDir = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when the cloud answers.")] = False,
    port: Annotated[int | None, typer.Option(help="Port of the APIs.", min=1, max=65534)] = None,
    bind: Annotated[str | None, typer.Option(help="Address of the APIs; loopback unless told otherwise.")] = None,
    network: Annotated[str | None, typer.Option(help="flat | user | simulated | auto")] = None,
    sim_hosts: Annotated[int | None, typer.Option(help="Simulated hosts instead of real ones.", min=0)] = None,
    only: Annotated[str | None, typer.Option(help="object: an object store alone.")] = None,
    s3_port: Annotated[
        int | None, typer.Option(help="Port of the S3 API; without, an object store alone has it.", min=1, max=65535)
    ] = None,
    drives: Annotated[str | None, typer.Option(help="Directories for objects, by commas.")] = None,
) -> None:
    """Start a cloud on this machine, making it if there is none."""
    cloud = cloud_at(state_dir)
    began_s = time.monotonic()
    settings = _settle(
        cloud, port=port, s3_port=s3_port, bind=bind, network=network, sim_hosts=sim_hosts, only=only, drives=drives
    )
    if cloud.supervisor_pid() is not None:
        raise Conflict("cli.running", f"The cloud in {cloud.state_dir} runs already; `apus status` shows it.")
    for taken in sorted({settings.port, settings.objects_at, settings.s3_port} - {0}):
        _check_port(settings.bind, taken)
    processes = _processes(settings)
    # Told to end, we end the cloud first, whatever we were doing: SIGTERM comes as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    supervisor = _spawn_supervisor(cloud, processes)
    try:
        _show_stages(cloud, supervisor, processes, began_s)
    except BaseException:
        _terminate(supervisor)
        with contextlib.suppress(ChildProcessError):  # it has ended, and was waited for
            os.waitpid(supervisor, 0)
        raise
    try:
        _show_access(cloud, settings)
        if not detach:
            os.waitpid(supervisor, 0)
    except KeyboardInterrupt:
        typer.echo("stopping …")
        _terminate(supervisor)
        os.waitpid(supervisor, 0)


def _settle(cloud: Cloud, **options: Any) -> Settings:
    """The settings of this cloud: what the file says, over it what the command line says; written back."""
    try:
        cloud.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings = _given(cloud, options)
        write_private(cloud.settings_path, dump_settings(settings))
    except OSError as error:
        mend = "free some space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "mend its owner and mode"
        raise Unavailable(
            "cli.state_dir",
            f"The state directory {cloud.state_dir} cannot be written ({error.strerror}); "
            f"choose another with --state-dir, or {mend}.",
        ) from error
    return settings


def _given(cloud: Cloud, options: dict[str, Any]) -> Settings:
    """What the file says, and over it the options of the command line."""
    settings = cloud.first_settings()
    given = {key: value for key, value in options.items() if value is not None and key not in ("only", "drives")}
    if options["drives"]:
        given["drives"] = tuple(str(Path(drive).absolute()) for drive in options["drives"].split(",") if drive)
    if options["only"] is not None:
        if options["only"] != "object":
            raise Invalid("cli.only", f"--only is {options['only']!r}; allowed: object.", field="only")
        given["roles"] = ("identity", "object")
        if "s3_port" not in given and not settings.s3_port:
            given["s3_port"] = msgspec.structs.replace(settings, **given).objects_at + 1
    settings = msgspec.structs.replace(settings, **given)
    if settings.network not in ("auto", "flat", "user", "simulated"):
        raise Invalid("cli.network", f"--network is {settings.network!r}; allowed: auto, flat, user, simulated.")
    return settings


def _processes(settings: Settings) -> dict[str, str]:
    """The processes of this machine and their roles: objects have one of their own, the rest shares one."""
    if settings.alone:
        return {"object": ",".join(settings.roles)}
    rest = [role for role in settings.roles if role != "object"]
    processes = {"control": ",".join(rest)} if rest else {}
    if "object" in settings.roles:
        processes["object"] = "object"
    return processes


def _check_port(bind: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as error:
            raise Unavailable(
                "cli.port_taken",
                f"Port {port} on {bind} cannot be used ({error.strerror}); choose another with --port.",
            ) from error


def _spawn_supervisor(cloud: Cloud, processes: dict[str, str]) -> int:
    """Start the supervisor in a session of its own.  Returns its pid."""
    (cloud.state_dir / "log").mkdir(exist_ok=True, mode=0o700)
    (cloud.state_dir / "run" / "stages.jsonl").unlink(missing_ok=True)
    argv = [sys.executable, "-m", "apus.node.supervisor", str(cloud.state_dir)]
    argv += [f"{name}={roles}" for name, roles in processes.items()]
    log = os.open(cloud.log_path("supervisor"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    pid = os.posix_spawn(
        argv[0],
        argv,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
        setsid=True,
    )
    os.close(log)
    os.close(null)
    return pid


def _stages(cloud: Cloud, supervisor: int, processes: Iterable[str]) -> Iterator[tuple[str, float]]:
    """Stages as the processes report them in run/stages.jsonl: (what, seconds since the process began)."""
    waited_for, deaths = set(processes), 0
    path = cloud.state_dir / "run" / "stages.jsonl"
    seen = 0
    end_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end_s:
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines[seen:]:
            stage = json.loads(line)
            if stage["stage"] == "died":
                deaths += 1
                if deaths >= DEATHS_MAX:
                    raise Unavailable(
                        "cli.died", f"The {stage['process']} process cannot start: {_tail(cloud, stage['process'])}"
                    )
                continue
            if stage["stage"] != "ready":
                yield stage["stage"], stage["at_s"]
                continue
            waited_for.discard(stage["process"])
            if not waited_for:
                yield "ready", stage["at_s"]
                return
        seen = len(lines)
        if os.waitpid(supervisor, os.WNOHANG)[0]:
            raise Unavailable("cli.died", f"The cloud did not start: {_tail(cloud, 'supervisor')}")
        time.sleep(0.005)
    late = f"The cloud did not answer within {START_TIMEOUT_S:g} s: {_tail(cloud, next(iter(processes)))}"
    raise Unavailable("cli.late", late)


def _tail(cloud: Cloud, name: str) -> str:
    """The last words of a process."""
    path = cloud.log_path(name)
    return " / ".join(path.read_text(errors="replace").strip().splitlines()[-2:]) if path.exists() else "no log"


def _show_stages(cloud: Cloud, supervisor: int, processes: Iterable[str], began_s: float) -> None:
    tty = sys.stdout.isatty()
    for stage, _ in _stages(cloud, supervisor, processes):
        passed_s = time.monotonic() - began_s
        mark = typer.style("●", fg=typer.colors.GREEN) if tty else "-"
        typer.echo(f"{mark} {passed_s:6.2f} s  {stage}")


def _show_access(cloud: Cloud, settings: Settings) -> None:
    typer.echo(f"  APIs        {cloud.url()}   (identity at {cloud.url()}/identity/v3)")
    if settings.s3_port:
        typer.echo(f"  S3          {s3_url(settings)}")
    if "control" in settings.roles:
        typer.echo(f"  clients     export OS_CLIENT_CONFIG_FILE={cloud.clouds_yaml} OS_CLOUD=apus")
        typer.echo("              openstack server create --image micro --flavor m1.micro --wait first")
    else:
        typer.echo(f"  access      {cloud.state_dir / 'object.env'}")
    typer.echo(f"  logs        {cloud.state_dir / 'log'}   (`apus logs`)")


def _terminate(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return


def down(
    state_dir: StateDir = None,
    guests: Annotated[bool, typer.Option(help="Stop the guests as well, and take their networks away.")] = True,
) -> None:
    """Stop everything of this cloud, and nothing else.  Its state stays; `apus up` goes on with it."""
    cloud = cloud_at(state_dir)
    pid = cloud.supervisor_pid()
    if pid is not None:
        _terminate(pid)
        end_s = time.monotonic() + 30
        while cloud.supervisor_pid() is not None:
            if time.monotonic() > end_s:
                raise Unavailable("cli.stubborn", f"The supervisor (pid {pid}) does not end; see `apus logs`.")
            time.sleep(0.02)
    if guests and cloud.settings_path.exists():
        from apus.node.sweep import sweep_machine

        swept = sweep_machine(cloud.state_dir, cloud.settings())
        for line in swept:
            typer.echo(f"- {line}")
    typer.echo("down" if pid is not None else "nothing was running")


def status(
    state_dir: StateDir = None,
    format: Annotated[str, typer.Option("-f", "--format", help="table | json")] = "table",
) -> None:
    """What runs, since when, and how it feels."""
    cloud = cloud_at(state_dir)
    settings = cloud.settings()
    pid = cloud.supervisor_pid()
    found: dict[str, Any] = {
        "state_dir": str(cloud.state_dir),
        "url": cloud.url(),
        **({} if settings.alone else {"network": settings.network}),
        "running": pid is not None,
        "supervisor_pid": pid,
    }
    if pid is not None:
        try:
            found.update(cloud.get(cloud.status_path, token=cloud.admin_token()))
        except OSError as error:
            found["api"] = f"does not answer: {error}"
    if format == "json":
        typer.echo(json.dumps(found, indent=2))
    else:
        for key, value in found.items():
            typer.echo(f"{key:16} {_in_words(key, value)}")
    if pid is None:
        raise typer.Exit(3)


def _in_words(key: str, value: Any) -> str:
    """One line of `apus status`."""
    if key == "hosts":
        silent = [f"{host['name']} ({silence_of(host)})" for host in value if not host["up"]]
        return f"{len(value) - len(silent)} up" + (f", silent: {', '.join(silent)}" if silent else "")
    if key == "operations":
        return ", ".join(f"{count} {state}" for state, count in value.items() if count) or "none yet"
    if key == "drives":
        away = [f"{drive['id']} ({drive['trouble']})" for drive in value if drive["trouble"]]
        return f"{len(value) - len(away)} in use" + (f", away: {', '.join(away)}" if away else "")
    if key == "repair":
        left = "" if value["seconds_left"] is None else f", {value['seconds_left']:.0f} s left"
        return str(value["state"]) + (
            f": {value['copies_at_risk']} copies at risk{left}" if value["copies_to_make"] else ""
        )
    if key == "stuck":
        told = [f"{one['kind']} of {one['resource_type']} {one['resource_id']}: {one['reason']}" for one in value]
        return "; ".join(told) or "none"
    return str(value)


def logs(
    state_dir: StateDir = None,
    name: Annotated[str | None, typer.Argument(help="control | object | supervisor")] = None,
    lines: Annotated[int, typer.Option("-n", help="How many lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-F", help="Go on as it grows.")] = False,
) -> None:
    """The log of one process: one JSON object a line."""
    cloud = cloud_at(state_dir)
    name = name or next(iter(_processes(cloud.settings())))
    path = cloud.log_path(name)
    if not path.exists():
        known = ", ".join(sorted(log.stem for log in path.parent.glob("*.log"))) or "none yet"
        raise Invalid("cli.no_log", f"There is no log {name!r}; there are: {known}.")
    with path.open() as log:
        tail = log.readlines()[-lines:]
        typer.echo("".join(tail), nl=False)
        while follow:
            line = log.readline()
            typer.echo(line, nl=False) if line else time.sleep(0.2)
