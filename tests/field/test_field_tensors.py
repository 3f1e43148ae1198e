"""Operations of users on tensors that were read: each test is a fault that a user met."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
TensorDict = pytest.importorskip("tensordict").TensorDict

KEYS = ["a", "b", "c"]
LENGTHS = [3, 5, 2]


def rows_of(*inner: int) -> list[Any]:
    return [torch.arange(1.0, 1 + n).view(n, *[1] * len(inner)).expand(n, *inner).contiguous()
            for n in LENGTHS]  # fmt: skip


def by_key(tq: Any, pid: str, **options: Any) -> Any:
    return tq.kv_batch_get(KEYS, pid, **options)["x"]


def by_metadata(tq: Any, pid: str, **options: Any) -> Any:
    client = tq.get_client()
    return client.get_data(client.kv_retrieve_meta(KEYS, pid), **options)["x"]


READS: dict[str, Callable[[Any, str], Any]] = {
    "by key": by_key,
    "by metadata": by_metadata,
    "zero-copy": lambda tq, pid: by_metadata(tq, pid, zero_copy=True),
    "then pickled": lambda tq, pid: pickle.loads(pickle.dumps(by_key(tq, pid))),
    "then copied": lambda tq, pid: copy.deepcopy(by_key(tq, pid)),
    "then cloned": lambda tq, pid: by_key(tq, pid).clone(),
    "then computed with": lambda tq, pid: by_key(tq, pid) + 0,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("inner", [(), (2,)], ids=["1-D", "2-D"])
def test_padding_a_read_takes_the_longest_row(
    tq: Any, pid: str, read: Callable[[Any, str], Any], inner: tuple[int, ...]
) -> None:
    tq.kv_batch_put(KEYS, pid, {"x": rows_of(*inner)})
    padded = torch.nested.to_padded_tensor(read(tq, pid), 0)
    assert padded.shape == (3, 5, *inner)
    assert torch.equal(padded, torch.nn.utils.rnn.pad_sequence(rows_of(*inner), batch_first=True))


def test_padding_a_read_of_equal_rows_keeps_their_shape(tq: Any, pid: str) -> None:
    tq.kv_batch_put(KEYS, pid, {"x": torch.arange(12).view(3, 4)})
    for read in READS.values():
        padded = torch.nested.to_padded_tensor(read(tq, pid), 0)
        assert torch.equal(padded, torch.arange(12).view(3, 4))


def test_padding_a_large_read_takes_no_more_memory_than_its_result(tq: Any, pid: str) -> None:
    keys = [str(row) for row in range(256)]
    tq.kv_batch_put(
        keys, pid, {"x": [torch.ones(1000 + row % 2, dtype=torch.int64) for row in range(256)]}
    )
    padded = torch.nested.to_padded_tensor(tq.kv_batch_get(keys, pid)["x"], 0)
    assert padded.untyped_storage().nbytes() == 256 * 1001 * 8


def test_columns_of_the_same_lengths_can_be_computed_with_together(tq: Any, pid: str) -> None:
    ids = torch.nested.nested_tensor(rows_of(), layout=torch.jagged)
    batch = TensorDict({"ids": ids, "mask": ids > 1, "other": rows_to_jagged(1)}, batch_size=[3])
    tq.kv_batch_put(KEYS, pid, batch)
    for read in (tq.kv_batch_get(KEYS, pid), tq.kv_batch_get(KEYS, pid, zero_copy=True)):
        product = read["ids"] * read["mask"]
        assert torch.equal(product.values(), (ids * (ids > 1)).values())
        with pytest.raises(RuntimeError):  # as torch does for rows of different lengths
            read["ids"] * read["other"]


def rows_to_jagged(more: int) -> Any:
    rows = [torch.ones(length + more) for length in LENGTHS]
    return torch.nested.nested_tensor(rows, layout=torch.jagged)


def test_reads_come_on_the_cpu_whatever_the_default_device_is(tq: Any, pid: str) -> None:
    client = tq.get_client()
    maps = [{"t": torch.arange(3), "none": torch.empty(0)}] * 3
    data = {"x": rows_of(), "empty": torch.empty(3, 0), "none": [torch.empty(0)] * 3, "v": maps}
    tq.kv_batch_put(KEYS, pid, data)
    meta = client.kv_retrieve_meta(KEYS, pid)
    total = sum(float(row.sum()) for row in data["x"])
    with torch.device("meta"):
        for options in ({}, {"layout": "dense"}, {"padding": {"x": -1, "none": 2}}):
            read = client.get_data(meta, **options)
            for name in ("x", "empty", "none"):
                assert read[name].device.type == "cpu"
            assert {tensor.device.type for tensor in read["v"][0].values()} == {"cpu"}
            assert float(read["x"].sum()) == total - (5 if "padding" in options else 0)


def test_tensors_of_a_read_can_be_detached_in_place(tq: Any, pid: str) -> None:
    """They are not views: operations that torch forbids on views are allowed."""
    tq.kv_batch_put(KEYS, pid, {"x": torch.ones(3, 2, 2), "v": [{"t": torch.ones(2, 2)}] * 3})
    for layout in ("dense", "padded", "jagged"):
        read = tq.kv_batch_get(KEYS, pid, layout=layout)
        for tensor in (read["x"], read["v"][0]["t"]):
            assert tensor.requires_grad_().detach_().requires_grad is False


def test_micro_batches_pad_to_their_longest_row() -> None:
    from transferq import BatchMeta
    from transferq.streaming import chunk_batch_fn

    ids = torch.nested.nested_tensor([*rows_of(), torch.ones(4)], layout=torch.jagged)
    data = TensorDict({"ids": ids, "mask": ids > 1}, batch_size=[4])
    parts = chunk_batch_fn(data, BatchMeta(range(4), ["p"] * 4), micro_batch_size=2)
    assert [torch.nested.to_padded_tensor(part["ids"], 0).shape for part, _ in parts] == [
        (2, 5),
        (2, 4),
    ]
    assert [int((part["ids"] * part["mask"]).sum()) for part, _ in parts] == [5 + 14, 2]
