"""The README's statements about failures are true, and each of its remedies works."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.daemons import System
from transferq import errors

README = Path(__file__).resolve().parents[2] / "README.md"

CONSUMER = """
import sys, time
sys.modules["torch"] = None  # it starts sooner
import transferq as tq
tq.init(attach=True)
client = tq.get_client()
batch = client.get_meta(["answer"], 2, sys.argv[1], task_name="reward")
client.get_data(batch)
print("claimed", flush=True)
time.sleep(600)
"""


def killed_consumer(partition: str) -> None:
    """A process that claims two samples, reads them, and is killed."""
    command = [sys.executable, "-c", CONSUMER, partition]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()


def recipe() -> str:
    """The README's code for samples whose consumer died."""
    section = README.read_text("utf-8").split("## When something dies", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^```py\n(.*?)^```", section, re.MULTILINE | re.DOTALL)[0]


def test_samples_of_a_killed_consumer_stay_consumed_and_the_readme_says_how_to_finish_them(
    tq: Any,
) -> None:
    client = tq.get_client()
    client.put({"answer": [np.arange(n) * 1.0 for n in (3, 1, 4, 1)]}, partition_id="step-0")
    killed_consumer("step-0")

    # No consumer gets them again automatically ...
    _, consumed = client.get_consumption_status("reward", "step-0")
    assert [int(flag) for flag in consumed] == [1, 1, 0, 0]
    batch = client.get_meta(["answer"], 2, "step-0", task_name="reward")
    assert list(batch.global_indexes) == [2, 3]
    client.put({"reward": np.ones(2)}, metadata=batch)
    with pytest.raises(errors.TimedOutError):
        client.get_meta(["answer"], 1, "step-0", task_name="reward", timeout=0.1)

    # ... and the README's lines find and finish exactly these.
    scope = {"client": client, "score": lambda answers: np.zeros(len(answers))}
    exec(recipe(), scope)
    assert list(scope["unfinished"].global_indexes) == [0, 1]
    trained = client.get_meta(["reward"], 4, "step-0", task_name="train")
    assert [float(value) for value in client.get_data(trained)["reward"]] == [0, 0, 1, 1]


@pytest.mark.parametrize("finished", [0, 4], ids=["none", "all"])
def test_the_recipe_holds_where_no_sample_or_every_sample_is_finished(
    tq: Any, pid: str, finished: int
) -> None:
    """Before any reward was written, and again after all are."""
    client = tq.get_client()
    client.put({"answer": [np.arange(n) * 1.0 for n in (3, 1, 4, 1)]}, partition_id=pid)
    batch = client.get_meta(["answer"], 4, pid, task_name="reward")
    if finished:
        client.put({"reward": np.ones(finished)}, metadata=batch)
    scope = {"client": client, "score": lambda answers: np.zeros(len(answers))}
    exec(recipe().replace('"step-0"', repr(pid)), scope)
    trained = client.get_meta(["reward"], 4, pid, task_name="train")
    rewards = [float(value) for value in client.get_data(trained)["reward"]]
    assert rewards == ([1] * 4 if finished else [0] * 4)


def test_reset_consumption_hands_all_samples_of_a_task_out_again(tq: Any) -> None:
    client = tq.get_client()
    client.put({"answer": np.zeros((4, 2))}, partition_id="step-1")
    killed_consumer("step-1")
    client.reset_consumption("step-1", "reward")
    batch = client.get_meta(["answer"], 4, "step-1", task_name="reward")
    assert batch.size == 4


@pytest.mark.slow
def test_a_controllers_death_loses_the_table_and_a_checkpoint_brings_it_back(
    system: System, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("a secret text that every part of the system knows")
    system.token_file = str(token)
    controller = system.start("--token-file", str(token), role="controller")
    system.join(
        "--runtime-dir",
        str(tmp_path / "unit"),
        name="unit-0",
        settings=["backend.SimpleStorage.total_storage_size=64MiB"],
    )
    client = system.client()
    client.put({"answer": np.arange(4.0)}, partition_id="step-0")
    saved = tmp_path / "saved"
    system.tq("save", str(saved))

    controller.kill()
    system.start("--token-file", str(token), role="controller")
    again = system.client("again")
    assert again.get_partition_list() == []
    system.tq("load", str(saved))
    batch = again.get_meta(["answer"], 4, "step-0", task_name="train")
    assert [float(value) for value in again.get_data(batch)["answer"]] == [0, 1, 2, 3]
