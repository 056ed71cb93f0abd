"""The real OpenStack's figures on this kind of machine: the quiet rerun, one run of openstack_up.sh and control_plane.py.

CPU is that of all server processes per operation, in milliseconds; latencies in milliseconds, starts in seconds.
`make bench PEER=1` installs and measures it anew beside ours; otherwise ratios are against these.
"""

START_S = 33.6
MEMORY_MIB = 2360
CPU_MS = {
    ("validate", "same"): 6.1,
    ("validate", "distinct"): 7.8,
    ("list", 100): 563.0,
    ("list", 1000): 5630.0,  # linear in the number of servers, as measured at 100
    ("boot", "one_port"): 1640.0,
    ("port", "bulk"): 93.0,
    ("port", "single"): 130.0,
}
LATENCY_MS = {"create_accepted": 149.0, "network": 73.0, "subnet": 63.0, "port": 118.0}
BOOT_100_S = 91.0
