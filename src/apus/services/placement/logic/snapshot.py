"""All hosts as arrays, so that a thousand of them are weighed in a tenth of a millisecond.

A view, never the truth: it may be old, and a choice made on it is checked when it is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from apus.services.placement.model import HostRow


class Snapshot:
    def __init__(self, rows: Iterable[HostRow] = ()) -> None:
        self.rows: list[HostRow] = []
        self._place: dict[str, int] = {}
        self._arrays: dict[Any, Any] = {}
        for row in rows:
            self.put(row)

    def __len__(self) -> int:
        return len(self.rows)

    def get(self, host_id: str) -> HostRow | None:
        place = self._place.get(host_id)
        return None if place is None else self.rows[place]

    def put(self, row: HostRow) -> None:
        """Take in a newer view of one host."""
        place = self._place.get(row.id)
        if place is None:
            self._place[row.id] = len(self.rows)
            self.rows.append(row)
            self._arrays.clear()
            return
        old = self.rows[place]
        if row.generation < old.generation:
            return
        self.rows[place] = row
        if (row.inventories, row.traits, row.aggregates) != (old.inventories, old.traits, old.aggregates):
            self._arrays.clear()
            return
        for (kind, name), array in self._arrays.items():
            if kind == "used":
                array[place] = row.used.get(name, 0)
        for key in ("enabled", "host"):
            self._arrays.pop((key, None), None)

    def drop(self, host_id: str) -> None:
        if host_id in self._place:
            self.rows = [row for row in self.rows if row.id != host_id]
            self._place = {row.id: place for place, row in enumerate(self.rows)}
            self._arrays.clear()

    def reserve(self, host_id: str, resources: dict[str, int]) -> None:
        """Count a claim that is on its way, so that the next chooser does not pick the same room."""
        place = self._place.get(host_id)
        if place is not None:
            for name, amount in resources.items():
                array = self._arrays.get(("used", name))
                if array is not None:
                    array[place] += amount

    # ------------------------------------------------------------------ columns, made when first asked for
    def capacity(self, name: str) -> Any:
        return self._array(
            "capacity", name, lambda row: row.inventories[name].capacity if name in row.inventories else 0
        )

    def used(self, name: str) -> Any:
        return self._array("used", name, lambda row: row.used.get(name, 0))

    def unit(self, name: str, which: str) -> Any:
        missing = {"min_unit": 1, "max_unit": 0, "step_size": 1}[which]
        return self._array(
            which, name, lambda row: getattr(row.inventories[name], which) if name in row.inventories else missing
        )

    def has_trait(self, trait: str) -> Any:
        return self._array("trait", trait, lambda row: trait in row.traits, "bool")

    def in_aggregate(self, aggregate: str) -> Any:
        return self._array("aggregate", aggregate, lambda row: aggregate in row.aggregates, "bool")

    def where(self, test: Callable[[HostRow], bool]) -> Any:
        import numpy  # not needed before the first choice, and its import costs 20 MB

        return numpy.fromiter((test(row) for row in self.rows), dtype="bool", count=len(self.rows))

    def enabled(self) -> Any:
        return self._array("enabled", None, lambda row: row.enabled, "bool")

    def hosts(self) -> Any:
        return self._array("host", None, lambda row: row.is_host, "bool")

    def _array(self, kind: str, name: str | None, value: Callable[[HostRow], Any], dtype: str = "int64") -> Any:
        array = self._arrays.get((kind, name))
        if array is None:
            import numpy

            array = numpy.fromiter((value(row) for row in self.rows), dtype=dtype, count=len(self.rows))
            self._arrays[kind, name] = array
        return array
