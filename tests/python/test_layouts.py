"""Layouts of reads: dense and padded columns, lengths and masks, the reader's own memory."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from elsewhere import python

from transferq import _core
from transferq._impl import read_options, reading

torch = pytest.importorskip("torch")
TensorDict = pytest.importorskip("tensordict").TensorDict

KEYS = [f"k{i}" for i in range(4)]
LENGTHS = [3, 0, 5, 1]


def rows_of(dtype: Any = torch.int64, inner: tuple[int, ...] = ()) -> list[Any]:
    return [(torch.arange(n * max(1, int(np.prod(inner)))) + 10 * i).reshape(n, *inner).to(dtype)
            for i, n in enumerate(LENGTHS)]  # fmt: skip


def expected(rows: list[Any], value: Any, length: int) -> Any:
    made = rows[0].new_full((len(rows), length, *rows[0].shape[1:]), value)
    for place, row in enumerate(rows):
        made[place, : len(row)] = row
    return made


@pytest.fixture
def stored(tq: Any, pid: str) -> Iterator[str]:
    """A partition with ragged, uniform and other columns."""
    rows = rows_of()
    fields = {
        "ids": torch.nested.as_nested_tensor(rows, layout=torch.jagged),
        "uniform": torch.arange(8.0).reshape(4, 2),
        "one": torch.arange(4),
        "text": ["a", "b", "c", "d"],
    }
    tq.kv_batch_put(KEYS, pid, TensorDict(fields, batch_size=[4]))
    yield pid


def test_dense(tq: Any, stored: str) -> None:
    data = tq.kv_batch_get(KEYS, stored, layout="dense")
    assert data["ids"].layout == torch.jagged
    assert torch.equal(data["uniform"], torch.arange(8.0).reshape(4, 2))
    assert torch.equal(data["one"], torch.arange(4))
    assert list(data["text"]) == list("abcd")
    some = tq.kv_batch_get(["k0", "k0"], stored, layout="dense")
    assert torch.equal(some["ids"], torch.stack([rows_of()[0]] * 2))


def test_padded(tq: Any, stored: str) -> None:
    data = tq.kv_batch_get(KEYS, stored, layout="padded")
    assert set(data.keys()) == {"ids", "uniform", "one", "text"}
    assert torch.equal(data["ids"], expected(rows_of(), 0, 5))
    assert torch.equal(data["uniform"], torch.arange(8.0).reshape(4, 2))
    assert torch.equal(data["one"], torch.arange(4))
    assert list(data["text"]) == list("abcd")


def test_padding_of_fields(tq: Any, client: Any, stored: str) -> None:
    meta = client.kv_retrieve_meta(KEYS[::-1], stored)
    padding = {"ids": {"value": -100, "multiple": 8, "lengths": "n", "mask": "attention"}}
    data = client.get_data(meta, padding=padding)
    assert data["uniform"].is_nested  # only named fields
    assert torch.equal(data["ids"], expected(rows_of()[::-1], -100, 8))
    assert data["n"].tolist() == LENGTHS[::-1]
    assert data["n"].dtype == torch.int64
    assert torch.equal(data["attention"], torch.arange(8) < data["n"][:, None])
    assert [shape[0] for shape in meta.get_shapes("ids")] == LENGTHS[::-1]
    data = client.get_data(meta, layout="padded", padding={"*": 7, "uniform": {"length": 3}})
    assert torch.equal(data["ids"], expected(rows_of()[::-1], 7, 5))
    assert data["uniform"].tolist()[0] == [6, 7, 0]
    data = client.get_data(meta, layout={"ids": "padded", "*": "dense"}, padding=9)
    assert torch.equal(data["ids"], expected(rows_of()[::-1], 9, 5))
    assert not data["uniform"].is_nested


@pytest.mark.parametrize("name", ["bool", "uint8", "int16", "float16", "bfloat16", "float32", "float64",
                                  "complex64", "complex128", "float8_e4m3fn"])  # fmt: skip
def test_pad_values_of_every_size(tq: Any, pid: str, name: str) -> None:
    dtype = getattr(torch, name)
    rows = rows_of(dtype, (2,))
    column = torch.nested.nested_tensor_from_jagged(
        torch.cat(rows), torch.tensor([0, *np.cumsum(LENGTHS).tolist()])
    )
    tq.kv_batch_put(KEYS, pid, TensorDict({"x": column}, batch_size=[4]))
    got = tq.kv_batch_get(KEYS, pid, padding={"x": 1})["x"]
    assert got.dtype == dtype
    assert torch.equal(
        got.contiguous().view(torch.uint8), expected(rows, 1, 5).contiguous().view(torch.uint8)
    )


def test_async_twins_and_metadata(tq: Any, client: Any, stored: str) -> None:
    async def reads() -> list[Any]:
        meta = await client.async_kv_retrieve_meta(KEYS, stored)
        kv = tq.KVBatchMeta(keys=KEYS, partition_id=stored, fields=["ids"], tags=[{}] * 4)
        return [
            await client.async_get_data(meta, layout="padded"),
            await tq.async_kv_batch_get(KEYS, stored, layout="padded"),
            await tq.async_kv_batch_get_by_meta(kv, layout="padded"),
        ]

    for data in asyncio.run(reads()):
        assert torch.equal(data["ids"], expected(rows_of(), 0, 5))


def test_writable_and_independent(tq: Any, stored: str) -> None:
    first = tq.kv_batch_get(KEYS, stored, padding={"ids": -1})
    first["ids"].fill_(99)
    again = tq.kv_batch_get(KEYS, stored, padding={"ids": -1})
    assert torch.equal(again["ids"], expected(rows_of(), -1, 5))


def test_rows_that_the_library_does_not_pad(tq: Any, pid: str) -> None:
    rows = [torch.ones(2, 3), torch.ones(1, 5)]
    column = torch.nested.as_nested_tensor(rows, layout=torch.strided)
    tq.kv_batch_put(["a", "b"], pid, TensorDict({"x": column}, batch_size=[2]))
    got = tq.kv_batch_get(
        ["a", "b"], pid, padding={"x": {"value": 2, "multiple": 4, "lengths": "n"}}
    )
    assert got["x"].shape == (2, 4, 5)
    assert got["x"][0, :2, :3].eq(1).all()
    assert got["x"].sum() == 11 + 2 * (40 - 11)
    assert got["n"].tolist() == [2, 1]
    tq.get_client().clear_partition(pid)
    tq.kv_batch_put(["a", "b"], pid, {"x": [torch.ones(2, 3), torch.ones(2)]})
    with pytest.raises(ValueError, match="field 'x': rows of 1 and 2 dims cannot be padded"):
        tq.kv_batch_get(["a", "b"], pid, layout="padded")
    assert tq.kv_batch_get(["a", "b"], pid, layout="dense").get("x").tolist()[1].tolist() == [1, 1]


def test_several_partitions(tq: Any, client: Any, stored: str) -> None:
    other = stored + "-other"
    tq.kv_put("k", other, fields={"ids": torch.arange(7), "uniform": torch.ones(2)})
    metas = [
        client.kv_retrieve_meta(keys, name).select_fields(["ids", "uniform"])
        for keys, name in ((KEYS, stored), (["k"], other))
    ]
    both = tq.BatchMeta.concat(metas)
    data = client.get_data(both, layout="padded", padding={"ids": {"value": -1, "mask": "m"}})
    assert torch.equal(data["ids"], expected([*rows_of(), torch.arange(7)], -1, 7))
    assert data["m"].sum() == sum(LENGTHS) + 7
    assert data["uniform"].shape == (5, 2)
    data = client.get_data(both, layout="dense")
    assert data["ids"].is_nested
    assert data["uniform"].shape == (5, 2)
    client.clear_partition(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "square"}, "layout: expected jagged, dense or padded, got 'square'"),
        ({"layout": {"ids": 3}}, "layout of field 'ids'"),
        ({"padding": {"ids": "x"}}, "padding of field 'ids': expected a number or a map"),
        ({"padding": {"ids": {"multiple": 0}}}, "multiple: got 0"),
        ({"padding": {"ids": {"length": -1}}}, "length: got -1"),
        ({"padding": {"ids": {"fill": 1}}}, "got {'fill': 1}"),
        ({"padding": {"*": {"mask": "m"}}}, "for one field each, got 'm'"),
        ({"padding": {"ids": {"mask": "one"}}}, "there is a field 'one' already"),
        ({"padding": {"ids": {"mask": "m", "lengths": "m"}}}, "there is a field 'm' already"),
        ({"padding": {"ids": float("inf")}}, "field 'ids' cannot be padded with inf"),
        ({"padding": {"one": {"mask": "m"}}}, "field 'one': its rows have no dims"),
    ],
)
def test_options_are_checked(tq: Any, stored: str, options: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        tq.kv_batch_get(KEYS, stored, **options)
    assert message in str(caught.value)


def test_metadata_without_a_schema(tq: Any, client: Any, stored: str) -> None:
    known = client.kv_retrieve_meta(KEYS, stored)
    piece = known._pieces[0]
    bare = _core.Meta.make(piece.partition, piece.indexes, ["ids", "uniform"], piece.incarnations)
    by_hand = tq.BatchMeta._wrap([bare])
    data = client.get_data(by_hand, padding={"ids": -5})
    assert torch.equal(data["ids"], expected(rows_of(), -5, 5))


def test_metadata_with_an_old_schema(tq: Any, client: Any, pid: str) -> None:
    tq.kv_put("k", pid, fields={"x": torch.arange(3)})
    old = client.kv_retrieve_meta("k", pid)
    client.clear_samples(old)
    tq.kv_put("k", pid, fields={"x": torch.arange(4.0)})
    piece = client.kv_retrieve_meta("k", pid)._pieces[0]
    # The reader's knowledge: a different dtype than the stored one.
    anybody = _core.Meta.make(pid, piece.indexes, ["x"])
    options = read_options.read_options({}, None, {"x": {"value": 2, "length": 6}}, None)
    assert options is not None
    plan = reading._Plan.make(old._pieces[0], ["x"], options)
    assert plan is not None
    assert plan.needs_schema
    with pytest.raises(TypeError, match="field 'x': the pad value is of another dtype"):
        client._core.get(anybody, ["x"], plan.layouts).result()
    got = client.get_data(tq.BatchMeta._wrap([anybody]), padding={"x": {"value": 2, "length": 6}})
    assert got["x"].tolist() == [[0, 1, 2, 3, 2, 2]]


def test_memory_of_the_reader(client: Any, stored: str) -> None:
    """What pinned reads do: the library reads into the reader's memory."""
    piece = client.kv_retrieve_meta(KEYS, stored)._pieces[0]
    before = _core.live()
    memory = torch.zeros(4 * 5 * 8, dtype=torch.uint8)
    layout = ("ids", True, 0, 1, 0, 64, b"\1\0\0\0\0\0\0\0", memory.data_ptr(), len(memory))
    data = client._core.get(piece, ["ids", "text"], [layout], memory).result()
    assert [column[0] for column in data.columns] == ["ids", "text"]
    assert torch.equal(memory.view(torch.int64).view(4, 5), expected(rows_of(), 1, 5))
    options = read_options.read_options({}, "padded", None, None)
    columns = reading._columns(data.columns, len(data), client._decoder(), options, {"ids": memory})
    column = dict(columns)["ids"]
    assert column.data_ptr() == memory.data_ptr()
    assert torch.equal(column, expected(rows_of(), 1, 5))
    del data
    assert _core.live()["data"] == before["data"]
    small = (*layout[:-1], len(memory) - 1)
    with pytest.raises(ValueError, match="field 'ids': 160 bytes do not fit into the caller's 159"):
        client._core.get(piece, ["ids"], [small], memory).result()


