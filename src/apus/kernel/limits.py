"""Every bound that the kernel keeps, with its reason.  Overflow of each has a defined, safe meaning."""

from __future__ import annotations

from typing import Final

MAILBOX_MAX: Final = 10_000
"""Hints that one loop holds; beyond it a full scan is cheaper than a list."""

FLOWS_AT_ONCE_MAX: Final = 400
"""Flows that one runner advances at the same time; the rest wait in the table."""

FLOW_LEASE_S: Final = 15.0
"""How long a silent runner keeps a flow: several heartbeats, and short against what a user waits."""

FLOW_HEARTBEAT_S: Final = 4.0

FLOW_SCAN_S: Final = 5.0
"""A lost hint costs this much at most."""

FLOW_LINGER_S: Final = 2.0
"""A wait shorter than this stays in memory (its lease guards it); a longer one is parked in its row."""

FLOW_PARK_S: Final = 30.0
"""A parked flow is looked at after so long, hinted or not."""

FLOW_AHEAD_S: Final = 120.0
"""No flow is parked or leased for so long."""

STEP_TRIES_MIN: Final = 8
"""A step is given up for its deadline only after so many tries: a clock that jumped ahead is no failure."""

UNDO_TRIES_MAX: Final = 12
"""With back-off about five minutes; then the flow is `stuck` and says so."""

BACKOFF_FIRST_S: Final = 0.2
BACKOFF_MAX_S: Final = 30.0

PAGE_MAX: Final = 1000
"""Rows in one answer: the limit of Nova and Neutron, and a bound on how long a read keeps the loop."""

BODY_MAX_BYTES: Final = 1 << 20
"""A JSON body; image and object data are streams and have limits of their own."""
