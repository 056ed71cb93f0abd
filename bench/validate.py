"""Load for one figure: validate tokens as fast as N clients can.  Started by bench/processes.py.

validate.py URL CLIENTS same|distinct REQUESTS    (the admin's password, then `go`, on standard input)
"""

from __future__ import annotations

import asyncio
import itertools
import sys

import aiohttp

DISTINCT = 200


async def main(url: str, clients: int, kind: str, requests: int) -> None:
    password = sys.stdin.readline().strip()
    user = {"name": "admin", "domain": {"id": "default"}, "password": password}
    scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
    first = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
    async with aiohttp.ClientSession() as session:
        token = await issue(session, url, first)
        again = {"auth": {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": scope}}
        tokens = [token] if kind == "same" else [await issue(session, url, again) for _ in range(DISTINCT)]
        print("ready", flush=True)
        sys.stdin.readline()
        left = itertools.cycle(tokens)
        await asyncio.gather(*(validate(session, url, token, left, requests // clients) for _ in range(clients)))
        print("done", flush=True)


async def issue(session: aiohttp.ClientSession, url: str, body: object) -> str:
    async with session.post(url, json=body) as reply:
        assert reply.status == 201, await reply.text()
        return str(reply.headers["X-Subject-Token"])


async def validate(session, url, token, subjects, count) -> None:
    for _ in range(count):
        async with session.get(url, headers={"X-Auth-Token": token, "X-Subject-Token": next(subjects)}) as reply:
            assert reply.status == 200
            await reply.read()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
