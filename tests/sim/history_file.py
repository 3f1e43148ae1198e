"""Reads the history file of a simulation (history.md): its ops, and the lives of its clients.

The order of the lines is the order in which things happened, so line numbers serve as times here: an op that ended
before another one was invoked has the smaller number. `t`, virtual nanoseconds, is used for deadlines only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Later than every line: when an op without a known end may still have its effect.
NEVER = 1 << 62

CALLS = {
    *("put", "reserve", "claim", "resolve", "get", "get_by_key", "clear", "reset", "list_keys"),
    *(
        "list_partitions",
        "consumed",
        "produced",
        "notify",
        "begin_clear",
        "end_clear",
        "save",
        "load",
    ),
}
MAKES = {"put", "reserve", "notify"}
CLEARS = {"clear", "begin_clear"}


class HistoryError(Exception):
    """The file is not a history."""


class Op:
    """A call of a client: from line `t0` to line `t1` (NEVER: it has no known end)."""

    __slots__ = (
        *(
            "args",
            "call",
            "client",
            "code",
            "end",
            "epoch",
            "life",
            "number",
            "part",
            "result",
            "state",
        ),
        *("t0", "t1", "thread", "began", "ended"),
    )

    def __init__(self, line: int, record: dict[str, Any]) -> None:
        self.number: int = record["op"]
        self.call: str = record["call"]
        self.part: str | None = record.get("part")
        self.client: int = record["c"]
        self.life: int = record["l"]
        self.thread: int = record.get("th", 0)
        self.args = record
        self.t0 = line
        self.began: int = record["t"]
        # Filled in by the end. An unknown outcome has an end (`end`), but its effect may come later (`t1`).
        self.t1 = NEVER
        self.end = NEVER
        self.ended: int | None = None
        self.state = "open"
        self.code = ""
        self.epoch: int | None = None
        self.result: dict[str, Any] = {}

    def finish(self, line: int, record: dict[str, Any]) -> None:
        self.state = record["e"]
        self.end = line
        self.ended = record["t"]
        self.result = record
        self.t1 = NEVER if self.state == "unknown" else line
        self.epoch = record.get("epoch") if self.state == "ok" else None
        self.code = str(record.get("code", ""))

    @property
    def ok(self) -> bool:
        return self.state == "ok"

    @property
    def lines(self) -> list[int]:
        """Its records."""
        return [self.t0] if self.end == NEVER else [self.t0, self.end]

    def rows(self) -> list[list[Any]]:
        """The samples of its result."""
        return self.result.get("rows") or []


@dataclass
class Life:
    """A client from its start to its end."""

    client: int
    life: int
    opened: int = 0
    closed: int = NEVER
    died: int = NEVER
    drains: bool = False
    epoch: int | None = None  # of the controller, when the client was opened
    ops: list[Op] = field(default_factory=list)


@dataclass
class History:
    """A whole file."""

    lines: list[str]
    start: dict[str, Any] = field(default_factory=dict)
    ops: dict[int, Op] = field(default_factory=dict)
    lives: dict[tuple[int, int], Life] = field(default_factory=dict)
    notes: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    calm: int = NEVER
    calm_time: int | None = None
    end: int = NEVER
    found: str | None = None
    calls: dict[str, list[Op]] = field(default_factory=dict)  # filled in when it is complete

    def of_call(self, *calls: str) -> list[Op]:
        """Ops of these calls, in the order in which they were invoked."""
        if not self.calls:
            for op in self.ops.values():
                self.calls.setdefault(op.call, []).append(op)
        if len(calls) == 1:
            return self.calls.get(calls[0], [])
        return sorted(
            (op for call in calls for op in self.calls.get(call, ())), key=lambda op: op.t0
        )


def _client(history: History, line: int, record: dict[str, Any]) -> None:
    life = history.lives.setdefault((record["c"], record["l"]), Life(record["c"], record["l"]))
    what = record["what"]
    if what == "open":
        life.opened = line
        life.drains = bool(record.get("drains"))
        life.epoch = record.get("epoch")
    elif what == "close":
        life.closed = line
    elif what == "died":
        life.died = line
    else:
        raise HistoryError(f"line {line}: a client does not {what!r}")


def _invoke(history: History, line: int, record: dict[str, Any]) -> None:
    op = Op(line, record)
    if op.call not in CALLS:
        raise HistoryError(f"line {line}: unknown call {op.call!r}")
    if op.number in history.ops:
        raise HistoryError(f"line {line}: op {op.number} was invoked before")
    history.ops[op.number] = op
    life = history.lives.setdefault((op.client, op.life), Life(op.client, op.life))
    if line > life.died:
        raise HistoryError(f"line {line}: op {op.number} of a client that has died")
    life.ops.append(op)


def _ended(history: History, line: int, record: dict[str, Any]) -> None:
    op = history.ops.get(record["op"])
    if op is None or op.state != "open":
        raise HistoryError(f"line {line}: op {record['op']} ends, but is not running")
    if line > history.lives[op.client, op.life].died:
        raise HistoryError(f"line {line}: op {op.number} ends after its client has died")
    op.finish(line, record)
    if op.epoch == 0:
        op.epoch = history.lives[op.client, op.life].epoch  # its client was closed meanwhile


def _record(history: History, line: int, record: dict[str, Any]) -> None:
    kind = record["e"]
    if kind == "invoke":
        _invoke(history, line, record)
    elif kind in ("ok", "fail", "unknown"):
        _ended(history, line, record)
    elif kind == "client":
        _client(history, line, record)
    elif kind == "start":
        if record.get("version") != 1:
            raise HistoryError(
                f"version {record.get('version')} of the format, this reads version 1"
            )
        history.start = record
    elif kind == "note":
        history.notes.append((line, record))
    elif kind == "calm":
        history.calm, history.calm_time = line, record["t"]
    elif kind == "end":
        history.end, history.found = line, record.get("found")
    else:
        raise HistoryError(f"line {line}: unknown record {kind!r}")


def parse(lines: Iterable[str]) -> History:
    """Makes a history of its lines; lines count from 1. HistoryError if they are not one."""
    history = History([""])
    time = 0
    for line, text in enumerate(lines, 1):
        history.lines.append(text.rstrip("\n"))
        try:
            record = json.loads(text)
            now = record.get("t", time)
            if now < time:
                raise HistoryError(f"line {line}: time goes back")
            time = now
            _record(history, line, record)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HistoryError(f"line {line}: {error!r}") from error
    if not history.start:
        raise HistoryError("it does not begin with its version")
    return history


def read(path: Path) -> History:
    with path.open(encoding="utf-8") as file:
        return parse(file)


def brief(text: str, most: int = 400) -> str:
    """A record for people: long arrays are cut."""
    text = re.sub(r"(\[(?:[^\[\]]{80}|\[[^\[\]]*\],?){12})[^{}]*\]", r"\1 ...]", text)
    return text if len(text) <= most else text[: most - 4] + " ..."
