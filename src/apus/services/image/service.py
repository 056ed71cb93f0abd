"""The image service: who may do what, what is written together, and what is left to flows and loops."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from apus.kernel import events
from apus.kernel.buffers import Chunk
from apus.kernel.caller import Caller, the_system
from apus.kernel.errors import Conflict, Forbidden, Invalid, NotFound, OverQuota, Unavailable
from apus.kernel.flow import Flow, FlowRunner, flows_of, load_flow
from apus.kernel.flow.log import page_flows
from apus.kernel.ids import child_id, is_uuid, new_id
from apus.kernel.loop import Mailbox
from apus.kernel.policy import Policy, Rule
from apus.kernel.record import changed
from apus.kernel.world import Transaction, World
from apus.services.image import limits
from apus.services.image.contract import BootImage, ImageUses
from apus.services.image.drivers.fetch import Fetcher, HttpFetcher
from apus.services.image.flows.import_image import (
    IMPORT_STAGED,
    IMPORT_URL,
    SAGAS,
    ImportInput,
    ImportTools,
    accept,
    fail,
    judge,
)
from apus.services.image.intake import Intake, contents
from apus.services.image.logic.change_image import Op, change_image, check_tags
from apus.services.image.logic.choose_images import ImageQuery, choose_images, sees
from apus.services.image.logic.inspect import INSPECTED_CONTAINERS
from apus.services.image.model import MOVES, Data, Event, Image, MemberStatus, Status, Visibility
from apus.services.image.sharing import Sharing
from apus.services.image.store import IMAGES, MEMBERS, bytes_of, member_id, put_debris
from apus.services.object.contract import ObjectService

POLICY: Final[Policy] = {
    "image:versions": Rule.PUBLIC,
    "image:schemas": Rule.ANYONE,
    "image:info": Rule.READER,
    "image:list": Rule.READER,
    "image:show": Rule.READER,
    "image:create": Rule.MEMBER,
    "image:change": Rule.MEMBER,
    "image:delete": Rule.MEMBER,
    "image:upload": Rule.MEMBER,
    "image:download": Rule.READER,
    "image:deactivate": Rule.MEMBER,
    "image:reactivate": Rule.MEMBER,
    "member:list": Rule.READER,
    "member:show": Rule.READER,
    "member:create": Rule.MEMBER,
    "member:update": Rule.MEMBER,
    "member:delete": Rule.MEMBER,
    "task:list": Rule.ADMIN,
    "store:detail": Rule.ADMIN,
}


class CreateImage(msgspec.Struct, frozen=True, kw_only=True):
    id: str | None = None
    ops: tuple[Op, ...] = ()
    """What makes it differ from an empty one."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    images: int
    total_bytes: int
    in_transit: int
    staged_bytes: int


