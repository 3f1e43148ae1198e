"""tests/sim/check_history.py: what it accepts and refuses in the history of a simulation."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SIM = Path(__file__).resolve().parents[1] / "sim"
SCRIPT = SIM / "check_history.py"

P = "p-0"


class Story:
    """A history written by hand: every call is one line, and so is its end."""

    def __init__(self, **start: Any) -> None:
        self.lines: list[dict[str, Any]] = [{"e": "start", "version": 1, "seed": 7, **start}]
        self.number = 0
        self.time = 0
        self.clients: dict[int, int] = {}
        for client in (1, 2, 3):
            self.opens(client)

    def line(self, kind: str, **members: Any) -> None:
        self.time += members.pop("after", 1_000_000)
        self.lines.append({"e": kind, "t": self.time, **members})

    def opens(self, client: int, **members: Any) -> None:
        self.clients[client] = self.clients.get(client, 0) + 1
        self.client(client, "open", epoch=5, **members)

    def client(self, client: int, what: str, **members: Any) -> None:
        self.line("client", c=client, l=self.clients[client], what=what, **members)

    def begin(self, call: str, client: int = 1, part: str | None = P, **arguments: Any) -> int:
        self.number += 1
        base = {
            "op": self.number,
            "c": client,
            "l": self.clients[client],
            "th": 0,
            "call": call,
            "part": part,
        }
        self.line("invoke", **{**base, "timeout": 0, "n": 0, **arguments})
        return self.number

    def ok(self, op: int, **result: Any) -> int:
        self.line("ok", op=op, **{"epoch": 5, **result})
        return op

    def fail(self, op: int, code: str, **result: Any) -> int:
        self.line("fail", op=op, code=code, **result)
        return op

    def unknown(self, op: int, code: str = "TQ_ETIMEDOUT", **result: Any) -> int:
        self.line("unknown", op=op, code=code, **result)
        return op

    def put(
        self, *indexes: int, fields: tuple[str, ...] = ("a",), client: int = 1, inc: int = 1
    ) -> int:
        op = self.begin("put", client, n=len(indexes), fields=list(fields))
        return self.ok(op, rows=rows(*indexes, inc=inc))

    def rewrite(self, *indexes: int, fields: tuple[str, ...] = ("a",), client: int = 1) -> int:
        op = self.begin("put", client, n=len(indexes), rows=rows(*indexes), fields=list(fields))
        return self.ok(op, rows=rows(*indexes))

    def put_keys(self, *keyed: tuple[int, str], client: int = 1, inc: int = 1) -> int:
        op = self.begin("put", client, n=len(keyed), keys=[key for _, key in keyed], fields=["a"])
        return self.ok(op, rows=[[index, inc, key] for index, key in keyed])

    def claim(self, *indexes: int, client: int = 1, task: str = "t", **arguments: Any) -> int:
        op = self.begin(
            "claim",
            client,
            task=task,
            fields=["a"],
            mode="fetch",
            **{"n": len(indexes), **arguments},
        )
        return self.ok(op, rows=rows(*indexes), claim=op, ready={"a": "1" * len(indexes)})

    def resolve(self, ready: str, *indexes: int, client: int = 1) -> int:
        op = self.begin("resolve", client, all=True, fields=None)
        return self.ok(op, rows=rows(*indexes), ready={"a": ready})

    def get(
        self, values: dict[str, list[int]], *indexes: int, client: int = 1, source: int = 0
    ) -> int:
        op = self.begin(
            "get",
            client,
            n=len(indexes),
            rows=rows(*indexes),
            fields=list(values),
            **{"from": source},
        )
        return self.ok(op, values=values)

    def clear(self, *indexes: int, client: int = 1, count: int | None = None) -> int:
        op = self.begin("clear", client, n=len(indexes), rows=rows(*indexes))
        return self.ok(op, count=len(indexes) if count is None else count)

    def write(self, folder: Path) -> Path:
        path = folder / "history.jsonl"
        self.line("end")
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return path


def rows(*indexes: int, inc: int = 1) -> list[list[Any]]:
    return [[index, inc, None] for index in indexes]


def run(path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, path], capture_output=True, text=True, check=False
    )


def broken(story: Story) -> list[tuple[str, list[int]]]:
    """Rules that it breaks, with the ops of their records."""
    if str(SIM) not in sys.path:
        sys.path.insert(0, str(SIM))
    checker = importlib.import_module("check_history")
    story.line("end")
    history = importlib.import_module("history_file").parse(
        json.dumps(line) for line in story.lines
    )
    found = checker.findings(history)
    return [
        (one.rule, sorted({json.loads(history.lines[line])["op"] for line in one.lines}))
        for one in found
    ]


# --- the program ----------------------------------------------------------------------


def good() -> Story:
    """A bit of everything, as it should be."""
    story = Story(grace=10)
    first = story.put(0, 1, fields=("a", "b"))
    second = story.rewrite(0, 1, fields=("b",), client=2)
    story.get({"a": [first, first], "b": [second, second]}, 0, 1, client=3)
    story.get({"b": [first, first]}, 0, 1, source=first)  # old metadata
    story.claim(0, 1, client=2)
    story.put(2)
    story.claim(2, client=3)
    story.ok(story.begin("reset", task="t"))
    story.claim(0, 1, 2, client=1)
    unsure = story.unknown(story.begin("put", n=1, fields=["a"]))
    story.resolve("1111", 0, 1, 2, 3)
    story.get({"a": [unsure]}, 3)
    story.clear(0, 1)
    story.put(0, inc=2)
    story.fail(story.begin("put", n=1, fields=["a"]), "TQ_EFULL")
    story.ok(story.begin("list_partitions", part=None), names=[P])
    story.ok(story.begin("clear", all=True), count=3)
    story.resolve("")
    return story


def test_a_good_history_is_accepted(tmp_path: Path) -> None:
    done = run(good().write(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "good" in done.stdout and "1 unknown" in done.stdout


def test_a_bad_one_is_shown_with_its_records(tmp_path: Path) -> None:
    story = Story()
    put = story.put(0)
    story.resolve("")
    done = run(story.write(tmp_path))
    assert done.returncode == 1
    assert "none lost: resolve does not find sample 0.1 of 'p-0'" in done.stdout
    assert f'"op": {put}' in done.stdout and '"call": "resolve"' in done.stdout


@pytest.mark.parametrize(
    "text",
    [
        "no JSON\n",
        '{"e": "start", "version": 2, "seed": 1}\n',
        '{"e": "invoke", "t": 1, "op": 1, "c": 1, "l": 1, "call": "put", "part": "p", "timeout": 0}\n',
        '{"e": "start", "version": 1, "seed": 1}\n{"e": "ok", "t": 1, "op": 1}\n',
        '{"e": "start", "version": 1, "seed": 1}\n{"e": "calm", "t": 2}\n{"e": "end", "t": 1}\n',
        '{"e": "start", "version": 1, "seed": 1}\n{"e": "sleep", "t": 2}\n',
    ],
)
def test_what_is_no_history_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(text)
    assert run(path).returncode == 2


# --- codes and deadlines ----------------------------------------------------------------


def test_an_error_that_no_fault_explains_is_found() -> None:
    story = Story()
    bad = story.fail(story.begin("put", n=1, fields=["a"]), "TQ_EINVAL")
    assert broken(story) == [("legal programs get legal errors", [bad])]


def test_a_cancel_has_to_come_from_the_client() -> None:
    story = Story()
    story.fail(
        story.begin("claim", task="t", fields=["a"], mode="fetch", n=1),
        "TQ_ECANCELED",
        cancelled=True,
    )
    bad = story.fail(
        story.begin("claim", task="t", fields=["a"], mode="fetch", n=1), "TQ_ECANCELED"
    )
    assert broken(story) == [("legal programs get legal errors", [bad])]


def test_only_a_polling_claim_may_be_told_to_try_again() -> None:
    story = Story()
    claim = {"task": "t", "fields": ["a"], "mode": "fetch", "n": 1}
    story.fail(story.begin("claim", poll=True, **claim), "TQ_EAGAIN")
    bad = story.fail(story.begin("claim", **claim), "TQ_EAGAIN")
    assert broken(story) == [("legal programs get legal errors", [bad])]


def test_closed_is_an_answer_only_of_a_client_that_closes() -> None:
    story = Story()
    story.fail(story.begin("put", 2, n=1, fields=["a"]), "TQ_ECLOSED")
    story.client(2, "close")
    bad = story.fail(story.begin("put", 1, n=1, fields=["a"]), "TQ_ECLOSED")
    assert broken(story) == [("legal programs get legal errors", [bad])]


def test_a_deadline_may_be_missed_by_little() -> None:
    story = Story()
    story.unknown(story.begin("put", n=1, fields=["a"], timeout=1), after=4_000_000_000)
    bad = story.unknown(story.begin("put", n=1, fields=["a"], timeout=1), after=5_000_000_000)
    assert broken(story) == [("deadlines are kept", [bad])]


def test_the_time_for_which_a_process_was_stopped_does_not_count() -> None:
    story = Story()
    slow = {"after": 9_000_000_000, "took": 9_000_000_000, "limit": 2}
    story.unknown(story.begin("put", n=1, fields=["a"]), stopped=6_000_000_000, **slow)
    bad = story.unknown(story.begin("put", n=1, fields=["a"]), stopped=1_000_000_000, **slow)
    assert broken(story) == [("deadlines are kept", [bad])]


def test_an_op_that_never_ends_is_found_unless_its_client_was_killed() -> None:
    story = Story()
    story.begin("put", 2, n=1, fields=["a"])
    story.client(2, "died")
    bad = story.begin("put", 1, n=1, fields=["a"])
    assert broken(story) == [("everything ends", [bad])]


# --- samples ----------------------------------------------------------------------------


def test_a_put_returns_the_samples_that_it_was_given() -> None:
    story = Story()
    story.put(0, 1)
    one = story.ok(story.begin("put", n=2, rows=rows(0, 1), fields=["a"]), rows=rows(0))
    other = story.ok(story.begin("put", n=2, rows=rows(0, 1), fields=["a"]), rows=rows(1, 0))
    rule = "a put returns its samples"
    assert broken(story) == [(rule, [one]), (rule, [other])]


def test_new_samples_are_new() -> None:
    story = Story()
    first = story.put(0)
    again = story.put(0)
    assert ("a sample is made once", [first, again]) in broken(story)


def test_an_index_is_used_again_only_after_a_clear() -> None:
    story = Story()
    first = story.put(0)
    story.clear(0)
    second = story.put(0, inc=2)
    third = story.put(0, inc=3)
    assert broken(story) == [("an index has one sample", [second, third])]
    assert first not in (second, third)


def test_a_key_has_one_sample() -> None:
    story = Story()
    first = story.put_keys((0, "k"))
    second = story.put_keys((1, "k"))
    assert broken(story) == [("a key has one sample", [first, second])]


def test_samples_that_nobody_made_are_found() -> None:
    story = Story()
    story.put(0)
    bad = story.resolve("11", 0, 1)
    assert ("samples come from puts", [bad]) in broken(story)


def test_more_samples_than_unknown_puts_had_are_found() -> None:
    story = Story()
    unsure = story.unknown(story.begin("put", n=1, fields=["a"]))
    story.resolve("1", 0)
    bad = story.resolve("11", 0, 1)
    assert broken(story) == [("samples come from puts", [unsure, bad])]


def test_a_cleared_sample_stays_cleared() -> None:
    story = Story()
    story.put(0)
    clear = story.clear(0)
    bad = story.resolve("1", 0)
    assert broken(story) == [("what is cleared stays cleared", [clear, bad])]


def test_old_metadata_may_still_find_the_bytes_of_a_cleared_sample() -> None:
    story = Story()
    put = story.put(0)
    story.clear(0)
    story.get({"a": [put]}, 0, source=put)
    assert broken(story) == []
    bad = story.get({"a": [put]}, 0)
    assert [bad] == [
        ops[-1] for rule, ops in broken(story) if rule == "what is cleared stays cleared"
    ]


def test_clears_count_what_they_clear() -> None:
    story = Story()
    story.put(0, 1)
    bad = story.clear(0, 1, count=1)
    assert broken(story) == [("clears count samples", [1, bad])]
    story = Story()
    story.put(0, 1)
    bad = story.clear(0, 1, count=3)
    assert ("clears count samples", [bad]) in broken(story)


def test_a_clear_that_others_may_have_done_may_count_less() -> None:
    story = Story()
    story.put(0, 1)
    story.unknown(story.begin("clear", n=1, rows=rows(0)))
    story.clear(0, 1, count=1)
    assert broken(story) == []


def test_a_sample_is_not_cleared_twice() -> None:
    story = Story()
    story.put(0, 1)
    slow = story.begin("clear", 2, all=True)
    story.clear(0, 1, count=2)
    bad = story.ok(slow, count=1)
    assert broken(story) == [("a sample is cleared once", [bad])]


# --- none lost ------------------------------------------------------------------------------


def test_what_may_have_been_cleared_need_not_be_found() -> None:
    story = Story()
    story.put(0, 1)
    story.unknown(story.begin("clear", n=1, rows=rows(0)))
    story.resolve("1", 1)
    assert broken(story) == []
    bad = story.resolve("")
    assert broken(story) == [("none lost", [1, bad])]


def test_what_a_failed_clear_named_has_to_be_found() -> None:
    story = Story()
    put = story.put(0)
    story.fail(story.begin("clear", n=1, rows=rows(0)), "TQ_EUNREACHABLE")
    bad = story.resolve("")
    assert broken(story) == [("none lost", [put, bad])]


def test_what_is_put_or_cleared_meanwhile_may_be_found_or_not() -> None:
    story = Story()
    look = story.begin("resolve", 3, all=True, fields=None)
    story.put(0)
    story.ok(look, rows=[], ready={"a": ""})
    look = story.begin("resolve", 3, all=True, fields=None)
    story.clear(0)
    story.ok(look, rows=[], ready={"a": ""})
    assert broken(story) == []


def test_a_key_that_exists_is_found() -> None:
    story = Story()
    put = story.put_keys((0, "k"), (1, "l"))
    op = story.begin("get_by_key", keys=["k", "l"], fields=["a"])
    bad = story.ok(op, rows=[[0, 1, "k"]], values={"a": [put]})
    assert broken(story) == [("none lost", [put, bad])]


def test_a_key_that_exists_is_not_unknown() -> None:
    story = Story()
    put = story.put_keys((0, "k"))
    story.fail(story.begin("put", keys=["k", "m"], must_exist=True, fields=["a"]), "TQ_EKEY")
    bad = story.fail(story.begin("put", keys=["k"], must_exist=True, fields=["a"]), "TQ_EKEY")
    assert broken(story) == [("none lost", [put, bad])]


def test_a_partition_with_samples_is_listed() -> None:
    story = Story()
    put = story.put(0)
    bad = story.ok(story.begin("list_partitions", part=None), names=["q"])
    assert broken(story) == [("none lost", [put, bad])]


def test_a_restarted_controller_has_lost_everything() -> None:
    story = Story()
    story.put(0)
    look = story.begin("resolve", all=True, fields=None)
    story.ok(look, epoch=6, rows=[], ready={"a": ""})
    assert broken(story) == []


def test_an_error_about_what_was_cleared_is_true() -> None:
    story = Story()
    put = story.put(0)
    bad = story.fail(story.begin("get", n=1, rows=rows(0), fields=["a"]), "TQ_ECLEARED")
    worse = story.fail(story.begin("get", n=1, rows=rows(0), fields=["a"]), "TQ_ENOTREADY")
    story.fail(story.begin("get", n=1, rows=rows(0), fields=["b"]), "TQ_ENOTREADY")
    assert broken(story) == [("errors are true", [put, bad]), ("errors are true", [put, worse])]


# --- values -------------------------------------------------------------------------------------


def test_a_field_that_was_put_is_ready() -> None:
    story = Story()
    put = story.put(0)
    bad = story.resolve("0", 0)
    story.resolve("2", 0)
    assert broken(story) == [("a field is ready when it was put", [put, bad])]


def test_a_field_that_nobody_put_is_not_ready() -> None:
    story = Story()
    story.put(0, fields=("b",))
    bad = story.resolve("1", 0)
    assert broken(story) == [("a field is ready when it was put", [bad])]


def test_a_read_sees_the_last_acknowledged_put() -> None:
    story = Story()
    first = story.put(0)
    second = story.rewrite(0)
    bad = story.get({"a": [first]}, 0)
    assert broken(story) == [("reads see acknowledged puts", [first, second, bad])]


def test_metadata_from_before_an_overwrite_may_give_the_old_value() -> None:
    story = Story()
    first = story.put(0)
    look = story.resolve("1", 0)
    second = story.rewrite(0)
    story.get({"a": [first]}, 0, source=look)
    assert broken(story) == []
    late = story.resolve("1", 0)
    bad = story.get({"a": [first]}, 0, source=late)
    assert broken(story) == [("reads see acknowledged puts", [first, second, bad])]


def test_puts_at_the_same_time_may_end_either_way_but_only_one_way() -> None:
    story = Story()
    story.put(0)
    one = story.begin("put", 1, n=1, rows=rows(0), fields=["a"])
    two = story.begin("put", 2, n=1, rows=rows(0), fields=["a"])
    story.ok(two, rows=rows(0))
    story.ok(one, rows=rows(0))
    story.get({"a": [two]}, 0)
    assert broken(story) == []
    story.get({"a": [one]}, 0)
    assert [rule for rule, _ in broken(story)] == ["reads see acknowledged puts"]


def test_a_read_after_a_read_does_not_go_back() -> None:
    story = Story()
    first = story.put(0)
    second = story.begin("put", 2, n=1, rows=rows(0), fields=["a"])
    new = story.get({"a": [second]}, 0)
    old = story.get({"a": [first]}, 0)
    story.unknown(second)
    assert broken(story) == [("reads see acknowledged puts", [first, second, new, old])]


def test_an_unknown_put_may_have_its_effect_late_or_never() -> None:
    story = Story()
    first = story.put(0)
    unsure = story.unknown(story.begin("put", n=1, rows=rows(0), fields=["a"]))
    story.get({"a": [first]}, 0)
    story.get({"a": [unsure]}, 0)
    assert broken(story) == []


def test_a_put_that_failed_is_not_read() -> None:
    story = Story()
    story.put(0)
    failed = story.fail(story.begin("put", n=1, rows=rows(0), fields=["a"]), "TQ_EFULL")
    bad = story.get({"a": [failed]}, 0)
    assert broken(story) == [("reads see what was put", [failed, bad])]


def test_a_value_comes_from_a_put_that_had_begun() -> None:
    story = Story()
    story.put(0)
    bad = story.get({"a": [3]}, 0)
    later = story.rewrite(0)
    assert later == 3
    assert ("reads see what was put", [bad, later]) in broken(story)


def test_a_value_of_another_field_or_sample_is_found() -> None:
    story = Story()
    put = story.put(0, fields=("a", "b"))
    other = story.put(1, fields=("a",))
    field = story.get({"b": [other]}, 0)
    row = story.get({"a": [other]}, 0)
    rule = "reads see what was put"
    assert broken(story) == [(rule, [other, field]), (rule, [other, row])]
    assert put < other


def test_the_rows_of_a_put_are_never_mixed() -> None:
    story = Story()
    first = story.put(0, 1)
    second = story.begin("put", 2, n=2, rows=rows(0, 1), fields=["a"])
    bad = story.get({"a": [first, second]}, 0, 1)
    story.ok(second, rows=rows(0, 1))
    assert broken(story) == [("puts are all or nothing", [first, second, bad])]


def test_the_last_overwrite_of_a_key_wins() -> None:
    story = Story()
    first = story.put_keys((0, "k"))
    second = story.put_keys((0, "k"), client=2)
    read = story.begin("get_by_key", 3, keys=["k"], fields=["a"])
    story.ok(read, rows=[[0, 1, "k"]], values={"a": [second]})
    assert broken(story) == []
    read = story.begin("get_by_key", 3, keys=["k"], fields=["a"])
    story.ok(read, rows=[[0, 1, "k"]], values={"a": [first]})
    assert [rule for rule, _ in broken(story)] == ["reads see acknowledged puts"]


# --- claims -----------------------------------------------------------------------------------------


def test_a_sample_is_handed_out_once() -> None:
    story = Story(grace=10)
    story.put(0)
    first = story.claim(0, client=2)
    story.put(1, client=2)
    story.put(2, client=2)
    second = story.claim(0, client=3)
    assert broken(story) == [("no sample twice", [first, second])]


def test_another_task_and_a_reset_get_it_again() -> None:
    story = Story(grace=10)
    story.put(0)
    story.claim(0, client=2)
    story.put(1, client=2)
    story.put(2, client=2)
    story.claim(0, client=3, task="u")
    story.ok(story.begin("reset", task=None))
    story.claim(0, client=3)
    assert broken(story) == []


def test_a_claim_whose_arrival_the_controller_may_not_know_may_go_back() -> None:
    story = Story(grace=10)
    story.put(0)
    story.claim(0, client=2)
    story.client(2, "died")
    story.claim(0, client=3)
    assert broken(story) == []


def test_a_session_may_be_lost_in_a_long_silence() -> None:
    story = Story(grace=1)
    story.put(0)
    story.claim(0, client=2)
    story.line("note", what="stopped", name="client-2", after=5_000_000_000)
    story.claim(0, client=3)
    story.put(1, client=2)
    story.put(2, client=2)
    assert broken(story) == []


def test_the_same_rank_of_a_step_gets_the_same_samples() -> None:
    story = Story(grace=10)
    story.put(0)
    rank = {"config": {"dp_rank": 0, "batch_index": 4}}
    first = story.claim(0, client=2, **rank)
    story.put(1, client=2)
    story.put(2, client=2)
    story.claim(0, client=3, **rank)
    assert broken(story) == []
    other = story.claim(0, client=3, config={"dp_rank": 1, "batch_index": 4})
    assert broken(story) == [("no sample twice", [first, other])]


def test_a_claim_gets_as_many_samples_as_it_asked_for() -> None:
    story = Story()
    story.put(0, 1)
    bad = story.claim(0, n=2)
    twice = story.claim(1, 1)
    assert broken(story) == [("a claim gets what it asks for", [bad]), ("no sample twice", [twice])]


def test_claimed_fields_are_ready() -> None:
    story = Story()
    put = story.put(0, fields=("b",))
    op = story.begin("claim", task="t", fields=["a"], mode="fetch", n=1)
    bad = story.ok(op, rows=rows(0), claim=1, ready={"a": "0"})
    assert broken(story) == [("claimed fields are ready", [bad])]
    assert put < bad


def test_claims_have_ids_of_their_own() -> None:
    story = Story()
    story.put(0, 1)
    claim = {"task": "t", "fields": ["a"], "mode": "fetch", "n": 1}
    one = story.ok(story.begin("claim", **claim), rows=rows(0), claim=9, ready={"a": "1"})
    two = story.ok(story.begin("claim", **claim), rows=rows(1), claim=9, ready={"a": "1"})
    assert broken(story) == [("a claim has its own id", [one, two])]


def test_claimed_samples_are_consumed_and_others_are_not() -> None:
    story = Story(grace=10)
    story.put(0, 1)
    claim = story.claim(0, client=2)
    story.put(2, client=2)
    story.put(3, client=2)
    bad = story.ok(story.begin("consumed", task="t"), known=True, indexes=[0, 1], flags=[0, 0])
    worse = story.ok(story.begin("consumed", task="t"), known=True, indexes=[0, 1], flags=[1, 1])
    rule = "claimed samples are consumed"
    assert broken(story) == [(rule, [claim, bad]), (rule, [worse])]


def test_a_two_phase_clear_ends_once() -> None:
    story = Story()
    story.put(0)
    clearing = {"id": 3, "begun": True, "rows": rows(0)}
    story.ok(story.begin("begin_clear", n=1, rows=rows(0)), count=1, clearings=[clearing])
    end = story.ok(story.begin("end_clear", part=None, id=3, removed=True))
    bad = story.ok(
        story.begin("begin_clear", n=0, rows=[]), count=0, clearings=[{**clearing, "begun": False}]
    )
    assert broken(story) == [("a clear ends once", [end, bad])]
