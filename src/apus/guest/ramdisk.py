"""Writes an initial RAM disk: a `newc` cpio archive, not compressed.

Not compressed, because the disk image around it is: without KVM the guest would unpack it many times slower than
the host does.
"""

from __future__ import annotations

from .contents import CharacterDevice, Contents, Directory, Entry, File, Link, with_parents


def pack(contents: Contents) -> bytes:
    parts = [record(number, path, entry) for number, (path, entry) in enumerate(with_parents(contents), start=1)]
    parts.append(record(0, "TRAILER!!!", File(b"", mode=0)))
    archive = b"".join(parts)
    return archive + bytes(-len(archive) % 512)


def record(number: int, path: str, entry: Entry) -> bytes:
    major = minor = 0
    match entry:
        case Directory(mode=mode):
            kind, data = 0o040000, b""
        case File(data=data, mode=mode):
            kind = 0o100000 if number else 0
        case Link(target=target):
            kind, mode, data = 0o120000, 0o777, target.encode()
        case CharacterDevice(major=major, minor=minor, mode=mode):
            kind, data = 0o020000, b""
    links = 2 if isinstance(entry, Directory) else 1
    name = path.encode() + b"\0"
    fields = (number, kind | mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    head += bytes(-len(head) % 4)
    return head + data + bytes(-len(data) % 4)
