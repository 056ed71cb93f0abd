#!/usr/bin/env python3
"""Load generator for object stores: one and the same client for every store.

Speaks the Swift API (tempauth v1, keystone v3, or a ready token) and S3 (SigV4).
Own HTTP/1.1 client on asyncio protocols (uvloop if installed), keep-alive, one
connection per concurrency slot, several processes; so that the client costs little.

  object_store.py run   --api swift --url http://127.0.0.1:8085 --op put --size 4K --conc 8 --secs 5
  object_store.py suite --api s3    --url http://127.0.0.1:7480 --access A --secret S --out x.json
  object_store.py fill  --count 2000 --size 64K ...          (PUT keys 0..count-1)
  object_store.py list  --page 1000 ...                      (page through a container)
  object_store.py check --count 2000 ...                     (GET each key, full MD5 + ETag check)

CPU of the server: --pids 'run/*.pid' (glob, repeatable): these processes and all their
descendants are accounted (utime+stime, reaped children too) and PSS is taken at the end.
JSON goes to --out (or stdout); a line per run goes to stderr.
"""

import argparse
import asyncio
import glob
import hashlib
import hmac
import http.client
import json
import multiprocessing as mp
import os
import random
import resource
import statistics
import sys
import time
import urllib.parse

try:
    import uvloop
except ImportError:
    uvloop = None

CLK = os.sysconf("SC_CLK_TCK")


def size_of(s):
    s = str(s).strip().upper().removesuffix("B").removesuffix("I")
    m = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(float(s[:-1]) * m[s[-1]]) if s and s[-1] in m else int(s)


# ------------------------------------------------------------------ API adapters
class Swift:
    list_limit = "limit"

    def __init__(self, a):
        u = urllib.parse.urlsplit(a.url)
        self.host, self.port = u.hostname, u.port or 80
        self.container = a.container
        self.token, self.base = a.token, a.storage_path
        if not self.token:
            c = http.client.HTTPConnection(self.host, self.port, timeout=60)
            if a.auth == "keystone":
                k = urllib.parse.urlsplit(a.keystone_url)
                c = http.client.HTTPConnection(k.hostname, k.port, timeout=60)
                body = {
                    "auth": {
                        "identity": {
                            "methods": ["password"],
                            "password": {"user": {"name": a.user, "password": a.key, "domain": {"id": "default"}}},
                        },
                        "scope": {"project": {"name": a.project, "domain": {"id": "default"}}},
                    }
                }
                c.request(
                    "POST", k.path.rstrip("/") + "/auth/tokens", json.dumps(body), {"Content-Type": "application/json"}
                )
                r = c.getresponse()
                d = json.loads(r.read())
                self.token = r.headers["X-Subject-Token"]
                if not self.base:
                    for s in d["token"]["catalog"]:
                        if s["type"] == "object-store":
                            e = [e for e in s["endpoints"] if e["interface"] == "public"][0]["url"]
                            e = urllib.parse.urlsplit(e)
                            self.base, self.host, self.port = e.path, e.hostname, e.port or 80
            else:
                c.request("GET", a.auth_path, headers={"X-Auth-User": a.user, "X-Auth-Key": a.key})
                r = c.getresponse()
                r.read()
                if r.status not in (200, 204):
                    raise SystemExit(f"auth failed: {r.status}")
                self.token = r.headers["X-Auth-Token"]
                self.base = urllib.parse.urlsplit(r.headers["X-Storage-Url"]).path
        self.base = self.base.rstrip("/")
        self.head = f" HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nX-Auth-Token: {self.token}\r\n"

    def request(self, method, key, length=None, query=""):
        p = f"{self.base}/{self.container}" + (f"/{key}" if key else "") + (f"?{query}" if query else "")
        h = f"{method} {p}{self.head}"
        if method == "PUT":
            h += f"Content-Type: application/octet-stream\r\nContent-Length: {length or 0}\r\n"
        return (h + "\r\n").encode()

    def list_query(self, page, marker):
        q = f"format=json&limit={page}"
        return q + (f"&marker={urllib.parse.quote(marker)}" if marker else "")

    def parse_list(self, body):
        d = json.loads(body) if body else []
        return len(d), (d[-1]["name"] if d else None)


