#!/usr/bin/env python3
"""Control-plane benchmark for any cloud that speaks the OpenStack APIs.

It talks only to the public APIs found in the service catalogue, so the same
script measures a real OpenStack and anything that claims to be compatible.
Results go to standard output (and --out) as JSON; progress to standard error.

    pip install aiohttp            # the only dependency (PyYAML for --os-cloud)
    . openrc && python control_plane.py --out result.json
    python control_plane.py --sections keystone,placement --repeat 3

Credentials come from OS_AUTH_URL, OS_USERNAME, OS_PASSWORD, OS_PROJECT_NAME,
OS_USER_DOMAIN_ID/NAME, OS_PROJECT_DOMAIN_ID/NAME and OS_REGION_NAME, or from
an entry of clouds.yaml (--os-cloud).  The user must be an administrator: the
script creates a flavor, an image, networks, resource providers and servers,
all named bench-*, and deletes them again.

Sections
    keystone   tokens issued and validated per second, 1 and 8 clients
    nova       boots (single, multi-create, concurrent), list latency, deletes
    placement  GET /allocation_candidates against a growing number of providers
    neutron    network, subnet and port creation, bulk ports

How to read it: every latency is in milliseconds, measured in the client from
before the request is written until the body is read.  `client_cpu_s` says how
much CPU the script itself used, because it shares the machine with the server.
Throughput is the median over --repeat rounds; p50/p99 are over all requests.

With --server-pids 'GLOB' (pid files of the server's root processes on this
machine) each figure also says how much CPU the server spent per operation,
`server_cpu_ms_per_op`, which noise from other jobs hardly moves.

Only loopback endpoints are accepted unless --allow-remote is given.
"""

import argparse
import asyncio
import glob
import itertools
import json
import os
import resource
import statistics
import sys
import time
import uuid
from urllib.parse import urlsplit

import aiohttp

SECTIONS = ("keystone", "nova", "placement", "neutron")
LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def say(*words):
    print(time.strftime("%H:%M:%S"), *words, file=sys.stderr, flush=True)


def ms(seconds):
    return round(seconds * 1000, 2)


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))]


def summary(latencies):
    """Latency figures of a list of durations in seconds."""
    return {
        "n": len(latencies),
        "p50_ms": ms(statistics.median(latencies)),
        "p99_ms": ms(quantile(latencies, 0.99)),
        "min_ms": ms(min(latencies)),
        "max_ms": ms(max(latencies)),
    }


def load():
    return round(os.getloadavg()[0], 2)


class ServerCPU:
    """CPU seconds used so far by the processes named in pid files."""

    def __init__(self):
        self.pattern, self.tick = None, os.sysconf("SC_CLK_TCK")

    def tree(self, pid):
        yield pid
        for path in glob.glob(f"/proc/{pid}/task/*/children"):
            with open(path) as f:
                for child in f.read().split():
                    yield from self.tree(child)

    def __call__(self):
        total = 0
        for path in glob.glob(self.pattern) if self.pattern else ():
            with open(path) as f:
                root = f.read().split()[0]
            for pid in self.tree(root):
                try:
                    with open(f"/proc/{pid}/stat") as f:
                        total += sum(map(int, f.read().rpartition(")")[2].split()[11:15]))
                except OSError:
                    pass
        return total / self.tick

    def per_op(self, before, operations):
        if not self.pattern:
            return {}
        return {"server_cpu_ms_per_op": round((self() - before) * 1000 / max(1, operations), 1)}


server_cpu = ServerCPU()


# ------------------------------------------------------------------ API client
class Problem(Exception):
    pass


