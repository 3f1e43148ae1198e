"""verl's replay buffer and agent-loop worker on the package transfer_queue, with a running system."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensordict
import torch
from names import problem, stock_configuration, uses

from transferq import config

PROMPTS = {"p0": "what is two and three", "p1": "what is two", "p2": "six"}


def test_every_name_that_verl_uses_is_there() -> None:
    used = uses()
    assert len(used) >= 10
    assert "transfer_queue.kv_batch_put" in used
    assert [problem(name, keywords) for name, keywords in used.items()] == [None] * len(used)


def test_it_runs_with_the_tensordict_that_verl_allows() -> None:
    assert tensordict.__version__ == "0.10.0"


def test_the_stock_configuration_gives_no_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transfer_queue  # noqa: F401 - it is imported by this name

    monkeypatch.setattr(config, "_warned", set())
    caplog.set_level(logging.WARNING, "transferq")
    config.settings(config.read(stock_configuration()))
    assert caplog.messages == []


# --- the replay buffer ------------------------------------------------------------------------------


def replay_buffer(kind: str = "ReplayBuffer", **more: Any) -> Any:
    from omegaconf import OmegaConf
    from verl.trainer.ppo.v1 import replay_buffer as module

    given: dict[str, Any] = {
        "trainer_mode": "sync",
        "trainer_config": OmegaConf.create({}),
        "max_off_policy_threshold": None,
        "max_off_policy_strategy": "drop",
        "sampler_kwargs": OmegaConf.create({}),
        "poll_interval": 0.01,
    }
    return getattr(module, kind)(**{**given, **more})


def trajectories(tq: Any, uid: str, step: int, samples: int = 2) -> None:
    """The results of a rollout for one prompt: its state, and its answers of different lengths."""
    tq.kv_put(
        key=uid,
        partition_id="train",
        tag={"is_prompt": True, "status": "finished", "global_steps": step},
    )
    for sample in range(samples):
        length = 2 + sample
        tq.kv_put(
            key=f"{uid}_{sample}_0",
            partition_id="train",
            fields={
                "responses": torch.arange(length),
                "rm_scores": torch.full((length,), float(sample)),
                "raw_prompt": [{"role": "user", "content": uid}],
            },
            tag={"status": "success", "global_steps": step, "seq_len": length},
        )


@pytest.fixture
def train(tq: Any) -> Any:
    yield "train"
    tq.get_client().clear_partition("train")


def test_the_replay_buffer_samples_the_oldest_groups_whole(tq: Any, train: str) -> None:
    for uid, step in (("b", 2), ("a", 1), ("c", 3)):
        trajectories(tq, uid, step)
    batch, metrics = replay_buffer().sample(global_steps=3, partition_id=train, batch_size=2)
    assert metrics == {}
    assert sorted(batch.keys) == ["a_0_0", "a_1_0", "b_0_0", "b_1_0"]
    assert [tag["seq_len"] for tag in batch.tags] == [int(key[2]) + 2 for key in batch.keys]
    data = tq.kv_batch_get(batch.keys, batch.partition_id, ["responses", "raw_prompt"])
    assert data["responses"].offsets().diff().tolist() == [int(key[2]) + 2 for key in batch.keys]
    assert [row[0]["content"] for row in data["raw_prompt"]] == [key[0] for key in batch.keys]
    # Sampled prompts are gone; the third one waits for the next step.
    assert {key for key, tag in tq.kv_list(train)[train].items() if tag.get("is_prompt")} == {"c"}


def test_the_async_replay_buffer_drops_what_is_stale(tq: Any, train: str) -> None:
    trajectories(tq, "old", 1)
    trajectories(tq, "new", 5)
    asked: list[int] = []
    buffer = replay_buffer(
        "ReplayBufferAsync",
        trainer_mode="colocate_async",
        max_off_policy_threshold=2,
        refill_fn=asked.append,
    )
    batch, metrics = buffer.sample(global_steps=5, partition_id=train, batch_size=1)
    assert sorted(batch.keys) == ["new_0_0", "new_1_0"]
    assert asked == [1]
    assert [value for name, value in metrics.items() if name.endswith("evicted_samples")] == [1]
    assert not any(key.startswith("old") for key in tq.kv_list(train)[train])


# --- the agent-loop worker --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def worker(tq: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The unmodified worker class, in this process instead of a Ray actor."""
    import small_agent
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

    model: Path = tmp_path_factory.mktemp("model")
    small_agent.make_model(model)
    kind = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    return kind(small_agent.trainer_config(model, samples=2), llm_client=None)


def prompts(uids: list[str], step: int) -> Any:
    """A batch of the data loader, in the form that the trainer passes on."""
    from verl.utils import tensordict_utils as tu

    chats = np.empty(len(uids), dtype=object)
    chats[:] = [[{"role": "user", "content": PROMPTS[uid]}] for uid in uids]
    batch = tu.get_tensordict(
        {
            "uid": np.array(uids, dtype=object),
            "raw_prompt": chats,
            "index": np.arange(len(uids)),
            "data_source": np.array(["sums"] * len(uids), dtype=object),
        }
    )
    tu.assign_non_tensor_data(batch, "global_steps", step)
    return batch


async def generate(worker: Any, batch: Any) -> None:
    """Pass a batch to the worker, and wait until all of it is stored."""
    await worker.generate_sequences(batch)
    await asyncio.gather(*worker.background_tasks)


def test_the_agent_loop_worker_fills_what_the_replay_buffer_samples(
    tq: Any, train: str, worker: Any
) -> None:
    uids = list(PROMPTS)
    tags = [{"is_prompt": True, "status": "pending", "global_steps": 1} for _ in uids]
    tq.kv_batch_put(keys=uids, partition_id=train, tags=tags)
    asyncio.run(generate(worker, prompts(uids, 1)))
    listed = tq.kv_list(train)[train]
    assert {uid: listed[uid]["status"] for uid in uids} == {
        "p0": "finished",
        "p1": "finished",
        "p2": "failure",
    }
    # Failed prompts are sampled too; they have no answers.
    batch, _ = replay_buffer().sample(global_steps=1, partition_id=train, batch_size=len(uids))
    keys = ["p0_0_0", "p0_1_0", "p1_0_0", "p1_1_0"]
    assert sorted(batch.keys) == keys
    data = tq.kv_batch_get(keys, train)
    assert data["prompts"].offsets().diff().tolist() == [6, 6, 4, 4]
    assert data["responses"].offsets().diff().tolist() == [2, 3, 2, 3]
    assert data["input_ids"].offsets().diff().tolist() == [8, 9, 6, 7]
    assert data["position_ids"].unbind()[0].tolist() == list(range(8))
    assert [float(row[-1]) for row in data["rm_scores"].unbind()] == [0.0, 1.0, 0.0, 1.0]
    assert list(data["uid"]) == ["p0", "p0", "p1", "p1"]
    assert list(data["data_source"]) == ["sums"] * 4
    padded = data["responses"].to_padded_tensor(padding=0)
    assert padded.shape == (4, 3)
    # A later stage adds its column, as the trainer does.
    again = tq.kv_batch_put(
        keys=keys,
        partition_id=train,
        fields=data.select("rm_scores").rename_key_("rm_scores", "advantages"),
    )
    assert "advantages" in again.fields
    assert [tag["seq_len"] for tag in again.tags] == [8, 9, 6, 7]
