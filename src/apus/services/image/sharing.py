"""Members: the projects that an image is shared with, and what they answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apus.kernel import events
from apus.kernel.caller import Caller
from apus.kernel.errors import Forbidden, Invalid, NotFound, TooLarge
from apus.kernel.record import changed
from apus.kernel.world import Transaction, World
from apus.services.image import limits
from apus.services.image.model import Image, Member, MemberStatus, Visibility
from apus.services.image.store import MEMBERS, member_id

See = Callable[[Transaction, Caller, str], Image]


class Sharing:
    """`see` and `own` find an image for the caller: one that he may look at, one that is his to change."""

    def __init__(self, world: World, see: See, own: See) -> None:
        self._world, self._see, self._own = world, see, own

    async def add(self, caller: Caller, image_id: str, project_id: str) -> Member:
        if not 0 < len(project_id) <= limits.NAME_MAX or "\0" in project_id:
            raise Invalid("image.member", f"member: 1 to {limits.NAME_MAX} characters are possible.", field="member")

        def work(tx: Transaction) -> Member:
            image = _shared(self._own(tx, caller, image_id))
            count = MEMBERS.count(tx, image_id=image_id)
            if count >= limits.MEMBERS_MAX:
                raise TooLarge("image.members", f"Image {image_id} has {count} members, the most that are possible.")
            events.emit(tx, "image.member.created", image_id, image.project_id, caller=caller, member=project_id)
            return MEMBERS.insert(
                tx,
                Member(
                    id=member_id(image_id, project_id),
                    image_id=image_id,
                    project_id=project_id,
                    created_at_s=tx.now_s,
                    updated_at_s=tx.now_s,
                ),
            )

        return await self._world.store.write(work)

    async def members(self, caller: Caller, image_id: str) -> Sequence[Member]:
        """All of them for the owner; a member sees himself."""

        def work(tx: Transaction) -> list[Member]:
            image = _shared(self._see(tx, caller, image_id))
            found = MEMBERS.find(tx, image_id=image_id)
            if not _owns(caller, image):
                found = [member for member in found if member.project_id == caller.project_id]
            return sorted(found, key=lambda member: (member.created_at_s, member.id))

        return await self._world.store.read(work)

    async def member(self, caller: Caller, image_id: str, project_id: str) -> Member:
        def work(tx: Transaction) -> Member:
            image = self._see(tx, caller, image_id)
            if not _owns(caller, image) and project_id != caller.project_id:
                raise _no_member(image_id, project_id)
            return _member(tx, image_id, project_id)

        return await self._world.store.read(work)

    async def answer(self, caller: Caller, image_id: str, project_id: str, status: MemberStatus) -> Member:
        """The member's own word; not the owner's."""

        def work(tx: Transaction) -> Member:
            image = self._see(tx, caller, image_id)
            if not caller.is_admin and project_id != caller.project_id:
                if not _owns(caller, image):
                    raise _no_member(image_id, project_id)
                raise Forbidden("image.member_answer", f"Only {project_id} itself may accept or reject the image.")
            member = _member(tx, image_id, project_id)
            events.emit(tx, "image.member.updated", image_id, image.project_id, caller=caller, status=status.value)
            return MEMBERS.put(tx, changed(member, status=status, updated_at_s=tx.now_s))

        return await self._world.store.write(work)

    async def remove(self, caller: Caller, image_id: str, project_id: str) -> None:
        def work(tx: Transaction) -> None:
            image = _shared(self._own(tx, caller, image_id))
            MEMBERS.delete(tx, _member(tx, image_id, project_id).id)
            events.emit(tx, "image.member.deleted", image_id, image.project_id, caller=caller, member=project_id)

        await self._world.store.write(work)


def _owns(caller: Caller, image: Image) -> bool:
    return caller.is_admin or (image.project_id is not None and caller.project_id == image.project_id)


def _shared(image: Image) -> Image:
    if image.visibility is not Visibility.SHARED:
        raise Forbidden("image.not_shared", "Only shared images have members.")
    return image


def _member(tx: Transaction, image_id: str, project_id: str) -> Member:
    member = MEMBERS.get(tx, member_id(image_id, project_id))
    if member is None:
        raise _no_member(image_id, project_id)
    return member


def _no_member(image_id: str, project_id: str) -> NotFound:
    return NotFound("image.no_member", f"{project_id} is not a member of image {image_id}.")
