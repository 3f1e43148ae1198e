"""Encoding and decoding values, without a system."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import itertools
import math
import threading
import uuid
from array import array
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferq._core import Buffer
from transferq._impl.encoding import Decoder, Encoder
from transferq.errors import SerializationError

torch = pytest.importorskip("torch")
tensordict = pytest.importorskip("tensordict")


class Colour(enum.Enum):
    RED = 3


class Level(enum.IntEnum):
    HIGH = 7


@dataclasses.dataclass
class Record:
    x: int
    y: str


class Text(str):
    __slots__ = ()


class Thing:
    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Thing) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


Pair = collections.namedtuple("Pair", "a b")
UTC = datetime.timezone.utc


def there_and_back(value: Any, **kwargs: Any) -> Any:
    return Decoder(**kwargs).decode(Encoder(**kwargs).encode(value))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (-5, -5),
        (2**70, 2**70),
        (-(2**70), -(2**70)),
        (1.5, 1.5),
        (1 + 2j, 1 + 2j),
        ("text", "text"),
        ("\udcff", "\udcff"),
        (b"bytes", b"bytes"),
        (bytearray(b"x"), b"x"),
        (memoryview(b"xy"), b"xy"),
        ([1, [2, "3"]], [1, [2, "3"]]),
        ({}, {}),
        ([], []),
        ({"a": {"b": None}}, {"a": {"b": None}}),
        ({1: 2, None: 3, 1.5: 4, b"k": 5}, {1: 2, None: 3, 1.5: 4, b"k": 5}),
        ({(1, (2, 3)): 4}, {(1, (2, 3)): 4}),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        (frozenset([4]), [4]),
        (Pair(1, 2), [1, 2]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (Colour.RED, 3),
        (Level.HIGH, 7),
        (Record(1, "z"), {"x": 1, "y": "z"}),
        (datetime.datetime(2020, 1, 2, 3, 4), "2020-01-02T03:04:00"),
        (datetime.date(2020, 1, 2), "2020-01-02"),
        (datetime.time(1, 2), "01:02:00"),
        (datetime.timedelta(seconds=5), "PT5S"),
        (datetime.timedelta(days=1, seconds=2, microseconds=500000), "P1DT2.5S"),
        (datetime.datetime(2020, 1, 2, tzinfo=UTC), datetime.datetime(2020, 1, 2, tzinfo=UTC)),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (decimal.Decimal("1.50"), "1.50"),
        (range(3), range(3)),
        (Thing(4), Thing(4)),
        (len, len),
        (torch.float32, torch.float32),
    ],
)
def test_plain_values(value: Any, expected: Any) -> None:
    back = there_and_back(value)
    assert back == expected
    assert type(back) is type(expected)


def test_nan_subclasses_and_functions() -> None:
    assert math.isnan(there_and_back(float("nan")))
    assert type(there_and_back(Text("x"))) is Text
    pytest.importorskip("cloudpickle")
    assert there_and_back(lambda x: x + 1)(2) == 3


@pytest.mark.parametrize(
    "value",
    [
        np.float32(1.5),
        np.float64(1.5),
        np.int64(-3),
        np.uint8(200),
        np.bool_(True),
        np.complex64(1 + 2j),
        np.datetime64("2020-01-01"),
    ],
)
def test_numpy_scalars(value: Any) -> None:
    back = there_and_back(value)
    assert type(back) is type(value)
    assert back == value


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6).reshape(2, 3),
        np.arange(12).reshape(3, 4)[:, ::2],
        np.zeros((0, 3), dtype=np.float16),
        np.array(2.5),
        np.array(["ab", "c"]),
        np.array([True, False]),
        np.array([1, "x", None], dtype=object),
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.arange(3, dtype=">i4"),
    ],
)
def test_arrays(value: Any) -> None:
    back = there_and_back({"inside": [value]})["inside"][0]
    assert back.dtype == value.dtype
    assert back.shape == value.shape
    assert (back == value).all()
    if back.dtype != object:
        assert back.flags.writeable


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.int8,
        torch.bool,
        torch.complex64,
        torch.float8_e4m3fn,
    ],
)
def test_tensors(dtype: Any) -> None:
    value = torch.arange(6).reshape(2, 3).to(dtype)
    back = there_and_back({"t": value, "view": value.t()})
    assert back["t"].dtype == dtype
    assert torch.equal(back["t"].view(torch.uint8), value.view(torch.uint8))
    assert back["view"].shape == (3, 2)
    assert there_and_back(torch.tensor(3.0)).shape == ()
    assert there_and_back(torch.zeros(0, 4)).shape == (0, 4)
    back["t"].view(torch.uint8).fill_(0)


def jagged(values: Any, offsets: list[int], **options: Any) -> Any:
    return torch.nested.nested_tensor_from_jagged(values, torch.tensor(offsets), **options)


NESTED = {
    "one ragged dim": lambda: jagged(torch.rand(6, 2), [0, 2, 6]),
    "another ragged dim": lambda: jagged(torch.rand(4, 6), [0, 2, 6], jagged_dim=2),
    "another ragged dim, of equal lengths": lambda: jagged(
        torch.rand(4, 6), [0, 3, 6], jagged_dim=2
    ),
    "a third ragged dim, of equal lengths": lambda: jagged(
        torch.rand(4, 2, 6), [0, 3, 6], jagged_dim=3
    ),
    "one row": lambda: jagged(torch.rand(4, 3), [0, 3], jagged_dim=2),
    "no rows": lambda: jagged(torch.zeros(0, 4, dtype=torch.int32), [0]),
    "no rows, of another ragged dim": lambda: jagged(torch.zeros(4, 0), [0], jagged_dim=2),
    "a first offset that is not 0": lambda: jagged(torch.rand(6, 2), [1, 3, 6]),
    "that, of another ragged dim": lambda: jagged(torch.rand(2, 6), [1, 3, 5], jagged_dim=2),
    "holes": lambda: jagged(torch.rand(6, 2), [0, 3, 6], lengths=torch.tensor([2, 1])),
    "empty rows": lambda: jagged(torch.zeros(0, 2), [0, 0, 0]),
}


@pytest.mark.parametrize("case", NESTED)
def test_nested_tensors_keep_layout_ragged_dim_and_rows(case: str) -> None:
    from transferq._impl.ragged import rows_of

    given = NESTED[case]()
    back = there_and_back({"v": [given]})["v"][0]
    assert back.layout == torch.jagged
    assert back.dtype == given.dtype
    assert back._ragged_idx == given._ragged_idx
    assert back.dim() == given.dim()
    assert back.shape[0] == given.shape[0]
    rows, same = rows_of(given), rows_of(back)
    assert [tuple(row.shape) for row in same] == [tuple(row.shape) for row in rows]
    assert all(torch.equal(row, other) for row, other in zip(rows, same, strict=True))
    if not rows:
        assert back.values().shape == given.values().shape


def test_a_strided_nested_tensor_without_rows_keeps_its_dtype() -> None:
    back = there_and_back(torch.nested.nested_tensor([], dtype=torch.int16))
    assert (back.layout, back.dtype, back.size(0)) == (torch.strided, torch.int16, 0)


@pytest.mark.parametrize(
    "parts",
    [
        ["jagged", [], 1],
        ["jagged", [], 0, torch.zeros(0, 2)],
        ["jagged", [], 3, torch.zeros(0, 2)],
        ["jagged", [], 1, torch.zeros(2, 2)],
        ["jagged", [torch.zeros(2)], 1, torch.zeros(0, 2)],
        ["jagged", [torch.zeros(2, 3), torch.zeros(3, 4)], 2],
        ["jagged", [torch.zeros(2)], True],
        ["strided", [torch.zeros(2)], 1],
        ["jagged", [1, 2], 2],
        ["jagged", [], 1, 7, 8],
    ],
)
def test_what_is_no_nested_tensor_is_refused(parts: list[Any]) -> None:
    encoded = Encoder().encode(parts)
    bad = b"\xc9" + len(encoded).to_bytes(4, "big") + b"\x0a" + encoded
    with pytest.raises(SerializationError, match="extension type 10 is malformed"):
        Decoder().decode(bad)


def test_nested_tensors_parameters_and_tensordicts() -> None:
    rows = [torch.ones(2), torch.ones(3)]
    for layout in (torch.jagged, torch.strided):
        back = there_and_back(torch.nested.as_nested_tensor(rows, layout=layout))
        assert back.layout == layout
        assert [tuple(row.shape) for row in back.unbind()] == [(2,), (3,)]
    parameter = there_and_back(torch.nn.Parameter(torch.ones(2)))
    assert type(parameter) is torch.Tensor
    assert not parameter.requires_grad
    td = tensordict.TensorDict(
        {"a": torch.ones(2, 3), "s": ["x", "y"], "n": {"b": torch.zeros(2)}}, batch_size=[2]
    )
    back = there_and_back([td])[0]
    assert back.batch_size == (2,)
    assert torch.equal(back["a"], td["a"])
    assert list(back["s"]) == ["x", "y"]
    assert torch.equal(back["n", "b"], td["n", "b"])


def test_pickle_can_be_forbidden() -> None:
    with pytest.raises(SerializationError, match=r"field 'f': a value of type .*Thing"):
        Encoder(allow_pickle=False).encode_rows("f", [1, Thing(1)])
    assert there_and_back({"a": [1, np.ones(2)]}, allow_pickle=False)["a"][0] == 1
    pickled = Encoder().encode(Thing(1))
    with pytest.raises(SerializationError, match=r"field 'f', row 0: .*allow_pickle"):
        Decoder(allow_pickle=False).decode_rows("f", pickled, array("Q", [0, len(pickled)]))


def test_what_cannot_be_pickled_is_named() -> None:
    """With its field and its type, whatever pickle's message is; the cause is kept."""

    class Local:
        """Pickle finds no class inside a function."""

    for value, name in ((threading.Lock(), "_thread.lock"), (Local(), "Local")):
        for call in (Encoder().encode_rows, Encoder().encode_column):
            with pytest.raises(SerializationError, match=rf"'f': .*{name} cannot be pickled") as no:
                call("f", [1, {"in": value}])
            assert no.value.__cause__ is not None


