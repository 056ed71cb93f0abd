"""Quotas: what is counted, the defaults, and the bounds of every input."""

from __future__ import annotations

from typing import Final

QUOTA_DEFAULTS: Final = {
    "network": 100,
    "subnet": 100,
    "port": 500,
    "security_group": 10,
    "security_group_rule": 100,
    "router": 10,
    "floatingip": 50,
    "rbac_policy": 10,
    "subnetpool": -1,
}
"""Neutron's own defaults; -1 is no limit."""

NAME_MAX: Final = 255
DESCRIPTION_MAX: Final = 255
TAGS_MAX: Final = 50
TAG_MAX: Final = 255
BULK_MAX: Final = 1000
"""Things in one bulk create: what a page holds."""
NAMESERVERS_MAX: Final = 5
ROUTES_MAX: Final = 20
PAIRS_MAX: Final = 10
POOLS_MAX: Final = 50
FIXED_IPS_MAX: Final = 64
GROUPS_PER_PORT_MAX: Final = 50
MTU_MIN: Final = 68
MTU_MIN_IPV6: Final = 1280
MTU_MAX: Final = 9000
