#!/usr/bin/env python3
"""What the same disks give to a log: append N x 4 KiB to one preallocated log on each of 3 devices, one
fdatasync per batch per device (the 3 in parallel threads). phys_log.py DIR1 DIR2 DIR3 [SECS]"""

import json
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor

dirs = sys.argv[1:4]
secs = float(sys.argv[4]) if len(sys.argv) > 4 else 2
out = []
body = os.urandom(4096)
PRE = 256 << 20
fds = [os.open(f"{d}/phys.log", os.O_RDWR | os.O_CREAT | os.O_TRUNC) for d in dirs]
for fd in fds:
    os.posix_fallocate(fd, 0, PRE)
    b = bytes(1 << 20)
    for i in range(PRE >> 20):
        os.pwrite(fd, b, i << 20)
    os.fsync(fd)
with ThreadPoolExecutor(3) as ex:
    for batch in (1, 8, 32, 128):
        buf = body * batch
        off = 0
        n = 0
        lat = []

        def one(fd, o):
            os.pwrite(fd, buf, o)
            os.fdatasync(fd)

        r0 = resource.getrusage(resource.RUSAGE_SELF)
        t0 = time.perf_counter()
        while time.perf_counter() - t0 < secs:
            t = time.perf_counter()
            list(ex.map(lambda fd: one(fd, off), fds))
            lat.append(time.perf_counter() - t)
            off = (off + len(buf)) % (PRE - len(buf))
            n += batch
        w = time.perf_counter() - t0
        r1 = resource.getrusage(resource.RUSAGE_SELF)
        lat.sort()
        out.append(
            {
                "batch": batch,
                "objs_s": round(n / w),
                "commit_p50_ms": round(lat[len(lat) // 2] * 1e3, 2),
                "cpu_s_per_1000": round((r1.ru_utime + r1.ru_stime - r0.ru_utime - r0.ru_stime) / n * 1000, 3),
            }
        )
for d in dirs:
    os.unlink(f"{d}/phys.log")
print(json.dumps({"load": os.getloadavg()[0], "runs": out}))