class Images:
    """Wiring: register its flows (`register`), drive SweepDebris with `debris`, give `POLICY` to the door."""

    def __init__(
        self,
        world: World,
        flows: FlowRunner,
        objects: ObjectService,
        *,
        settings: limits.Settings | None = None,
        fetcher: Fetcher | None = None,
        uses: ImageUses | None = None,
    ) -> None:
        self.settings = settings or limits.Settings()
        self._world, self._flows, self._objects, self._uses = world, flows, objects, uses
        self._intake = Intake(world, objects, self.settings)
        self._fetcher = fetcher or HttpFetcher(private_targets=self.settings.web_download_private_targets)
        self.sharing = Sharing(world, self._see, self._own)
        self.debris = Mailbox()
        """Hints for the loop SweepDebris."""
        for saga in SAGAS:
            flows.register(saga, ImportTools(self._intake, self._fetcher))

    # ------------------------------------------------------------------------------------------ records
    async def create(self, caller: Caller, wish: CreateImage) -> Image:
        if wish.id is not None and not (is_uuid(wish.id) and len(wish.id) == 36):
            raise Invalid("image.id", f"id: {wish.id!r} is not a UUID.", field="id")
        image_id = new_id(self._world.dice) if wish.id is None else wish.id.lower()

        def work(tx: Transaction) -> Image:
            self._check_count(tx, caller)
            empty = Image(
                id=image_id,
                project_id=caller.project_id,
                created_at_s=tx.now_s,
                updated_at_s=tx.now_s,
            )
            image = change_image(empty, wish.ops, is_admin=caller.is_admin)
            events.emit(tx, "image.image.created", image.id, image.project_id, caller=caller)
            return IMAGES.insert(tx, image)

        return await self._world.store.write(work)

    async def list(self, caller: Caller, query: ImageQuery) -> Sequence[Image]:
        def work(tx: Transaction) -> Sequence[Image]:
            memberships: dict[str, MemberStatus] = {}
            if caller.project_id is not None:
                mine = MEMBERS.find(tx, project_id=caller.project_id)
                memberships = {member.image_id: member.status for member in mine}
            return choose_images(caller, _candidates(tx, caller, memberships, query), memberships, query)

        return await self._world.store.read(work)

    async def get(self, caller: Caller, image_id: str) -> Image:
        return await self._world.store.read(lambda tx: self._see(tx, caller, image_id))

    async def change(self, caller: Caller, image_id: str, ops: Sequence[Op]) -> Image:
        def work(tx: Transaction) -> Image:
            image = self._own(tx, caller, image_id)
            new = change_image(image, ops, is_admin=caller.is_admin)
            if new == image:
                return image
            events.emit(tx, "image.image.updated", image.id, image.project_id, caller=caller)
            return IMAGES.put(tx, changed(new, updated_at_s=tx.now_s))

        return await self._world.store.write(work)

    async def add_tag(self, caller: Caller, image_id: str, tag: str) -> None:
        def work(tx: Transaction) -> None:
            image = self._own(tx, caller, image_id)
            if tag not in image.tags:
                check_tags((*image.tags, tag))
                IMAGES.put(tx, changed(image, tags=(*image.tags, tag), updated_at_s=tx.now_s))

        await self._world.store.write(work)

    async def drop_tag(self, caller: Caller, image_id: str, tag: str) -> None:
        def work(tx: Transaction) -> None:
            image = self._own(tx, caller, image_id)
            if tag not in image.tags:
                raise NotFound("image.no_tag", f"Image {image_id} has no tag {tag[:80]!r}.")
            kept = tuple(one for one in image.tags if one != tag)
            IMAGES.put(tx, changed(image, tags=kept, updated_at_s=tx.now_s))

        await self._world.store.write(work)

    async def switch(self, caller: Caller, image_id: str, event: Event) -> None:
        """Deactivate or reactivate.  Raise Forbidden from any other state: what Glance answers there."""

        def work(tx: Transaction) -> None:
            image = self._own(tx, caller, image_id)
            try:
                status = MOVES.move(image.status, event)
            except Conflict as error:
                raise Forbidden(error.code, error.shown) from error
            if status is not image.status:
                events.emit(tx, f"image.image.{status.value}", image.id, image.project_id, caller=caller)
                IMAGES.put(tx, changed(image, status=status, updated_at_s=tx.now_s))

        await self._world.store.write(work)

    async def delete(self, caller: Caller, image_id: str) -> None:
        """The row goes first; its bytes follow (SweepDebris), however often we die in between."""

        def check(tx: Transaction) -> Image:
            image = self._own(tx, caller, image_id)
            if image.protected:
                raise Forbidden("image.protected", f"Image {image_id} is protected and cannot be deleted.")
            return image

        await self._world.store.read(check)
        if self._uses is not None and await self._uses.image_in_use(image_id):
            raise Conflict("image.in_use", f"Image {image_id} could not be deleted because it is in use.")

        def work(tx: Transaction) -> None:
            image = check(tx)
            for data in (image.data, image.staged):
                if data is not None:
                    put_debris(tx, data.object, image.id, 0.0)
            self._flows.cancel(tx, "image", image_id)
            MEMBERS.delete_where(tx, image_id=image_id)
            IMAGES.delete(tx, image_id)
            events.emit(tx, "image.image.deleted", image.id, image.project_id, caller=caller)
            tx.after_commit(self.debris.kick)

        await self._world.store.write(work)

    # -------------------------------------------------------------------------------------------- bytes
    async def upload(
        self, caller: Caller, image_id: str, chunks: AsyncIterator[bytes], *, size_bytes: int | None = None
    ) -> None:
        """Active when it returns; whatever else happens, the image is queued again and nothing is left."""
        name = await self._announce(caller, image_id, Event.UPLOAD)
        async with self._giving_up_unless_kept(image_id, name):
            data = await self._intake.keep(image_id, name, chunks, size_bytes=size_bytes)

            def work(tx: Transaction) -> None:
                image = _still_written(tx, image_id, name)
                self._check_bytes(tx, image, data)
                judge(image, data)
                accept(tx, image, data)

            await self._world.store.write(work)

    async def stage(
        self, caller: Caller, image_id: str, chunks: AsyncIterator[bytes], *, size_bytes: int | None = None
    ) -> None:
        """Keep the bytes for an import.  They are judged there."""
        name = await self._announce(caller, image_id, Event.STAGE)
        async with self._giving_up_unless_kept(image_id, name):
            data = await self._intake.keep(image_id, name, chunks, size_bytes=size_bytes)

            def work(tx: Transaction) -> None:
                image = _still_written(tx, image_id, name)
                self._check_bytes(tx, image, data)
                put_debris(tx, name, image_id, tx.now_s + limits.STAGED_FOR_S)
                IMAGES.put(tx, changed(image, incoming=None, staged=data, updated_at_s=tx.now_s))

            await self._world.store.write(work)

    async def start_import(self, caller: Caller, image_id: str, method: str, uri: str | None) -> Flow:
        if method == "web-download":
            if not uri:
                raise Invalid("image.uri", "method.uri: web-download needs one.", field="method.uri")
            self._fetcher.check(uri)

        def work(tx: Transaction) -> Flow:
            image = self._own(tx, caller, image_id)
            _need_formats(image)
            if method == "web-download":
                saga, status = IMPORT_URL, MOVES.move(image.status, Event.DOWNLOAD)
            else:
                saga, status = IMPORT_STAGED, MOVES.move(image.status, Event.IMPORT)
                if image.staged is None:
                    raise Conflict("image.still_staging", f"The data of image {image_id} is still being staged.")
                put_debris(tx, image.staged.object, image_id, tx.now_s + limits.DOWNLOAD_WITHIN_S)
            IMAGES.put(tx, changed(image, status=status, failure=None, updated_at_s=tx.now_s))
            return self._flows.start(
                tx,
                saga,
                ImportInput(image_id=image_id, method=method, uri=uri),
                resource_type="image",
                resource_id=image_id,
                project_id=image.project_id,
                caller=caller,
            )

        return await self._world.store.write(work)

    async def download(self, caller: Caller, image_id: str) -> Image:
        """The image, when its bytes may be read.  Raise Forbidden; `data` is None when there are none yet."""
        if caller.system and "service" in caller.roles:  # a host of ours, whose guest is to boot from it
            caller = the_system(caller.request_id)
        image = await self.get(caller, image_id)
        if image.status is Status.DEACTIVATED and not caller.is_admin:
            raise Forbidden("image.deactivated", f"The requested image {image_id} has been deactivated.")
        return image

    def contents(self, data: Data, *, offset: int = 0, length: int | None = None) -> AsyncIterator[Chunk]:
        return contents(self._objects, data, offset=offset, length=length)

    # ------------------------------------------------------------------------- what other services call
    async def boot_image(self, caller: Caller, image_id: str) -> BootImage:
        image = await self.get(caller, image_id)
        data = image.data
        if image.status is not Status.ACTIVE or data is None:
            raise Conflict("image.not_active", f"Image {image_id} is {image.status}, not active.")
        if image.container_format not in INSPECTED_CONTAINERS or image.disk_format is None:
            raise Conflict(
                "image.not_bootable",
                f"Image {image_id} is a {image.container_format}; servers boot from: bare, ami, aki, ari.",
            )
        assert data.finding.problem is None, "an active image passed inspection"
        return BootImage(
            id=image.id,
            name=image.name or "",
            disk_format=image.disk_format,
            container_format=image.container_format,
            size_bytes=data.finding.size_bytes,
            virtual_size_bytes=data.finding.virtual_size_bytes,
            checksum_sha512=data.checksum_sha512,
            min_disk_gib=image.min_disk_gib,
            min_memory_mib=image.min_memory_mib,
            properties=image.properties,
            owner_project_id=image.project_id,
        )

    async def read(self, image_id: str, *, offset: int = 0) -> AsyncIterator[Chunk]:
        image = await self._world.store.read(lambda tx: IMAGES.get(tx, image_id))
        if image is None or image.data is None:
            raise _no_image(image_id)
        async for chunk in self.contents(image.data, offset=offset):
            yield chunk

    async def import_file(
        self,
        path: Path,
        name: str,
        *,
        disk_format: str = "raw",
        container_format: str = "bare",
        visibility: Visibility = Visibility.PUBLIC,
        properties: Mapping[str, str] | None = None,
        project_id: str | None = None,
    ) -> str:
        """Make an active image of a file, once: the same name again gives the image that is there.  Returns its id."""
        image_id = child_id("image.import_file", project_id or "", name)
        caller = msgspec.structs.replace(the_system(), project_id=project_id)
        known = await self._world.store.read(lambda tx: IMAGES.get(tx, image_id))
        if known is None:

            def work(tx: Transaction) -> None:
                image = Image(
                    id=image_id,
                    project_id=project_id,
                    visibility=visibility,
                    name=name,
                    disk_format=disk_format,
                    container_format=container_format,
                    properties=dict(properties or {}),
                    created_at_s=tx.now_s,
                    updated_at_s=tx.now_s,
                )
                IMAGES.insert(tx, image)
                events.emit(tx, "image.image.created", image_id, project_id)

            await self._world.store.write(work)
        if known is None or known.data is None:
            stat = await self._world.disk.stat(path)
            size_bytes = None if stat is None else stat.size_bytes
            chunks = self._world.disk.stream(path, chunk_bytes=limits.CHUNK_BYTES)
            await self.upload(caller, image_id, chunks, size_bytes=size_bytes)
        return image_id

    # ------------------------------------------------------------------------------------ tasks and usage
    async def tasks_of(self, caller: Caller, image_id: str) -> Sequence[Flow]:
        def work(tx: Transaction) -> Sequence[Flow]:
            self._own(tx, caller, image_id)
            return flows_of(tx, image_id)

        return await self._world.store.read(work)

    async def tasks(self, limit: int) -> Sequence[Flow]:
        def work(tx: Transaction) -> Sequence[Flow]:
            flows = page_flows(tx, project_id=None, state=None, resource_id=None, limit=limit)
            return [flow for flow in flows if flow.resource_type == "image"]

        return await self._world.store.read(work)

    async def task(self, task_id: str) -> Flow:
        flow = await self._world.store.read(lambda tx: load_flow(tx, task_id))
        if flow.resource_type != "image":
            raise NotFound("image.no_task", f"There is no task {task_id}.")
        return flow

    async def usage(self, caller: Caller) -> Usage:
        def work(tx: Transaction) -> Usage:
            images = IMAGES.find(tx, project_id=caller.project_id)
            return Usage(
                images=len(images),
                total_bytes=sum(image.size_bytes or 0 for image in images),
                in_transit=sum(image.incoming is not None for image in images),
                staged_bytes=sum(image.staged.finding.size_bytes for image in images if image.staged),
            )

        return await self._world.store.read(work)

    # -------------------------------------------------------------------------------------------- within
    def _see(self, tx: Transaction, caller: Caller, image_id: str) -> Image:
        """Raise NotFound when there is none, or none for him."""
        image = IMAGES.get(tx, image_id) if is_uuid(image_id) else None
        if image is None:
            raise _no_image(image_id)
        member = None
        if caller.project_id is not None and image.visibility is Visibility.SHARED:
            member = MEMBERS.get(tx, member_id(image_id, caller.project_id))
        if not sees(caller, image, member.status if member else None):
            raise _no_image(image_id)
        return image

    def _own(self, tx: Transaction, caller: Caller, image_id: str) -> Image:
        """The same, and Forbidden when it is visible to him but not his."""
        image = self._see(tx, caller, image_id)
        if not caller.is_admin and (image.project_id is None or image.project_id != caller.project_id):
            raise Forbidden("image.not_yours", f"Image {image_id} belongs to another project.")
        return image

    async def _announce(self, caller: Caller, image_id: str, event: Event) -> str:
        """Before the first byte: the image is being written, and the object is debris unless its writer lives."""
        name = f"{image_id}/{new_id(self._world.dice)}"

        def work(tx: Transaction) -> str:
            image = self._own(tx, caller, image_id)
            if event is Event.UPLOAD:
                _need_formats(image)
            status = MOVES.move(image.status, event)
            if image.incoming is not None:
                raise Conflict("image.busy", f"Another upload to image {image_id} has begun.")
            put_debris(tx, name, image_id, tx.now_s + limits.WRITER_LEASE_S)
            IMAGES.put(tx, changed(image, status=status, incoming=name, failure=None, updated_at_s=tx.now_s))
            return name

        return await self._world.store.write(work)

    @contextlib.asynccontextmanager
    async def _giving_up_unless_kept(self, image_id: str, name: str) -> AsyncIterator[None]:
        """Refused, cut short, cancelled: the image is queued again.  (Killed: the sweep does the same, later.)"""
        why = "The upload was cut short."
        kept = False
        try:
            yield
            kept = True
        except (Invalid, Conflict, OverQuota, Unavailable, NotFound) as error:
            why = error.shown
            raise
        finally:
            if not kept:
                await self._world.store.write(lambda tx: self._give_up(tx, image_id, name, why))

    def _give_up(self, tx: Transaction, image_id: str, name: str, why: str) -> None:
        image = IMAGES.get(tx, image_id)
        if image is not None and image.incoming == name:
            fail(tx, image, why)
        else:
            put_debris(tx, name, image_id, 0.0)
        tx.after_commit(self.debris.kick)

    def _check_count(self, tx: Transaction, caller: Caller) -> None:
        most = self.settings.project_images_max
        if most >= 0 and caller.project_id is not None and IMAGES.count(tx, project_id=caller.project_id) >= most:
            raise OverQuota("image.quota", f"The project has {most} images already, the most that it may have.")

    def _check_bytes(self, tx: Transaction, image: Image, data: Data) -> None:
        most = self.settings.project_bytes_max
        if most < 0 or image.project_id is None:
            return
        held = bytes_of(tx, image.project_id)
        if held + data.finding.size_bytes > most:
            raise OverQuota(
                "image.quota_bytes",
                f"{data.finding.size_bytes} bytes were asked for; the project has {held} of its {most} bytes.",
            )


