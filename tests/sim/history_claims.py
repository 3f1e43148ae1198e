"""Rules about claims: no sample twice, and what that takes for granted."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from history_case import SECOND, Case, Finding, finding
from history_file import NEVER, History, Life, Op
from history_samples import Sample


def slot_of(op: Op) -> tuple[Any, ...] | None:
    """Callers of the same slot get the same samples (a rank of a step)."""
    config = op.args.get("config") or {}
    if config.get("dp_rank") is None:
        return None
    fields = tuple(sorted(op.args.get("fields") or ()))
    return (
        op.part,
        op.args["task"],
        fields,
        str(config["dp_rank"]),
        str(config.get("batch_index")),
    )


# Calls that the controller has answered when they end well.
ANSWERED = {
    *(
        "put",
        "reserve",
        "claim",
        "resolve",
        "get_by_key",
        "clear",
        "reset",
        "list_keys",
        "list_partitions",
    ),
}


class Contacts:
    """When the controller has certainly heard of a claim's arrival, so that the claim does not go back any more.

    A client's frames say what has arrived. If two calls one after the other are answered after the claim's, with none
    of the older calls still waiting, the server has heard it, unless the session was lost in between: that takes a
    silence of `grace` seconds, which the start of the file gives.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.grace = int(history.start.get("grace", 0) * 0.7 * SECOND)
        self.ends: dict[tuple[int, int], list[tuple[int, Op]]] = {}

    def _calls(self, life: Life) -> list[tuple[int, Op]]:
        name = (life.client, life.life)
        if name not in self.ends:
            calls = [op for op in life.ops if op.ok and op.call in ANSWERED]
            self.ends[name] = sorted(((op.t0, op) for op in calls), key=lambda call: call[0])
        return self.ends[name]

    def settled(self, claim: Op) -> bool:
        life = self.history.lives[claim.client, claim.life]
        older = [op.end for op in life.ops if op.t0 < claim.t1 and op.t1 > claim.t0]
        after = max(older, default=claim.t1)
        calls = self._calls(life)
        at = bisect_left(calls, (after,), key=lambda call: (call[0],))
        first = next((op for _, op in calls[at : at + 8]), None)
        if first is None or after == NEVER:
            return False
        second = next((op for _, op in calls[at:] if op.t0 > first.t1), None)
        return second is not None and self._unbroken(life, claim, second)

    def _unbroken(self, life: Life, claim: Op, last: Op) -> bool:
        heard = claim.began
        for _, op in self._calls(life):
            if op.t1 > claim.t0 and op.t0 <= last.t0 and op.ended is not None:
                if op.ended - heard > self.grace:
                    return False
                heard = max(heard, op.began)
        return True


def claims(case: Case) -> Iterator[Finding]:
    """No sample is handed out twice to a task, without a lawful reason."""
    rule = "no sample twice"
    contacts = Contacts(case.history)
    resets: dict[str, list[Op]] = defaultdict(list)
    for op in case.history.of_call("reset"):
        if op.state != "fail" and op.part is not None:
            resets[op.part].append(op)
    for sample in case.samples.all.values():
        for task, ops in sample.claims.items():
            if len(ops) < 2:
                continue
            pair = _twice(contacts, resets[sample.part], task, sorted(ops, key=lambda op: op.t1))
            if pair is not None:
                yield finding(rule, f"task {task!r} got {sample} twice", *pair)


def _twice(contacts: Contacts, resets: list[Op], task: str, ops: list[Op]) -> tuple[Op, Op] | None:
    """Two claims that cannot both have got the sample."""
    for at, two in enumerate(ops):
        for one in ops[max(0, at - 16) : at]:
            slot = slot_of(one)
            again = any(
                reset.args.get("task") in (None, task) and reset.t0 < two.t1 and reset.t1 > one.t0
                for reset in resets
            )
            # Whichever came first was the controller's to give away again until it had heard of the arrival.
            if again or (slot is not None and slot == slot_of(two)) or not contacts.settled(one):
                continue
            if one.t1 < two.t0 or contacts.settled(two):
                return one, two
    return None


