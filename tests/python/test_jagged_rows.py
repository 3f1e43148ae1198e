"""Offsets and lengths of jagged columns, and the nested tensors built from them."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from transferq import _core
from transferq._impl.ragged import (
    RowOffsets,
    jagged,
    jagged_by_torch,
    offsets_of_lengths,
    row_offsets,
)

torch = pytest.importorskip("torch")


def described(*shapes: tuple[int, ...], ragged: int = 0) -> Any:
    depths = array("I", map(len, shapes))
    dims = array("Q", [dim for shape in shapes for dim in shape])
    found = _core.jagged_rows(depths, dims, ragged)
    return found and (array("q", found[0]).tolist(), *found[1:])


@pytest.mark.parametrize(
    ("shapes", "ragged", "expected"),
    [
        ([(3,), (5,), (2,)], 0, ([0, 3, 8, 10], 2, 5, (10,))),
        ([(3, 4), (0, 4)], 0, ([0, 3, 3], 0, 3, (3, 4))),
        ([(4, 3), (4, 1), (4, 2)], 1, ([0, 3, 4, 6], 1, 3, (4, 6))),
        ([(4, 3, 2)], 1, ([0, 3], 3, 3, (4, 3, 2))),
        ([(0, 0)], 0, ([0, 0], 0, 0, (0, 0))),
        ([((1 << 62), 0), (1 << 61, 0)], 0, ([0, 1 << 62, 3 << 61], 1 << 61, 1 << 62, (3 << 61, 0))),
    ],
)  # fmt: skip
def test_rows_that_differ_in_one_dim(shapes: Any, ragged: int, expected: Any) -> None:
    assert described(*shapes, ragged=ragged) == expected


@pytest.mark.parametrize(
    ("shapes", "ragged"),
    [
        ([], 0),
        ([()], 0),
        ([(), ()], 0),
        ([(2, 3), (2,)], 0),
        ([(3, 4), (5, 6)], 0),
        ([(3, 4), (5, 4)], 1),
        ([(3, 4)], 2),
        ([(3, 4)], -1),
        ([(1 << 62, 0), (1 << 62, 0)], 0),  # the sum exceeds a 64-bit integer
        ([((1 << 64) - 1, 0), (1, 0)], 0),
    ],
)
def test_rows_that_torch_cannot_lay_out_so(shapes: Any, ragged: int) -> None:
    assert described(*shapes, ragged=ragged) is None


def test_sizes_that_contradict_are_refused() -> None:
    with pytest.raises(ValueError, match="the number of dims does not match the rows"):
        _core.jagged_rows(array("I", [2]), array("Q", [3]), 0)
    with pytest.raises(TypeError):
        _core.jagged_rows([1], array("Q", [3]), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("ragged", [1, 2])
def test_torchs_public_function_makes_the_same(ragged: int) -> None:
    values = torch.arange(24.0).view((6, 4) if ragged == 1 else (4, 6))
    rows = offsets_of_lengths([3, 1, 2])
    mine, public = jagged(values, rows, ragged), jagged_by_torch(values, rows, ragged)
    assert mine.shape == public.shape
    assert mine.shape[ragged] == public.shape[ragged]
    assert mine._ragged_idx == public._ragged_idx == ragged
    assert (mine._maybe_min_seqlen, mine._maybe_max_seqlen) == (1, 3)
    assert (public._maybe_min_seqlen, public._maybe_max_seqlen) == (1, 3)
    padded = [torch.nested.to_padded_tensor(tensor, -1) for tensor in (mine, public)]
    assert torch.equal(*padded)


def test_offsets_from_bytes_and_from_lengths_are_the_same() -> None:
    one: RowOffsets = row_offsets(array("q", [0, 3, 3, 7]).tobytes(), 0, 4)
    other = offsets_of_lengths([3, 0, 4])
    assert torch.equal(one.offsets, other.offsets)
    assert one.offsets.dtype == other.offsets.dtype == torch.int64
    assert (
        (one.least.shape, one.most.shape)
        == (other.least.shape, other.most.shape)
        == ((0, 0), (4, 0))
    )
