"""The condition of a write: looked at before its body, so that a refusal comes early, and decided with the write.

Which headers make one, and how a refusal reads, is the door's to say (ADR 30 says why a write takes turns).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

from apus.kernel.buffers import Chunk
from apus.services.object.engine import Found
from apus.services.object.service import Objects


class Condition:
    """Until it ends nobody else who asks the same comes between.  Where there is none nothing is looked up, and nobody
    waits."""

    def __init__(
        self, objects: Objects, place: tuple[str, str, str], check: Callable[[Found | None], None] | None
    ) -> None:
        """`check` raises when what is there does not meet it; None: there is no condition."""
        self._objects, self._place, self._check = objects, place, check
        self._held = AsyncExitStack()

    async def __aenter__(self) -> Condition:
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._held.__aexit__(*raised)

    async def look(self) -> None:
        if self._check is not None:
            self._check(await self._objects.find(*self._place, newest=True))

    async def settle(self) -> None:
        """Look once more, and keep others out from now on."""
        if self._check is not None:
            self._check(await self._held.enter_async_context(self._objects.alone(*self._place)))

    def over(self, data: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        """The body; at its end the condition holds."""
        return data if self._check is None else self._settled(data)

    async def _settled(self, data: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        async for piece in data:
            yield piece
        await self.settle()
