"""The C programs of examples/c, which the C reference shows: what they print, and what their samplers pick."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transferq
from support.daemons import READY_SECONDS, System

SMALL = (
    "backend.SimpleStorage.total_storage_size=16MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
)
PROGRAMS = Path(os.environ["TQ_TEST_BUILD"]) / "examples"


@pytest.fixture
def started(system: System) -> System:
    """A system with one unit of 16 MiB."""
    system.start(settings=SMALL)
    return system


def output(system: System, program: str, *args: str) -> list[str]:
    """The lines that an example prints."""
    done = subprocess.run(
        [str(PROGRAMS / f"example_{program}"), *args],
        env=system.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_client(started: System) -> None:
    lines = output(started, "client")
    number = re.escape(transferq.__version__)
    assert re.fullmatch(rf"built with {number}, runs with {number}", lines[0])
    assert lines[1].startswith("TQ_EFULL: ")
    assert re.fullmatch(r"\d+ MiB, by the (control group|machine)", lines[2])
    assert lines[4] == "nothing to clean up: TQ_EUNREACHABLE"
    assert lines[-1].startswith("run known, configuration of ")


def test_ops(started: System) -> None:
    assert output(started, "ops") == [
        "claimed 2 samples",
        "in vain",
        "cancelled",
        "heard: TQ_OK, done: yes",
    ]


def test_samples(started: System) -> None:
    assert output(started, "samples") == [
        "reserved 3",
        "logits: 2 rows of 8 bytes",
        "last value 5",
        "cleared 3",
    ]


def test_meta(started: System) -> None:
    assert output(started, "meta") == [
        "partition meta, looked up, by the controller",
        "sample 0.1: key left, group pair",
        "sample 1.1: key right, group pair",
        "field x, 32 bits, with placements",
        "field y, 32 bits, with placements",
        "tag version, first value of 1 bytes",
        "'right' is row 1",
        "2 samples; 2 fields",
        "received 2 samples",
        "partition meta, looked up, by hand",
    ]


def test_table(started: System) -> None:
    lines = output(started, "table")
    events = [line for line in lines if line.startswith("event ")]
    assert any(line.startswith("event put by example_table") for line in events)
    unit = [line for line in lines if re.fullmatch(r"\S+: \d+ of 16777216 bytes", line)]
    assert len(unit) == 1
    assert [line for line in lines if line not in [*events, *unit]] == [
        "partition table",
        "3 keys",
        "key a",
        "key b",
        "key c",
        "sample 2 has the key 'c'",
        "train has consumed 0 of 3",
        "first sample: x is there, reward is missing",
        "cleared 1",
    ]


def test_checkpoint(started: System, tmp_path: Path) -> None:
    lines = output(started, "checkpoint", str(tmp_path / "saved"))
    assert lines[-2:] == ["saved 2 samples", 'loaded 2 samples, saved with {"step":7}']


def test_values(started: System) -> None:
    lines = output(started, "values")
    assert lines[:4] == ["1 value", "text 'hello'", "2 bytes", "small texts are copied"]
    assert lines[4].startswith("not a value: ")


def test_by_index(started: System) -> None:
    assert output(started, "by_index") == ["read file-0", "read file-1", "remove 2 files"]


def test_balance(started: System) -> None:
    assert output(started, "balance") == ["1000 1000 1000 tokens"]


def test_plugins(started: System) -> None:
    library = Path(os.environ["TQ_TEST_BUILD"]) / "src" / "manager" / "dir_store.so"
    assert output(started, "plugins", str(library)) == ["read 2"]


@pytest.fixture
def sampled(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[transferq.TransferQueueClient]:
    """A client of the daemon in example_sampler, with the sampler that the test names."""
    runtime = tmp_path / "run"
    read, write = os.pipe()
    log = tmp_path / "sampler.log"
    with log.open("wb") as said:
        daemon = subprocess.Popen(
            [
                str(PROGRAMS / "example_sampler"),
                "all-in-one",
                f"--ready-fd={write}",
                f"--runtime-dir={runtime}",
                f"--set=controller.sampler={request.param}",
                *(f"--set={setting}" for setting in SMALL),
            ],
            pass_fds=[write],
            stdout=said,
            stderr=said,
        )
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            assert select.select([pipe], [], [], READY_SECONDS)[0], log.read_text()
            assert pipe.readline() == "ready\n", log.read_text()
        address = json.loads((runtime / "handle.json").read_text())["address"]
        info = transferq.ControllerInfo(address, str(runtime / "token"))
        client = transferq.TransferQueueClient("test", info)
        yield client
        client.close()
    finally:
        daemon.terminate()
        assert daemon.wait(READY_SECONDS) == 0, log.read_text()


def put(client: transferq.TransferQueueClient, n: int, **columns: Any) -> None:
    """Put n samples with x = 0, 1, ... and the tags given by column."""
    keys = [f"key-{i}" for i in range(n)]
    tags = [{name: values[i] for name, values in columns.items()} for i in range(n)]
    client.kv_batch_put(keys, "p", {"x": np.arange(n)}, tags=tags)


def claimed(client: transferq.TransferQueueClient, n: int, **how: Any) -> list[int]:
    """The x of the samples that a claim of n gets; [] if it gets none in time."""
    try:
        meta = client.get_meta(["x"], n, "p", task_name="train", timeout=0.5, **how)
    except transferq.TimedOutError:
        return []
    return [int(x) for x in client.get_data(meta)["x"]]


def using(sampler: str) -> pytest.MarkDecorator:
    """The sampler of a test's daemon."""
    return pytest.mark.parametrize("sampled", [sampler], indirect=True)


