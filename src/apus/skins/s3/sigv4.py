"""AWS's Signature Version 4, as far as it is arithmetic: what was signed, and by whom it says it was.

The rules are those of AWS's "Authenticating Requests": the path is encoded once (S3 is the exception among AWS's
services), header values are trimmed and inner spaces folded, query parameters are sorted by their encoded names.
"""

from __future__ import annotations

import calendar
import dataclasses
import email.utils
import hashlib
import hmac
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from apus.skins.s3.errors import S3Error

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SKEW_S: Final = 900
PRESIGNED_MAX_S: Final = 7 * 86400
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
ACCESS_KEY_MAX: Final = 128
UNSIGNED: Final = "UNSIGNED-PAYLOAD"

_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9/_.~-]*")
_PLAIN_VALUE: Final = re.compile(r"[A-Za-z0-9_.~-]*")
_DATE: Final = re.compile(r"([0-9]{8})T[0-9]{6}Z")
_SPACES: Final = re.compile(r" {2,}")


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """Who says he signed, when and for what, and the signature itself."""

    access: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    stamp: str
    """`20260131T235959Z`: part of what was signed."""
    expires_s: int | None = None
    """Of a presigned URL: good for so long from the stamp on."""

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def from_header(header: str, headers: Mapping[str, str]) -> Signature:
    """From an `Authorization` header.  Raise S3Error (AuthorizationHeaderMalformed, AccessDenied)."""
    parts: dict[str, str] = {}
    for item in header[len(ALGORITHM) :].split(","):
        name, equals, value = item.strip().partition("=")
        if not equals or name in parts:
            raise S3Error("AuthorizationHeaderMalformed", f"The authorization header is malformed at {item.strip()!r}.")
        parts[name] = value
    missing = [name for name in ("Credential", "SignedHeaders", "Signature") if not parts.get(name)]
    if missing:
        shown = f"The authorization header is malformed; {missing[0]} is missing."
        raise S3Error("AuthorizationHeaderMalformed", shown)
    stamp = _stamp_of(headers)
    access, date, region, service = _credential(parts["Credential"], "AuthorizationHeaderMalformed")
    signed = tuple(parts["SignedHeaders"].split(";"))
    return Signature(access, date, region, service, signed, parts["Signature"], stamp)


def _stamp_of(headers: Mapping[str, str]) -> str:
    text = headers.get("x-amz-date")
    if text is not None and _DATE.fullmatch(text):
        return text
    if text is None and "date" in headers:
        date = headers["date"]
        if _DATE.fullmatch(date):
            return date
        try:
            return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(_mail_date_s(date)))
        except (ValueError, OverflowError):
            pass
    raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header.")


def _mail_date_s(text: str) -> float:
    """With any zone: boto3 signs `-0000`, others `GMT`.  Raise ValueError."""
    parsed = email.utils.parsedate_tz(text)
    if parsed is None:
        raise ValueError(text)
    return calendar.timegm((*parsed[:6], 0, 0, 0)) - (parsed[9] or 0)


def from_query(query: Mapping[str, str]) -> Signature:
    """From a presigned URL.  Raise S3Error."""

    def needed(name: str) -> str:
        value = query.get(name)
        if not value:
            raise _query_error(
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
                "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
            )
        return value

    if needed("X-Amz-Algorithm") != ALGORITHM:
        raise _query_error(f'X-Amz-Algorithm only supports "{ALGORITHM}".')
    stamp = needed("X-Amz-Date")
    if not _DATE.fullmatch(stamp):
        raise _query_error("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\".")
    text = needed("X-Amz-Expires")
    if not re.fullmatch(r"-?[0-9]{1,12}", text):
        raise _query_error("X-Amz-Expires should be a number.")
    expires_s = int(text)
    if expires_s < 0:
        raise _query_error("X-Amz-Expires must be non-negative.")
    if expires_s > PRESIGNED_MAX_S:
        raise _query_error(f"X-Amz-Expires must be less than a week (in seconds) that is {PRESIGNED_MAX_S}.")
    access, date, region, service = _credential(needed("X-Amz-Credential"), "AuthorizationQueryParametersError")
    signed = tuple(needed("X-Amz-SignedHeaders").split(";"))
    return Signature(access, date, region, service, signed, needed("X-Amz-Signature"), stamp, expires_s)