class S3:
    def __init__(self, a):
        u = urllib.parse.urlsplit(a.url)
        self.host, self.port = u.hostname, u.port or 80
        self.container, self.access, self.region = a.container, a.access, a.region
        self.secret, self.signed = a.secret, a.sign_payload
        self.day = self.kkey = None
        self.hosthdr = f"{self.host}:{self.port}"

    def signing_key(self, day):
        if day != self.day:
            k = ("AWS4" + self.secret).encode()
            for x in (day, self.region, "s3", "aws4_request"):
                k = hmac.digest(k, x.encode(), "sha256")
            self.day, self.kkey = day, k
        return self.kkey

    def request(self, method, key, length=None, query="", sha=None):
        p = f"/{self.container}" + (f"/{key}" if key else "")
        t = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        day = t[:8]
        sha = sha or "UNSIGNED-PAYLOAD"
        sh = "host;x-amz-content-sha256;x-amz-date"
        canon = (
            f"{method}\n{p}\n{query}\nhost:{self.hosthdr}\nx-amz-content-sha256:{sha}\nx-amz-date:{t}\n\n{sh}\n{sha}"
        )
        scope = f"{day}/{self.region}/s3/aws4_request"
        sts = f"AWS4-HMAC-SHA256\n{t}\n{scope}\n{hashlib.sha256(canon.encode()).hexdigest()}"
        sig = hmac.new(self.signing_key(day), sts.encode(), "sha256").hexdigest()
        h = (
            f"{method} {p}{'?' + query if query else ''} HTTP/1.1\r\nHost: {self.hosthdr}\r\nx-amz-date: {t}\r\n"
            f"x-amz-content-sha256: {sha}\r\nAuthorization: AWS4-HMAC-SHA256 Credential={self.access}/{scope},"
            f"SignedHeaders={sh},Signature={sig}\r\n"
        )
        if method == "PUT":
            h += f"Content-Length: {length or 0}\r\n"
            if key:
                h += "Content-Type: application/octet-stream\r\n"
        return (h + "\r\n").encode()

    def list_query(self, page, marker):
        # keys sorted as SigV4 wants them; marker-based v1 listing works on every store
        q = {"max-keys": str(page)}
        if marker:
            q["marker"] = marker
        return "&".join(f"{k}={urllib.parse.quote(v, safe='-_.~')}" for k, v in sorted(q.items()))

    def parse_list(self, body):
        n = body.count(b"<Key>")
        if not n:
            return 0, None
        i = body.rindex(b"<Key>") + 5
        return n, body[i : body.index(b"</Key>", i)].decode()


# ------------------------------------------------------------------ HTTP/1.1 client
RBUF = 1 << 20
KEPT_MAX = 4 << 20  # bodies up to this are verified once they are there, longer ones as they come


