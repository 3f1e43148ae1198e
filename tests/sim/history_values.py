"""Rules about values: what is read was put, is not out of date, and is whole.

Every cell is a register with unique values, so whether its reads and writes can be put in one order is decided without a
search (Gibbons and Korach, "Testing shared memories"): a value was there at least from the first end of an op that put or
read it to the last start of one; no two of these stretches may overlap, and no value may have come and gone within one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from history_case import Case, Finding, finding
from history_file import MAKES, NEVER, Op
from history_samples import Cell, Read, Sample, covers


def _ready(case: Case, op: Op, sample: Sample, name: str, digit: str) -> Finding | None:
    rule = "a field is ready when it was put"
    cell = sample.cells.get(name)
    writes = cell.writes if cell is not None else []
    if digit == "0":
        done = next((put for put in writes if put.t1 < op.t0), None)
        return (
            finding(rule, f"{op.call} does not see {name!r} of {sample}", done, op)
            if done is not None
            else None
        )
    if not any(put.t0 < op.t1 for put in writes) and case.samples.loads_from > op.t1:
        unsure = case.samples.unsure[sample.part]
        if not any(put.t0 < op.t1 and covers(put, sample, name) for put in unsure):
            return finding(rule, f"{op.call} sees {name!r} of {sample}, which nobody has put", op)
    return None


def ready(case: Case) -> Iterator[Finding]:
    """What was put is ready or lost, and nothing else is."""
    for op in case.history.of_call("claim", "resolve"):
        digits = op.result.get("ready") if op.ok else None
        if not digits or op.part is None:
            continue
        rows = [case.samples.of(op, row) for row in op.rows()]
        for name, column in digits.items():
            for sample, digit in zip(rows, column, strict=True):
                wrong = _ready(case, op, sample, name, digit)
                if wrong is not None:
                    yield wrong
                    break


class _Zone(NamedTuple):
    """When a value was in its cell: for certain from `first` to `last`, if first < last."""

    first: int  # the first end of an op that put or read it
    last: int  # the last start of one
    by_first: Op
    by_last: Op
    value: int


def _zones(case: Case, sample: Sample, cell: Cell) -> list[_Zone]:
    zones: dict[int, _Zone] = {}
    for op in cell.writes:
        zones[op.number] = _Zone(op.t1, op.t0, op, op, op.number)
    for read in cell.reads:
        zone = zones.get(read.value)
        if zone is None:
            put = case.history.ops[read.value]
            # A value of a checkpoint that was loaded has been there since the load, or since it was put.
            zone = _Zone(NEVER, put.t0, put, put, read.value)
        first, by_first = (
            (read.high, read.op) if read.high < zone.first else (zone.first, zone.by_first)
        )
        last, by_last = (read.low, read.op) if read.low > zone.last else (zone.last, zone.by_last)
        zones[read.value] = _Zone(first, last, by_first, by_last, read.value)
    return sorted(zones.values(), key=lambda zone: min(zone.first, zone.last))


def _contradiction(case: Case, sample: Sample, name: str, zones: list[_Zone]) -> Finding | None:
    """Two values of which each was there before the other one, or one in the middle of another one."""
    forward = [zone for zone in zones if zone.first < zone.last]
    for one, two in pairwise(forward):
        if two.first < one.last:
            return _stale(case, sample, name, one, two)
    starts = [zone.first for zone in forward]
    for zone in zones:
        if zone.first >= zone.last:
            at = bisect_left(starts, zone.last) - 1
            if at >= 0 and zone.first < forward[at].last:
                return _stale(case, sample, name, forward[at], zone)
    return None


def _stale(case: Case, sample: Sample, name: str, one: _Zone, two: _Zone) -> Finding:
    text = f"{name!r} of {sample}: {one.value} is read when {two.value} had replaced it"
    ops = {
        op.number: op
        for op in (
            case.history.ops[one.value],
            one.by_last,
            two.by_first,
            case.history.ops[two.value],
        )
    }
    return finding("reads see acknowledged puts", text, *ops.values())


def _unwritten(case: Case, sample: Sample, name: str, read: Read) -> Finding | None:
    rule = "reads see what was put"
    put = case.history.ops.get(read.value)
    if put is None or put.call not in MAKES:
        return finding(rule, f"{name!r} of {sample} is {read.value}, which is no put", read.op)
    text = f"{name!r} of {sample} is {put.number}"
    if put.part != sample.part or name not in (put.args.get("fields") or ()):
        return finding(rule, f"{text}, which was put elsewhere", put, read.op)
    if put.state == "fail":
        return finding(rule, f"{text}, a put that has failed", put, read.op)
    if put.t0 > read.high:
        return finding(rule, f"{text}, which had not begun", put, read.op)
    loaded = case.samples.loads_from < read.high
    if not loaded and (put.epoch != sample.epoch if put.ok else False):
        return finding(rule, f"{text}, of an earlier run of the controller", put, read.op)
    if (
        not loaded
        and put not in sample.cells[name].writes
        and (put.ok or not covers(put, sample, name))
    ):
        return finding(rule, f"{text}, which did not put that sample", put, read.op)
    return None


def registers(case: Case) -> Iterator[Finding]:
    """Every cell is a register: what is read was put, and not replaced before (Gibbons and Korach)."""
    for sample in case.samples.all.values():
        for name, cell in sample.cells.items():
            wrong = None
            first: dict[int, Read] = {}
            for read in cell.reads:
                if read.value not in first or read.high < first[read.value].high:
                    first[read.value] = read
            for read in first.values():
                wrong = wrong or _unwritten(case, sample, name, read)
            if wrong is None and len(cell.writes) + len(cell.reads) > 1:
                loaded = case.samples.loads_from < NEVER
                wrong = (
                    None
                    if loaded
                    else _contradiction(case, sample, name, _zones(case, sample, cell))
                )
            if wrong is not None:
                yield wrong


def mixed(case: Case) -> Iterator[Finding]:
    """A read is one snapshot: it shows all of a put, or none of it."""
    for op in case.history.of_call("get", "get_by_key"):
        values = op.result.get("values") if op.ok else None
        if not values or op.part is None or case.samples.loads_from < op.t1:
            continue
        rows = op.args["rows"] if op.call == "get" else op.rows()
        if len(rows) * len(values) < 2 or len(set().union(*values.values())) < 2:
            continue
        wrong = _mixed(case, op, rows, values)
        if wrong is not None:
            yield wrong


def _mixed(
    case: Case, op: Op, rows: list[list[Any]], values: dict[str, list[int]]
) -> Finding | None:
    place = {(row[0], row[1]): i for i, row in enumerate(rows)}
    for number in set().union(*values.values()):
        put = case.history.ops.get(number)
        if put is None or not put.ok or put.call not in MAKES:
            continue
        mine = [i for i in (place.get((row[0], row[1])) for row in put.rows()) if i is not None]
        for name in put.args.get("fields") or ():
            column = values.get(name)
            for i in mine if column is not None else ():
                other = case.history.ops.get(column[i])  # type: ignore[index]
                if other is not None and other is not put and other.t1 < put.t0:
                    text = f"{name!r} of row {i} is still {other.number}, while put {number} shows in other cells"
                    return finding("puts are all or nothing", text, other, put, op)
    return None


RULES = [ready, registers, mixed]
