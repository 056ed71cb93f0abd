"""Events of objects reach the cloud's own events across the bus, as the object process tells them."""

from __future__ import annotations

import asyncio
import dataclasses

from apus.kernel.events import events_after
from apus.kernel.remote import client, serve
from apus.kernel.table import metadata
from apus.node.announcing import SUBJECT, StoredEvents
from apus.platform.bus_local import LocalBus
from apus.platform.clock import SystemClock
from apus.platform.store_sqlite import SqliteStore
from apus.services.object.contract import ObjectEvent, ObjectEvents
from tests.object_store import make_world


def test_across_the_bus() -> None:
    async def story() -> None:
        store = SqliteStore(None, SystemClock())
        await store.create_schema(metadata)
        world = dataclasses.replace(make_world(), store=store, bus=LocalBus())
        await serve(world.bus, SUBJECT, ObjectEvents, StoredEvents(world))
        told: ObjectEvents = client(world.bus, SUBJECT, ObjectEvents)
        event = ObjectEvent(
            name="ObjectRemoved:DeleteMarkerCreated",
            account="AUTH_a",
            bucket="c",
            key="é/x",
            at_s=1.5,
            sequence="0A",
            version_id="v",
        )
        await told.announce(event)
        (found,) = await store.read(lambda tx: events_after(tx, 0, project_id="a"))
        assert (found.kind, found.resource_id, found.project_id) == ("object.object.deleted", "c/é/x", "a")
        assert (found.details["event"], found.details["version_id"]) == (event.name, "v")
        await store.close()

    asyncio.run(story())