class Cloud:
    """An authenticated session: request(service, method, path) -> body."""

    MICROVERSION = {"compute": "compute", "placement": "placement"}

    def __init__(self, args, env):
        self.args, self.env = args, env
        self.auth_url = env["auth_url"].rstrip("/")
        if not self.auth_url.endswith("/v3"):
            self.auth_url += "/v3"
        self.http = None
        self.token = None
        self.endpoints = {"identity": self.auth_url}
        self.microversions = {}

    async def __aenter__(self):
        self.http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=self.args.timeout)
        )
        self.check_host(self.auth_url)
        await self.authenticate()
        return self

    async def __aexit__(self, *exc):
        await self.http.close()

    def check_host(self, url):
        if urlsplit(url).hostname not in LOOPBACK and not self.args.allow_remote:
            raise Problem(f"{url} is not on the loopback interface; --allow-remote if you own it")

    def auth_body(self):
        env = self.env
        return {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {
                        "user": {"name": env["username"], "password": env["password"], "domain": env["user_domain"]}
                    },
                },
                "scope": {"project": {"name": env["project_name"], "domain": env["project_domain"]}},
            }
        }

    async def authenticate(self):
        async with self.http.post(self.auth_url + "/auth/tokens", json=self.auth_body()) as r:
            body = await r.json()
            if r.status != 201:
                raise Problem(f"authentication failed: {r.status} {body}")
            self.token = r.headers["X-Subject-Token"]
        self.project = body["token"]["project"]["id"]
        region = self.env.get("region")
        for service in body["token"]["catalog"]:
            for endpoint in service["endpoints"]:
                if endpoint["interface"] == "public" and region in (None, endpoint["region_id"]):
                    url = endpoint["url"].rstrip("/")
                    self.check_host(url)
                    self.endpoints.setdefault(service["type"], url)
        network = self.endpoints.get("network")
        if network and not network.endswith("/v2.0"):
            self.endpoints["network"] = network + "/v2.0"
        image = self.endpoints.get("image")
        if image and not image.endswith("/v2"):
            self.endpoints["image"] = image + "/v2"

    async def negotiate(self, service, wanted):
        """Use microversion `wanted`, or the newest the server has below it."""
        root = await self.get(service, "/")
        version = root.get("version") or root["versions"][0]
        newest = version.get("version") or version.get("max_version") or wanted
        as_pair = lambda text: tuple(map(int, text.split(".")))  # noqa: E731
        self.microversions[service] = min(wanted, newest, key=as_pair)

    async def request(self, service, method, path, body=None, headers=None, data=None):
        """One call; returns (status, headers, parsed body or None)."""
        sent = {"X-Auth-Token": self.token, "Accept": "application/json"}
        if service in self.microversions:
            sent["OpenStack-API-Version"] = f"{service} {self.microversions[service]}"
        sent.update(headers or {})
        async with self.http.request(method, self.endpoints[service] + path, json=body, headers=sent, data=data) as r:
            raw = await r.read()
            if r.status >= 400:
                raise Problem(f"{method} {path}: {r.status} {raw[:300]!r}")
            return r.status, r.headers, raw

    async def call(self, service, method, path, body=None, **kw):
        raw = (await self.request(service, method, path, body, **kw))[2]
        return json.loads(raw) if raw else None

    async def get(self, service, path):
        return await self.call(service, "GET", path)

    async def timed(self, *a, **kw):
        start = time.perf_counter()
        await self.request(*a, **kw)
        return time.perf_counter() - start

    async def sample(self, count, *a, **kw):
        """Latency figures of `count` equal requests, one after another."""
        cpu = server_cpu()
        found = summary([await self.timed(*a, **kw) for _ in range(count)])
        return {**found, **server_cpu.per_op(cpu, count)}


async def rounds(args, clients, once, seconds=None):
    """Run `once` from `clients` tasks for some seconds, --repeat times."""
    seconds = seconds or args.seconds
    rates, latencies = [], []
    before, cpu = load(), server_cpu()
    for _ in range(args.repeat):
        stop = time.perf_counter() + seconds
        mine = []

        async def worker():
            while time.perf_counter() < stop:
                start = time.perf_counter()
                if await once() is StopAsyncIteration:
                    return
                mine.append(time.perf_counter() - start)

        start = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(clients)))
        rates.append(len(mine) / (time.perf_counter() - start))
        latencies += mine
    return {
        "clients": clients,
        "per_second": round(statistics.median(rates), 2),
        "per_second_rounds": [round(r, 2) for r in rates],
        **summary(latencies),
        **server_cpu.per_op(cpu, len(latencies)),
        "load_before": before,
    }


