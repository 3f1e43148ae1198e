"""Rules about codes, deadlines and samples: what exists is found, and what was cleared is not.

Lines are times (history_file.py); an op without a known outcome may have its effect at any time after it was invoked, or
never.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from history_case import SECOND, Case, Finding, finding
from history_file import MAKES, NEVER, Op
from history_samples import Sample, covers, is_new

# --- codes and deadlines ------------------------------------------------------------

ALWAYS = {
    *(
        "TQ_ENOMEM",
        "TQ_ETIMEDOUT",
        "TQ_EUNREACHABLE",
        "TQ_ESTALE",
        "TQ_ECLOSED",
        "TQ_EENDED",
        "TQ_EIO",
    ),
    "TQ_ECANCELED",
}
SOMETIMES = {
    "put": {"TQ_EFULL", "TQ_EKEY", "TQ_ECLEARED", "TQ_EPARTITION"},
    "claim": {"TQ_EAGAIN", "TQ_EPARTITION", "TQ_EFIELD"},
    "resolve": {"TQ_EKEY", "TQ_EPARTITION", "TQ_EFIELD", "TQ_ECLEARED"},
    "get": {"TQ_ECLEARED", "TQ_ELOST", "TQ_ENOTREADY", "TQ_EFIELD", "TQ_EPARTITION"},
    "get_by_key": {"TQ_ECLEARED", "TQ_ELOST", "TQ_ENOTREADY", "TQ_EPARTITION"},
    "clear": {"TQ_EPARTITION"},
    "reset": {"TQ_EPARTITION"},
    "consumed": {"TQ_EPARTITION"},
    "produced": {"TQ_EPARTITION", "TQ_EFIELD"},
    "notify": {"TQ_ECLEARED", "TQ_EPARTITION", "TQ_EKEY"},
    "save": {"TQ_EPARTITION", "TQ_EEXIST", "TQ_ELOST", "TQ_ECHECKPOINT"},
    "load": {"TQ_ECHECKPOINT", "TQ_EFULL", "TQ_ELOST"},
}


def legal_codes(case: Case) -> Iterator[Finding]:
    """A legal program gets only the errors of the faults."""
    rule = "legal programs get legal errors"
    for op in case.history.ops.values():
        if op.state not in ("fail", "unknown"):
            continue
        life = case.history.lives[op.client, op.life]
        if op.code not in ALWAYS and op.code not in SOMETIMES.get(op.call, ()):
            yield finding(rule, f"{op.call} ended with {op.code}", op)
        elif op.code == "TQ_ECANCELED" and not op.result.get("cancelled"):
            yield finding(rule, f"{op.call} was cancelled, but not by its client", op)
        elif op.code == "TQ_EAGAIN" and not op.args.get("poll"):
            yield finding(rule, "a claim that waits ended with TQ_EAGAIN", op)
        elif op.code == "TQ_ECLOSED" and life.closed == NEVER and life.died == NEVER:
            yield finding(
                rule, f"{op.call} ended with TQ_ECLOSED, but its client was not closed", op
            )


def deadlines(case: Case) -> Iterator[Finding]:
    """No op outlives its deadline, and none is left when the run is over."""
    rule = "deadlines are kept"
    for op in case.history.ops.values():
        limit = op.result.get("limit", op.args["timeout"])
        # A call of the file system cannot be stopped.
        if op.ended is None or limit <= 0 or op.call in ("save", "load"):
            continue
        # By the clock of its process, if the file has that; else virtual time: clocks differ by a fifth.
        took = op.result.get("took")
        most = limit * SECOND if took is not None else limit * 1.25 * SECOND
        took = took if took is not None else op.ended - op.began
        took -= int(op.result.get("stopped", 0) * 1.25)
        # An op that nobody waited for was seen to have ended only when somebody did.
        if took > max(most, op.result.get("waited", 0)) + case.late * SECOND:
            yield finding(rule, f"{op.call} had {limit:g} s and took {took / SECOND:.3f} s", op)
    if case.history.end == NEVER or case.history.found:
        return
    for life in case.history.lives.values():
        for op in life.ops:
            if op.state == "open" and life.died == NEVER:
                yield finding("everything ends", f"{op.call} never ended", op)


# --- samples --------------------------------------------------------------------------

READS = {"claim", "resolve", "get_by_key", "list_keys"}


def made(case: Case) -> Iterator[Finding]:
    """Results of puts: as many rows as were put, new samples for new rows, the given ones for given ones."""
    rule = "a put returns its samples"
    for op in case.history.ops.values():
        if not op.ok or op.call not in MAKES:
            continue
        rows, given, keys = op.rows(), op.args.get("rows"), op.args.get("keys")
        expected = len(given or keys or ()) or op.args.get("n", len(rows))
        if len(rows) != expected:
            yield finding(rule, f"{op.call} of {expected} samples returned {len(rows)}", op)
        elif given is not None and any(
            a[0] != b[0] or b[1] not in (0, a[1]) for a, b in zip(rows, given, strict=True)
        ):
            yield finding(rule, f"{op.call} returned other samples than were given", op)
        elif keys is not None and any(
            row[2] not in (None, key) for row, key in zip(rows, keys, strict=True)
        ):
            yield finding(rule, f"{op.call} returned samples with other keys", op)
        elif (
            keys is None and len({(row[0], row[1]) for row in rows}) != len(rows) and given is None
        ):
            yield finding(rule, f"{op.call} returned a sample twice", op)
    for sample in case.samples.all.values():
        news = [op for op in sample.made if is_new(op)]
        if len(news) > 1:
            yield finding("a sample is made once", f"{sample} is new in two puts", *news[:2])


def phantoms(case: Case) -> Iterator[Finding]:
    """Samples that nobody can have made."""
    unexplained: dict[str, list[Sample]] = defaultdict(list)
    for sample in case.samples.all.values():
        seen = sample.seen
        if sample.made or seen is None or case.samples.loads_from < seen.t1:
            continue
        if not any(
            op.t0 < seen.t1 and covers(op, sample, None) for op in case.samples.unsure[sample.part]
        ):
            yield finding("samples come from puts", f"nobody has made {sample}", seen)
        unexplained[sample.part].append(sample)
    for part, samples in unexplained.items():
        unsure = case.samples.unsure[part]
        most = sum(len(op.args.get("keys") or ()) or op.args.get("n", 0) for op in unsure)
        if len(samples) > most:
            seen_by = [sample.seen for sample in samples if sample.seen is not None]
            text = f"{len(samples)} samples of {part!r} come from unknown puts of {most}"
            yield finding("samples come from puts", text, *seen_by[-1:], *unsure[:2])


def _overlaps(samples: list[Sample]) -> Iterator[tuple[Sample, Sample]]:
    """Pairs that certainly existed at the same time."""
    last: Sample | None = None
    for sample in sorted(samples, key=lambda sample: sample.born_by):
        if last is not None and sample.born_by < min(last.cleared_from, sample.cleared_from):
            yield last, sample
        if last is None or sample.cleared_from > last.cleared_from:
            last = sample


def one_at_a_time(case: Case) -> Iterator[Finding]:
    """An index has one sample at a time, and so has a key of a partition."""
    for what, groups in (("index", case.samples.by_index), ("key", case.samples.by_key)):
        for samples in groups.values():
            if len(samples) < 2:
                continue
            for first, second in _overlaps(samples):
                ops = [sample.made[0] if sample.made else sample.seen for sample in (first, second)]
                text = f"{first} and {second} exist at the same time"
                yield finding(
                    f"an {what} has one sample" if what == "index" else "a key has one sample",
                    text,
                    *[op for op in ops if op is not None],
                )


def cleared(case: Case) -> Iterator[Finding]:
    """What was cleared is not found any more."""
    rule = "what is cleared stays cleared"
    for op in case.history.ops.values():
        if not op.ok or op.part is None:
            continue
        if op.call in READS or (op.call in MAKES and not is_new(op)):
            rows = op.rows()
        elif op.call == "get" and not op.args.get("from"):
            rows = [row for row in op.args["rows"] if row[1] != 0]
        else:
            continue
        for row in rows:
            sample = case.samples.of(op, row)
            if sample.cleared_by < op.t0 and sample.clear_by is not None:
                yield finding(rule, f"{op.call} found {sample}", sample.clear_by, op)
                break


def counts(case: Case) -> Iterator[Finding]:
    """A clear counts what it has cleared: each sample once, and all of those that only it can have cleared."""
    rule = "clears count samples"
    total: dict[tuple[int, str], int] = defaultdict(int)
    last: dict[tuple[int, str], Op] = {}
    for op in case.history.of_call("clear", "begin_clear"):
        if not op.ok or op.part is None or op.epoch is None:
            continue
        count = op.result.get("count", 0)
        total[op.epoch, op.part] += count
        if op.t1 > last.setdefault((op.epoch, op.part), op).t1:
            last[op.epoch, op.part] = op
        rows, keys = op.args.get("rows"), op.args.get("keys")
        if rows is None and keys is None:
            continue
        targets: dict[int, Sample] = {}
        for row in rows or ():
            sample = case.samples.all.get((op.epoch, op.part, row[0], row[1]))
            targets.update({id(sample): sample} if sample is not None else {})
        for key in keys or ():
            targets.update(
                {
                    id(sample): sample
                    for sample in case.samples.by_key.get((op.epoch, op.part, key), ())
                }
            )
        most = len({(row[0], row[1]) for row in rows} if rows is not None else set(keys or ()))
        sure = [
            s
            for s in targets.values()
            if s.born_by < op.t0 and s.clear_from is op and s.clear_next > op.t1
        ]
        if count > most:
            yield finding(rule, f"a clear of {most} samples has cleared {count}", op)
        elif count < len(sure):
            made_by = sure[0].made[0] if sure[0].made else sure[0].seen
            yield finding(
                rule,
                f"{len(sure)} samples could only be cleared here, counted are {count}",
                op,
                *([made_by] if made_by else []),
            )
    for (epoch, part), count in total.items():
        known = len(case.samples.by_part.get((epoch, part), ()))
        unsure = sum(
            len(op.args.get("keys") or ()) or op.args.get("n", 0)
            for op in case.samples.unsure[part]
        )
        if count > known + unsure and case.samples.loads_from == NEVER:
            yield finding(
                "a sample is cleared once",
                f"{count} samples of {part!r} were cleared, and at most {known + unsure} made",
                last[epoch, part],
            )


# --- none lost ---------------------------------------------------------------------------


def _sees_all(op: Op) -> bool:
    """Whether the result has every sample of the partition."""
    if op.call == "resolve":
        return bool(op.args.get("all")) or is_new(op)
    return op.call == "claim" and op.args.get("mode") == "force"


def _lost(case: Case, op: Op, sample: Sample) -> Finding:
    made_by = sample.made[0] if sample.made else sample.seen
    return finding(
        "none lost", f"{op.call} does not find {sample}", *([made_by] if made_by else []), op
    )


def none_lost(case: Case) -> Iterator[Finding]:
    """A sample that was put and cannot have been cleared is in every listing of all samples."""
    looks: dict[tuple[int, str], list[Op]] = defaultdict(list)
    for op in case.history.of_call("resolve", "claim"):
        if op.ok and op.epoch is not None and op.part is not None and _sees_all(op):
            looks[op.epoch, op.part].append(op)
    for name, ops in looks.items():
        # In the order in which they were born; those that may have been cleared before a look are dropped for good.
        waiting = sorted(case.samples.by_part.get(name, ()), key=lambda s: s.born_by, reverse=True)
        alive: list[Sample] = []
        for op in sorted(ops, key=lambda op: op.t0):
            while waiting and waiting[-1].born_by < op.t0:
                alive.append(waiting.pop())
            alive = [sample for sample in alive if sample.cleared_from > op.t0]
            found = {(row[0], row[1]) for row in op.rows()}
            for sample in alive:
                if sample.cleared_from > op.t1 and (sample.index, sample.incarnation) not in found:
                    yield _lost(case, op, sample)
                    break


def _alive(case: Case, epoch: int, op: Op, key: str) -> Sample | None:
    """The sample of a key that certainly exists throughout an op."""
    samples = case.samples.by_key.get((epoch, op.part or "", key), ())
    return next((sample for sample in samples if sample.lives(op.t0, op.end)), None)


def keys_found(case: Case) -> Iterator[Finding]:
    """A key that exists is found, and a key that is unknown to a call does not exist."""
    epochs = {epoch for epoch, _ in case.samples.by_part}
    for op in case.history.of_call("get_by_key", "resolve", "put"):
        keys = op.args.get("keys")
        if not keys or op.part is None:
            continue
        missed: Sample | None = None
        if op.ok and op.call != "put" and op.epoch is not None:
            found = {row[2] for row in op.rows()}
            alive = [_alive(case, op.epoch, op, key) for key in keys if key not in found]
            missed = next((sample for sample in alive if sample is not None), None)
        elif op.code == "TQ_EKEY" and len(epochs) == 1:
            alive = [_alive(case, next(iter(epochs)), op, key) for key in keys]
            missed = alive[0] if None not in alive else None
        if missed is not None:
            yield _lost(case, op, missed)


def partitions_found(case: Case) -> Iterator[Finding]:
    """A partition with samples is listed."""
    for op in case.history.of_call("list_partitions"):
        if not op.ok:
            continue
        names = set(op.result.get("names") or ())
        for (epoch, part), samples in case.samples.by_part.items():
            if epoch == op.epoch and part not in names:
                alive = next((sample for sample in samples if sample.lives(op.t0, op.t1)), None)
                if alive is not None:
                    yield _lost(case, op, alive)


def honest(case: Case) -> Iterator[Finding]:
    """An error that names samples as cleared, or fields as not there, is true."""
    epochs = {epoch for epoch, _ in case.samples.by_part}
    if len(epochs) != 1:
        return
    epoch = next(iter(epochs))
    for op in case.history.of_call("get", "put", "resolve"):
        if (
            op.code not in ("TQ_ECLEARED", "TQ_ENOTREADY")
            or op.part is None
            or not op.args.get("rows")
        ):
            continue
        samples = [
            case.samples.all.get((epoch, op.part, row[0], row[1])) for row in op.args["rows"]
        ]
        known = [sample for sample in samples if sample is not None and sample.lives(op.t0, op.end)]
        if len(known) < len(samples):
            continue
        names = op.args.get("fields") or ()
        puts = [
            next((put for put in sample.cell(name).writes if put.t1 < op.t0), None)
            for sample in known
            for name in (names if op.code == "TQ_ENOTREADY" else ())
        ]
        if op.code == "TQ_ECLEARED" or (puts and None not in puts):
            made_by = known[0].made[0] if known[0].made else known[0].seen
            yield finding(
                "errors are true",
                f"{op.call} ended with {op.code}",
                op,
                *([made_by] if made_by else []),
            )


RULES = [
    *(legal_codes, deadlines, made, phantoms, one_at_a_time, cleared, counts, none_lost),
    *(keys_found, partitions_found, honest),
]
