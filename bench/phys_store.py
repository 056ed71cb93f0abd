#!/usr/bin/env python3
"""Physical limit for an object store's write path on this machine: write + fsync + rename of one
object into 3 directories (and optionally fsync of the directories), and page-cache reads. One process, no network.
phys_store.py DIR1 DIR2 DIR3 [SECS]"""

import json
import os
import resource
import shutil
import sys
import time

dirs = [os.path.join(d, "phys") for d in sys.argv[1:4]]
secs = float(sys.argv[4]) if len(sys.argv) > 4 else 2
for d in dirs:
    os.makedirs(d, exist_ok=True)
out = []
for name, size in (("4K", 4096), ("64K", 65536), ("1M", 1 << 20), ("64M", 1 << 26)):
    body = os.urandom(size)
    for mode in ("write+rename", "write+fsync+rename", "write+fsync+rename+dirfsync"):
        r0 = resource.getrusage(resource.RUSAGE_SELF)
        t0 = time.perf_counter()
        n = 0
        lat = []
        while time.perf_counter() - t0 < secs:
            t = time.perf_counter()
            for d in dirs:
                tmp = f"{d}/tmp"
                fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.write(fd, body)
                if "fsync" in mode:
                    os.fsync(fd)
                os.close(fd)
                os.rename(tmp, f"{d}/o{n % 64}")
                if "dirfsync" in mode:
                    fd = os.open(d, os.O_RDONLY)
                    os.fsync(fd)
                    os.close(fd)
            lat.append(time.perf_counter() - t)
            n += 1
        w = time.perf_counter() - t0
        r1 = resource.getrusage(resource.RUSAGE_SELF)
        lat.sort()
        out.append(
            {
                "size": name,
                "mode": mode + " x3",
                "obj_s": round(n / w, 1),
                "mb_s": round(n * size / w / 1e6, 1),
                "p50_ms": round(lat[len(lat) // 2] * 1e3, 3),
                "cpu_s_per_1000": round((r1.ru_utime + r1.ru_stime - r0.ru_utime - r0.ru_stime) / n * 1000, 3),
            }
        )
    n = 0
    t0 = time.perf_counter()
    with open(f"{dirs[0]}/o0", "rb", buffering=0) as _:
        pass
    buf = bytearray(1 << 20)
    while time.perf_counter() - t0 < secs / 2:
        with open(f"{dirs[0]}/o0", "rb", buffering=0) as f:
            while f.readinto(buf):
                pass
        n += 1
    w = time.perf_counter() - t0
    out.append(
        {
            "size": name,
            "mode": "read (page cache, open+read+close)",
            "obj_s": round(n / w, 1),
            "mb_s": round(n * size / w / 1e6, 1),
        }
    )

for d in dirs:
    shutil.rmtree(d)
print(json.dumps({"load": os.getloadavg(), "runs": out}, indent=1))
