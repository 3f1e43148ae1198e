"""Values with large memory in them, and how they are encoded, decoded and compared."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from transferq._impl.encoding import Decoder, Encoder

torch = pytest.importorskip("torch")
tensordict = pytest.importorskip("tensordict")
Image = pytest.importorskip("PIL.Image")

LARGE = 4096
ALIGN = 64
VIEW = 16384


class Holder:
    """A user's class, whose buffers pickle takes out of band."""

    def __init__(self) -> None:
        self.values = np.arange(5000.0)
        self.bytes = bytearray(b"x" * 9000)
        self.few = np.arange(3)


def columns_of(rows: list[Any], **kwargs: Any) -> tuple[list[Any], bytes, list[int], list[Any]]:
    """Slices of the rows, their content, the sizes of the rows, and the objects kept alive."""
    import ctypes

    keep: list[Any] = []
    slices, sizes = Encoder(**kwargs).encode_slices("f", rows, keep)
    held = b"".join(
        ctypes.string_at(*one) if isinstance(one, tuple) else bytes(memoryview(one))
        for one in slices
    )
    return slices, held, list(sizes), keep


def memory(held: bytes) -> memoryview:
    """A writable copy that is aligned like memory of a read."""
    room = np.empty(len(held) + ALIGN, np.uint8)
    start = -room.ctypes.data % ALIGN
    room[start : start + len(held)] = np.frombuffer(held, np.uint8)
    return memoryview(room)[start : start + len(held)]


def decoded(held: Any, sizes: list[int], **kwargs: Any) -> list[Any]:
    offsets = array("Q", [0, *itertools.accumulate(sizes)])
    return Decoder(**kwargs).decode_rows("f", held, offsets)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        if one.is_nested:
            return all(map(same, one.unbind(), other.unbind()))
        one = one.detach().resolve_conj().resolve_neg()
        return bool(
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.contiguous().view(torch.uint8).equal(other.contiguous().view(torch.uint8))
        )
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and np.array_equal(one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, Holder):
        return same(vars(one), vars(other))
    if isinstance(one, Image.Image):
        return bool(one.mode == other.mode and one.tobytes() == other.tobytes())
    if isinstance(one, (bytearray, memoryview)):
        return bytes(one) == bytes(other)
    return bool(one == other)


def picture(mode: str = "RGB", size: tuple[int, int] = (70, 90)) -> Any:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    made = Image.fromarray(pixels)
    return made.convert("P").convert("PA") if mode == "PA" else made.convert(mode)


LARGE_VALUES: dict[str, Callable[[], Any]] = {
    "tensor": lambda: torch.randn(200, 1176),
    "bfloat16": lambda: torch.randn(100, 100).to(torch.bfloat16),
    "float8": lambda: torch.randn(100, 100).to(torch.float8_e4m3fn),
    "bool": lambda: torch.rand(10_000) > 0.5,
    "not contiguous": lambda: torch.randn(100, 200).t(),
    "grad": lambda: torch.randn(5000, requires_grad=True),
    "parameter": lambda: torch.nn.Parameter(torch.randn(5000)),
    "conj": lambda: torch.randn(3000, dtype=torch.complex64).conj(),
    "neg": lambda: torch.randn(3000, dtype=torch.complex64).conj().imag,
    "nested": lambda: torch.nested.as_nested_tensor(
        [torch.randn(5000), torch.randn(7000)], layout=torch.jagged
    ),
    "array": lambda: np.arange(30_000.0).reshape(3, -1),
    "fortran": lambda: np.asfortranarray(np.arange(30_000).reshape(3, -1)),
    "big-endian": lambda: np.arange(5000, dtype=">i4"),
    "datetimes": lambda: np.arange(5000).astype("datetime64[s]"),
    "bytes": lambda: b"b" * 40_000,
    "bytearray": lambda: bytearray(b"c" * 40_000),
    "memoryview": lambda: memoryview(b"d" * 40_000),
    "text": lambda: "e" * 40_000,
    "text that is not ASCII": lambda: "é😀" * 20_000,
    "surrogates": lambda: "\ud800" * 20_000,
    "image": picture,
    "object": Holder,
    "structured": lambda: np.zeros(5000, dtype=[("a", "i4"), ("b", "f8")]),
}