class Conn(asyncio.BufferedProtocol):
    """One keep-alive connection; one request at a time."""

    _buf = None

    def __init__(self):
        if Conn._buf is None:
            Conn._buf = memoryview(bytearray(RBUF))
        self.tr = self.fut = None
        self.closed = False

    def connection_made(self, tr):
        self.tr = tr
        import socket

        tr.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection_lost(self, exc):
        self.closed = True
        if self.fut and not self.fut.done():
            if self.phase == 1 and self.until_close:
                self.finish()
            else:
                self.fut.set_exception(ConnectionError("closed"))

    def get_buffer(self, hint):
        return Conn._buf

    def send(self, parts, method, keep=False, md5=False):
        self.fut = asyncio.get_running_loop().create_future()
        self.hb = b""
        self.phase = 0
        self.got = 0
        self.first = b""
        self.method, self.keep = method, keep
        self.body = [] if keep else None
        self.md5 = hashlib.md5() if md5 else None
        self.chunked = self.until_close = False
        self.tail = b""
        for p in parts:
            self.tr.write(p)
        return self.fut

    def buffer_updated(self, n):
        data = Conn._buf[:n]
        if self.fut is None or self.fut.done():
            return
        if self.phase == 0:
            self.hb += bytes(data)
            while True:
                i = self.hb.find(b"\r\n\r\n")
                if i < 0:
                    return
                head, rest = self.hb[:i], self.hb[i + 4 :]
                self.status = int(head[9:12])
                if self.status == 100:
                    self.hb = rest
                    continue
                break
            low = head.lower()
            self.etag = b""
            j = low.find(b"\r\netag:")
            if j >= 0:
                self.etag = low[j + 7 :].split(b"\r\n", 1)[0].strip().strip(b'"')
            self.close_after = b"\r\nconnection: close" in low
            self.phase = 1
            j = low.find(b"\r\ncontent-length:")
            if self.method == "HEAD" or self.status in (204, 304):
                self.need = 0
            elif j >= 0:
                self.need = int(low[j + 17 :].split(b"\r\n", 1)[0])
            elif b"transfer-encoding: chunked" in low:
                self.chunked = True
                self.need = -1
            else:
                self.until_close = True
                self.need = -1
            data = memoryview(rest)
        self.feed(data)

    def feed(self, data):
        if self.chunked:
            self.tail += bytes(data)
            while True:
                i = self.tail.find(b"\r\n")
                if i < 0:
                    return
                ln = int(self.tail[:i].split(b";")[0], 16)
                if len(self.tail) < i + 2 + ln + 2:
                    return
                self.take(self.tail[i + 2 : i + 2 + ln])
                self.tail = self.tail[i + 4 + ln :]
                if ln == 0:
                    return self.finish()
        if len(data):
            self.take(data)
        if self.need >= 0 and self.got >= self.need:
            self.finish()

    def take(self, data):
        if len(self.first) < 32:
            self.first += bytes(data[: 32 - len(self.first)])
        self.got += len(data)
        if self.md5 is not None:
            self.md5.update(data)
        if self.keep:
            self.body.append(bytes(data))

    def finish(self):
        if self.close_after or self.until_close:
            self.tr.close()
            self.closed = True
        if not self.fut.done():
            self.fut.set_result(self.status)


