"""Puts names into a container of the Swift that swift_up.sh started, past its API: its container servers would take half
an hour for as many objects.  Runs in Swift's own environment.

    ANCHOR_DIR/swift/venv/bin/python bench/swift_names.py DEVICES ACCOUNT CONTAINER COUNT
"""

# The imports are of Swift's environment: `make lint` has none of them.
# mypy: disable-error-code="import-not-found"

import sys
from pathlib import Path

from swift.common.ring import Ring
from swift.common.utils import Timestamp, hash_path, storage_directory
from swift.container.backend import ContainerBroker

AT_ONCE = 10_000


def main(devices: Path, account: str, container: str, count: int) -> None:
    part, nodes = Ring("/etc/swift", ring_name="container").get_nodes(account, container)
    name = hash_path(account, container)
    for node in nodes:
        path = devices / node["device"] / storage_directory("containers", part, name) / f"{name}.db"
        if not path.exists():
            continue  # the primary that missed the PUT
        broker = ContainerBroker(str(path), account=account, container=container)
        for first in range(0, count, AT_ONCE):
            broker.merge_items([row_of(number) for number in range(first, min(count, first + AT_ONCE))])


def row_of(number: int) -> dict[str, object]:
    return {
        "name": f"n-{number:010d}", "created_at": Timestamp.now().internal, "size": 4096, "deleted": 0,
        "content_type": "application/octet-stream", "etag": "0" * 32, "storage_policy_index": 0,
        "ctype_timestamp": None, "meta_timestamp": None,
    }  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
