"""Container sync: which clusters there are to copy containers to, and how a copy says that it may.

`container-sync-realms.conf` is Swift's own, so that clusters of both kinds can share it: a section is a realm, with a
`key` (and a `key2`, while one is changed), and `cluster_NAME = URL` for each of its clusters.
"""

from __future__ import annotations

import configparser
import dataclasses
import hmac
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from apus.kernel.errors import Invalid

SYNC_TO: Final = "x-container-sync-to"
SYNC_KEY: Final = "x-container-sync-key"
MARK: Final = "x-container-sysmeta-synced"
"""Up to which stamp everything is on the other side."""


@dataclasses.dataclass(frozen=True, slots=True)
class Realm:
    keys: tuple[str, ...]
    clusters: Mapping[str, str]
    """URL up to and with the API's version, by upper-case name."""


def parse_realms(text: str) -> dict[str, Realm]:
    """By upper-case name.  Raise Invalid."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise Invalid("object.sync_realms", f"container-sync-realms.conf cannot be read: {error}") from error
    realms: dict[str, Realm] = {}
    for name in parser.sections():
        section = parser[name]
        keys = tuple(section[key] for key in ("key", "key2") if section.get(key))
        clusters = {
            option.removeprefix("cluster_").upper(): url.rstrip("/")
            for option, url in section.items()
            if option.startswith("cluster_")
        }
        if not keys or any(not url.startswith(("http://", "https://")) for url in clusters.values()):
            raise Invalid("object.sync_realms", f"Realm {name!r} needs a key, and URLs of http or https.")
        realms[name.upper()] = Realm(keys, clusters)
    return realms


def parse_target(sync_to: str) -> tuple[str, str, str, str]:
    """(realm, cluster, account, container) of `//REALM/CLUSTER/ACCOUNT/CONTAINER`.  Raise Invalid."""
    parts = sync_to.strip().split("/")
    if len(parts) != 6 or parts[0] or parts[1] or not all(parts[2:]):
        shown = "X-Container-Sync-To must be of the form //realm/cluster/account/container"
        raise Invalid("object.sync_to", shown, field="X-Container-Sync-To")
    return parts[2].upper(), parts[3].upper(), parts[4], parts[5]


def check_target(sync_to: str, realms: Mapping[str, Realm]) -> None:
    """Raise Invalid for a realm or cluster that the operator has not named."""
    realm, cluster, _, _ = parse_target(sync_to)
    if realm not in realms:
        shown = f"No realm {realm!r} for X-Container-Sync-To"
    elif cluster not in realms[realm].clusters:
        shown = f"No cluster endpoint for {realm!r} {cluster!r}"
    else:
        return
    raise Invalid("object.sync_to", shown, field="X-Container-Sync-To")


def url_of(sync_to: str, realms: Mapping[str, Realm], name: str) -> tuple[str, Realm] | None:
    """Where an object goes, and the realm; None when the operator has taken it away."""
    realm_name, cluster, account, container = parse_target(sync_to)
    realm = realms.get(realm_name)
    if realm is None or cluster not in realm.clusters:
        return None
    return f"{realm.clusters[cluster]}/{quote(account)}/{quote(container)}/{quote(name)}", realm


def signature(method: str, path: str, timestamp: str, nonce: str, realm_key: str, user_key: str) -> str:
    message = "\n".join((method, path, timestamp, nonce, user_key))
    return hmac.new(realm_key.encode(), message.encode(), "sha1").hexdigest()


def is_signed(header: str, method: str, path: str, timestamp: str, realms: Mapping[str, Realm], user_key: str) -> bool:
    """Of `X-Container-Sync-Auth: REALM NONCE SIGNATURE`."""
    parts = header.split()
    if len(parts) != 3 or not user_key or not timestamp:
        return False
    realm = realms.get(parts[0].upper())
    if realm is None or not parts[2].isascii():
        return False
    made = [signature(method, path, timestamp, parts[1], key, user_key) for key in realm.keys]
    return any([hmac.compare_digest(one, parts[2]) for one in made])
