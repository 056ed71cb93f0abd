"""Who may do what in placement: the estate is the operator's and the services'; names are for anybody with a role."""

from __future__ import annotations

from typing import Final

from apus.kernel.policy import Policy, Rule

POLICY: Final[Policy] = {
    "versions": Rule.PUBLIC,
    "placement:manage": Rule.SERVICE,
    "placement:usages": Rule.READER,
}
