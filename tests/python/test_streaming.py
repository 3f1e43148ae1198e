"""StreamingDataset and StreamingDataLoader: micro-batches, ranks, workers, ends and early stops."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from elsewhere import python

torch = pytest.importorskip("torch")
pytest.importorskip("tensordict")

from tensordict import TensorDict  # noqa: E402

from transferq import BatchMeta  # noqa: E402
from transferq.streaming import (  # noqa: E402
    StreamingDataLoader,
    StreamingDataset,
    chunk_batch_fn,
    default_fetch_batch_fn,
)


@pytest.fixture
def dataset(tq: Any, pid: str) -> Iterator[Callable[..., StreamingDataset]]:
    """Makes datasets over the test's partition, closed afterwards."""
    made = []

    def make(**changed: Any) -> StreamingDataset:
        given: dict[str, Any] = {
            "config": tq.get_client().config,
            "batch_size": 4,
            "micro_batch_size": 2,
            "data_fields": ["x"],
            "partition_id": pid,
            "task_name": "train",
            "dp_rank": 0,
            "should_check_consumption_status": True,
        }
        made.append(StreamingDataset(**{**given, **changed}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def put(client: Any, pid: str, first: int, n: int) -> None:
    client.put({"x": torch.arange(first, first + n)}, partition_id=pid)


def values(batches: Any) -> list[list[int]]:
    return [data["x"].tolist() for data, _ in batches]


def flat(batches: Any) -> list[int]:
    # Reused indexes come back in another order.
    return sorted(value for each in values(batches) for value in each)


# --- cutting batches ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["jagged", "strided"])
def test_uneven_batches_and_their_metadata_are_cut_the_same(layout: str) -> None:
    rows = [torch.full((length, 2), length) for length in (1, 3, 2, 5, 4)]
    nested = torch.nested.as_nested_tensor(rows, layout=getattr(torch, layout))
    data = TensorDict(
        {"n": nested, "d": torch.arange(5), "s": ["a", "b", "c", "d", "e"]}, batch_size=[5]
    )
    parts = chunk_batch_fn(data, BatchMeta([7, 5, 3, 1, 9], ["p"] * 5), micro_batch_size=3)
    assert [part.batch_size for part, _ in parts] == [(3,), (2,)]
    assert [meta.global_indexes for _, meta in parts] == [[7, 5, 3], [1, 9]]
    assert [part["d"].tolist() for part, _ in parts] == [[0, 1, 2], [3, 4]]
    assert [list(part["s"]) for part, _ in parts] == [["a", "b", "c"], ["d", "e"]]
    cut = [row for part, _ in parts for row in part["n"].unbind()]
    assert all(part["n"].layout == nested.layout for part, _ in parts)
    assert all(torch.equal(one, other) for one, other in zip(cut, rows, strict=True))


def test_what_cannot_be_cut_is_refused() -> None:
    data = TensorDict({"d": torch.arange(3)}, batch_size=[3])
    meta = BatchMeta([0, 1, 2], ["p"] * 3)
    with pytest.raises(TypeError, match="td: expected a TensorDict, got dict"):
        chunk_batch_fn({"d": torch.arange(3)}, meta)
    for size in (0, -1, 1.5):
        with pytest.raises(ValueError, match="micro_batch_size: expected a positive integer"):
            chunk_batch_fn(data, meta, size)
    with pytest.raises(ValueError, match="larger than the batch of 3"):
        chunk_batch_fn(data, meta, 4)
    with pytest.raises(ValueError, match="3 rows, its metadata 2 samples"):
        chunk_batch_fn(data, meta[:2], 1)
    with pytest.raises(ValueError, match="batch dimension"):
        chunk_batch_fn(TensorDict({}, batch_size=[]), meta)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("batch_size", 0), ("micro_batch_size", 0), ("data_fields", []), ("dp_rank", -1)],
)
def test_bad_arguments_are_named(dataset: Any, argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        dataset(**{argument: value})


# --- in one process -------------------------------------------------------------------------------


def test_ends_when_the_task_has_had_all(client: Any, pid: str, dataset: Any) -> None:
    put(client, pid, 0, 8)
    loader = StreamingDataLoader(dataset(micro_batch_size=3))
    assert values(loader) == [[0, 1, 2], [3], [4, 5, 6], [7]]
    assert [meta.size for _, meta in loader.get_buffer()] == [4, 4]
    assert values(loader) == []
    loader.reset()
    assert values(loader) == [[0, 1, 2], [3], [4, 5, 6], [7]]


def test_a_batch_smaller_than_a_micro_batch_comes_whole(
    client: Any, pid: str, dataset: Any
) -> None:
    put(client, pid, 0, 3)
    assert values(dataset(batch_size=3, micro_batch_size=4)) == [[0, 1, 2]]


def test_step_goes_to_another_partition(client: Any, pid: str, dataset: Any) -> None:
    put(client, pid, 0, 4)
    put(client, pid + "2", 10, 4)
    loader = StreamingDataLoader(dataset())
    assert values(loader) == [[0, 1], [2, 3]]
    loader.step(pid + "2")
    assert loader.get_buffer() == []
    assert flat(loader) == [10, 11, 12, 13]
    client.clear_partition(pid + "2")


@pytest.mark.parametrize("polling", [False, True])
def test_waits_for_samples_that_come_later(
    client: Any, pid: str, dataset: Any, polling: bool
) -> None:
    config = {**client.config, "controller": {"polling_mode": polling}}
    stream = iter(dataset(config=config, should_check_consumption_status=False))
    got: list[Any] = []
    reader = threading.Thread(target=lambda: got.extend(values(next(stream) for _ in range(4))))
    reader.start()
    put(client, pid, 0, 4)
    put(client, pid, 4, 4)
    reader.join(20)
    stream.close()
    assert sorted(value for each in got for value in each) == list(range(8))


def test_the_next_claim_waits_while_a_batch_is_in_use(client: Any, pid: str, dataset: Any) -> None:
    put(client, pid, 0, 4)
    stream = iter(dataset(should_check_consumption_status=False))
    assert next(stream)[1].size == 2
    seen = client._core.events(1 << 62).result()[1]
    put(client, pid, 4, 4)
    claims: list[Any] = []
    while not claims:  # each round waits for the next event
        events, seen = client._core.events(seen, 0, True, 20.0).result()
        claims = [event for event in events if event["kind"] == "claim"]
    assert [event["partition"] for event in claims] == [pid]
    stream.close()


def test_a_loop_that_is_left_loses_no_sample(client: Any, pid: str, dataset: Any) -> None:
    put(client, pid, 0, 8)
    stopped = dataset()
    for _ in stopped:
        break
    # The second batch was claimed ahead: the next loop starts with it.
    assert values(stopped) == [[4, 5], [6, 7]]

    # A claim that is still waiting is given back: another reader gets the samples.
    waiting = dataset(task_name="other", should_check_consumption_status=False, batch_size=8)
    stream = iter(waiting)
    next(stream)
    mine = waiting._client  # its requests are answered in order
    assert mine is not None
    assert mine.status()["waiting"] == 1
    stream.close()
    assert mine.status()["waiting"] == 0
    put(client, pid, 8, 4)
    assert values(dataset(task_name="other")) == [[8, 9], [10, 11]]


def test_without_prefetch_nothing_is_claimed_ahead(client: Any, pid: str, dataset: Any) -> None:
    put(client, pid, 0, 8)
    for _ in dataset(prefetch=False):
        break
    _, consumed = client.get_consumption_status("train", pid)
    assert consumed.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_ends_although_another_reader_takes_the_rest(client: Any, pid: str, dataset: Any) -> None:
    client.get_meta(["x"], 8, pid, mode="insert")
    reserved = client.get_meta(["x"], 1, pid, mode="force_fetch")
    client.put({"x": torch.arange(4)}, metadata=reserved[:4])
    mine = iter(dataset())
    assert [next(mine)[0]["x"].tolist() for _ in range(2)] == [[0, 1], [2, 3]]
    left: list[Any] = []
    reader = threading.Thread(target=lambda: left.extend(mine))
    reader.start()
    for start in (4, 6):  # too few for the waiting claim
        client.put({"x": torch.arange(2)}, metadata=reserved[start : start + 2])
        assert client.get_meta(["x"], 2, pid, task_name="train").size == 2
    reader.join(20)
    assert not reader.is_alive()
    assert left == []


def test_own_functions_take_the_place_of_the_default_ones(
    client: Any, pid: str, dataset: Any
) -> None:
    asked = []

    def fetch(**given: Any) -> Any:
        asked.append(given["batch_index"])
        data, meta = default_fetch_batch_fn(**given)
        return (None if data is None else data.apply(lambda column: column + 100)), meta

    def whole(data: Any, meta: Any, micro_batch_size: int) -> Any:
        return [(data, meta)]

    put(client, pid, 0, 8)
    config = {**client.config, "controller": {"polling_mode": True}}
    made = dataset(config=config, fetch_batch_fn=fetch, process_batch_fn=whole)
    assert flat(made) == list(range(100, 108))
    assert [meta.size for _, meta in made.buffer] == [4, 4]
    assert asked == [0, 1, 2]


def test_ranks_of_one_group_get_the_same_batches_others_get_the_rest(
    client: Any, pid: str, dataset: Any
) -> None:
    put(client, pid, 0, 16)
    config = {**client.config, "controller": {"sampler": "RankAwareSampler"}}
    # Without prefetch: a rank that claims ahead could take the batch that the other one is about to request.
    streams = [iter(dataset(config=config, dp_rank=rank, prefetch=False)) for rank in (0, 0, 1)]
    rounds = [[next(stream) for stream in streams] for _ in range(4)]
    one, same, other = (values(each) for each in zip(*rounds, strict=True))
    assert one == same
    assert sorted(value for batch in one + other for value in batch) == list(range(16))
    assert [list(stream) for stream in streams] == [[], [], []]


# --- in worker processes --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_share_the_samples(client: Any, pid: str, dataset: Any, context: str) -> None:
    put(client, pid, 0, 16)
    loader = StreamingDataLoader(
        dataset(), num_workers=2, multiprocessing_context=context, prefetch_factor=2
    )
    got = list(loader)
    assert flat(got) == list(range(16))
    assert all(isinstance(meta, BatchMeta) and meta.size == 2 for _, meta in got)


def test_a_dataset_is_pickled_without_its_connections(client: Any, pid: str, dataset: Any) -> None:
    put(client, pid, 0, 8)
    made = dataset()
    assert next(iter(made))[1].size == 2
    other = pickle.loads(pickle.dumps(made))
    assert (other.partition_id, other._client, other._claim) == (pid, None, None)
    other.close()


LEFT_WITH_ITS_SYSTEM = """
import torch
import transferq

def put(first):
    transferq.get_client().put({"x": torch.arange(first, first + 4)}, partition_id="p")

dataset = transferq.StreamingDataset(transferq.init(), 4, 4, ["x"], "p", "t", 0)
put(0)
loop = iter(dataset)
print(next(loop)[0]["x"].tolist())
transferq.close()
print(dataset._client)
loop.close()
transferq.init()
put(4)
dataset.step("p")
print(next(iter(dataset))[0]["x"].tolist())
"""


@pytest.mark.slow
def test_a_dataset_leaves_with_the_system(runtime_dir: Path) -> None:
    """Its client does not go on looking for a system that has ended; it finds the next one."""
    done = python(LEFT_WITH_ITS_SYSTEM, TQ_SYSTEM="left")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[0, 1, 2, 3]", "None", "[4, 5, 6, 7]"]
    assert " warn " not in done.stderr
    assert not list(runtime_dir.glob("ctq/left"))
