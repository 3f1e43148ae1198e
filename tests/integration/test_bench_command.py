"""`tq bench`: it measures a running system in its own partition, and leaves nothing behind, however it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from support.daemons import System, executable

FEW = ("--scale", "0.01", "--rounds", "2", "--calls", "10", "--callers", "1", "--callers", "4")
WORKLOADS = ["tiny", "simple", "complex", "grpo-longtail"]
CALLS = ["put", "tag", "claim of 64", "get"]


def measured(running: System, *args: str) -> dict[str, Any]:
    """The output of `tq bench --json`."""
    found: dict[str, Any] = json.loads(running.tq("bench", "--json", *args))
    return found


def test_what_comes_out(running: System) -> None:
    """Every workload and call, in consistent numbers; other users' data in the system is unchanged."""
    client = running.client("trainer")
    put = client.put({"x": np.arange(5)}, partition_id="mine")
    found = measured(running, *FEW)
    assert found["settings"] == {"scale": 0.01, "rounds": 2, "calls": 10}
    assert found["elapsed"] > 0
    assert found["about"]["machine"]["cores"] > 0
    assert [unit["capacity_bytes"] for unit in found["about"]["storage"]] == [64 << 20]
    assert [each["name"] for each in found["workloads"]] == WORKLOADS
    for each in found["workloads"]:
        for step in ("put", "list", "get", "clear"):
            assert len(each[step]["seconds"]) == 2
            assert 0 < each[step]["median"] <= max(each[step]["seconds"]) < found["elapsed"]
        for step in ("put", "get"):
            rate = each["bytes"] / each[step]["median"]
            assert each[step]["bytes_per_second"] == pytest.approx(rate)
        assert ("copy" in each) == (each["bytes"] >= 1 << 20)
    calls = {(each["name"], each["callers"]): each for each in found["calls"]}
    assert set(calls) == {("round trip", 1), *((name, n) for name in CALLS for n in (1, 4))}
    for (_, callers), each in calls.items():
        assert each["calls"] == 2 * (10 if callers == 1 else 32)
        assert 0 < each["p50"] <= each["p99"] < found["elapsed"]
        # Each caller waits for its call, which determines the calls per second.
        assert each["per_second"] < 2 * each["calls"] / each["p50"]
    assert json.loads(running.tq("ls", "--json")) == ["mine"]
    assert list(client.get_data(put)["x"]) == [0, 1, 2, 3, 4]