def test_an_encoder_survives_an_error() -> None:
    encoder = Encoder(allow_pickle=False)
    with pytest.raises(SerializationError):
        encoder.encode([1, 2, Thing(1)])
    assert Decoder().decode(encoder.encode([3])) == [3]


# --- whole columns --------------------------------------------------------------------------------

PLAIN = [
    None, True, False, 0, 1, -1, 31, 127, 128, -32, -33, -128, -129, 255, 256, 65535, 65536, -32768,
    -32769, 2**31, -(2**31), -(2**31) - 1, 2**32 - 1, 2**32, 2**63 - 1, -(2**63), 0.0, -0.0, 1e300,
    float("inf"), "", "é😀", "a" * 31, "b" * 32, "c" * 255, "d" * 256, "e" * 65536, b"", b"x" * 255,
    b"y" * 256, b"z" * 65536, [], [1] * 15, [2] * 16, [None] * 65536, {}, {str(i): i for i in range(16)},
    {i: [i] for i in range(65536)}, {None: 1, 1.5: 2, b"k": 3, True: 4}, [[{"a": [{}]}]],
]  # fmt: skip
OTHER = [
    2**64 - 1,
    2**64,
    -(2**63) - 1,
    "\ud800",
    (1, 2),
    {(1, 2): 3},
    {1},
    1 + 2j,
    np.float32(1),
    [[(1,)]],
]


