"""Points 10 to 12: the results of reads."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict

from .cases import Script, case


class Colour(enum.Enum):
    """A value of a custom type."""

    RED = "red"


@dataclass
class Spot:
    """A record."""

    x: int
    name: str


def nested(*rows: Any, layout: torch.layout = torch.jagged) -> torch.Tensor:
    """Rows as a nested tensor."""
    return torch.nested.as_nested_tensor(list(rows), layout=layout)


def written(
    c: Script,
    columns: dict[str, Callable[[], Any]],
    rows: int = 2,
    *,
    one_listed: str | None = None,
) -> None:
    """Put each column alone and read it back; then record what the metadata says about it.

    `one_listed` is the id of a known disagreement on a read of one row.
    """
    keys = [f"k{row}" for row in range(rows)]
    for place, (_, make) in enumerate(columns.items()):
        pid = c.pid(f"p{place}")
        try:
            data = TensorDict({"x": make()}, batch_size=rows)
            c.tq.kv_batch_put(keys, pid, data)
        except Exception as error:  # noqa: BLE001 - the exception itself is compared
            c.note(error)
            continue
        c.call(c.tq.kv_batch_get, keys, pid)
        c.call(c.tq.kv_batch_get, [keys[1]], pid, listed=one_listed)
        c.call(c.forced, ["x"], pid)


@case(10)
def rows_without_dimensions_are_dense(c: Script) -> None:
    written(
        c,
        {
            "int64": lambda: torch.tensor([1, 2]),
            "float32": lambda: torch.tensor([1.5, -2.5]),
            "bool": lambda: torch.tensor([True, False]),
            "numpy": lambda: np.array([1.5, 2.5]),
        },
    )


@case(10)
def other_tensors_are_jagged(c: Script) -> None:
    written(
        c,
        {
            "equal": lambda: torch.arange(6).reshape(2, 3),
            "matrices": lambda: torch.arange(12.0).reshape(2, 2, 3),
            "one": lambda: torch.ones(2, 1),
            "ragged": lambda: nested(torch.arange(3), torch.arange(5)),
            "ragged matrices": lambda: nested(torch.ones(1, 4), torch.ones(3, 4)),
            "strided": lambda: nested(torch.ones(2, 2), torch.ones(3, 2), layout=torch.strided),
            "strided equal": lambda: nested(
                torch.ones(2, 2), torch.ones(2, 2), layout=torch.strided
            ),
            "empty rows": lambda: torch.zeros(2, 0),
            "one empty": lambda: nested(torch.zeros(0), torch.ones(2)),
        },
    )


@case(10)
def where_jagged_is_impossible(c: Script) -> None:
    written(
        c,
        {
            "two ragged dimensions": lambda: nested(
                torch.ones(2, 3), torch.ones(4, 5), layout=torch.strided
            ),
            "ragged behind": lambda: nested(
                torch.ones(2, 3), torch.ones(2, 5), layout=torch.strided
            ),
        },
        one_listed="D11",
    )


@case(10)
def rows_put_one_by_one(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    tq.kv_put("a", pid, {"same": torch.ones(3), "ragged": torch.ones(2), "dims": torch.ones(2)})
    tq.kv_put("b", pid, {"same": torch.zeros(3), "ragged": torch.ones(4), "dims": torch.ones(2, 2)})
    c.call(tq.kv_batch_get, ["a", "b"], pid)
    c.call(tq.kv_batch_get, ["b"], pid)


@case(10)
def rows_that_are_ragged_behind(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    for key, length in (("a", 3), ("b", 5), ("c", 3)):
        tq.kv_put(key, pid, {"positions": torch.arange(2 * length).reshape(2, length)})
    c.call(tq.kv_batch_get, ["a", "b"], pid)
    c.call(tq.kv_batch_get, ["a"], pid, listed="D11")
    c.call(tq.kv_batch_get, ["a", "c"], pid, listed="D11")


@case(11)
def rows_that_differ(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    rows = {"a": torch.tensor([1.5]), "b": torch.tensor([2]), "c": None, "d": torch.tensor([])}
    for key, row in rows.items():
        c.call(tq.kv_put, key, pid, {"x": row})
    for keys in (["a", "c"], ["b"]):
        c.call(tq.kv_batch_get, keys, pid)
    for keys in (["a", "b"], ["b", "d"]):
        c.call(tq.kv_batch_get, keys, pid, listed="D12")


@case(11)
def objects_are_stacks(c: Script) -> None:
    written(
        c,
        {
            "strings": lambda: NonTensorStack("a", "bc"),
            "list": lambda: ["a", "bc"],
            "numbers": lambda: NonTensorStack(1, 2.5),
            "lists": lambda: NonTensorStack([1, 2], []),
            "maps": lambda: NonTensorStack({"a": 1}, {}),
            "none": lambda: NonTensorStack(None, None),
            "objects": lambda: np.array(["x", {"y": 1}], dtype=object),
            "bytes": lambda: NonTensorStack(b"", b"\x00\x01"),
            "byte strings": lambda: np.array([b"ab", b"c"], dtype="|S2"),
            "unicode": lambda: np.array(["ab", "ü"]),
        },
    )


@case(11)
def values_of_other_types(c: Script) -> None:
    stamp = datetime.datetime(2026, 1, 2, 3, 4, 5)
    written(
        c,
        {
            "tuple": lambda: NonTensorStack((1, 2), (3,)),
            "set": lambda: NonTensorStack({1}, {2}),
            "enum": lambda: NonTensorStack(Colour.RED, Colour.RED),
            "dataclass": lambda: NonTensorStack(Spot(1, "a"), Spot(2, "b")),
            "datetime": lambda: NonTensorStack(stamp, stamp),
            "uuid": lambda: NonTensorStack(uuid.UUID(int=1), uuid.UUID(int=2)),
            "decimal": lambda: NonTensorStack(decimal.Decimal("1.10"), decimal.Decimal("2")),
            "bool": lambda: NonTensorStack(True, False),
            "complex": lambda: NonTensorStack(1 + 2j, 3j),
            "large": lambda: NonTensorStack(2**70, 1),
        },
    )


@case(11)
def objects_of_a_program(c: Script) -> None:
    written(c, {"object": lambda: NonTensorStack(Fraction(1, 3), PurePosixPath("a/b"))})
    tq, pid = c.tq, c.pid("callable")
    tq.kv_put("a", pid, {"f": len})
    got = tq.kv_batch_get("a", pid)["f"]
    c.note([each("abc") for each in getattr(got, "tolist", lambda: got)()])


@case(11)
def values_with_tensors_inside(c: Script) -> None:
    written(
        c,
        {
            "tensor": lambda: NonTensorStack({"t": torch.arange(2)}, {"t": torch.ones(1)}),
            "list": lambda: NonTensorStack([torch.arange(2)], [torch.ones(1), "x"]),
            "array": lambda: NonTensorStack({"a": np.arange(2)}, {"a": np.float32(1.5)}),
            "nested": lambda: NonTensorStack({"a": {"b": [torch.tensor(1)]}}, {}),
        },
    )


@case(11)
def rows_that_mix_tensors_and_objects(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    tq.kv_put("a", pid, {"x": "text"})
    c.call(tq.kv_put, "b", pid, {"x": [1, 2]})
    c.call(tq.kv_batch_get, ["a", "b"], pid)


@case(11)
def one_value_for_all_rows(c: Script) -> None:
    same = TensorDict({"x": NonTensorData("same", batch_size=(2,))}, batch_size=2)
    c.call(c.tq.kv_batch_put, ["a", "b"], c.pid(), same, listed="D08")
    written(
        c,
        {
            "list of rows": lambda: NonTensorData(["u", "v"], batch_size=(2,)),
            "maps": lambda: NonTensorData([{"i": 0}, {"i": 1}], batch_size=(2,)),
        },
    )


@case(12)
def dtypes_are_exact(c: Script) -> None:
    dtypes = (
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
        torch.complex64,
    )
    written(
        c,
        {str(dtype): (lambda dtype=dtype: torch.ones(2, 3).to(dtype)) for dtype in dtypes},
    )


@case(12)
def small_and_unsigned_dtypes(c: Script) -> None:
    dtypes = (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32)
    written(c, {str(dtype): (lambda dtype=dtype: torch.ones(2, 3).to(dtype)) for dtype in dtypes})


@case(12)
def special_numbers(c: Script) -> None:
    values = torch.tensor([[float("inf"), float("-inf")], [float("nan"), -0.0]])
    written(c, {"float32": lambda: values, "bfloat16": values.bfloat16})


@case(12)
def views_are_read_as_they_look(c: Script) -> None:
    base = torch.arange(24).reshape(4, 6)
    written(
        c,
        {
            "transposed": lambda: base.t()[:2],
            "every other": lambda: base[::2],
            "offset": lambda: base[1:3, 2:5],
            "expanded": lambda: torch.ones(1, 3).expand(2, 3),
            "numpy": lambda: base.numpy()[::2, ::3],
        },
    )


@case(12)
def rows_are_independent(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.fill(["a", "b"], pid)
    got = tq.kv_batch_get(["a", "b"], pid)["x"]
    for row in got.unbind():
        row.add_(100)
    c.note([row + 1 for row in got.unbind()])
    c.call(tq.kv_batch_get, ["a", "b"], pid)
    source = c.rows(1)
    tq.kv_batch_put(["c"], pid, c.data(x=source))
    source.zero_()
    c.call(tq.kv_batch_get, ["c"], pid)


@case(12)
def a_schema_becomes_nested(c: Script) -> None:
    pid = c.pid()
    c.client.put(c.data(x=torch.ones(2, 3)), partition_id=pid)
    c.call(c.forced, ["x"], pid)
    c.client.put(c.data(x=torch.ones(1, 5)), partition_id=pid)
    c.call(c.forced, ["x"], pid)
    c.call(c.client.get_data, c.forced(["x"], pid))


@case(12)
def what_a_schema_says_of_shapes(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    rows = nested(torch.ones(2), torch.ones(3))
    tq.kv_batch_put(["a", "b"], pid, c.data(zero=torch.tensor([1, 2]), ragged=rows))
    schema = c.forced(["zero", "ragged"], pid).field_schema
    c.note(list(schema["zero"]["shape"]), listed="D02")
    c.note(schema["ragged"]["shape"], listed="D03")
    c.note([list(shape) for shape in schema["ragged"]["per_sample_shapes"]])


@case(12)
def a_schema_is_forgotten_with_the_last_row(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    tq.kv_put("a", pid, {"x": torch.ones(3)})
    tq.kv_clear("a", pid)
    c.call(tq.kv_put, "a", pid, {"x": torch.tensor([1, 2])})
    c.call(tq.kv_batch_get, "a", pid)
    c.call(c.forced, ["x"], pid)


@case(12)
def tensors_that_require_grad(c: Script) -> None:
    tq, pid = c.tq, c.pid()
    c.call(tq.kv_put, "a", pid, {"x": torch.ones(3, requires_grad=True)})
    c.call(tq.kv_batch_get, "a", pid)
    c.call(tq.kv_put, "b", pid, {"x": torch.nn.Parameter(torch.ones(3))})
    c.call(tq.kv_batch_get, "b", pid)
