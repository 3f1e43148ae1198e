"""Points 18 to 21: which of the ready samples a claim gets."""

from __future__ import annotations

from typing import Any

import torch

from .cases import Script, case


def claim(c: Script, count: int, pid: str, task: str = "t", **config: Any) -> Any:
    """A claim with its answer recorded; callers of upstream's samplers pass task and partition."""
    if config:
        config |= {"task_name": task, "partition_id": pid}
    return c.call(c.client.get_meta, ["x"], count, pid, "fetch", task, config or None)


@case(18)
def sequential_takes_the_first_ones(c: Script) -> None:
    c.client.put(c.data(x=c.rows(5)), partition_id=c.pid())
    claim(c, 2, c.pid())
    claim(c, 2, c.pid(), dp_rank=1, batch_index=0)
    claim(c, 2, c.pid())
    claim(c, 1, c.pid())


@case(18, "none")
def sequential_by_itself(c: Script) -> None:
    sampler = c.tq.SequentialSampler()
    c.call(sampler.sample, [3, 5, 7], 2)
    c.call(sampler.sample, [3, 5], 4)
    c.call(sampler.sample, [], 1)
    c.call(sampler, [3, 5, 7], 2, task_name="t", partition_id="p")
    c.call(sampler, [3, 5, 7], 1, task_name="t", partition_id="p", dp_rank=0, batch_index=0)
    c.call(sampler.has_cached_result, "p", "t")
    c.call(sampler.clear_cache, "p")


@case(18, "rank")
def ranks_of_a_group_get_the_same(c: Script) -> None:
    pid = c.pid()
    c.client.put(c.data(x=c.rows(6)), partition_id=pid)
    for rank, index in ((0, 0), (0, 0), (1, 0), (1, 0), (0, 1), (1, 1)):
        claim(c, 2, pid, dp_rank=rank, batch_index=index)
    c.status(c.client.get_consumption_status, "t", pid)
    claim(c, 2, pid, dp_rank=0, batch_index=0)
    claim(c, 2, pid, "other", dp_rank=0, batch_index=0)


@case(18, "rank")
def ranks_get_nothing_rather_than_fewer(c: Script) -> None:
    pid = c.pid()
    c.client.put(c.data(x=c.rows(3)), partition_id=pid)
    claim(c, 4, pid, dp_rank=0, batch_index=0)
    claim(c, 2, pid, dp_rank=0, batch_index=0)
    claim(c, 2, pid, dp_rank=1, batch_index=0)
    claim(c, 2, pid, dp_rank=0, batch_index=0)


@case(18, "rank")
def clearing_a_partition_clears_what_ranks_had(c: Script) -> None:
    pid = c.pid()
    c.client.put(c.data(x=c.rows(2)), partition_id=pid)
    claim(c, 2, pid, dp_rank=0, batch_index=0)
    c.client.clear_partition(pid)
    claim(c, 2, pid, dp_rank=0, batch_index=0)
    c.client.put(c.data(x=c.rows(2, 8)), partition_id=pid)
    meta = claim(c, 2, pid, dp_rank=0, batch_index=0)
    c.call(c.client.get_data, meta)


@case(18, "none")
def rank_aware_by_itself(c: Script) -> None:
    sampler = c.tq.RankAwareSampler()
    ready = [1, 2, 3, 4, 5, 6]
    named = {"task_name": "t", "partition_id": "p"}
    c.call(sampler, ready, 2, dp_rank=0, batch_index=0, **named)
    c.call(sampler, ready[2:], 2, dp_rank=0, batch_index=0, **named)
    c.call(sampler, ready[2:], 2, dp_rank=1, batch_index=0, **named)
    c.call(sampler, ready[4:], 3, dp_rank=1, batch_index=1, **named)
    c.call(sampler, ready, 2, dp_rank=-1, batch_index=0, **named)
    c.call(sampler.sample, ready, 2, 0, 5, "t", "p")
    c.call(sampler.has_cached_result, "p", "t", {"dp_rank": 0, "batch_index": 0})
    c.call(sampler.has_cached_result, "p", "t", {"dp_rank": 3, "batch_index": 0})
    c.call(sampler.has_cached_result, "p", "t", None)
    c.call(sampler.clear_cache, "p")
    c.call(sampler.has_cached_result, "p", "t", {"dp_rank": 0, "batch_index": 0})


@case(19, "grpo")
def groups_come_whole(c: Script) -> None:
    pid = c.pid()
    meta = c.client.get_meta(["x"], 6, pid, "insert")
    c.client.put(c.data(x=c.rows(3)), meta.select_samples([0, 1, 3]))
    claim(c, 2, pid)
    c.client.put(c.data(x=c.rows(2)), meta.select_samples([2, 5]))
    claim(c, 2, pid)
    c.client.put(c.data(x=c.rows(1)), meta.select_samples([4]))
    claim(c, 4, pid)
    claim(c, 2, pid)


@case(19, "grpo")
def a_batch_that_is_no_multiple_of_the_group(c: Script) -> None:
    pid = c.pid()
    c.client.put(c.data(x=c.rows(4)), partition_id=pid)
    claim(c, 4, pid)