# ------------------------------------------------------------------ data
def tail_bytes(size):
    r = random.Random(12345)
    block = r.randbytes(min(max(size - 32, 0), 4 << 20))
    n = max(size - 32, 0)
    return (block * (n // len(block) + 1))[:n] if block else b""


def prefix_of(key):
    return hashlib.md5(key.encode()).hexdigest().encode()  # 32 bytes: every object is different


class Worker:
    def __init__(self, a, wid, conc, barrier, q):
        self.a, self.wid, self.conc, self.barrier, self.q = a, wid, conc, barrier, q

    def __call__(self):
        if uvloop and not self.a.no_uvloop:
            uvloop.install()
        try:
            r = asyncio.run(self.main())
        except BaseException as e:  # noqa
            import traceback

            traceback.print_exc()
            r = {"err": repr(e)}
            try:
                self.barrier.abort()
            except Exception:
                pass
        self.q.put(r)

    async def main(self):
        a = self.a
        self.api = make_api(a)
        self.size = size_of(a.size)
        self.tail = tail_bytes(self.size)
        self.lat, self.errors, self.bytes, self.verified, self.retries = [], {}, 0, 0, 0
        self.bad = 0
        self.rnd = random.Random(a.seed * 1000 + self.wid)
        self.next = self.wid
        conns = []
        for _ in range(self.conc):
            conns.append(await self.connect())
        for _ in range(a.warm):
            if a.op in ("get", "head"):
                for i, c in enumerate(conns):
                    conns[i], _r = await self.do(c, a.op, self.key(self.rnd.randrange(a.count)))
        self.lat, self.bytes = [], 0
        self.barrier.wait(120)
        c0 = resource.getrusage(resource.RUSAGE_SELF)
        t0 = time.perf_counter()
        self.t0 = t0
        w0 = time.time()
        self.deadline = t0 + a.secs if a.secs else None
        await asyncio.gather(*(self.slot(c) for c in conns))
        w1 = time.time()
        c1 = resource.getrusage(resource.RUSAGE_SELF)
        for c in conns:
            if c.tr:
                c.tr.close()
        return {
            "lat": self.lat,
            "errors": self.errors,
            "bytes": self.bytes,
            "w0": w0,
            "w1": w1,
            "verified": self.verified,
            "bad": self.bad,
            "retries": self.retries,
            "cpu": c1.ru_utime + c1.ru_stime - c0.ru_utime - c0.ru_stime,
        }

    async def connect(self):
        _, p = await asyncio.get_running_loop().create_connection(Conn, self.api.host, self.api.port)
        return p

    def key(self, i):
        if self.a.span:  # the same for the same i, and all over: the step is odd and as good as any
            return f"{self.a.prefix}{(i + 1) * 0x9E3779B97F4A7C15 % (1 << 64) * self.a.span >> 64:010d}.{i}"
        return f"{self.a.prefix}{i:08d}"

    def pick(self):
        """next (op, key) or None"""
        a = self.a
        if a.op in ("put", "delete") or (a.op in ("get", "head", "stat") and not a.secs):
            i = self.next
            self.next += a.procs_used
            if a.count and not a.secs and i >= a.count:
                return None
            if a.op == "delete" and i >= a.count:
                return None
            return a.op, self.key(a.start + i)
        op = a.op
        if op == "mix":
            op = self.rnd.choices(a.mix_ops, a.mix_w)[0]
            if op == "put":
                i = self.next
                self.next += a.procs_used
                return op, f"{a.prefix}m{self.wid}-{i:08d}"
            if op == "delete":
                i = self.next
                self.next += a.procs_used
                return op, f"{a.prefix}m{self.wid}-{i:08d}"
        return op, self.key(a.start + self.rnd.randrange(a.count))

    async def slot(self, c):
        while True:
            if self.deadline and time.perf_counter() >= self.deadline:
                return
            k = self.pick()
            if k is None:
                return
            c, _ = await self.do(c, *k)

    async def do(self, c, op, key):
        a = self.a
        for attempt in (0, 1):
            if c.closed:
                c = await self.connect()
            verify = op in ("get", "put") and self.rnd.random() < a.verify
            t = time.perf_counter()
            try:
                if op == "put":
                    body = (prefix_of(key), self.tail) if self.size >= 32 else (prefix_of(key)[: self.size],)
                    kw = {}
                    if isinstance(self.api, S3) and self.api.signed:
                        h = hashlib.sha256(body[0])
                        [h.update(x) for x in body[1:]]
                        kw["sha"] = h.hexdigest()
                    req = self.api.request("PUT", key, self.size, **kw)
                    parts = (b"".join((req,) + body),) if self.size <= 65536 else (req,) + body
                    st = await c.send(parts, "PUT")
                    ok = st in (200, 201)
                else:
                    m, key = ("HEAD", "") if op == "stat" else (op.upper(), key)
                    kept = verify and self.size <= KEPT_MAX
                    st = await c.send((self.api.request(m, key),), m, keep=kept, md5=verify and not kept)
                    ok = st in (200, 204)
            except ConnectionError:
                self.retries += 1
                c = await self.connect()
                continue
            dt = time.perf_counter() - t
            if not ok:
                self.errors[str(st)] = self.errors.get(str(st), 0) + 1
            else:
                self.lat.append(dt)
                if op == "get":
                    self.bytes += c.got
                    if c.got != self.size or (self.size >= 32 and c.first[:32] != prefix_of(key)):
                        self.bad += 1
                elif op == "put":
                    self.bytes += self.size
                if verify:
                    self.verified += 1
                    came = None if op == "put" else c.md5 or c.body
                    # beside the loop: it would hold up all other connections, and the latency told be our own
                    self.bad += await asyncio.to_thread(self.is_bad, key, came, c.etag.decode())
            return c, ok
        self.errors["conn"] = self.errors.get("conn", 0) + 1
        return c, False

    def is_bad(self, key, came, etag):
        """`came`: pieces of a body, its MD5, or None when it was sent.  The same work whether ETags are MD5 sums or not."""
        head = prefix_of(key)[: self.size]
        expected = hashlib.md5(head)
        expected.update(self.tail)
        digest = expected.hexdigest()
        if isinstance(came, list):
            bad = b"".join(came) != head + self.tail
        else:
            bad = came is not None and came.hexdigest() != digest
        return bad or (etag != digest and not self.a.plain_etags)


def make_api(a):
    return (Swift if a.api == "swift" else S3)(a)


# ------------------------------------------------------------------ server accounting
def server_pids(globs):
    roots = []
    for g in globs or []:
        for f in glob.glob(g):
            try:
                roots.append(int(open(f).read().split()[0]))
            except (ValueError, IndexError, OSError):
                pass
    if not roots:
        return []
    kids = {}
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                s = open(f"/proc/{d}/stat").read()
                pp = int(s[s.rindex(")") + 2 :].split()[1])
                kids.setdefault(pp, []).append(int(d))
            except OSError:
                pass
    out, st = set(), list(roots)
    while st:
        p = st.pop()
        if p not in out and os.path.exists(f"/proc/{p}"):
            out.add(p)
            st += kids.get(p, [])
    return sorted(out)


def server_cpu(globs):
    t = 0
    for p in server_pids(globs):
        try:
            s = open(f"/proc/{p}/stat").read()
            f = s[s.rindex(")") + 2 :].split()
            t += sum(map(int, f[11:15]))
        except OSError:
            pass
    return t / CLK


def server_mem(globs):
    n = pss = 0
    for p in server_pids(globs):
        try:
            for line in open(f"/proc/{p}/smaps_rollup"):
                if line.startswith("Pss:"):
                    pss += int(line.split()[1])
                    n += 1
        except OSError:
            pass
    return {"processes": n, "pss_mib": round(pss / 1024, 1)}


def pct(v, p):
    return v[min(len(v) - 1, int(len(v) * p))] if v else None


def one(a):
    a.procs_used = max(1, min(a.procs, a.conc))
    q = mp.SimpleQueue()
    barrier = mp.Barrier(a.procs_used + 1)
    per = [a.conc // a.procs_used + (1 if i < a.conc % a.procs_used else 0) for i in range(a.procs_used)]
    ps = [mp.Process(target=Worker(a, i, per[i], barrier, q)) for i in range(a.procs_used)]
    for p in ps:
        p.start()
    try:
        barrier.wait(120)
    except Exception:
        pass
    s0 = server_cpu(a.pids)
    rs = [q.get() for _ in ps]
    s1 = server_cpu(a.pids)
    for p in ps:
        p.join()
    rs = [r for r in rs if "err" not in r]
    if not rs:
        raise SystemExit("all workers failed")
    lat = sorted(x for r in rs for x in r["lat"])
    wall = max(r["w1"] for r in rs) - min(r["w0"] for r in rs)
    n = len(lat)
    nb = sum(r["bytes"] for r in rs)
    err = {}
    for r in rs:
        for k, v in r["errors"].items():
            err[k] = err.get(k, 0) + v
    d = {
        "op": a.op,
        "size": a.size,
        "conc": a.conc,
        "n": n,
        "wall_s": round(wall, 3),
        "ops_s": round(n / wall, 1),
        "mb_s": round(nb / wall / 1e6, 2),
        "p50_ms": round(pct(lat, 0.5) * 1e3, 3) if n else None,
        "p99_ms": round(pct(lat, 0.99) * 1e3, 3) if n else None,
        "client_cpu_s": round(sum(r["cpu"] for r in rs), 2),
        "load1": os.getloadavg()[0],
        "verified": sum(r["verified"] for r in rs),
        "bad": sum(r["bad"] for r in rs),
        "errors": err,
        "retries": sum(r["retries"] for r in rs),
    }
    if a.pids:
        sc = s1 - s0
        d["server_cpu_s"] = round(sc, 2)
        d["server_cpu_s_per_1000"] = round(sc / n * 1000, 3) if n else None
        d["server_cpu_s_per_gib"] = round(sc / (nb / 2**30), 3) if nb else None
    print(
        f"{a.api:5} {a.op:6} {a.size:>4} c{a.conc:<3} {d['ops_s']:>9} op/s {d['mb_s']:>8} MB/s p50 {d['p50_ms']} p99 {d['p99_ms']} ms"
        f" srvCPU/1000 {d.get('server_cpu_s_per_1000')} load {d['load1']:.1f} bad {d['bad']} {err or ''}",
        file=sys.stderr,
        flush=True,
    )
    return d


def med(ds):
    out = dict(ds[0])
    for k in (
        "ops_s",
        "mb_s",
        "p50_ms",
        "p99_ms",
        "client_cpu_s",
        "server_cpu_s",
        "server_cpu_s_per_1000",
        "server_cpu_s_per_gib",
        "load1",
        "wall_s",
    ):
        v = [d[k] for d in ds if d.get(k) is not None]
        if v:
            out[k] = round(statistics.median(v), 3)
    for k in ("n", "verified", "bad", "retries"):
        out[k] = sum(d[k] for d in ds)
    out["ops_s_all"] = [d["ops_s"] for d in ds]
    out["errors"] = {}
    for d in ds:
        for k, v in d["errors"].items():
            out["errors"][k] = out["errors"].get(k, 0) + v
    return out


def with_(a, **kw):
    b = argparse.Namespace(**vars(a))
    for k, v in kw.items():
        setattr(b, k, v)
    return b


def ensure(a):
    api = make_api(a)
    c = http.client.HTTPConnection(api.host, api.port, timeout=60)
    raw = api.request("PUT", "").decode().split("\r\n")
    hs = dict(x.split(": ", 1) for x in raw[1:] if x)
    c.request("PUT", raw[0].split()[1], headers=hs)
    r = c.getresponse()
    b = r.read()
    if r.status not in (200, 201, 202, 204, 409):
        raise SystemExit(f"container: {r.status} {b[:300]}")


def listing(a):
    api = make_api(a)

    async def go():
        lat, total, marker = [], 0, None
        _, c = await asyncio.get_running_loop().create_connection(Conn, api.host, api.port)
        while True:
            if c.closed:
                _, c = await asyncio.get_running_loop().create_connection(Conn, api.host, api.port)
            t = time.perf_counter()
            st = await c.send((api.request("GET", "", query=api.list_query(a.page, marker)),), "GET", keep=True)
            dt = time.perf_counter() - t
            if st not in (200, 204):
                raise SystemExit(f"list: {st} {b''.join(c.body)[:200]}")
            n, marker = api.parse_list(b"".join(c.body))
            if n:
                lat.append(dt)
                total += n
            if n < min(a.page, 1000 if a.api == "s3" else a.page) or not marker:
                break
        return lat, total

    s0 = server_cpu(a.pids)
    lat, total = asyncio.run(go())
    s1 = server_cpu(a.pids)
    lat.sort()
    d = {
        "op": "list",
        "page": a.page,
        "pages": len(lat),
        "objects": total,
        "p50_ms": round(pct(lat, 0.5) * 1e3, 2),
        "p99_ms": round(pct(lat, 0.99) * 1e3, 2),
        "keys_s": round(total / sum(lat)),
        "server_cpu_s": round(s1 - s0, 2),
    }
    print(json.dumps(d), file=sys.stderr, flush=True)
    return d


def suite(a):
    res = []
    put_done = {}
    for size in a.sizes.split(","):
        big = size_of(size) >= 16 << 20
        concs = [int(c) for c in a.concs.split(",")]
        if big:
            concs = [c for c in concs if c <= 8]
        b = with_(a, size=size, prefix=f"s{size}-")
        npop = {0: 8}.get(0) if big else a.pop if size_of(size) < 1 << 20 else max(64, a.pop // 8)
        one(with_(b, op="put", count=npop, secs=0, conc=8 if not big else 2, start=0))  # population for GETs
        for c in concs:
            for op in ("put", "get"):
                ds = []
                for rep in range(a.repeat):
                    if big:
                        n = 4 if c == 1 else 8
                        x = with_(b, op=op, conc=c, secs=0, count=n, start=0, seed=rep + 1)
                    elif op == "put":
                        x = with_(b, op=op, conc=c, count=0, secs=a.secs, seed=rep + 1, prefix=f"p{size}c{c}r{rep}-")
                    else:
                        x = with_(b, op=op, conc=c, count=npop, secs=a.secs, seed=rep + 1, warm=1)
                    ds.append(one(x))
                res.append(med(ds))
                if op == "put":
                    put_done[(size, c)] = res[-1]
        if size == a.sizes.split(",")[0]:
            for op in ("head",):
                for c in concs:
                    res.append(
                        med(
                            [one(with_(b, op=op, conc=c, count=npop, secs=a.secs, seed=r + 1)) for r in range(a.repeat)]
                        )
                    )
            for c in (8,):
                ds = []
                for r in range(a.repeat):
                    one(with_(b, op="put", conc=8, count=a.dels, secs=0, prefix=f"d{r}-"))
                    ds.append(one(with_(b, op="delete", conc=c, count=a.dels, secs=0, prefix=f"d{r}-")))
                res.append(med(ds))
            res.append(
                med(
                    [
                        one(
                            with_(
                                b,
                                op="mix",
                                conc=8,
                                count=npop,
                                secs=a.secs,
                                seed=r + 1,
                                mix_ops=["get", "put", "head"],
                                mix_w=[70, 20, 10],
                            )
                        )
                        for r in range(a.repeat)
                    ]
                )
            )
    return res


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("cmd", choices=["run", "suite", "fill", "list", "check", "mem"])
    g = ap.add_argument
    g("--api", choices=["swift", "s3"], default="swift")
    g("--url", default="http://127.0.0.1:8085")
    g("--auth", choices=["v1", "keystone"], default="v1")
    g("--auth-path", default="/auth/v1.0")
    g("--user", default="test:tester")
    g("--key", default="testing")
    g("--project", default="admin")
    g("--keystone-url", default="http://127.0.0.1:5000/v3")
    g("--token")
    g("--storage-path", default="")
    g("--access", default="test:tester")
    g("--secret", default="testing")
    g("--region", default="us-east-1")
    g("--sign-payload", action="store_true", help="S3: SHA-256 of the body in the signature (else UNSIGNED-PAYLOAD)")
    g("--container", default="bench")
    g("--prefix", default="o-")
    g("--span", type=int, default=0, help="names have a number below this in front, spread over all of them")
    g("--start", type=int, default=0)
    g("--op", default="put", help="put get head delete mix stat (HEAD of the container)")
    g("--mix", default="get=70,put=20,head=10")
    g("--size", default="4K")
    g("--conc", type=int, default=8)
    g("--secs", type=float, default=0)
    g("--count", type=int, default=0)
    g("--procs", type=int, default=2)
    g("--repeat", type=int, default=1)
    g("--warm", type=int, default=0)
    g("--verify", type=float, default=0.02)
    g("--plain-etags", action="store_true", help="ETags are no MD5 sums: bodies alone are verified")
    g("--seed", type=int, default=1)
    g("--page", type=int, default=1000)
    g("--pids", action="append")
    g("--out")
    g("--label", default="")
    g("--no-uvloop", action="store_true")
    g("--sizes", default="4K,64K,1M,64M")
    g("--concs", default="1,8,32")
    g("--pop", type=int, default=1000)
    g("--dels", type=int, default=1000)
    a = ap.parse_args()
    m = [x.split("=") for x in a.mix.split(",")]
    a.mix_ops, a.mix_w = [x[0] for x in m], [float(x[1]) for x in m]
    out = {
        "label": a.label,
        "api": a.api,
        "cmd": a.cmd,
        "start": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_before": os.getloadavg(),
        "uvloop": bool(uvloop) and not a.no_uvloop,
    }
    if a.cmd == "mem":
        out["mem"] = server_mem(a.pids)
    else:
        if not (a.cmd == "list"):
            ensure(a)
        if a.cmd == "run":
            out["runs"] = [med([one(with_(a, seed=i + 1)) for i in range(a.repeat)])]
        elif a.cmd == "fill":
            out["runs"] = [one(with_(a, op="put", secs=0))]
        elif a.cmd == "check":
            out["runs"] = [one(with_(a, op="get", secs=0, verify=1.0))]
        elif a.cmd == "list":
            out["runs"] = [listing(a) for _ in range(a.repeat)]
        else:
            out["runs"] = suite(a)
        out["mem_after"] = server_mem(a.pids)
    out["load_after"] = os.getloadavg()
    s = json.dumps(out, indent=1)
    if a.out:
        open(a.out, "w").write(s)
    else:
        print(s)


if __name__ == "__main__":
    mp.set_start_method("fork")
    main()
