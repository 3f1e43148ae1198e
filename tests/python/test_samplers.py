"""Samplers called directly, without a system: lists of indexes in, lists of indexes out."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from transferq import (
    BaseSampler,
    GRPOGroupNSampler,
    RankAwareSampler,
    SeqlenBalancedSampler,
    SequentialSampler,
    config,
)
from transferq.samplers import get_seqlen_balanced_partitions

STEP: dict[str, Any] = {"task_name": "train", "partition_id": "p", "dp_rank": 0, "batch_index": 0}


class Lengths:
    """Tags of samples, in the form that the controller passes to a sampler."""

    def __init__(self, lengths: dict[int, float]) -> None:
        self._lengths = lengths

    def get_custom_meta(self, indexes: list[int]) -> dict[int, dict[str, float]]:
        return {
            index: {"total_lengths": self._lengths[index]}
            for index in indexes
            if index in self._lengths
        }


def test_base_is_abstract() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseSampler()  # type: ignore[abstract]


def test_sequential() -> None:
    sampler = SequentialSampler()
    assert sampler._states == {}
    assert sampler([10, 5, 15, 20], 3) == ([10, 5, 15], [10, 5, 15])
    assert sampler.sample([1], 3, anything=1) == ([1], [1])
    assert sampler.sample([], 3) == ([], [])


def test_rank_aware() -> None:
    sampler = RankAwareSampler()
    assert sampler.sample([0, 1, 2], 5, **STEP) == ([], [])
    assert not sampler.has_cached_result("p", "train", STEP)
    assert sampler.sample([0, 1, 2, 3], 2, **STEP) == ([0, 1], [0, 1])
    assert sampler.has_cached_result("p", "train", STEP)
    assert not sampler.has_cached_result("p", "train")
    assert not sampler.has_cached_result("q", "train", STEP)
    assert sampler.sample([2, 3], 2, **STEP) == ([0, 1], [0, 1])
    assert sampler.sample([2, 3], 2, **{**STEP, "dp_rank": 1}) == ([2, 3], [2, 3])
    assert sampler.sample([4, 5], 2, **{**STEP, "batch_index": 1}, other=1) == ([4, 5], [4, 5])
    assert sampler._states["p"]["train"] == {0: {0: [0, 1], 1: [4, 5]}, 1: {0: [2, 3]}}
    sampler.clear_cache("q")
    sampler.clear_cache("p")
    assert sampler._states == {}
    with pytest.raises(ValueError, match="dp_rank -1 must be greater than or equal to 0"):
        sampler.sample([0, 1], 2, **{**STEP, "dp_rank": -1})
    with pytest.raises(TypeError, match="dp_rank"):
        sampler.sample([0, 1], 2, task_name="train", partition_id="p")  # type: ignore[call-arg]


def test_grpo() -> None:
    sampler = GRPOGroupNSampler(n_samples_per_prompt=3)
    ready = [11, 0, 1, 3, 4, 5, 6, 7, 9, 10]
    assert sampler.sample(ready, 6) == ([3, 4, 5, 9, 10, 11],) * 2
    assert sampler.sample([0, 1, 3, 4, 6, 7], 6) == ([], [])
    assert sampler.sample(ready, 9) == ([], [])
    assert sampler.sample(ready, 0) == ([], [])
    assert sampler._states == {}
    assert sampler.sample(ready, 3, **STEP)[0] == [3, 4, 5]
    assert sampler.sample([], 3, **STEP)[0] == [3, 4, 5]
    with pytest.raises(ValueError, match="must be a multiple of n_samples_per_prompt"):
        sampler.sample(ready, 4)
    for wrong in (0, -2):
        with pytest.raises(ValueError, match="n_samples_per_prompt must be positive"):
            GRPOGroupNSampler(wrong)


def test_seqlen_balanced() -> None:
    sampler = SeqlenBalancedSampler(n_samples_per_prompt=2, dp_size=2)
    lengths = {0: 50, 1: 50, 2: 5, 3: 5, 4: 50, 5: 50, 6: 5, 7: 5}
    step = {**STEP, "partition": Lengths(lengths)}
    assert sampler.sample(list(range(6)), 4, **step) == ([], [])
    first, consumed = sampler.sample(list(range(8)), 4, **step)
    second, _ = sampler.sample([], 4, **{**step, "dp_rank": 1})
    assert first == consumed == [2, 3, 4, 5]
    assert second == [0, 1, 6, 7]
    assert sampler._states["p"]["train"][1][0] == (second, second)
    assert sampler.has_cached_result("p", "train", {"dp_rank": 1, "batch_index": 0})
    assert sampler.sample([], 4, **{**step, "dp_rank": 2}) == ([], [])
    state = sampler.save_checkpoint()
    sampler.clear_cache("p")
    assert sampler._states == sampler._balanced_cache == {}
    sampler.load_checkpoint(state)
    with pytest.raises(ValueError, match="must be a multiple of n_samples_per_prompt"):
        SeqlenBalancedSampler(4, 2).sample(list(range(20)), 3, **step)
    with pytest.raises(ValueError, match="dp_size must be positive, got 0"):
        SeqlenBalancedSampler(dp_size=0)


def test_seqlen_without_lengths_is_cut_in_order() -> None:
    sampler = SeqlenBalancedSampler(dp_size=2)
    assert sampler.sample([0, 1, 2, 3], 2, **STEP)[0] == [0, 1]
    assert sampler.sample([0, 1, 2, 3], 2, **{**STEP, "dp_rank": 1})[0] == [2, 3]
    empty = SeqlenBalancedSampler(dp_size=1)
    assert empty.sample([0, 1], 2, **STEP, partition=Lengths({}))[0] == [0, 1]


def test_partitions_by_length() -> None:
    rng = random.Random(5)
    for parts, each in itertools.product((1, 2, 3, 8), (1, 2, 5)):
        lengths = [rng.randrange(1000) for _ in range(parts * each)]
        split = get_seqlen_balanced_partitions(lengths, parts, equal_size=True)
        assert [len(part) for part in split] == [each] * parts
        assert sorted(itertools.chain(*split)) == list(range(parts * each))
        sums = [sum(lengths[place] for place in part) for part in split]
        assert max(sums) == sums[0]
        assert max(sums) - min(sums) <= max(lengths)
    assert get_seqlen_balanced_partitions([100, 10, 10, 10], 2, equal_size=False) == [
        [0],
        [1, 2, 3],
    ]
    with pytest.raises(AssertionError, match="3 things cannot be split into 2 parts of equal size"):
        get_seqlen_balanced_partitions([10, 20, 30], 2, equal_size=True)
    with pytest.raises(ValueError, match="1 things cannot be split into 3 parts"):
        get_seqlen_balanced_partitions([10], 3, equal_size=False)


def test_names_in_a_configuration() -> None:
    class Wide(GRPOGroupNSampler):
        """Constructed differently, behaves the same."""

        def __init__(self) -> None:
            super().__init__(8)

    def read(sampler: Any) -> Any:
        return config.read({"controller": {"sampler": sampler}})["controller"]

    assert read(RankAwareSampler) == {"sampler": "RankAwareSampler"}
    assert read(Wide()) == {
        "sampler": "GRPOGroupNSampler",
        "sampling_config": {"n_samples_per_prompt": 8},
    }
    assert read(SeqlenBalancedSampler(2, 4)) == {
        "sampler": "SeqlenBalancedSampler",
        "sampling_config": {"n_samples_per_prompt": 2, "dp_size": 4},
    }
    assert (
        repr(SeqlenBalancedSampler(2, 4))
        == "SeqlenBalancedSampler(n_samples_per_prompt=2, dp_size=4)"
    )
