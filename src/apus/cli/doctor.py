"""`apus doctor`: what is wrong, how sure that is, and the command that mends it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer

from apus.cli.places import Cloud, StateDir, cloud_at, silence_of

GOOD, NOTE, BAD = "good", "note", "bad"
_COLOURS = {GOOD: typer.colors.GREEN, NOTE: typer.colors.YELLOW, BAD: typer.colors.RED}
DISK_FREE_MIN_BYTES = 2 << 30


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    about: str
    verdict: str
    """good | note | bad."""
    what: str
    sure: str = "certain"
    """certain | likely | a guess."""
    mend: str | None = None


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(
    state_dir: StateDir = None,
    format: Annotated[str, typer.Option("-f", "--format", help="table | json")] = "table",
) -> None:
    """Look at this machine and the cloud on it; exit code 1 when something is wrong."""
    cloud = cloud_at(state_dir)
    findings = [finding for check in _checks(cloud) for finding in check(cloud)]
    if format == "json":
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = typer.style(f"{finding.verdict:5}", fg=_COLOURS[finding.verdict])
            sure = "" if finding.verdict == GOOD else f" ({finding.sure})"
            typer.echo(f"{mark} {finding.about:12} {finding.what}{sure}")
            if finding.mend:
                typer.echo(f"{'':18} → {finding.mend}")
    if any(finding.verdict == BAD for finding in findings):
        raise typer.Exit(1)


_PROGRAMS = (
    ("qemu-system-x86_64", "qemu-system-x86", "real servers", BAD),
    ("qemu-img", "qemu-utils", "disks of real servers", BAD),
    ("ip", "iproute2", "the flat network", NOTE),
    ("nft", "nftables", "security groups of the flat network", NOTE),
    ("dnsmasq", "dnsmasq-base", "addresses and names in the flat network", NOTE),
)


def _programs(cloud: Cloud) -> Iterator[Finding]:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for program, package, use, verdict in _PROGRAMS:
        if shutil.which(program, path=path):
            yield Finding(program, GOOD, f"is there, for {use}")
        else:
            yield Finding(
                program, verdict, f"is missing: without it there is no {use}", mend=f"apt-get install {package}"
            )


def _python(cloud: Cloud) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", GOOD, version)


def _rights(cloud: Cloud) -> Iterator[Finding]:
    if os.geteuid() == 0:
        yield Finding("rights", GOOD, "root: bridges, taps and namespaces can be made")
    else:
        yield Finding(
            "rights", NOTE, "not root: servers get QEMU's user-mode network", mend="sudo apus up --network flat"
        )
    if os.path.exists("/dev/net/tun"):
        yield Finding("tun", GOOD, "/dev/net/tun is there")
    else:
        yield Finding("tun", NOTE, "/dev/net/tun is missing: no flat network", mend="modprobe tun")


def _accelerator(cloud: Cloud) -> Iterator[Finding]:
    known = cloud.state_dir / "compute" / "accelerator.json"
    if known.exists():
        name = json.loads(known.read_text()).get("accelerator", "?")
        told = "guests run at the machine's speed" if name == "kvm" else "guests are emulated: several times slower"
        yield Finding("accelerator", GOOD if name == "kvm" else NOTE, f"{name} (by running a guest): {told}")
    elif os.access("/dev/kvm", os.R_OK | os.W_OK):
        yield Finding("accelerator", NOTE, "/dev/kvm opens; whether it runs a guest is probed at `apus up`", "a guess")
    else:
        yield Finding("accelerator", NOTE, "no /dev/kvm: guests will be emulated (TCG)", "likely", "modprobe kvm_intel")


def _state(cloud: Cloud) -> Iterator[Finding]:
    if not cloud.settings_path.exists():
        yield Finding("state", NOTE, f"there is no cloud in {cloud.state_dir} yet", mend="apus up")
        return
    if not os.access(cloud.state_dir, os.W_OK):
        mend = f"chown -R {os.geteuid()} {cloud.state_dir}"
        yield Finding("state", BAD, f"{cloud.state_dir} cannot be written", mend=mend)
    free = shutil.disk_usage(cloud.state_dir).free
    if free < DISK_FREE_MIN_BYTES:
        yield Finding("disk", BAD, f"{free >> 20} MiB are left in {cloud.state_dir}", mend="free some space")
    else:
        yield Finding("disk", GOOD, f"{free >> 30} GiB are free in {cloud.state_dir}")
    for name in ("secrets.json", "clouds.yaml", "apus.toml", "object.env"):
        path = cloud.state_dir / name
        if path.exists() and path.stat().st_mode & 0o077:
            yield Finding("secrets", BAD, f"{path} can be read by others", mend=f"chmod 600 {path}")


def _running(cloud: Cloud) -> Iterator[Finding]:
    if not cloud.settings_path.exists():
        return
    pid = cloud.supervisor_pid()
    if pid is None:
        yield Finding("running", NOTE, "the cloud is down", mend=f"apus up --state-dir {cloud.state_dir}")
        return
    yield Finding("running", GOOD, f"supervisor {pid}")
    try:
        status = cloud.get(cloud.status_path, token=cloud.admin_token())
    except OSError as error:
        yield Finding("api", BAD, f"does not answer ({error})", "certain", f"apus logs --state-dir {cloud.state_dir}")
        return
    yield Finding("api", GOOD, f"answers at {cloud.url()}")
    yield from _cloud_health(status)


def _cloud_health(status: dict[str, Any]) -> Iterator[Finding]:
    for flow in status.get("stuck", []):
        yield Finding(
            "operation",
            BAD,
            f"{flow['kind']} of {flow['resource_type']} {flow['resource_id']} is stuck: {flow['reason']}",
            mend=f"POST /apus/v1/operations/{flow['id']}/resume (or …/abandon)",
        )
    for drive in status.get("drives", []):
        if drive["trouble"]:
            mend = "docs/runbooks/drive-lost.md"
            yield Finding("drive", BAD, f"{drive['id']} at {drive['path']}: {drive['trouble']}", mend=mend)
    for host in status.get("hosts", []):
        if not host["up"]:
            mend = "start its node again: apus up (here), or apus node (there)"
            yield Finding("host", BAD, f"{host['name']}: {silence_of(host)}", mend=mend)


def _checks(cloud: Cloud) -> Sequence[Callable[[Cloud], Iterator[Finding]]]:
    """An object store alone needs nothing of the machine but its disks."""
    if cloud.settings_path.exists() and cloud.settings().alone:
        return _python, _state, _running
    return _python, _programs, _rights, _accelerator, _state, _running
