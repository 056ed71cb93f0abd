"""The object stores that ours is held against: their figures on this kind of machine when it was quiet, one round each.

(operation, size, connections) -> (operations or MB a second, p50 ms, p99 ms, CPU seconds of the server per 1,000
operations, or per GiB for 1M and 64M).  `make bench-object PEERS=swift,ceph,seaweed` installs and measures them beside
ours instead.  Swift 2.38.3 with tempauth and no background daemons, Ceph RGW 16.2.15, SeaweedFS 4.48, which syncs
nothing before it answers.
"""

from typing import NamedTuple


class Known(NamedTuple):
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_s: float


FIGURES: dict[str, dict[tuple[str, str, int], Known]] = {
    "swift": {
        ("put", "4K", 8): Known(103, 76.1, 145.8, 17.32),
        ("put", "4K", 32): Known(106, 288.4, 598.9, 17.36),
        ("get", "4K", 8): Known(444, 17.5, 38.7, 4.27),
        ("get", "4K", 32): Known(459, 63.8, 158.0, 4.11),
        ("head", "4K", 8): Known(499, 15.0, 35.9, 3.80),
        ("delete", "4K", 8): Known(118, 66.9, 108.5, 14.82),
        ("put", "1M", 8): Known(69, 121.1, 184.4, 27.09),
        ("get", "1M", 8): Known(230, 35.3, 65.4, 8.06),
        ("put", "64M", 8): Known(175, 2685.3, 3095.8, 8.60),
        ("get", "64M", 8): Known(455, 806.2, 1179.9, 3.78),
    },
    "ceph": {
        ("put", "4K", 8): Known(370, 20.4, 36.3, 4.52),
        ("put", "4K", 32): Known(453, 67.2, 138.1, 3.61),
        ("get", "4K", 8): Known(2313, 3.2, 7.8, 0.73),
        ("get", "4K", 32): Known(2454, 11.6, 36.8, 0.66),
        ("head", "4K", 8): Known(2654, 2.7, 7.7, 0.60),
        ("delete", "4K", 8): Known(329, 22.2, 49.4, 4.55),
        ("put", "1M", 8): Known(110, 75.3, 104.2, 10.29),
        ("get", "1M", 8): Known(902, 8.6, 21.3, 1.73),
        ("put", "64M", 8): Known(140, 3803.6, 3840.0, 7.58),
        ("get", "64M", 8): Known(794, 647.6, 674.4, 1.65),
    },
    "seaweed": {
        ("put", "4K", 8): Known(928, 8.2, 17.8, 1.88),
        ("put", "4K", 32): Known(1243, 24.3, 49.7, 1.49),
        ("get", "4K", 8): Known(2628, 2.8, 7.6, 0.62),
        ("get", "4K", 32): Known(3341, 9.1, 21.2, 0.50),
        ("head", "4K", 8): Known(5171, 1.4, 4.2, 0.29),
        ("delete", "4K", 8): Known(2988, 1.8, 6.6, 0.33),
        ("put", "1M", 8): Known(104, 77.7, 142.0, 18.23),
        ("get", "1M", 8): Known(971, 7.9, 20.9, 1.68),
        ("put", "64M", 8): Known(82, 6520.1, 6542.7, 22.74),
        ("get", "64M", 8): Known(1577, 333.3, 353.3, 1.01),
    },
}

LIST_CPU_S = 0.40
"""Swift, CPU seconds for 10,000 names in pages of 10,000 out of 100,000."""

REPAIR_COPIES_S = 1511 / 58.5
"""Swift's replicator at its fastest: copies of 64 KiB a second after one of four devices was wiped."""

REPAIR_CPU_S = {"swift": 11.0, "ceph": 1.8}
"""CPU seconds per 1,000 copies."""

MEMORY_MIB = {"swift": 430.0, "ceph": 2325.0, "seaweed": 2010.0}

NGINX_MB_S = {"1M": 1.87 * 1074, "64M": 1.87 * 1074}
"""With wrk, which costs less than our client."""