def claim_results(case: Case) -> Iterator[Finding]:
    """A claim gets as many samples as it asked for, each once, with all of its fields; no two claims have one id."""
    ids: dict[tuple[int | None, int], Op] = {}
    for op in case.history.of_call("claim"):
        if not op.ok:
            continue
        rows, n = op.rows(), op.args.get("n", 0)
        force = op.args.get("mode") == "force"
        if len({(row[0], row[1]) for row in rows}) != len(rows):
            yield finding("no sample twice", "a claim has a sample twice", op)
        if not force and (len(rows) > n or (slot_of(op) is None and len(rows) != n)):
            yield finding(
                "a claim gets what it asks for", f"{len(rows)} samples instead of {n}", op
            )
        if force:
            continue
        for name in op.args.get("fields") or ():
            column = (op.result.get("ready") or {}).get(name)
            # A rank that asks again gets the samples of its step, of which some may have been lost since.
            if column is not None and column.strip("1" if slot_of(op) is None else "12") != "":
                yield finding("claimed fields are ready", f"{name!r} is {column}", op)
        number = op.result.get("claim", 0)
        other = ids.setdefault((op.epoch, number), op)
        if number != 0 and other is not op:
            yield finding("a claim has its own id", f"claim {number} was made twice", other, op)


def consumption(case: Case) -> Iterator[Finding]:
    """What a task has claimed is consumed, and nothing else is."""
    contacts = Contacts(case.history)
    for op in case.history.of_call("consumed"):
        if not op.ok or op.epoch is None:
            continue
        indexes, flags = op.result.get("indexes") or (), op.result.get("flags") or ()
        reset = _was_reset(case, op)
        others = _others_consume(case, op)
        for index, flag in zip(indexes, flags, strict=True):
            here = [
                s for s in case.samples.by_index.get((op.epoch, index), ()) if s.part == op.part
            ]
            wrong = None
            if not flag and not reset:
                wrong = _not_consumed(case, contacts, op, here)
            elif flag and here and not others:
                wrong = _not_claimed(op, here)
            if wrong is not None:
                yield wrong
                break


def _was_reset(case: Case, op: Op) -> bool:
    resets = case.history.of_call("reset")
    task = op.args["task"]
    return any(
        r.state != "fail"
        and r.part == op.part
        and r.args.get("task") in (None, task)
        and r.t0 < op.t1
        for r in resets
    )


def _others_consume(case: Case, op: Op) -> bool:
    """Whether samples may be consumed although no acknowledged claim has them: by claims without a known outcome, by
    samplers that pick for all ranks of a step, or because a checkpoint says so."""
    return case.samples.loads_from < op.t1 or any(
        c.part == op.part
        and c.args["task"] == op.args["task"]
        and c.t0 < op.t1
        and (not c.ok or slot_of(c) is not None)
        for c in case.history.of_call("claim")
    )


def _not_consumed(case: Case, contacts: Contacts, op: Op, here: list[Sample]) -> Finding | None:
    for sample in here:
        for claim in sample.claims.get(op.args["task"], ()):
            if sample.lives(op.t0, op.t1) and claim.t1 < op.t0 and contacts.settled(claim):
                text = f"{sample} is not consumed by {op.args['task']!r}"
                return finding("claimed samples are consumed", text, claim, op)
    return None


def _not_claimed(op: Op, here: list[Sample]) -> Finding | None:
    task = op.args["task"]
    if any(claim.t0 < op.t1 for sample in here for claim in sample.claims.get(task, ())):
        return None
    text = f"index {here[0].index} is consumed by {task!r}, which has not claimed it"
    return finding("claimed samples are consumed", text, op)


def two_phases(case: Case) -> Iterator[Finding]:
    """A clear that was ended is not handed out again."""
    ended: dict[int, Op] = {}
    for op in case.history.of_call("end_clear"):
        if op.ok and op.args.get("removed"):
            ended.setdefault(op.args["id"], op)
    for op in case.history.of_call("begin_clear", "notify"):
        for clearing in (op.result.get("clearings") or ()) if op.ok else ():
            end = ended.get(clearing["id"])
            if end is not None and end.t1 < op.t0:
                text = f"clear {clearing['id']} is handed out after it has ended"
                yield finding("a clear ends once", text, end, op)


RULES = [claims, claim_results, consumption, two_phases]