# -------------------------------------------------------------------- keystone
async def bench_keystone(cloud, args, out):
    body = cloud.auth_body()

    async def issue():
        async with cloud.http.post(cloud.auth_url + "/auth/tokens", json=body) as r:
            await r.read()
            if r.status != 201:
                raise Problem(f"token: {r.status}")

    by_token = {
        "auth": {
            "identity": {"methods": ["token"], "token": {"id": cloud.token}},
            "scope": {"project": {"id": cloud.project}},
        }
    }

    async def rescope():
        async with cloud.http.post(cloud.auth_url + "/auth/tokens", json=by_token) as r:
            await r.read()
            if r.status != 201:
                raise Problem(f"rescope: {r.status}")
            return r.headers["X-Subject-Token"]

    async def validate():
        await cloud.request("identity", "GET", "/auth/tokens", headers={"X-Subject-Token": cloud.token})

    for clients in args.clients:
        say("keystone: issue by password,", clients, "clients")
        out[f"issue_password_c{clients}"] = await rounds(args, clients, issue)
        say("keystone: issue by token,", clients, "clients")
        out[f"issue_by_token_c{clients}"] = await rounds(args, clients, rescope)
        say("keystone: validate one token,", clients, "clients")
        out[f"validate_same_c{clients}"] = await rounds(args, clients, validate)
        say("keystone: validate distinct tokens,", clients, "clients")
        # Tokens issued within the same second to the same user may be equal;
        # audit ids make them differ in practice.
        tokens = [await rescope() for _ in range(args.distinct)]
        feed = iter(tokens)

        async def validate_next():
            token = next(feed, None)
            if token is None:
                return StopAsyncIteration
            await cloud.request("identity", "GET", "/auth/tokens", headers={"X-Subject-Token": token})

        once = argparse.Namespace(repeat=1, seconds=600)
        out[f"validate_distinct_c{clients}"] = await rounds(once, clients, validate_next)


