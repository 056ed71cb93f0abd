"""What an account keeps under each storage policy."""

from __future__ import annotations

import dataclasses

from apus.services.object.directory import Directory
from apus.services.object.logic.hidden import is_hidden
from apus.services.object.model import IndexHead, ListingAsk, Row


@dataclasses.dataclass(slots=True)
class Totals:
    containers: int = 0
    objects: int = 0
    size_bytes: int = 0


async def policy_totals(directory: Directory, account: str, head: IndexHead | None, policies: int) -> list[Totals]:
    """By the numbers of policies.  `head`: the account's, as its owner sees it.

    With one policy these are the account's own totals; with more the containers are counted, page by page.
    """
    if head is None or policies == 1:
        return [Totals(head.rows, head.objects, head.size_bytes) if head else Totals()] + [
            Totals() for _ in range(policies - 1)
        ]
    totals = [Totals() for _ in range(policies)]
    ask = ListingAsk()
    while rows := await directory.listing(account, "", ask):
        for row in rows:
            assert isinstance(row, Row)
            total = totals[int(row.content_type or 0)]
            total.containers += not is_hidden(account, row.name)
            total.objects += row.count
            total.size_bytes += row.size_bytes
        ask = ListingAsk(marker=row.name)
    return totals