def _query_error(shown: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", shown)


def credential_of(text: str) -> tuple[str, str, str, str]:
    """Access key, date, region and service of a form's `x-amz-credential`."""
    return _credential(text, "InvalidArgument")


def _credential(text: str, code: str) -> tuple[str, str, str, str]:
    parts = text.split("/")
    if len(parts) < 5:
        raise S3Error(
            code,
            f'The Credential is malformed; expecting "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request", got {text!r}.',
        )
    access, (date, region, service, end) = "/".join(parts[:-4]), parts[-4:]
    if end != "aws4_request":
        raise S3Error(code, f'The Credential is malformed; it must end with "aws4_request", not {end!r}.')
    if service != "s3":
        raise S3Error(
            code, f'The Credential is malformed; incorrect service {service!r}. This endpoint belongs to "s3".'
        )
    if not re.fullmatch("[0-9]{8}", date):
        raise S3Error(code, f'The Credential is malformed; incorrect date format {date!r}. Expected "yyyyMMdd".')
    if len(access) > ACCESS_KEY_MAX:
        raise S3Error("InvalidAccessKeyId")
    return access, date, region, service


def check_time(signature: Signature, now_s: float) -> None:
    """Raise S3Error unless it was signed a moment ago, or is a presigned URL in its time."""
    if signature.stamp[:8] != signature.date:
        code = "AuthorizationHeaderMalformed" if signature.expires_s is None else "AuthorizationQueryParametersError"
        shown = f"Invalid credential date {signature.date}: the request is of {signature.stamp[:8]}."
        raise S3Error(code, shown)
    signed_s = seconds_of(signature.stamp)
    if signature.expires_s is None:
        if abs(now_s - signed_s) > SKEW_S:
            fields = {
                "RequestTime": signature.stamp,
                "ServerTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s)),
                "MaxAllowedSkewMilliseconds": str(SKEW_S * 1000),
            }
            raise S3Error("RequestTimeTooSkewed", fields=fields)
        return
    if signed_s > now_s + SKEW_S:
        raise S3Error("AccessDenied", "Request is not valid yet.")
    if now_s > signed_s + signature.expires_s:
        ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(signed_s + signature.expires_s))
        raise S3Error("AccessDenied", "Request has expired.", fields={"Expires": ended})


def seconds_of(stamp: str) -> float:
    """Raise S3Error for what is no time, though it is written like one."""
    try:
        parts = (stamp[:4], stamp[4:6], stamp[6:8], stamp[9:11], stamp[11:13], stamp[13:15])
        return calendar.timegm(tuple(int(part) for part in parts))
    except ValueError:
        raise S3Error("AccessDenied", f"{stamp} is no time.") from None


def canonical_path(raw_path: str) -> str:
    """Decoded and encoded again as AWS does: clients differ in what they leave as it is."""
    if _PLAIN_PATH.fullmatch(raw_path):
        return raw_path
    return quote(unquote_to_bytes(raw_path.encode("latin-1")), safe="/~")


def canonical_query(raw_query: str, *, presigned: bool) -> str:
    if not raw_query:
        return ""
    pairs: list[tuple[str, str]] = []
    for item in raw_query.split("&"):
        if not item:
            continue
        name, _, value = item.partition("=")
        name = _encoded(name)
        if not (presigned and name == "X-Amz-Signature"):
            pairs.append((name, _encoded(value)))
    pairs.sort()
    return "&".join([f"{name}={value}" for name, value in pairs])


def _encoded(text: str) -> str:
    if _PLAIN_VALUE.fullmatch(text):
        return text
    return quote(unquote_to_bytes(text.replace("+", " ").encode("latin-1")), safe="~")


def canonical_headers(names: Sequence[str], values: Mapping[str, str]) -> str:
    lines = []
    for name in names:
        value = values.get(name, "").strip()
        lines.append(f"{name}:{_SPACES.sub(' ', value) if '  ' in value else value}\n")
    return "".join(lines)


def canonical_request(
    method: str, raw_path: str, query: str, headers: Mapping[str, str], signed: Sequence[str], payload: str
) -> str:
    """`query` is canonical already; `payload` is the value of x-amz-content-sha256."""
    return (
        f"{method}\n{canonical_path(raw_path)}\n{query}\n{canonical_headers(signed, headers)}\n"
        f"{';'.join(signed)}\n{payload}"
    )


def string_to_sign(stamp: str, scope: str, canonical: str) -> str:
    hashed = hashlib.sha256(canonical.encode("latin-1", "replace")).hexdigest()
    return f"{ALGORITHM}\n{stamp}\n{scope}\n{hashed}"


def sign(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode("latin-1", "replace"), hashlib.sha256).hexdigest()


def same(mine: str, theirs: str) -> bool:
    return hmac.compare_digest(mine.encode(), theirs.encode("utf-8", "replace"))


def unsigned_among(names: Iterable[str], signed: Sequence[str]) -> list[str]:
    """Headers that change what a request means and that its signature does not cover."""
    covered = set(signed)
    return [
        name
        for name in names
        if name not in covered and (name == "host" or (name.startswith("x-amz-") and name != "x-amz-content-sha256"))
    ]