# ------------------------------------------------------------------------ nova
class Compute:
    """What the nova section needs: a flavor, an image, a network, boots."""

    def __init__(self, cloud, args):
        self.cloud, self.args = cloud, args
        self.made = []

    async def prepare(self):
        cloud = self.cloud
        await cloud.negotiate("compute", self.args.compute_microversion)
        flavor = await cloud.call(
            "compute",
            "POST",
            "/flavors",
            {"flavor": {"name": f"bench-{uuid.uuid4().hex[:6]}", "vcpus": 1, "ram": 64, "disk": 1}},
        )
        self.flavor = flavor["flavor"]["id"]
        self.made.append(("compute", f"/flavors/{self.flavor}"))
        image = await cloud.call(
            "image", "POST", "/images", {"name": "bench-image", "disk_format": "raw", "container_format": "bare"}
        )
        self.image = image["id"]
        self.made.append(("image", f"/images/{self.image}"))
        await cloud.request(
            "image",
            "PUT",
            f"/images/{self.image}/file",
            data=b"\0" * 1024,
            headers={"Content-Type": "application/octet-stream"},
        )
        self.network = None
        if "network" in cloud.endpoints:
            net = await cloud.call("network", "POST", "/networks", {"network": {"name": "bench-boot"}})
            self.network = net["network"]["id"]
            self.made.append(("network", f"/networks/{self.network}"))
            await cloud.call(
                "network",
                "POST",
                "/subnets",
                {"subnet": {"network_id": self.network, "ip_version": 4, "cidr": "10.64.0.0/16"}},
            )

    async def cleanup(self):
        for service, path in reversed(self.made):
            try:
                await self.cloud.request(service, "DELETE", path)
            except Problem as problem:
                say("cleanup:", problem)

    def body(self, name, count=1, ports=True):
        server = {
            "name": name,
            "flavorRef": self.flavor,
            "imageRef": self.image,
            "networks": [{"uuid": self.network}] if ports and self.network else "none",
        }
        if count > 1:
            server.update(min_count=count, max_count=count)
        return {"server": server}

    async def count(self, name, status):
        found = await self.cloud.get("compute", f"/servers?name={name}&status={status}&limit=1000")
        return len(found["servers"])

    async def settle(self, name, total, deadline=900):
        """Poll until all servers of that name are ACTIVE (or ERROR)."""
        end = time.perf_counter() + deadline
        for turn in itertools.count():
            start = time.perf_counter()
            active = await self.count(name, "ACTIVE")
            errors = await self.count(name, "ERROR") if turn % 8 == 7 else 0
            if active + errors >= total:
                return active
            if time.perf_counter() > end:
                return active
            # Polling must not become the load: at most a quarter of the time.
            await asyncio.sleep(max(self.args.poll, 3 * (time.perf_counter() - start)))

    async def ids(self, name):
        found = await self.cloud.get("compute", f"/servers?name={name}&limit=1000")
        return [s["id"] for s in found["servers"]]

    async def remove(self, name):
        """Delete by name, 8 at a time; seconds until none is listed."""
        ids = await self.ids(name)
        start = time.perf_counter()
        gate = asyncio.Semaphore(8)

        async def one(server):
            async with gate:
                await self.cloud.request("compute", "DELETE", f"/servers/{server}")

        await asyncio.gather(*map(one, ids))
        while await self.ids(name):
            if time.perf_counter() - start > 900:
                break
            await asyncio.sleep(self.args.poll)
        return len(ids), time.perf_counter() - start

    async def listing(self, query):
        """Latency of the full and the brief list of the servers of a query."""
        cloud, before, samples = self.cloud, load(), self.args.samples
        detail = await cloud.sample(samples, "compute", "GET", f"/servers/detail?{query}")
        brief = await cloud.sample(samples, "compute", "GET", f"/servers?{query}")
        raw = (await cloud.request("compute", "GET", f"/servers/detail?{query}"))[2]
        return {
            "servers": len(json.loads(raw)["servers"]),
            "bytes": len(raw),
            "detail": detail,
            "brief": brief,
            "load_before": before,
        }

    async def boot(self, count, ports, concurrent=False):
        """Boot `count` servers; returns figures of that boot."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        cpu, start = server_cpu(), time.perf_counter()
        if concurrent:
            posts = await asyncio.gather(
                *(self.cloud.timed("compute", "POST", "/servers", self.body(name, 1, ports)) for _ in range(count))
            )
        else:
            posts = [await self.cloud.timed("compute", "POST", "/servers", self.body(name, count, ports))]
        accepted = time.perf_counter() - start
        active = await self.settle(name, count)
        took = time.perf_counter() - start
        used = server_cpu.per_op(cpu, count)
        _, delete_took = await self.remove(name)
        return {
            **used,
            "accepted_s": accepted,
            "active_s": took,
            "active": active,
            "post_p50_ms": ms(statistics.median(posts)),
            "delete_s": delete_took,
        }


async def bench_nova(cloud, args, out):
    compute = Compute(cloud, args)
    try:
        await compute.prepare()
        out["microversion"] = cloud.microversions["compute"]
        for mode in args.boot_modes.split(","):
            ports = mode == "one_port"
            if ports and not compute.network or not args.boots:
                continue
            mine = out[mode] = {}
            for count, concurrent in args.boots:
                label = f"{'concurrent' if concurrent else 'multi'}_{count}"
                say("nova:", mode, label)
                before, runs = load(), []
                for _ in range(args.repeat if count <= 10 else args.repeat_large):
                    runs.append(await compute.boot(count, ports, concurrent))
                seconds = statistics.median(r["active_s"] for r in runs)
                mine[label] = {
                    "to_all_active_s": round(seconds, 2),
                    "servers_per_second": round(count / seconds, 2),
                    "rounds_s": [round(r["active_s"], 2) for r in runs],
                    "all_accepted_s": round(statistics.median(r["accepted_s"] for r in runs), 2),
                    **{k: statistics.median(r[k] for r in runs) for k in runs[0] if k.startswith("server_cpu")},
                    "not_active": sum(count - r["active"] for r in runs),
                    "delete_all_s": round(statistics.median(r["delete_s"] for r in runs), 2),
                    "load_before": before,
                }
            say("nova:", mode, "POST /servers latency")
            name = f"bench-{uuid.uuid4().hex[:8]}"
            posts = []
            for _ in range(args.samples):
                posts.append(await cloud.timed("compute", "POST", "/servers", compute.body(name, 1, ports)))
                await compute.settle(name, len(posts))
            mine["post_server"] = summary(posts)
            await compute.remove(name)
        if args.list_existing:
            out["list_existing"] = await compute.listing("limit=1000")
            return
        have, name = 0, "bench-list-" + uuid.uuid4().hex[:6]
        ports = args.list_ports and compute.network is not None
        for size in args.list_sizes:
            say("nova: filling up to", size, "servers")
            start = time.perf_counter()
            while have < size:
                step = min(100, size - have)
                await cloud.call("compute", "POST", "/servers", compute.body(name, step, ports))
                have += step
                await compute.settle(name, have)
            filled = time.perf_counter() - start
            say("nova: listing", size)
            out[f"list_{size}"] = {
                "ports_each": int(ports),
                "fill_s": round(filled, 1),
                **await compute.listing(f"limit=1000&name={name}"),
            }
        if have and not args.keep_listed:
            count, took = await compute.remove(name)
            out["delete_after_list"] = {"servers": count, "seconds": round(took, 1)}
    finally:
        await compute.cleanup()


# ------------------------------------------------------------------- placement
async def bench_placement(cloud, args, out):
    await cloud.negotiate("placement", args.placement_microversion)
    out["microversion"] = cloud.microversions["placement"]
    query = "/allocation_candidates?resources=VCPU:1,MEMORY_MB:64,DISK_GB:1"
    inventory = {
        "VCPU": {"total": 64, "allocation_ratio": 4.0},
        "MEMORY_MB": {"total": 262144},
        "DISK_GB": {"total": 10000},
    }
    mine, gate = [], asyncio.Semaphore(4)

    async def provider(name):
        async with gate:
            made = await cloud.call("placement", "POST", "/resource_providers", {"name": name})
            mine.append(made["uuid"])
            await cloud.call(
                "placement",
                "PUT",
                f"/resource_providers/{made['uuid']}/inventories",
                {"resource_provider_generation": made["generation"], "inventories": inventory},
            )

    async def drop(provider_id):
        async with gate:
            await cloud.request("placement", "DELETE", f"/resource_providers/{provider_id}")

    existing = len((await cloud.get("placement", "/resource_providers"))["resource_providers"])
    out["existing_providers"] = existing
    try:
        for size in args.providers:
            missing = max(0, size - existing - len(mine))
            say("placement:", size, "providers")
            start = time.perf_counter()
            await asyncio.gather(*(provider(f"bench-{uuid.uuid4()}") for _ in range(missing)))
            took = time.perf_counter() - start
            found, before, result = None, load(), {}
            for label, suffix in (("limit_1000", "&limit=1000"), ("no_limit", ""), ("limit_10", "&limit=10")):
                result[label] = await cloud.sample(args.samples, "placement", "GET", query + suffix)
                raw = (await cloud.request("placement", "GET", query + suffix))[2]
                found = json.loads(raw)
                result[label].update(candidates=len(found["allocation_requests"]), bytes=len(raw))
            result["load_before"] = before
            if missing:
                result["create_providers_per_second"] = round(missing / took, 1)
            out[f"providers_{size}"] = result
    finally:
        say("placement: removing", len(mine), "providers")
        await asyncio.gather(*map(drop, mine))


# --------------------------------------------------------------------- neutron
async def bench_neutron(cloud, args, out):
    out["load_before"] = load()
    networks, lat = [], {"network": [], "subnet": [], "port": []}

    async def create(kind, body):
        start = time.perf_counter()
        made = await cloud.call("network", "POST", f"/{kind}s", {kind: body})
        lat[kind].append(time.perf_counter() - start)
        return made[kind]["id"]

    async def drop(path):
        await cloud.request("network", "DELETE", path)

    async def drop_ports(network):
        found = await cloud.get("network", f"/ports?network_id={network}&fields=id&fields=device_owner")
        gate = asyncio.Semaphore(8)

        async def one(port):
            async with gate:
                await drop(f"/ports/{port}")

        await asyncio.gather(*(one(p["id"]) for p in found["ports"] if not p["device_owner"]))

    try:
        say("neutron: network, subnet, port one after another")
        for i in range(args.samples):
            net = await create("network", {"name": f"bench-{i}"})
            networks.append(net)
            await create("subnet", {"network_id": net, "ip_version": 4, "cidr": f"10.80.{i}.0/24"})
            await create("port", {"network_id": net})
        out.update({f"create_{k}": summary(v) for k, v in lat.items()})
        big = await create("network", {"name": "bench-bulk"})
        networks.append(big)
        await create("subnet", {"network_id": big, "ip_version": 4, "cidr": "10.81.0.0/16"})
        bulk, eight, cpu_bulk, cpu_eight = [], [], [], []
        for _ in range(args.repeat):
            say("neutron: 100 ports in one request, then 100 requests from 8 clients")
            cpu = server_cpu()
            bulk.append(
                await cloud.timed("network", "POST", "/ports", {"ports": [{"network_id": big} for _ in range(100)]})
            )
            cpu_bulk.append(server_cpu.per_op(cpu, 100))
            await drop_ports(big)
            todo = iter(range(100))

            async def client():
                for _ in todo:
                    await cloud.call("network", "POST", "/ports", {"port": {"network_id": big}})

            cpu, start = server_cpu(), time.perf_counter()
            await asyncio.gather(*(client() for _ in range(8)))
            eight.append(time.perf_counter() - start)
            cpu_eight.append(server_cpu.per_op(cpu, 100))
            listing = [await cloud.timed("network", "GET", f"/ports?network_id={big}") for _ in range(3)]
            await drop_ports(big)
        out["bulk_100_ports"] = {
            **summary(bulk),
            **cpu_bulk[-1],
            "ports_per_second": round(100 / statistics.median(bulk), 1),
        }
        out["single_ports_8_clients"] = {
            "seconds": round(statistics.median(eight), 2),
            **cpu_eight[-1],
            "ports_per_second": round(100 / statistics.median(eight), 1),
        }
        out["list_100_ports"] = summary(listing)
    finally:
        for net in networks:
            try:
                await drop_ports(net)
                await drop(f"/networks/{net}")
            except Problem as problem:
                say("cleanup:", problem)


# ------------------------------------------------------------------------ main
def credentials(args):
    if args.os_cloud:
        import yaml

        for where in (
            "clouds.yaml",
            os.path.expanduser("~/.config/openstack/clouds.yaml"),
            "/etc/openstack/clouds.yaml",
        ):
            if os.path.exists(where):
                with open(where) as f:
                    cloud = yaml.safe_load(f)["clouds"][args.os_cloud]
                break
        else:
            sys.exit("no clouds.yaml found")
        auth = cloud["auth"]
        get = lambda key, default=None: auth.get(key, cloud.get(key, default))  # noqa: E731
    else:
        get = lambda key, default=None: os.environ.get("OS_" + key.upper(), default)  # noqa: E731

    def domain(kind):
        by_id = get(f"{kind}_domain_id") or get("domain_id")
        name = get(f"{kind}_domain_name") or get("domain_name")
        return {"id": by_id} if by_id else {"name": name} if name else {"id": "default"}

    env = {
        "auth_url": get("auth_url"),
        "username": get("username"),
        "password": get("password"),
        "project_name": get("project_name"),
        "region": get("region_name"),
        "user_domain": domain("user"),
        "project_domain": domain("project"),
    }
    lacking = [k for k in ("auth_url", "username", "password", "project_name") if not env[k]]
    if lacking:
        sys.exit(f"not set: {', '.join('OS_' + k.upper() for k in lacking)}")
    return env


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(n) for n in text.split(",") if n]  # noqa: E731

    def boots(text):
        return [(int(t.rstrip("c")), t.endswith("c")) for t in text.split(",") if t]

    p.add_argument("--sections", default=",".join(SECTIONS), help="which, in this order")
    p.add_argument("--repeat", type=int, default=3, help="rounds per throughput figure (3)")
    p.add_argument("--repeat-large", type=int, default=2, help="rounds of boots of more than 10 (2)")
    p.add_argument("--seconds", type=float, default=5, help="length of a keystone round (5)")
    p.add_argument("--samples", type=int, default=15, help="requests per latency figure (15)")
    p.add_argument("--clients", type=numbers, default=[1, 8], help="keystone clients (1,8)")
    p.add_argument("--distinct", type=int, default=200, help="distinct tokens to validate (200)")
    p.add_argument(
        "--boots",
        type=boots,
        default=boots("1,10,100,100c"),
        help="boots: N is one multi-create, Nc is N concurrent POSTs (1,10,100,100c)",
    )
    p.add_argument("--boot-modes", default="no_network,one_port")
    p.add_argument(
        "--list-existing",
        action="store_true",
        help="list the servers that are there, up to 1000, instead of creating some",
    )
    p.add_argument("--list-sizes", type=numbers, default=[100, 1000], help="servers to list (100,1000)")
    p.add_argument("--list-ports", action="store_true", help="give the listed servers a port each")
    p.add_argument("--keep-listed", action="store_true", help="leave the listed servers undeleted")
    p.add_argument("--server-pids", metavar="GLOB", help="pid files of the server, to count its CPU")
    p.add_argument(
        "--providers", type=numbers, default=[1, 50, 200, 1000], help="resource providers in all (1,50,200,1000)"
    )
    p.add_argument("--poll", type=float, default=0.1, help="seconds between polls for ACTIVE (0.1)")
    p.add_argument("--timeout", type=float, default=300, help="of one request, seconds (300)")
    p.add_argument("--compute-microversion", default="2.90")
    p.add_argument("--placement-microversion", default="1.36")
    p.add_argument("--os-cloud", default=os.environ.get("OS_CLOUD"))
    p.add_argument("--allow-remote", action="store_true")
    p.add_argument("--out", help="also write the JSON here")
    return p.parse_args()


async def main(args):
    server_cpu.pattern = args.server_pids
    out = {
        "meta": {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "cores": os.cpu_count(),
            "python": sys.version.split()[0],
            "repeat": args.repeat,
            "samples": args.samples,
        }
    }
    run = {"keystone": bench_keystone, "nova": bench_nova, "placement": bench_placement, "neutron": bench_neutron}
    async with Cloud(args, credentials(args)) as cloud:
        for section in args.sections.split(","):
            used, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            try:
                out[section] = {}
                await run[section](cloud, args, out[section])
            except (Problem, aiohttp.ClientError, asyncio.TimeoutError, KeyError) as problem:
                out[section]["failed"] = repr(problem)
                say(section, "failed:", repr(problem))
            now = resource.getrusage(resource.RUSAGE_SELF)
            out[section].update(
                wall_s=round(time.perf_counter() - start, 1),
                client_cpu_s=round(now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, 1),
            )
            await cloud.authenticate()
            if args.out:
                with open(args.out, "w") as f:
                    json.dump(out, f, indent=1)
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    asyncio.run(main(parse()))
