"""What a history says about samples: when each existed, what was written into it, and what was read from it.

A sample is (epoch, partition, index, incarnation). What is certain and what is possible are kept apart: a sample
existed for certain once a put that returned it had ended, and until the first clear that may have cleared it began.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import Any, NamedTuple

from history_file import CLEARS, MAKES, NEVER, History, Op

Place = tuple[int, int]  # index, incarnation


class Read(NamedTuple):
    """A value that was current at some line between `low` and `high`."""

    low: int
    high: int
    value: int
    op: Op


class Cell:
    """One field of a sample. `writes`: puts that have certainly written it."""

    __slots__ = ("reads", "writes")

    def __init__(self) -> None:
        self.writes: list[Op] = []
        self.reads: list[Read] = []


class Sample:
    """One row of a partition."""

    __slots__ = (
        *(
            "born_by",
            "born_from",
            "cells",
            "claims",
            "clear_by",
            "clear_from",
            "clear_next",
            "cleared_by",
        ),
        *("cleared_from", "epoch", "index", "incarnation", "key", "made", "part", "seen"),
    )

    def __init__(self, epoch: int, part: str, index: int, incarnation: int) -> None:
        self.epoch = epoch
        self.part = part
        self.index = index
        self.incarnation = incarnation
        self.key: str | None = None
        self.made: list[Op] = []  # acknowledged puts and reservations that returned it
        self.seen: Op | None = None  # the first op whose result has it
        self.cells: dict[str, Cell] = {}
        self.claims: dict[str, list[Op]] = {}
        self.born_from = 0  # it did not exist before
        self.born_by = NEVER  # it existed then, unless cleared
        self.cleared_from = NEVER  # no clear may have cleared it before
        self.clear_from: Op | None = None
        self.clear_next = NEVER  # the same for all clears but that one
        self.cleared_by = NEVER  # it no longer existed
        self.clear_by: Op | None = None

    def cell(self, name: str) -> Cell:
        cell = self.cells.get(name)
        if cell is None:
            cell = self.cells[name] = Cell()
        return cell

    def lives(self, low: int, high: int) -> bool:
        """Whether it certainly existed from line `low` to line `high`."""
        return self.born_by < low and self.cleared_from > high

    def __str__(self) -> str:
        key = f" {self.key!r}" if self.key is not None else ""
        return f"sample {self.index}.{self.incarnation}{key} of {self.part!r}"


class _Clears:
    """Clears of a whole partition (or of everything), to find those that matter to a sample."""

    def __init__(self) -> None:
        self.ops: list[Op] = []

    def settle(self) -> None:
        by_end = sorted(self.ops, key=lambda op: op.t1)
        self.ends = [op.t1 for op in by_end]
        # Of those that end later: the two smallest t0, and whose the smallest is.
        self.first: list[tuple[int, int]] = [(NEVER, NEVER)] * (len(by_end) + 1)
        self.which: list[Op | None] = [None] * (len(by_end) + 1)
        for i in range(len(by_end) - 1, -1, -1):
            first, second = self.first[i + 1]
            t0 = by_end[i].t0
            if t0 < first:
                self.first[i], self.which[i] = (t0, first), by_end[i]
            else:
                self.first[i], self.which[i] = (first, min(second, t0)), self.which[i + 1]
        # A load replaces some of the partitions, so it clears nothing for certain.
        done = sorted((op for op in self.ops if op.ok and op.call != "load"), key=lambda op: op.t0)
        self.starts = [op.t0 for op in done]
        self.last: list[Op | None] = [None] * (
            len(done) + 1
        )  # of those that begin later, the first to end
        for i in range(len(done) - 1, -1, -1):
            later = self.last[i + 1]
            self.last[i] = done[i] if later is None or done[i].t1 < later.t1 else later

    def apply(self, sample: Sample) -> None:
        at = bisect_right(self.ends, sample.born_from)
        which, second = self.which[at], self.first[at][1]
        if which is not None:
            note_clear(sample, which)
            sample.clear_next = min(sample.clear_next, second)
        done = (
            self.last[bisect_right(self.starts, sample.born_by)] if sample.born_by < NEVER else None
        )
        if done is not None and done.t1 < sample.cleared_by:
            sample.cleared_by, sample.clear_by = done.t1, done


def note_clear(sample: Sample, clear: Op) -> None:
    """That clear may have cleared the sample."""
    if clear.t1 < sample.born_from or clear is sample.clear_from:
        return
    if clear.t0 < sample.cleared_from:
        sample.clear_next = sample.cleared_from
        sample.cleared_from, sample.clear_from = clear.t0, clear
    else:
        sample.clear_next = min(sample.clear_next, clear.t0)


class Samples:
    """All samples of a history."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.all: dict[tuple[int, str, int, int], Sample] = {}
        self.by_part: dict[tuple[int, str], list[Sample]] = defaultdict(list)
        self.by_key: dict[tuple[int, str, str], list[Sample]] = defaultdict(list)
        self.by_index: dict[tuple[int, int], list[Sample]] = defaultdict(list)
        # Puts without a known outcome, which may have made or written samples that no client knows of.
        self.unsure: dict[str, list[Op]] = defaultdict(list)
        self.loads = [op for op in history.of_call("load") if op.state != "fail"]
        self.loads_from = min((op.t0 for op in self.loads), default=NEVER)
        self._collect()
        self._births()
        self._clears()
        self._reads()

    def of(self, op: Op, row: list[Any]) -> Sample:
        """The sample of a row of a result of that op."""
        assert op.epoch is not None and op.part is not None
        return self.find(op.epoch, op.part, row)

    def find(self, epoch: int, part: str, row: list[Any]) -> Sample:
        index, incarnation = row[0], row[1]
        name = (epoch, part, index, incarnation)
        sample = self.all.get(name)
        if sample is None:
            sample = self.all[name] = Sample(epoch, part, index, incarnation)
            self.by_part[epoch, part].append(sample)
            self.by_index[epoch, index].append(sample)
        if sample.key is None and row[2] is not None:
            sample.key = row[2]
            self.by_key[epoch, part, row[2]].append(sample)
        return sample

    def _collect(self) -> None:
        for op in self.history.ops.values():
            if op.call in MAKES and op.state in ("unknown", "open") and op.part is not None:
                self.unsure[op.part].append(op)
            if not op.ok or op.part is None or op.epoch is None:
                continue
            rows = [self.of(op, row) for row in op.rows()]
            for sample in rows:
                if sample.seen is None:
                    sample.seen = op
            if op.call in MAKES:
                keys = op.args.get("keys") or []
                for sample, key in zip(rows, keys, strict=False):
                    if sample.key is None:
                        sample.key = key
                        self.by_key[op.epoch, op.part, key].append(sample)
                for sample in rows:
                    sample.made.append(op)
                    for name in op.args.get("fields") or []:
                        sample.cell(name).writes.append(op)
            elif op.call == "claim" and op.args.get("mode") != "force":
                task = op.args["task"]
                for sample in rows:
                    sample.claims.setdefault(task, []).append(op)

    def _births(self) -> None:
        unsure = {part: min(op.t0 for op in ops) for part, ops in self.unsure.items()}
        for sample in self.all.values():
            if sample.made:
                sample.born_by = min(op.t1 for op in sample.made)
            if sample.seen is not None:
                sample.born_by = min(sample.born_by, sample.seen.t1)
            # An unsure put may have made it before those that are known.
            new = any(is_new(op) for op in sample.made)
            older = NEVER if new else unsure.get(sample.part, NEVER)
            sample.born_from = min(
                [op.t0 for op in sample.made] + [older, self.loads_from, sample.born_by]
            )

    def _clears(self) -> None:
        whole: dict[str, _Clears] = defaultdict(_Clears)
        for op in self.history.ops.values():
            if op.state == "fail":
                continue
            if op.call == "load":
                for part in {part for _, part in self.by_part}:
                    whole[part].ops.append(op)
            elif op.call in CLEARS and op.part is not None:
                if op.args.get("rows") is not None or op.args.get("indexes") is not None:
                    self._clear_rows(op)
                elif op.args.get("keys") is not None:
                    self._clear_keys(op)
                elif op.args.get("all"):
                    whole[op.part].ops.append(op)
        for clears in whole.values():
            clears.settle()
        for (_, part), samples in self.by_part.items():
            if part in whole:
                for sample in samples:
                    whole[part].apply(sample)

    def _epochs(self, op: Op) -> list[int]:
        return [op.epoch] if op.epoch is not None else sorted({epoch for epoch, _ in self.by_part})

    def _clear_one(self, op: Op, sample: Sample, certain: bool) -> None:
        note_clear(sample, op)
        if op.ok and certain and op.t1 < sample.cleared_by:
            sample.cleared_by, sample.clear_by = op.t1, op

    def _clear_rows(self, op: Op) -> None:
        assert op.part is not None
        rows = op.args.get("rows")
        if rows is None:
            rows = [[index, 0, None] for index in op.args["indexes"]]
        for epoch in self._epochs(op):
            for index, incarnation, *_ in rows:
                if incarnation != 0:
                    sample = self.all.get((epoch, op.part, index, incarnation))
                    if sample is not None:
                        self._clear_one(op, sample, True)
                    continue
                for sample in self.by_index.get((epoch, index), ()):
                    if sample.part == op.part:
                        self._clear_one(op, sample, sample.born_by < op.t0)

    def _clear_keys(self, op: Op) -> None:
        assert op.part is not None
        for epoch in self._epochs(op):
            for key in op.args["keys"]:
                for sample in self.by_key.get((epoch, op.part, key), ()):
                    self._clear_one(op, sample, sample.born_by < op.t0)

    def _reads(self) -> None:
        for op in self.history.ops.values():
            values = op.result.get("values")
            if op.ok and values and op.part is not None and op.epoch is not None:
                rows = op.args["rows"] if op.call == "get" else op.rows()
                epoch = self._epoch(op)
                low = self._low(op, values)
                for name, column in values.items():
                    for row, value in zip(rows, column, strict=True):
                        if value != 0 and row[1] != 0:
                            self.find(epoch, op.part, row).cell(name).reads.append(
                                Read(low, op.t1, value, op)
                            )

    def _epoch(self, op: Op) -> int:
        """A read by metadata is of the run of the controller that made the metadata."""
        assert op.epoch is not None
        source = self.history.ops.get(op.args.get("from", 0)) if op.call == "get" else None
        return source.epoch if source is not None and source.epoch is not None else op.epoch

    def _low(self, op: Op, values: dict[str, list[int]]) -> int:
        """What is read is one snapshot: not older than the metadata that was used, nor than any value in it."""
        low = op.t0
        source = self.history.ops.get(op.args.get("from", 0)) if op.call == "get" else None
        if source is not None:
            low = source.t0
        for value in set().union(*values.values()) if values else ():
            writer = self.history.ops.get(value)
            if writer is not None and writer.t0 > low:
                low = writer.t0
        return low


def is_new(op: Op) -> bool:
    """Whether a put makes samples of its own: it names neither samples nor keys."""
    return (
        op.args.get("rows") is None
        and op.args.get("keys") is None
        and op.args.get("indexes") is None
    )


def covers(op: Op, sample: Sample, name: str | None) -> bool:
    """Whether a put without a known outcome may have written that field of the sample (None: may have made it)."""
    if name is not None and name not in (op.args.get("fields") or ()):
        return False
    rows, keys = op.args.get("rows"), op.args.get("keys")
    if rows is not None:
        return any(row[0] == sample.index and row[1] in (0, sample.incarnation) for row in rows)
    if keys is not None:
        return sample.key is None or sample.key in keys
    return not any(is_new(made) for made in sample.made)
