"""Archives of the standard library, cut anywhere, give the same files; garbage is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.errors import Invalid
from apus.services.object.logic.tar import Entry, EntryEnd, TarParser, Unpacker

FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}
names = st.text("ab/\u00e9 ", min_size=1, max_size=120).filter(lambda name: not name.endswith("/"))
files = st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=4)


def archive(form: int, content: list[tuple[str, bytes]], **pax: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, pax_headers={"comment": "x"}) as tar:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "target"
        tar.addfile(link)
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), pax
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def parse(packed: bytes, form: str, cuts: list[int]) -> list[tuple[str, bytes, dict[str, str]]]:
    unpacker, parser = Unpacker(form), TarParser()
    found: list[tuple[str, bytes, dict[str, str]]] = []
    in_file = False
    for start, end in zip([0, *cuts], [*cuts, len(packed)], strict=True):
        for piece in unpacker.feed(packed[start:end]):
            for event in parser.feed(piece):
                if isinstance(event, Entry):
                    assert not in_file
                    if not event.is_directory:
                        found.append((event.name, b"", dict(event.pax)))
                        in_file = True
                elif isinstance(event, EntryEnd):
                    in_file = False
                else:
                    name, data, pax = found[-1]
                    found[-1] = name, data + event, pax
    unpacker.finish()
    parser.finish()
    return found


@given(st.sampled_from(sorted(FORMATS)), files, st.sampled_from(["tar", "tar.gz", "tar.bz2"]), st.data())
def test_as_the_standard_library_packs(
    kind: str, content: list[tuple[str, bytes]], form: str, data: st.DataObject
) -> None:
    if kind == "ustar":
        content = [(name.strip("/")[:40], text) for name, text in content]
    plain = archive(FORMATS[kind], content)
    packed = {"tar": plain, "tar.gz": gzip.compress(plain), "tar.bz2": bz2.compress(plain)}[form]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(packed)), max_size=6)))
    expected = [(info.name, text) for info, (_, text) in zip(members(plain), content, strict=True)]
    assert [(name, text) for name, text, _ in parse(packed, form, cuts)] == expected


def members(plain: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        return [info for info in tar if info.isreg()]


def test_extended_headers() -> None:
    plain = archive(tarfile.PAX_FORMAT, [("a", b"1")], **{"SCHILY.xattr.user.mime_type": "a/b", "x": "\u00e9"})
    ((_, _, pax),) = parse(plain, "tar", [])
    assert (pax["SCHILY.xattr.user.mime_type"], pax["x"]) == ("a/b", "\u00e9")


@given(st.binary(max_size=2_000), st.sampled_from(["tar", "tar.gz", "tar.bz2"]), st.booleans())
def test_garbage(data: bytes, form: str, damage: bool) -> None:
    if damage:
        plain = archive(tarfile.PAX_FORMAT, [("a" * 200, b"1" * 700)])
        at = len(data) % 2_500
        data = plain[:at] + data[:30] + plain[at + len(data[:30]) :]
    try:
        parse(data, form, [])
    except Invalid as error:
        assert error.code == "object.archive"  # noqa: PT017  (most garbage is refused, some is empty)


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.bz2"])
def test_cut_off(form: str) -> None:
    plain = archive(tarfile.GNU_FORMAT, [("a", bytes(range(256)) * 10)])
    packed = {"tar": plain[:3_000], "tar.gz": gzip.compress(plain)[:-9], "tar.bz2": bz2.compress(plain)[:-9]}[form]
    with pytest.raises(Invalid):
        parse(packed, form, [])


def test_a_bomb_comes_in_pieces() -> None:
    packed = gzip.compress(bytes(50 << 20))
    assert max(len(piece) for piece in Unpacker("tar.gz").feed(packed)) <= 1 << 18
