"""All tables of the package: importing the services' stores fills the schema that `migrate` makes or renews."""

from __future__ import annotations

from apus.kernel import events, flow
from apus.kernel.table import metadata
from apus.node import first_marks, keys, shared_store
from apus.services.compute import store as compute
from apus.services.identity import store as identity
from apus.services.image import store as image
from apus.services.network import store as network
from apus.services.placement import store as placement
from apus.wire import idempotency

__all__ = [
    "compute",
    "events",
    "first_marks",
    "flow",
    "idempotency",
    "identity",
    "image",
    "keys",
    "metadata",
    "network",
    "placement",
    "shared_store",
]