@using("Freshest")
def test_the_freshest_samples_are_picked(sampled: transferq.TransferQueueClient) -> None:
    put(sampled, 4, version=[1, 2, 2, 1])
    assert claimed(sampled, 2) == [2, 1]
    assert claimed(sampled, 3) == []


@using("WholeGroups")
def test_groups_are_picked_whole(sampled: transferq.TransferQueueClient) -> None:
    """The first group lacks a sample's x; the second one is complete."""
    groups = ["first", "first", "second", "second"]
    meta = sampled.put({"y": np.arange(4)}, partition_id="p", groups=groups)
    sampled.put({"x": np.array([0, 2, 3])}, metadata=meta.select_samples([0, 2, 3]))
    assert claimed(sampled, 2) == [2, 3]
    sampled.put({"x": np.array([1])}, metadata=meta.select_samples([1]))
    assert claimed(sampled, 2) == [0, 1]


@using("Halves")
def test_two_callers_share_a_batch(sampled: transferq.TransferQueueClient) -> None:
    put(sampled, 4)
    assert claimed(sampled, 2) == [0, 1]
    assert claimed(sampled, 2, sampling_config={"half": "second"}) == [2, 3]


@using("Unfailed")
def test_failed_samples_are_passed_over(sampled: transferq.TransferQueueClient) -> None:
    sampled.kv_batch_put(["a", "b", "c"], "p", {"x": np.arange(3)}, tags=[{}, {"failed": True}, {}])
    assert claimed(sampled, 2) == [0, 2]
    assert [
        int(flag) for flag in sampled.get_consumption_status(task_name="train", partition_id="p")[1]
    ] == [1, 1, 1]


@using("Late")
def test_the_first_thousand_are_left(sampled: transferq.TransferQueueClient) -> None:
    put(sampled, 1002)
    assert claimed(sampled, 2) == [1000, 1001]
    assert claimed(sampled, 1) == []


@using("PerStep")
def test_a_step_gets_the_same_samples_again(sampled: transferq.TransferQueueClient) -> None:
    put(sampled, 4)
    assert claimed(sampled, 2) == [0, 1]
    assert claimed(sampled, 2) == [0, 1]


@using("Replay")
def test_samples_are_replayed(sampled: transferq.TransferQueueClient) -> None:
    put(sampled, 4)
    assert [claimed(sampled, 2) for _ in range(3)] == [[0, 1]] * 3
