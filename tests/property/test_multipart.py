"""Forms cut into pieces anywhere give the same parts; signatures and temporary URLs say what they were made for."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.errors import Invalid
from apus.services.object.logic.signed import Grant, digest_of, grant_of, keys_of
from apus.services.object.logic.tempurl import temp_url_of
from apus.wire.multipart import MultipartParser, Part, PartEnd, boundary_of

BOUNDARY = b"b-"
bodies = st.lists(st.sampled_from([b"\r\n", b"--", b"b-", b"x", b"\r", b"-", b"\n--b", b"\0"]), max_size=8).map(
    b"".join
)


def form(parts: list[bytes]) -> bytes:
    out = b"preamble"
    for number, data in enumerate(parts):
        out += (
            b'\r\n--b-\r\nContent-Disposition: form-data; name="n%d"; filename="a\\"b"\r\nX: y\r\n\r\n' % number + data
        )
    return out + b"\r\n--b---\r\nepilogue"


@given(st.lists(bodies.filter(lambda data: b"\r\n--b-" not in b"\r\n" + data), max_size=3), st.data())
def test_cuts_do_not_matter(parts: list[bytes], data: st.DataObject) -> None:
    whole, parser = form(parts), MultipartParser(BOUNDARY)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    got: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        for event in parser.feed(whole[start:end]):
            if isinstance(event, Part):
                assert (event.name, event.filename, event.headers["x"]) == (f"n{len(got)}", 'a"b', "y")
                got.append(b"")
            elif isinstance(event, bytes):
                got[-1] += event
    assert (got, parser.ended) == (parts, True)


@given(st.binary(max_size=200), st.integers(1, 20))
def test_garbage_is_refused_or_waited_for(data: bytes, size: int) -> None:
    parser = MultipartParser(BOUNDARY)
    try:
        for at in range(0, len(data), size):
            for event in parser.feed(data[at : at + size]):
                assert isinstance(event, Part | PartEnd | bytes)
    except Invalid:
        pass


@pytest.mark.parametrize("data", [b"--b-xy", b"--b-\r\n\r\n", b"--b-\r\nX: y\r\n\r\n", b"--b-\r\n" + b"x" * 20_000])
def test_malformed(data: bytes) -> None:
    with pytest.raises(Invalid):
        list(MultipartParser(BOUNDARY).feed(data))


def test_boundaries() -> None:
    assert boundary_of("multipart/form-data; boundary=ab") == b"ab"
    assert boundary_of('Multipart/Form-Data;x=y; boundary="a b"') == b"a b"
    for other in ("", "text/plain", "multipart/form-data", "multipart/mixed; boundary=a"):
        assert boundary_of(other) is None


def test_signatures() -> None:
    keys = ((Grant("a", "c"), ["ck"]), (Grant("a", ""), ["k1", "k2"]))
    for digest in ("sha1", "sha256", "sha512"):
        made = hmac.new(b"k2", b"m", digest)
        named = f"{digest}:{base64.urlsafe_b64encode(made.digest()).decode().rstrip('=')}"
        for text in (made.hexdigest(), made.hexdigest().upper(), named):
            assert grant_of(text, ["x", "m"], keys) == Grant("a", "")
            assert grant_of(text, ["x"], keys) is None
    assert grant_of(hmac.new(b"ck", b"m", hashlib.sha256).hexdigest(), ["m"], keys) == Grant("a", "c")
    for bad in ("", "x" * 40, "0" * 39, "md5:abc", "sha256:!", "\u00e9" * 40, "sha1:"):
        assert grant_of(bad, ["m"], keys) is None
    assert digest_of("\u0660" * 64) is None
    assert Grant("a", "c").covers("a", "c")
    assert not Grant("a", "c").covers("a", "d")
    assert keys_of({"x-account-meta-temp-url-key-2": "k", "x-account-meta-temp-url-key": ""}, "account") == ["k"]


def test_temporary_urls() -> None:
    assert temp_url_of({"filename": "x"}) is None
    url = temp_url_of({"temp_url_sig": "s", "temp_url_expires": "2030-01-02T03:04:05Z", "temp_url_prefix": "p/"})
    assert url is not None
    assert url.expires_s == 1893553445
    assert url.messages("GET", "/v1/a/c/p/o") == ["GET\n1893553445\nprefix:/v1/a/c/p/"]
    assert (url.covers("p/o"), url.covers("q")) == (True, False)
    url = temp_url_of({"temp_url_expires": "99", "temp_url_ip_range": "10.0.0.0/8"})
    assert url is not None
    assert url.messages("HEAD", "/p")[1] == "ip=10.0.0.0/8\nGET\n99\n/p"
    assert [url.admits(address) for address in ("10.1.2.3", "11.0.0.1", "", "::1")] == [True, False, False, False]
    assert url.disposition("d/o\u00e9", None) == "attachment; filename=\"o%C3%A9\"; filename*=UTF-8''o%C3%A9"
    assert url.disposition("o", "kept") == "kept"
    for bad in ("", "soon", "9" * 13, "-1", "\u0661"):
        url = temp_url_of({"temp_url_expires": bad, "temp_url_sig": ""})
        assert url is not None
        assert url.expires_s == 0