@case(19, "none")
def groups_by_itself(c: Script) -> None:
    sampler = c.tq.GRPOGroupNSampler(3)
    named = {"task_name": "t", "partition_id": "p"}
    c.call(sampler, [0, 1, 2, 3, 4, 5, 7], 3, **named)
    c.call(sampler, [1, 2, 3, 4, 5, 6], 6, **named)
    c.call(sampler, [5, 0, 1, 4, 3], 3, **named)
    c.call(sampler, [0, 1, 3, 4], 3, **named)
    c.call(sampler, [0, 1, 2, 3], 4, **named)
    c.call(sampler.sample, [0, 1, 2], 3)
    c.call(c.tq.GRPOGroupNSampler, 0)
    c.call(c.tq.GRPOGroupNSampler, n_samples_per_prompt=-1)


def lengths(c: Script, pid: str, values: list[int]) -> None:
    """Put samples with these total lengths."""
    keys = [f"k{place}" for place in range(len(values))]
    tags = [{"total_lengths": value} for value in values]
    c.tq.kv_batch_put(keys, pid, c.data(x=c.rows(len(values))), tags)


@case(20, "seqlen")
def whole_groups_balanced_over_ranks(c: Script) -> None:
    pid = c.pid()
    lengths(c, pid, [100, 90, 10, 20, 50, 70, 30, 5])
    for rank in (0, 1):
        claim(c, 2, pid, dp_rank=rank, batch_index=0)
    for rank in (1, 0):
        claim(c, 2, pid, dp_rank=rank, batch_index=1)
    c.status(c.client.get_consumption_status, "t", pid)


@case(20, "seqlen")
def more_groups_per_rank(c: Script) -> None:
    pid = c.pid()
    lengths(c, pid, [100, 90, 11, 20, 50, 73, 30, 5])
    claim(c, 4, pid, dp_rank=1, batch_index=0)
    claim(c, 4, pid, dp_rank=0, batch_index=0)
    claim(c, 4, pid, dp_rank=0, batch_index=1)


@case(20, "seqlen")
def clearing_a_partition_clears_its_caches(c: Script) -> None:
    pid = c.pid()
    lengths(c, pid, [9, 8, 1, 2])
    claim(c, 2, pid, dp_rank=0, batch_index=0)
    c.client.clear_partition(pid)
    claim(c, 2, pid, dp_rank=1, batch_index=0)


@case(20, "none")
def seqlen_by_itself(c: Script) -> None:
    sampler = c.tq.SeqlenBalancedSampler(n_samples_per_prompt=2, dp_size=2)
    named = {"task_name": "t", "partition_id": "p"}
    c.call(sampler, list(range(8)), 2, dp_rank=0, batch_index=0, **named)
    c.call(sampler, list(range(4, 8)), 2, dp_rank=1, batch_index=0, **named)
    c.call(sampler, [4, 5], 2, dp_rank=0, batch_index=1, **named)
    c.call(c.tq.SeqlenBalancedSampler, 2, 0)
    c.call(sampler.clear_cache, "p")


@case(21)
def what_does_not_exist_yet_is_empty(c: Script) -> None:
    claim(c, 1, c.pid("nowhere"))
    c.client.put(c.data(y=c.rows(1)), partition_id=c.pid())
    claim(c, 1, c.pid())
    c.client.put(c.data(x=c.rows(1)), partition_id=c.pid())
    claim(c, 1, c.pid())


@case(21, "rank")
def a_cached_answer_is_found_while_polling(c: Script) -> None:
    pid = c.pid()
    c.client.put(c.data(x=c.rows(2)), partition_id=pid)
    claim(c, 2, pid, dp_rank=0, batch_index=0)
    claim(c, 2, pid, dp_rank=0, batch_index=0)
    claim(c, 2, pid, dp_rank=1, batch_index=0)
    c.client.put(c.data(x=c.rows(2, 5)), partition_id=pid)
    claim(c, 2, pid, dp_rank=1, batch_index=0)


@case(21, "rank")
def a_streaming_loader(c: Script) -> None:
    pid = c.pid()
    c.client.put(c.data(x=c.rows(4), n=torch.arange(4)), partition_id=pid)
    dataset = c.tq.StreamingDataset(
        config=c.config,
        batch_size=2,
        micro_batch_size=1,
        data_fields=["x", "n"],
        partition_id=pid,
        task_name="loader",
        dp_rank=0,
        should_check_consumption_status=True,
    )
    batches = list(c.tq.StreamingDataLoader(dataset, num_workers=0))
    for data, meta in batches:
        c.note([data, meta])


@case(21, "none")
def chunks_of_the_streaming_dataset(c: Script) -> None:
    from transfer_queue.dataloader.streaming_dataset import chunk_batch_fn

    data = c.data(x=c.rows(4), n=torch.arange(4))
    meta = c.tq.BatchMeta([1, 2, 3, 4], ["p"] * 4)
    for size in (1, 2, 4):
        c.note([list(each) for each in chunk_batch_fn(data, meta, size)])
