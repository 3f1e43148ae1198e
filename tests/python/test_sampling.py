"""The built-in samplers in the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tensordict import TensorDict

import transferq
from transferq import errors

if TYPE_CHECKING:
    from collections.abc import Iterator


def put(pid: str, lengths: list[int]) -> None:
    """Samples whose value is their index."""
    transferq.kv_batch_put(
        keys=[f"k{place}" for place in range(len(lengths))],
        partition_id=pid,
        fields=TensorDict({"x": torch.arange(len(lengths))}, batch_size=len(lengths)),
        tags=[{"total_lengths": length} for length in lengths],
    )


@pytest.fixture
def balanced(client: Any) -> Iterator[Any]:
    """A client whose claims use the balancing sampler."""
    sampler = transferq.SeqlenBalancedSampler(n_samples_per_prompt=2, dp_size=2)
    other = transferq.TransferQueueClient(
        "balanced", client._info, config=transferq.config.read({"controller": {"sampler": sampler}})
    )
    yield other
    other.close()


def claim(client: Any, pid: str, size: int, *, seconds: float = 30, **config: Any) -> list[int]:
    """Values of the claimed samples; `seconds` is short if the claim is to get nothing."""
    meta = client.get_meta(["x"], size, pid, "fetch", "train", config, timeout=seconds)
    values: list[int] = client.get_data(meta)["x"].tolist()
    return values


def test_balanced_shares_of_all_ranks(balanced: Any, pid: str) -> None:
    """Groups of 100, 10, 91 and 20: the heaviest is paired with the lightest."""
    put(pid, [50, 50, 5, 5, 45, 46, 10, 10, 1, 1])
    second = claim(balanced, pid, 4, dp_rank=1, batch_index=0)
    assert sorted(second) == [0, 1, 2, 3]
    assert sorted(claim(balanced, pid, 4, dp_rank=0, batch_index=0)) == [4, 5, 6, 7]
    assert claim(balanced, pid, 4, dp_rank=1, batch_index=0) == second
    with pytest.raises(TimeoutError):
        claim(balanced, pid, 2, seconds=0.2, dp_rank=0, batch_index=1)
    with pytest.raises(ValueError, match="dp_rank 2 must be below dp_size 2"):
        claim(balanced, pid, 2, dp_rank=2, batch_index=1)
    balanced.clear_partition(pid)
    put(pid, [1, 2, 3, 4])
    assert sorted(claim(balanced, pid, 2, dp_rank=0, batch_index=0)) == [2, 3]


def test_rank_aware(client: Any, pid: str) -> None:
    rank: dict[str, Any] = {
        "sampler": "RankAwareSampler",
        "task_name": "train",
        "partition_id": pid,
    }
    put(pid, [1] * 5)
    first = claim(client, pid, 2, **rank, dp_rank=0, batch_index=0)
    second = claim(client, pid, 2, **rank, dp_rank=1, batch_index=0)
    assert len({*first, *second}) == 4
    assert claim(client, pid, 2, **rank, dp_rank=0, batch_index=0) == first
    with pytest.raises(TimeoutError):
        claim(client, pid, 2, seconds=0.2, **rank, dp_rank=0, batch_index=1)
    with pytest.raises(ValueError, match="RankAwareSampler needs dp_rank"):
        claim(client, pid, 2, sampler="RankAwareSampler")


def test_an_unknown_entry_of_the_sampling_config(client: Any, pid: str) -> None:
    put(pid, [1, 2])
    with pytest.raises(
        errors.InvalidArgumentError,
        match=r"unknown key 'dp_rnak'; SequentialSampler knows .*dp_rank",
    ):
        claim(client, pid, 1, dp_rnak=0)
    taken = claim(client, pid, 1, dp_rank=0, batch_index=4, task_name="train")
    assert taken + claim(client, pid, 1) in ([0, 1], [1, 0])
