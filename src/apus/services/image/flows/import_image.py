"""Imports: staged data is judged and taken as it lies; web-download fetches first.  Both end active or queued again."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

import msgspec

from apus.kernel import events
from apus.kernel.errors import Conflict, Invalid, Unavailable
from apus.kernel.flow import Effect, Run, Saga, Step
from apus.kernel.record import changed
from apus.kernel.world import Transaction
from apus.services.image import limits
from apus.services.image.drivers.fetch import Fetcher
from apus.services.image.intake import Intake
from apus.services.image.logic.inspect import refusal
from apus.services.image.model import MOVES, Data, Event, Image, Status
from apus.services.image.store import DEBRIS, IMAGES, put_debris


@dataclasses.dataclass(frozen=True, slots=True)
class ImportTools:
    intake: Intake
    fetcher: Fetcher


class ImportInput(msgspec.Struct, frozen=True, kw_only=True):
    image_id: str
    method: str
    uri: str | None = None


ImportRun = Run[ImportInput, ImportTools]


def accept(tx: Transaction, image: Image, data: Data) -> Image:
    """The object is the image's data from this transaction on.  Raise Conflict when the sweep has taken it."""
    if not DEBRIS.delete(tx, data.object):
        raise Conflict("image.writer_lost", f"The data of image {image.id} came too late and was given up.")
    active = changed(
        image,
        status=MOVES.move(image.status, Event.ACTIVATE),
        data=data,
        size_bytes=data.finding.size_bytes,
        incoming=None,
        staged=None,
        failure=None,
        updated_at_s=tx.now_s,
    )
    events.emit(tx, "image.image.activated", image.id, image.project_id, size_bytes=data.finding.size_bytes)
    return IMAGES.put(tx, active)


def judge(image: Image, data: Data) -> None:
    """Raise Invalid when the bytes are not what the image declares."""
    assert image.disk_format is not None
    assert image.container_format is not None
    why = refusal(image.disk_format, image.container_format, data.finding, min_disk_gib=image.min_disk_gib)
    if why is not None:
        raise Invalid("image.refused", why, field="disk_format")


def fail(tx: Transaction, image: Image, why: str) -> None:
    """Back to queued; whatever it had is debris."""
    for name in (image.incoming, image.staged.object if image.staged else None):
        if name is not None:
            put_debris(tx, name, image.id, 0.0)
    status = MOVES.move(image.status, Event.FAIL)
    IMAGES.put(
        tx, changed(image, status=status, incoming=None, staged=None, failure=why, updated_at_s=tx.now_s)
    )  # fmt: skip
    events.emit(tx, "image.image.failed", image.id, image.project_id, reason=why)


async def _take_staged(run: ImportRun) -> Effect:
    def work(tx: Transaction) -> None:
        image = _importing(tx, run.input.image_id)
        if image.staged is None:
            raise Conflict("image.nothing_staged", f"Image {image.id} has no staged data.")
        judge(image, image.staged)
        accept(tx, image, image.staged)

    return Effect(work)


async def _announce(run: ImportRun) -> Effect:
    name = f"{run.input.image_id}/{run.child_id('data')}"

    def work(tx: Transaction) -> str:
        image = _importing(tx, run.input.image_id)
        put_debris(tx, name, image.id, tx.now_s + limits.DOWNLOAD_WITHIN_S + limits.WRITER_LEASE_S)
        IMAGES.put(tx, changed(image, incoming=name))
        return name

    return Effect(work)


async def _renounce(run: ImportRun) -> Effect:
    name = f"{run.input.image_id}/{run.child_id('data')}"
    return Effect(lambda tx: put_debris(tx, name, run.input.image_id, 0.0))


async def _fetch(run: ImportRun) -> Any:
    assert run.input.uri is not None
    chunks = run.deps.fetcher.fetch(run.input.uri)
    try:
        return msgspec.to_builtins(await run.deps.intake.keep(run.input.image_id, run.outputs["announce"], chunks))
    except Unavailable as error:
        if error.code != "image.no_answer" or run.world.clock.now_s() < run.started_at_s + limits.ANSWER_WITHIN_S:
            raise
        raise Invalid("image.no_answer", error.shown, field="method.uri") from error


async def _activate(run: ImportRun) -> Effect:
    data = msgspec.convert(run.outputs["fetch"], Data)

    def work(tx: Transaction) -> None:
        image = _importing(tx, run.input.image_id)
        judge(image, data)
        accept(tx, image, data)

    return Effect(work)


def _importing(tx: Transaction, image_id: str) -> Image:
    image = IMAGES.require(tx, image_id)
    if image.status is not Status.IMPORTING:
        raise Conflict("image.not_importing", f"Image {image_id} is {image.status}: its import is over.")
    return image


def _tell(tx: Transaction, run: ImportRun, reason: str) -> None:
    image = IMAGES.get(tx, run.input.image_id)
    if image is not None and image.status is Status.IMPORTING:
        fail(tx, image, reason)


IMPORT_STAGED: Final = Saga(
    "image.import_staged",
    version=1,
    input=ImportInput,
    steps=(Step("take", do=_take_staged),),
    on_unwound=_tell,
)

IMPORT_URL: Final = Saga(
    "image.import_url",
    version=1,
    input=ImportInput,
    steps=(
        Step("announce", do=_announce, undo=_renounce),
        Step("fetch", do=_fetch, within_s=limits.DOWNLOAD_WITHIN_S),
        Step("activate", do=_activate),
    ),
    on_unwound=_tell,
)
SAGAS: Final = (IMPORT_STAGED, IMPORT_URL)
