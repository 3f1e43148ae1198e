"""Values that users of TransferQueue put and read: tables of inputs and results.

The results are those of TransferQueue 0.1.11, except where an entry says `better`: there it fails or
changes the value.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import tensordict
import torch

TensorDict, NonTensorStack = tensordict.TensorDict, tensordict.NonTensorStack
NonTensorData = tensordict.NonTensorData

JAGGED, STRIDED = torch.jagged, torch.strided
UTC = datetime.timezone.utc

DTYPES = [
    "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float16",
    "bfloat16", "float32", "float64", "complex32", "complex64", "complex128", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
]  # fmt: skip


class Color(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntEnum):
    HIGH = 5


@dataclasses.dataclass
class Point:
    x: Any
    y: Any


class Obj:
    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Obj) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


class MyInt(int):
    pass


class MyList(list[Any]):
    pass


def double(x: int) -> int:
    return 2 * x


def row(*shape: int) -> Any:
    return torch.arange(float(np.prod(shape))).reshape(shape)


def nested(rows: list[Any], layout: Any = JAGGED) -> Any:
    return torch.nested.as_nested_tensor(rows, layout=layout)


def same(got: Any, expected: Any) -> None:
    """Same type, dtype, shape and value, at every level."""
    if isinstance(expected, torch.Tensor):
        assert isinstance(got, torch.Tensor)
        if expected.is_nested:  # each has its own symbolic size for the ragged dim
            assert (got.is_nested, got.layout) == (True, expected.layout)
            same(list(got.unbind()), list(expected.unbind()))
            return
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert not got.requires_grad
        raw = [
            one.contiguous().reshape(-1).view(torch.uint8).tolist() if one.numel() else []
            for one in (got, expected)
        ]
        assert raw[0] == raw[1]
    elif isinstance(expected, np.ndarray):
        assert type(got) is type(expected)
        assert got.dtype == expected.dtype
        assert got.tolist() == expected.tolist()
    elif isinstance(expected, tensordict.TensorDictBase):
        assert type(got) is type(expected)
        assert got.batch_size == expected.batch_size
        same(dict(got.items()), dict(expected.items()))
    elif isinstance(expected, dict):
        assert type(got) is dict
        assert list(got) == list(expected)
        for key, value in expected.items():
            same(got[key], value)
    elif isinstance(expected, list):
        assert type(got) is list
        assert len(got) == len(expected)
        for one, other in zip(got, expected, strict=True):
            same(one, other)
    else:
        assert type(got) is type(expected)
        assert got == expected


def same_column(got: Any, layout: Any, expected: list[Any]) -> None:
    """A column that was read has this layout ("stack", None for a tensor, or of nested tensors) and these rows."""
    if layout == "stack":
        assert type(got) is NonTensorStack
        same(got.tolist(), expected)
    elif layout is None:
        assert not got.is_nested
        same(list(got), expected)
    else:
        assert got.is_nested
        assert got.layout == layout
        same(list(got.unbind()), expected)


# --- tensors --------------------------------------------------------------------------------------


def filled(dtype: Any, shape: tuple[int, ...]) -> Any:
    """0, 1, 2, ... of a dtype, as bit patterns for dtypes without numbers."""
    numbers = torch.arange(int(np.prod(shape)))
    if dtype.itemsize == 1 and "float4" in str(dtype):
        return numbers.to(torch.uint8).view(dtype).reshape(shape)
    return numbers.to(dtype).reshape(shape)


TENSORS: dict[str, tuple[Callable[[], Any], Any, list[Any]]] = {
    # name: (column, layout of the result, its rows)
    "empty rows": (lambda: torch.zeros(3, 0), JAGGED, [row(0)] * 3),
    "empty rows of two dims": (lambda: torch.zeros(3, 2, 0), JAGGED, [row(2, 0)] * 3),
    "one row": (lambda: row(1, 4), JAGGED, [row(4)]),
    "rows of one": (lambda: row(2, 1), JAGGED, [row(2)[:1], row(2)[1:]]),
    "one value": (lambda: row(1), None, [torch.tensor(0.0)]),
    "ragged": (lambda: nested([row(2), row(0), row(3)]), JAGGED, [row(2), row(0), row(3)]),
    "all empty": (lambda: nested([row(0), row(0)]), JAGGED, [row(0), row(0)]),
    "ragged strided": (lambda: nested([row(2), row(3)], STRIDED), JAGGED, [row(2), row(3)]),
    "uniform strided": (lambda: nested([row(2), row(2)], STRIDED), JAGGED, [row(2), row(2)]),
    "strided values": (lambda: nested([row(1)[0], row(1)[0]], STRIDED), None, [row(1)[0]] * 2),
    "ragged first dim": (lambda: nested([row(2, 3), row(4, 3)]), JAGGED, [row(2, 3), row(4, 3)]),
    "ragged second dim": (lambda: nested([row(2, 3), row(2, 5)]), JAGGED, [row(2, 3), row(2, 5)]),
    "ragged middle dim": (
        lambda: nested([row(2, 3, 4), row(2, 5, 4)], STRIDED),
        JAGGED,
        [row(2, 3, 4), row(2, 5, 4)],
    ),
    "ragged in both": (
        lambda: nested([row(2, 3), row(4, 5)], STRIDED),
        STRIDED,
        [row(2, 3), row(4, 5)],
    ),
    "different dims": (lambda: NonTensorStack(row(2, 3), row(4)), "stack", [row(2, 3), row(4)]),
    "value and row": (lambda: NonTensorStack(row(1)[0], row(2)), "stack", [row(1)[0], row(2)]),
    "stack of tensors": (lambda: NonTensorStack(row(2), row(3)), JAGGED, [row(2), row(3)]),
    "lengths": (
        lambda: torch.nested.nested_tensor_from_jagged(
            row(10), torch.tensor([0, 4, 10]), lengths=torch.tensor([2, 3])
        ),
        JAGGED,
        [row(2), row(10)[4:7]],
    ),
    "ragged_idx 2": (
        lambda: torch.nested.nested_tensor_from_jagged(
            row(3, 6), torch.tensor([0, 2, 6]), jagged_dim=2
        ),
        JAGGED,
        [row(3, 6)[:, :2], row(3, 6)[:, 2:]],
    ),
    "transposed": (
        lambda: nested([row(2, 3), row(4, 3)]).transpose(1, 2),
        JAGGED,
        [row(2, 3).T, row(4, 3).T],
    ),
    "narrow": (
        lambda: torch.nested.narrow(
            row(2, 6), 1, torch.tensor([0, 1]), torch.tensor([3, 4]), layout=JAGGED
        ),
        JAGGED,
        [row(2, 6)[0, :3], row(2, 6)[1, 1:5]],
    ),
    # better: refused
    "offset view": (
        lambda: torch.nested.nested_tensor_from_jagged(row(10), torch.tensor([2, 5, 9])),
        JAGGED,
        [row(10)[2:5], row(10)[5:9]],
    ),
    "steps": (lambda: row(2, 6)[:, ::2], JAGGED, list(row(2, 6)[:, ::2])),
    "expanded": (lambda: row(1, 3).expand(2, 3), JAGGED, [row(3), row(3)]),
    "rows of a view": (lambda: row(6, 3)[1:5:2], JAGGED, [row(6, 3)[1], row(6, 3)[3]]),
    # better: both fail
    "conjugate": (
        lambda: torch.tensor([[1 + 2j], [3 - 1j]]).conj(),
        JAGGED,
        [torch.tensor([1 - 2j]), torch.tensor([3 + 1j])],
    ),
    "negative": (
        lambda: torch.tensor([[1 + 2j], [3 - 1j]]).conj().imag,
        JAGGED,
        [torch.tensor([-2.0]), torch.tensor([1.0])],
    ),
    "grad": (lambda: torch.ones(2, 3, requires_grad=True) * 2, JAGGED, [torch.full((3,), 2.0)] * 2),
    "parameter": (lambda: torch.nn.Parameter(row(2, 3)), JAGGED, list(row(2, 3))),
    "nested grad": (
        lambda: torch.nested.nested_tensor([row(2), row(3)], layout=JAGGED, requires_grad=True),
        JAGGED,
        [row(2), row(3)],
    ),
    # A list of lists of numbers: the empty list gets their dtype.
    "lists": (
        lambda: [[1, 2], [3], []],
        JAGGED,
        [torch.tensor([1, 2]), torch.tensor([3]), torch.tensor([], dtype=torch.int64)],
    ),
    # better: the integers become floats
    "different dtypes": (
        lambda: NonTensorStack(row(2), torch.arange(2)),
        "stack",
        [row(2), torch.arange(2)],
    ),
}

# --- values ---------------------------------------------------------------------------------------

AS_THEY_ARE: dict[str, Any] = {
    "text": "hello", "empty text": "", "null in text": "a\0b", "unicode": "é😀", "surrogate": "\ud800",
    "bytes": b"ab", "none": None, "true": True, "int": 5, "big": 2**80, "small": -(2**70), "float": 2.5,
    "infinite": float("inf"), "complex": 1 + 2j, "list": [1, "a", None], "nested list": [[1, 2], [3]],
    "empty list": [], "empty map": {}, "map": {"a": {"b": {}}}, "keys": {1: 2, None: 3, b"a": 4, 1.5: 5},
    "tensors": {"t": row(2, 3), "l": [torch.tensor(1)], "b": torch.ones(2, dtype=torch.bfloat16)},
    "arrays": {"a": np.arange(3), "s": np.float32(1.5)}, "np float": np.float32(1.5),
    "np bool": np.bool_(True), "np text": np.str_("a"), "empty np text": np.str_(""),
    "np date": np.datetime64("2020-01-01"), "array": np.arange(6.0).reshape(2, 3),
    "array of text": np.array(["a", "b"]), "array of objects": np.array([1, "a", None], dtype=object),
    "big endian": np.arange(3, dtype=">i4"), "no dims": np.array(5), "empty array": np.zeros((0, 3)),
    # better: refused
    "records": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "aware": datetime.datetime(2020, 1, 2, tzinfo=UTC), "object": Obj(3),
    "objects": [Obj(1), {"o": Obj(2)}], "function": double, "builtin": len, "type": int, "range": range(3),
    "int of a class": MyInt(3), "dtype": torch.float32,
}  # fmt: skip

SIMPLER: dict[str, tuple[Any, Any]] = {
    "tuple": ((1, (2, 3)), [1, [2, 3]]),
    "set": ({1}, [1]),
    "frozen set": (frozenset({1}), [1]),
    "named tuple": (collections.namedtuple("Pair", "a b")(1, 2), [1, 2]),
    "list of a class": (MyList([1]), [1]),
    "enum": (Color.RED, 1),
    "enum of text": ([Color.BLUE], ["b"]),
    "enum of numbers": (Level.HIGH, 5),
    "dataclass": (Point(Point(1, []), [Point(2, (3,))]), {"x": {"x": 1, "y": []}, "y": [{"x": 2, "y": [3]}]}),
    "dataclass with tensors": (Point(row(2), {"a": row(1)}), {"x": row(2), "y": {"a": row(1)}}),
    "ordered map": (collections.OrderedDict(a=1), {"a": 1}),
    "default map": (collections.defaultdict(list, a=[1]), {"a": [1]}),
    "datetime": (datetime.datetime(2020, 1, 2, 3, 4, 5, 6), "2020-01-02T03:04:05.000006"),
    "date": (datetime.date(2020, 1, 2), "2020-01-02"),
    "time": (datetime.time(1, 2, 3), "01:02:03"),
    "aware time": (datetime.time(1, 2, tzinfo=UTC), "01:02:00Z"),
    "span": (datetime.timedelta(days=1, seconds=2, microseconds=3), "P1DT2.000003S"),
    "no span": (datetime.timedelta(0), "P0D"),
    "uuid": (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    "decimal": (decimal.Decimal("1.50"), "1.50"),
    "parameter": ({"p": torch.nn.Parameter(row(2))}, {"p": row(2)}),
    "shape": (torch.Size([1, 2]), [1, 2]),
    "non-tensor data": (NonTensorData("x"), "x"),
    # better: a map of its attributes
    "non-tensor data in a list": ([NonTensorData("x")], ["x"]),
}  # fmt: skip

VALUES = {name: (value, value) for name, value in AS_THEY_ARE.items()} | SIMPLER

COLUMNS: list[tuple[Any, list[Any]]] = [
    (np.array(["a", "b"]), [np.str_("a"), np.str_("b")]),
    (np.array(["a", None], dtype=object), ["a", None]),
    (np.array(["2020-01-01", "2021-01-01"], dtype="M8[D]"),
     [np.datetime64("2020-01-01"), np.datetime64("2021-01-01")]),
    (("a", "b"), [np.str_("a"), np.str_("b")]),
    (["a", "b"], ["a", "b"]),
    (NonTensorData(["a", "b"], batch_size=[2]), ["a", "b"]),
    (NonTensorData(np.arange(2.0), batch_size=[2]), [np.float64(0), np.float64(1)]),
    # better: refused
    (NonTensorData("a", batch_size=[2]), ["a", "a"]),
    (NonTensorStack(NonTensorStack("a", "b"), NonTensorStack("c", "d")), [["a", "b"], ["c", "d"]]),
    (NonTensorStack(np.arange(2), np.arange(3)), [np.arange(2), np.arange(3)]),
    (NonTensorStack(row(2), "a"), [row(2), "a"]),
]  # fmt: skip
"""Columns of two rows and their read results."""