@pytest.mark.parametrize(
    "layout",
    [
        3,
        ("ids",),
        ("ids", True, 0, 1, 0, 64, b"\1\0", 0, 0),
        ("ids", True, 0, 1, 0, 64, b"", 0, -1),
    ],
)
def test_malformed_layouts(client: Any, stored: str, layout: Any) -> None:
    piece = client.kv_retrieve_meta(KEYS, stored)._pieces[0]
    with pytest.raises((TypeError, ValueError)):
        client._core.get(piece, ["ids"], [layout])


def test_pinned_reads(tq: Any, stored: str) -> None:
    read_options._can_pin.cache_clear()
    if torch.cuda.is_available():
        for layout in ("jagged", "dense", "padded"):
            data = tq.kv_batch_get(KEYS, stored, layout=layout, pin_memory=True)
            ids = data["ids"].values() if data["ids"].is_nested else data["ids"]
            assert ids.is_pinned()
            assert data["one"].is_pinned()
        return
    with pytest.warns(UserWarning, match="no CUDA device"):
        data = tq.kv_batch_get(KEYS, stored, layout="padded", pin_memory=True)
    assert torch.equal(data["ids"], expected(rows_of(), 0, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        tq.kv_batch_get(KEYS, stored, pin_memory=True)


PROGRAM = """
import sys
for name in ("torch", "tensordict", "ray"):
    sys.modules[name] = None
import numpy as np
import transferq

conf = {"client": {"layout": {"x": "padded"}, "padding": {"x": {"value": -1, "mask": "m"}}}}
assert transferq.init(conf).client.layout == {"x": "padded"}
client = transferq.get_client()
rows = [np.arange(n, dtype=np.int32) for n in (2, 0, 3)]
meta = client.put({"x": rows, "y": np.ones((3, 2)), "v": ["a", 1, None]}, partition_id="p")
data = client.get_data(meta)
assert np.asarray(data["x"]).tolist() == [[0, 1, -1], [-1, -1, -1], [0, 1, 2]]
assert np.asarray(data["m"]).sum(axis=1).tolist() == [2, 0, 3]
assert str(data["x"].dtype).endswith("int32") and str(data["m"].dtype).endswith("bool")
data = client.get_data(meta, padding={"x": {"value": 0, "multiple": 4}})
assert tuple(data["x"].shape) == (3, 4)
data = client.get_data(meta, layout="dense")
assert tuple(data["y"].shape) == (3, 2)
assert [len(row) for row in data["x"]] == [2, 0, 3]
try:
    client.get_data(meta, pin_memory=True)
except ValueError as error:
    assert "torch" in str(error)
else:
    raise AssertionError("nothing was raised")
for bad in ({"layout": "round"}, {"padding": {"x": "a"}}, {"pin_memory": 1}):
    transferq.close()
    try:
        transferq.init({"client": bad})
    except ValueError as error:
        assert f"client.{next(iter(bad))}" in str(error)
    else:
        raise AssertionError("nothing was raised")
print("fine")
"""


def test_numpy_and_configuration(runtime_dir: Any) -> None:
    done = python(PROGRAM, TQ_SYSTEM="layouts")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine\n"


def test_configuration(tq: Any, client: Any, stored: str) -> None:
    config = {"client": {"layout": {"ids": "padded"}, "padding": {"ids": -1, "uniform": 3}}}
    own = tq.TransferQueueClient("own", client._info, config=config)
    meta = own.kv_retrieve_meta(KEYS, stored)
    data = own.get_data(meta)
    assert torch.equal(data["ids"], expected(rows_of(), -1, 5))
    assert data["uniform"].is_nested
    data = own.get_data(meta, padding={"ids": {"multiple": 8}})
    assert torch.equal(data["ids"], expected(rows_of(), 0, 8))
    data = own.get_data(meta, padding={"uniform": {"value": 3, "length": 3}})
    assert torch.equal(data["ids"], expected(rows_of(), -1, 5))
    assert data["uniform"].tolist()[0] == [0, 1, 3]
    data = own.get_data(meta, layout="jagged")
    assert data["ids"].is_nested
    data = own.get_data(meta, padding=5)
    assert torch.equal(data["ids"], expected(rows_of(), 5, 5))
    own.close()
