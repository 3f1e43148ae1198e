"""The holder's table of tensor batches: which record has which cells, and which objects contain them.

A record is the result of one put: the columns of some samples.  It is added before the controller is notified, and
published afterwards.  An overwrite is a new record.  When it is published, the cells that it replaces are removed
from all records that had been published before it was added.  If two overwrite the same cells at once, both stay,
because only the controller knows which came last.  A column is dropped with its last cell, and a whole record once
its samples are cleared.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Sample = tuple[int, int]
"""Index and incarnation."""


class Column(NamedTuple):
    """A column of a record, in groups of rows."""

    meta: Mapping[str, Any]
    """The column's metadata for readers."""
    starts: list[int]
    """The first row of each group."""
    groups: list[Any]
    """For each group the reference to its object, its bytes, or None if there is nothing to fetch."""


class Part(NamedTuple):
    """Located rows of a column."""

    field: str
    meta: Mapping[str, Any]
    positions: list[int]
    """The rows' places in the result of the read."""
    rows: list[int]
    starts: list[int]
    groups: dict[int, Any]
    """For each group that has some of the rows: the place of its reference, its bytes, or None."""

    def groups_of_rows(self) -> list[int]:
        """The group of each row."""
        return [bisect_right(self.starts, row) - 1 for row in self.rows]


class _Record:
    """One put."""

    def __init__(
        self,
        order: int,
        samples: Sequence[Sample],
        columns: dict[str, Column],
        forgotten: Callable[[list[Any]], None],
    ) -> None:
        self.forgotten = forgotten
        self.order = order
        self.published = False
        self.rows = {index: row for row, (index, _) in enumerate(samples)}
        self.columns = columns
        self.cells = {name: set(self.rows) for name in columns}
        """Per column, the samples whose cells can still be read."""

    def forget(self, name: str, index: int) -> None:
        cells = self.cells.get(name)
        if cells is not None:
            cells.discard(index)
            if not cells:
                del self.cells[name]
                self.forgotten(self.columns.pop(name).groups)


class Records:
    """Records by name, and by sample."""

    def __init__(self, forgotten: Callable[[list[Any]], None]) -> None:
        """`forgotten` is called with groups that are no longer needed."""
        self._forgotten = forgotten
        self._records: dict[str, _Record] = {}
        self._samples: dict[int, dict[str, int]] = {}
        self._added = 0
        self._mutex = threading.Lock()

    def records(self) -> int:
        """Number of records."""
        return len(self._records)

    def add_record(self, name: str, samples: list[Sample], columns: dict[str, Column]) -> None:
        """Add a record; replaces one of the same name, because a call may be repeated."""
        with self._mutex:
            self._added += 1
            self._records[name] = _Record(self._added, samples, columns, self._forgotten)
            for index, incarnation in samples:
                self._samples.setdefault(index, {})[name] = incarnation

    def publish_record(self, name: str) -> None:
        """Drop the cells that this record replaces, now that the controller knows of it."""
        with self._mutex:
            record = self._records.get(name)
            if record is None or record.published:
                return
            record.published = True
            for index in record.rows:
                for other in list(self._samples.get(index, ())):
                    former = self._records[other]
                    if former.published and former.order < record.order:
                        for field in record.cells:
                            former.forget(field, index)
                        self._drop_if_empty(other)

    def drop_record(self, name: str) -> None:
        """Drop a record that was not published."""
        with self._mutex:
            record = self._records.get(name)
            if record is not None:
                self._drop(name, record)

    def clear_samples(self, samples: list[Sample]) -> None:
        """Drop samples; incarnation 0 matches any."""
        with self._mutex:
            for index, incarnation in samples:
                known = self._samples.get(index, {})
                for name, had in list(known.items()):
                    if not incarnation or not had or incarnation == had:
                        self._forget_sample(name, index)

    def locate(
        self, indexes: list[int], noted: dict[str, list[str | None]]
    ) -> tuple[list[Part], list[Any], list[tuple[str, int]]]:
        """Find cells, given the record of each row by field: parts, references, and missing cells."""
        parts: list[Part] = []
        refs: dict[Any, int] = {}
        lost: list[tuple[str, int]] = []
        with self._mutex:
            for field, names in noted.items():
                found: dict[str, tuple[list[int], list[int]]] = {}
                for position, (index, name) in enumerate(zip(indexes, names, strict=True)):
                    name = self._current(field, index, name)
                    if name is None:
                        lost.append((field, position))
                        continue
                    positions, rows = found.setdefault(name, ([], []))
                    positions.append(position)
                    rows.append(self._records[name].rows[index])
                for name, (positions, rows) in found.items():
                    column = self._records[name].columns[field]
                    groups: dict[int, Any] = {}
                    for group in {bisect_right(column.starts, row) - 1 for row in rows}:
                        held = column.groups[group]
                        inline = held is None or isinstance(held, bytes)
                        groups[group] = held if inline else refs.setdefault(held, len(refs))
                    parts.append(Part(field, column.meta, positions, rows, column.starts, groups))
        return parts, list(refs), lost

    def _current(self, field: str, index: int, name: str | None) -> str | None:
        """The record of a cell: the noted one, or the newest if that was overwritten meanwhile."""
        if name is not None and self._has(name, field, index):
            return name
        newer = [
            other
            for other in self._samples.get(index, ())
            if self._records[other].published and self._has(other, field, index)
        ]
        return max(newer, key=lambda other: self._records[other].order, default=None)

    def _has(self, name: str, field: str, index: int) -> bool:
        record = self._records.get(name)
        return record is not None and index in record.cells.get(field, ())

    def _forget_sample(self, name: str, index: int) -> None:
        record = self._records[name]
        for field in list(record.columns):
            record.forget(field, index)
        self._leave(name, index)
        self._drop_if_empty(name)

    def _drop_if_empty(self, name: str) -> None:
        record = self._records.get(name)
        if record is not None and not record.columns:
            self._drop(name, record)

    def _drop(self, name: str, record: _Record) -> None:
        del self._records[name]
        for column in record.columns.values():
            self._forgotten(column.groups)
        for index in record.rows:
            self._leave(name, index)

    def _leave(self, name: str, index: int) -> None:
        known = self._samples.get(index)
        if known is not None:
            known.pop(name, None)
            if not known:
                del self._samples[index]
