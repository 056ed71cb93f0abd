"""Two loads that the client of object_store.py does not know: an index filled from inside, and uploads that last."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from apus.kernel.settings import load_settings
from apus.kernel.world import World
from apus.node.objects import drive_paths
from apus.node.world import open_world
from apus.services.object.assembly import drives_in, open_store
from apus.services.object.model import Change, Row

ROWS_AT_ONCE = 10_000
UPLOADS = 64
UPLOAD_BYTES = 1 << 30
CHUNK = bytes(1 << 18)
LOOK_EVERY_S = 0.5


async def fill_index(state_dir: Path, account: str, container: str, names: int) -> None:
    """Rows as many puts would leave them.  The store must be down, and the container there."""
    settings = load_settings(state_dir / "apus.toml")
    opened = await open_world(state_dir, settings, with_store=False)
    world: World = opened.world
    paths = drive_paths(state_dir, settings)
    store = await open_store(world, drives_in(paths), state_dir / "object" / "layout.json", replicas=settings.replicas)
    try:
        for first in range(0, names, ROWS_AT_ONCE):
            stamp = store.cluster.stamp()
            rows = tuple(
                Row(f"n-{number:010d}", stamp, size_bytes=4096, etag="0" * 32, content_type="application/octet-stream")
                for number in range(first, min(names, first + ROWS_AT_ONCE))
            )
            await store.service.directory.apply(Change(account, container, rows))
        while store.service.directory.shards.wanted:  # to be cut: what is measured is how it serves, not that
            await store.sharder.run_once()
            await asyncio.sleep(1.0)
    finally:
        await store.close()
        await opened.close()


async def uploads_at_once(access: dict[str, str], for_s: float, look: Callable[[], float]) -> float:
    """Many uploads of 1 GiB side by side for so long, each as fast as the store takes it; the most that `look` saw."""
    token, place = _log_in(access), urlsplit(access["STORAGE_URL"])
    assert place.hostname and place.port
    _ask(place.hostname, place.port, "PUT", f"{place.path}/large", token)
    tasks = [
        asyncio.create_task(_upload(place.hostname, place.port, f"{place.path}/large/{n}", token))
        for n in range(UPLOADS)
    ]
    most, end_s = 0.0, time.monotonic() + for_s
    try:
        while time.monotonic() < end_s:
            most = max(most, await asyncio.to_thread(look))
            for task in tasks:
                if task.done():
                    task.result()  # an upload of 1 GiB that ends here failed
            await asyncio.sleep(LOOK_EVERY_S)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return most


async def _upload(host: str, port: int, path: str, token: str) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        head = f"PUT {path} HTTP/1.1\r\nHost: {host}\r\nX-Auth-Token: {token}\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n"
        writer.write(head.encode())
        for _ in range(UPLOAD_BYTES // len(CHUNK)):
            writer.write(CHUNK)
            await writer.drain()
        raise SystemExit(f"an upload ended: {(await reader.read(200))!r}")
    finally:
        writer.transport.abort()  # to close it politely waits for what is not sent, and the store for the rest: 30 GB


def _log_in(access: dict[str, str]) -> str:
    place = urlsplit(access["ST_AUTH"])
    assert place.hostname and place.port
    headers = {"X-Auth-User": access["ST_USER"], "X-Auth-Key": access["ST_KEY"]}
    return str(_ask(place.hostname, place.port, "GET", place.path, None, headers)["x-auth-token"])


def _ask(
    host: str, port: int, method: str, path: str, token: str | None, headers: dict[str, str] | None = None
) -> dict[str, str]:
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request(method, path, headers={**(headers or {}), **({"X-Auth-Token": token} if token else {})})
        answer = connection.getresponse()
        answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status}")
        return {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()
