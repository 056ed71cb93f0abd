"""The tables of the image service."""

from __future__ import annotations

from typing import Final

from apus.kernel.ids import child_id
from apus.kernel.record import changed
from apus.kernel.table import RecordTable
from apus.kernel.world import Transaction
from apus.services.image.model import Debris, Image, Member

IMAGES: Final = RecordTable(
    "image_image",
    Image,
    columns=("project_id", "status", "visibility", "name", "hidden", "created_at_s", "updated_at_s", "size_bytes"),
    indexes=(("project_id",), ("visibility",), ("status",)),
)
MEMBERS: Final = RecordTable(
    "image_member",
    Member,
    columns=("image_id", "project_id", "status"),
    unique=(("image_id", "project_id"),),
    indexes=(("project_id",),),
)
DEBRIS: Final = RecordTable("image_debris", Debris, columns=("after_s", "image_id"), indexes=(("after_s",),))


def member_id(image_id: str, project_id: str) -> str:
    return child_id("image.member", image_id, project_id)


def debris_due(tx: Transaction, now_s: float, limit: int = 500) -> list[str]:
    """Names of objects whose time has come."""
    rows = tx.execute(
        "SELECT id FROM image_debris WHERE after_s <= :now_s ORDER BY after_s LIMIT :limit",
        {"now_s": now_s, "limit": limit},
    )
    return [row[0] for row in rows]


def put_debris(tx: Transaction, name: str, image_id: str, after_s: float) -> None:
    """The object must be gone after then; said again, the newest word counts."""
    known = DEBRIS.get(tx, name)
    if known is None:
        DEBRIS.insert(tx, Debris(id=name, image_id=image_id, after_s=after_s))
    else:
        DEBRIS.put(tx, changed(known, after_s=after_s))


def bytes_of(tx: Transaction, project_id: str) -> int:
    text = "SELECT coalesce(sum(size_bytes), 0) FROM image_image WHERE project_id = :project_id"
    return int(tx.execute(text, {"project_id": project_id}).scalar())