def test_a_table_for_people(running: System) -> None:
    """Workloads by throughput, calls by duration; nothing on stderr, which is not a terminal."""
    done = subprocess.run(
        [executable("tq"), "bench", *FEW, "--workload", "simple", "--workload", "tiny"],
        env=running.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    about, moved, called = done.stdout.split("\n\n")
    assert "64.0 MiB" in about
    assert "2 rounds" in about
    head, *rows, _ = moved.splitlines()
    assert head.split()[:3] == ["WORKLOAD", "SAMPLES", "SIZE"]
    assert [row.split()[:3] for row in rows] == [
        ["tiny", "1", "196"],
        ["simple", "8", "2.2"],
    ]
    assert called.split()[:2] == ["CALL", "AT"]
    assert len(called.splitlines()) == 2 + 2 * len(CALLS)


def test_progress_is_for_terminals(running: System) -> None:
    """It is drawn on stderr if that is a terminal, even with JSON output, and is erased in the end."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [executable("tq"), "bench", "--json", *FEW, "--workload", "tiny"],
            env=running.environment(),
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        drawn = b""
        try:
            while more := terminal.read(65536):
                drawn += more
        except OSError:  # end of file on a terminal
            pass
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [each["name"] for each in json.loads(out)["workloads"]] == ["tiny"]
    for text in (b"tiny, warming", b"tiny, round 2", b"22/22", b"get, 4 at once"):
        assert text in drawn
    assert drawn.endswith(b"\r\x1b[K")


def test_samplers_of_the_system_do_not_matter(system: System) -> None:
    """The bench's claims do not use the system's own sampler, whatever it expects."""
    system.start(
        settings=[
            "backend.SimpleStorage.total_storage_size=64MiB",
            "controller.sampler=GRPOGroupNSampler",
        ]
    )
    found = measured(system, *FEW, "--workload", "tiny")
    assert any(each["name"] == "claim of 64" for each in found["calls"])


@contextmanager
def under_way(running: System, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A long run that has already put something."""
    with subprocess.Popen(
        [executable("tq"), "events", "--follow", "--json"],
        env=running.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as events:
        process = subprocess.Popen(
            [executable("tq"), "bench", "--scale", "0.01", "--rounds", "1000", *args],
            env=running.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert events.stdout is not None
        for line in events.stdout:
            event = json.loads(line)
            if event["kind"] == "put" and event["partition"].startswith("tq-bench-"):
                break
        events.terminate()
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(running: System, number: signal.Signals) -> None:
    """It ends at once, with the exit status used by shells, and its partition is gone."""
    with under_way(running) as process:
        process.send_signal(number)
        out, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert out == ""
    assert said == "tq: interrupted; nothing is left behind\n"
    assert json.loads(running.tq("ls", "--json")) == []


@pytest.mark.slow
def test_a_system_that_is_gone(running: System) -> None:
    """The run ends with the reason, and names what it could not clear."""
    with under_way(running, "--timeout", "1") as process:
        running.daemons[0].kill()
        out, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert "tq-bench-" in said
    assert "may be left behind" in said


def test_a_store_that_is_too_small(running: System) -> None:
    """This is detected before anything is put, so that no other client has to wait for room."""
    running.client("trainer").put({"x": np.zeros((40, 1 << 20), np.uint8)}, partition_id="mine")
    said = running.tq("bench", "--workload", "simple", "--scale", "0.125", status=1)
    assert "the workload simple needs 39.6 MiB" in said
    assert "choose a smaller --scale" in said
    assert json.loads(running.tq("ls", "--json")) == ["mine"]


def test_workloads_are_those_of_make_bench(system: System) -> None:
    """Names, samples, fields, types and shapes equal bench/workloads.py; random lengths agree statistically."""
    torch = pytest.importorskip("torch")
    from bench.workloads import WORKLOADS as known
    from bench.workloads import size

    for scale in (0.1, 1.0):
        listed = json.loads(system.tq("bench", "--list-workloads", "--json", "--scale", str(scale)))
        assert [each["name"] for each in listed] == WORKLOADS
        # Maps, images and texts exist only in Python.
        own = {"multimodal", "maps", "images", "strings", "long texts"}
        assert set(known) - set(WORKLOADS) == own
        for each in listed:
            workload = known[each["name"]]
            columns = workload.columns(scale)
            assert each["about"] == workload.about
            assert each["samples"] == workload.rows(scale)
            assert each["bytes"] == sum(field["bytes"] for field in each["fields"])
            assert [field["name"] for field in each["fields"]] == list(columns)
            for field in each["fields"]:
                column = columns[field["name"]]
                if isinstance(column, torch.Tensor):
                    assert field["type"] == str(column.dtype).removeprefix("torch.")
                    assert field["shape"] == list(column.shape[1:])
                    assert field["bytes"] == size({field["name"]: column})
                    continue
                text = isinstance(column[0], str)
                kind = "text" if text else str(column[0].dtype).removeprefix("torch.")
                assert (field["type"], field["shape"]) == (kind, [None])
                # Both are drawn from the same distribution, and are the same in every run.
                alike = 0.15 if scale == 1 else 1.0
                assert field["bytes"] == pytest.approx(size({field["name"]: column}), rel=alike)


def test_workloads_for_people(system: System) -> None:
    """`--list-workloads` needs no system."""
    head, *rows = system.tq("bench", "--list-workloads").splitlines()
    assert head.split() == ["WORKLOAD", "SAMPLES", "SIZE", "WHAT"]
    assert [row.split()[0] for row in rows] == WORKLOADS
