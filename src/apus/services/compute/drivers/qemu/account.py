"""Who a guest's process is on this machine: a user of its own, with no entry in /etc/passwd.

A guest that breaks out of its hypervisor is that user.  It can use its own disks, console log and sockets, and read the
images that it stands on; it can do nothing to other guests, to what we wrote down about it, or to the machine.  An
image is shared by guests, so it belongs to a group of its own, which those guests are in.

Devices are opened by us and handed over (`lend`).  Parents of the state directory may be closed to others, as a home
directory is: the process starts inside of it and names its files from there, and its sockets are elsewhere then.

Without root every process is ours, and none of this is possible or done.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from apus.kernel.errors import Unavailable

from ..hypervisor import DomainSpec, NicSpec
from .command_line import Places

SOCKET_PATH_MAX: Final = 107
FIRST: Final = 0x7000_0000
COUNT: Final = 0x1000_0000
"""Ids that no distribution gives away: above systemd's containers, below where ids are negative somewhere."""

_TUNSETIFF: Final = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000


class Accounts:
    """Ids of the guests of this host; no two have the same."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self.known = False
        """Has it been told of all that are here?"""

    def know(self, incarnation_id: str, uid: int) -> None:
        self._of[incarnation_id] = uid

    def give(self, incarnation_id: str) -> int:
        if incarnation_id not in self._of:
            taken, uid = set(self._of.values()), _number(incarnation_id)
            while uid in taken:
                uid = FIRST + (uid + 1 - FIRST) % COUNT
            self._of[incarnation_id] = uid
        return self._of[incarnation_id]

    def forget(self, incarnation_id: str) -> None:
        self._of.pop(incarnation_id, None)


def why_not(devices: Iterable[Path] = ()) -> str:
    """Why guests cannot have users of their own here; "" when they can.  `devices`: what QEMU opens itself."""
    if os.geteuid() != 0:
        return "this is not root"
    if not _mapped(Path("/proc/self/uid_map").read_text()):
        return "this container has no user ids to spare"
    for device in devices:
        with contextlib.suppress(FileNotFoundError):
            if not device.stat().st_mode & 0o066:
                return f"{device} is root's alone"
    return ""


def as_user(uid: int, groups: Iterable[int]) -> list[str]:
    """What drops every right and becomes the command that follows: the same process, so nothing else need know."""
    return [
        "setpriv", f"--reuid={uid}", f"--regid={uid}", f"--groups={','.join(map(str, sorted({uid, *groups})))}",
        "--inh-caps=-all", "--no-new-privs", "--",
    ]  # fmt: skip


def device_groups(devices: Iterable[Path]) -> set[int]:
    """Groups that may use these devices, where not everybody may."""
    found = set()
    for device in devices:
        with contextlib.suppress(FileNotFoundError):
            known = device.stat()
            if known.st_mode & 0o060 == 0o060 and not known.st_mode & 0o006:
                found.add(known.st_gid)
    return found


def rooms_dir(state_dir: Path) -> Path:
    """Where guests have their sockets and pid files, each in a room of its own.

    Sockets' paths have at most 107 bytes, and guests that are users of their own must get there; where the state
    directory is too deep or closed to others, this is under the machine's own directory for such things.
    """
    near, root = state_dir / "rooms", os.geteuid() == 0
    open_to_all = not root or all(parent.stat().st_mode & 0o001 for parent in state_dir.parents if parent.exists())
    if open_to_all and len(os.fsencode(near)) + len("/0123456789abcdef/qmp") <= SOCKET_PATH_MAX:
        return near
    runtime = Path("/run") if root else Path(os.environ.get("XDG_RUNTIME_DIR", "/tmp"))  # noqa: S108
    return runtime / f"apus-{os.geteuid()}-{hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:12]}"


def make_room(room: Path) -> None:
    """Raise Unavailable when somebody else has made the directory that rooms are in."""
    room.parent.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    if room.parent.stat().st_uid != os.geteuid():
        raise Unavailable("compute.sockets", f"{room.parent} belongs to somebody else")
    room.mkdir(mode=0o700, exist_ok=True)


def settle(spec: DomainSpec, places: Places, uid: int) -> set[int]:
    """Give the guest's files to it, and open the way to them; the groups that its process must be in."""
    os.chown(places.room, uid, uid)
    os.chown(places.directory, 0, uid)  # ours: what we wrote down about it is in there too
    Path(places.directory).chmod(0o710)
    own_file(Path(places.console_log), uid)
    shared = [Path(path) for path in (spec.kernel_path, spec.initrd_path) if path]
    for disk in spec.disks:
        if disk.read_only and disk.kind != "config_drive":
            shared.append(Path(places.disk(disk)))
            continue
        own_file(Path(places.disk(disk)), uid, read_only=disk.read_only)
        shared += [Path(disk.backing_path)] if disk.backing_path else []
    base = Path(places.base)
    ways = {path.parent for path in shared} | {Path(places.disk(disk)).parent for disk in spec.disks}
    for way in {base, base / "domains", *(way for way in ways if way.parent == base)}:
        way.chmod(0o711)
    return {share(path) for path in shared}


def own_file(path: Path, uid: int, *, read_only: bool = False) -> None:
    """Make the file if there is none, and give it to the guest."""
    handle = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchown(handle, 0 if read_only else uid, uid)
        os.fchmod(handle, 0o640 if read_only else 0o600)
    finally:
        os.close(handle)


def share(path: Path) -> int:
    """The group of a file that several guests read."""
    gid, known = _number(path.name), path.stat()
    if known.st_gid != gid or stat.S_IMODE(known.st_mode) != 0o640:
        os.chown(path, known.st_uid, gid)
        path.chmod(0o640)
    return gid


@contextlib.contextmanager
def lend(nic: NicSpec, *, vhost: bool) -> Iterator[tuple[int, ...]]:
    """A port's TAP device, and `vhost` the kernel's short way to it, as open files; closed here when the block ends."""
    assert nic.tap_name is not None
    with contextlib.ExitStack() as opened:
        try:
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
            opened.callback(os.close, tap)
            asked = struct.pack("16sH22x", nic.tap_name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
            fcntl.ioctl(tap, _TUNSETIFF, asked)
        except OSError as error:
            shown = f"the port's device {nic.tap_name} cannot be opened: {error.strerror}"
            raise Unavailable("compute.tap", shown) from error
        handles = [tap]
        if vhost:
            with contextlib.suppress(OSError):  # without it packets take the longer way
                handles.append(os.open("/dev/vhost-net", os.O_RDWR | os.O_CLOEXEC))
                opened.callback(os.close, handles[-1])
        yield tuple(handles)


def _number(name: str) -> int:
    return FIRST + int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % COUNT


def _mapped(uid_map: str) -> bool:
    ranges = [list(map(int, line.split())) for line in uid_map.splitlines()]
    return any(inside <= FIRST and inside + count >= FIRST + COUNT for inside, _, count in ranges)