def columns(values: list[Any]) -> tuple[bytes, Any]:
    """Encoded in one call, and the offsets of the rows."""
    encoded, sizes = Encoder().encode_column("f", values)
    return bytes(encoded), array("Q", [0, *itertools.accumulate(sizes)])


def test_columns_are_what_msgpack_makes() -> None:
    encoded, offsets = columns([*PLAIN, *OTHER])
    for place, value in enumerate([*PLAIN, *OTHER]):
        row = encoded[offsets[place] : offsets[place + 1]]
        assert row == Encoder().encode(value)
        if place < len(PLAIN):
            assert row == msgpack.packb(value)


def test_long_columns_lie_in_warm_memory() -> None:
    """Text of a known length, text that is not ASCII, and values of unknown size."""
    for values in (
        ["a" * 1000] * 200,
        ["é" * 1000] * 200,
        [["b" * 1000, 1]] * 200,
        [b"c" * 200_000],
    ):
        encoded, sizes = Encoder().encode_column("f", values)
        assert isinstance(encoded, Buffer)
        assert bytes(encoded) == b"".join(map(msgpack.packb, values))
        assert sum(sizes) == len(encoded)
        view = memoryview(encoded)
        del encoded
        again, _ = Encoder().encode_column("f", [b"other" * 100_000])
        assert bytes(view) == b"".join(map(msgpack.packb, values))
        assert len(again) > 500_000
        with pytest.raises(TypeError, match="read-only"):
            view[0] = 0
    short, _ = Encoder().encode_column("f", ["a"])
    assert short == b"\xa1a"