def _candidates(
    tx: Transaction, caller: Caller, memberships: Mapping[str, MemberStatus], query: ImageQuery
) -> Sequence[Image]:
    """Few more than he may see: other tenants' rows are not even read."""
    if caller.is_admin:
        return IMAGES.find(tx, hidden=query.hidden)
    found = {image.id: image for image in IMAGES.find(tx, visibility=Visibility.PUBLIC.value)}
    wanted: list[dict[str, Any]] = []
    if caller.project_id is not None:
        wanted.append({"project_id": caller.project_id})
    if memberships:
        wanted.append({"id": list(memberships)})
    if query.every_visibility or query.visibility is Visibility.COMMUNITY:
        wanted.append({"visibility": Visibility.COMMUNITY.value})
    for where in wanted:
        found.update((image.id, image) for image in IMAGES.find(tx, **where))
    return list(found.values())


def _still_written(tx: Transaction, image_id: str, name: str) -> Image:
    image = IMAGES.get(tx, image_id)
    if image is None:
        raise Conflict("image.gone", f"Image {image_id} was deleted while its data was uploaded.")
    if image.incoming != name:
        raise Conflict("image.writer_lost", f"The upload to image {image_id} paused too long and was given up.")
    return image


def _need_formats(image: Image) -> None:
    if not image.disk_format or not image.container_format:
        raise Invalid(
            "image.formats", "Properties disk_format, container_format must be set prior to saving data.",
            field="disk_format",
        )  # fmt: skip


def _no_image(image_id: str) -> NotFound:
    return NotFound("image.not_found", f"No image found with ID {image_id}")