def test_a_long_column_that_cannot_be_encoded() -> None:
    with pytest.raises(SerializationError, match="cannot be pickled"):
        Encoder().encode_column("f", ["a" * 100_000, threading.Lock()])


def test_columns_come_back() -> None:
    encoded, offsets = columns([*PLAIN, *OTHER])
    got = Decoder().decode_rows("f", encoded, offsets)
    assert [type(value) for value in got[: len(PLAIN)]] == [type(value) for value in PLAIN]
    assert got[: len(PLAIN)] == PLAIN
    assert got[len(PLAIN) :] == [Decoder().decode(Encoder().encode(value)) for value in OTHER]
    assert columns([]) == (b"", array("Q", [0]))


def test_deep_and_malformed_rows_are_left_to_msgpack() -> None:
    value: Any = 1
    for _ in range(300):
        value = [value]
    encoded, offsets = columns([value])
    assert Decoder().decode_rows("f", encoded, offsets) == [value]
    for bad in (b"", b"\xc1", b"\xda", b"\xda\xff", b"\xdd\xff\xff\xff\xff", b"\x91", b"\x81\x01",
                b"\x01\x01", b"\xc4\x05ab", b"\xcb\0", b"\xd3\0\0", b"\xdf\xff\xff\xff\xff\0"):  # fmt: skip
        with pytest.raises((ValueError, TypeError)):
            Decoder().decode_rows("f", bad, array("Q", [0, len(bad)]))
    with pytest.raises(ValueError, match="offsets do not fit"):
        Decoder().decode_rows("f", b"\1", array("Q", [0, 2]))
    with pytest.raises(ValueError, match="offsets do not fit"):
        Decoder().decode_rows("f", b"\1\1", array("Q", [1, 0]))
    with pytest.raises(TypeError, match="64-bit"):
        Decoder().decode_rows("f", b"\1", array("I", [0, 1]))


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_decode_as_msgpack_does(rows: list[bytes]) -> None:
    for row in rows:
        try:
            expected = repr(Decoder(allow_pickle=False).decode(row))
        except Exception as error:  # noqa: BLE001 - any error, but it must be the same
            expected = type(error).__name__
        try:
            got = repr(
                Decoder(allow_pickle=False).decode_rows("f", row, array("Q", [0, len(row)]))[0]
            )
        except Exception as error:  # noqa: BLE001
            got = type(error).__name__
        assert got == expected


def test_rows_that_change_while_they_are_encoded() -> None:
    rows: list[Any] = [None, 1]

    class Shrinks:
        def __reduce__(self) -> Any:
            rows.clear()
            return int, ()

    rows[0] = Shrinks()
    with pytest.raises(RuntimeError, match="changed"):
        Encoder().encode_column("f", rows)
