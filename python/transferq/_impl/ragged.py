"""Jagged nested tensors: which dim is ragged, and how to build them over values that are end to end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

RAGGED_MANY = 255
"""Ragged dim of a field whose rows differ in several dims."""


class RowOffsets(NamedTuple):
    """Where the rows of a jagged column begin and end, in torch's form.

    Nested tensors that share this object have the same ragged size, so torch can compute with them together.
    """

    offsets: Any
    least: Any
    """Length of the shortest row: the size of the first dim of a tensor without elements."""
    most: Any
    """Length of the longest row, used in the same way."""


def row_offsets(offsets: bytes, least: int, most: int) -> RowOffsets:
    """Offsets given as 64-bit integers, with the lengths of the shortest and the longest row."""
    import torch

    return RowOffsets(
        torch.frombuffer(bytearray(offsets), dtype=torch.int64),
        torch.zeros(least, 0, device="cpu"),
        torch.zeros(most, 0, device="cpu"),
    )


def offsets_of_lengths(lengths: Sequence[int], device: Any = "cpu") -> RowOffsets:
    """Offsets of rows with these lengths."""
    import torch

    return RowOffsets(
        torch.tensor([0, *accumulate(lengths)], dtype=torch.int64, device=device),
        torch.zeros(min(lengths), 0, device="cpu"),
        torch.zeros(max(lengths), 0, device="cpu"),
    )


def jagged(values: Any, rows: RowOffsets, ragged: int = 1) -> Any:
    """A jagged nested tensor over values that are end to end along the dim `ragged`, counting the batch dim.

    torch's own function makes it an autograd view of `values`, at four times the cost of the rest of a small read.
    Values that were just read have no history, so the tensor is built the way torch builds one when unpickling.  The
    shortest and the longest length are set too: without them torch pads to the sum of all lengths.
    """
    return _jagged_maker()(values, rows, ragged)


@functools.cache
def _jagged_maker() -> Callable[[Any, RowOffsets, int], Any]:
    try:
        from torch.nested._internal.nested_tensor import NestedTensor
    except ImportError:  # another torch version keeps it elsewhere
        return jagged_by_torch
    return lambda values, rows, ragged: NestedTensor(
        values=values,
        offsets=rows.offsets,
        _ragged_idx=ragged,
        _metadata_cache={"min_seqlen": rows.least, "max_seqlen": rows.most},
    )


def jagged_by_torch(values: Any, rows: RowOffsets, ragged: int) -> Any:
    """The same result as `jagged`, through torch's public function."""
    import torch

    return torch.nested.nested_tensor_from_jagged(
        values,
        rows.offsets,
        jagged_dim=ragged,
        min_seqlen=len(rows.least),
        max_seqlen=len(rows.most),
    )


def side_by_side(rows: Sequence[Any], ragged_dim: int) -> Any:
    """A jagged nested tensor that is ragged in the given dim of the batch, at the cost of one copy.

    None if the rows lack that dim, or differ in another one.
    """
    import torch

    axis, first = ragged_dim - 1, rows[0].shape
    if any(
        row.ndim != len(first)
        or row.ndim <= axis
        or row.shape[:axis] != first[:axis]
        or row.shape[axis + 1 :] != first[axis + 1 :]
        for row in rows
    ):
        return None
    values = rows[0] if len(rows) == 1 else torch.cat(list(rows), axis)
    return jagged(values, offsets_of_lengths([row.shape[axis] for row in rows]), ragged_dim)


def rows_of(tensor: Any) -> list[Any]:
    """The rows of a nested tensor; torch's own function rejects a jagged one whose first offset is not 0."""
    import torch

    if tensor.layout != torch.jagged:
        return list(tensor.unbind())
    offsets, lengths = tensor.offsets().tolist(), tensor.lengths()
    ends = offsets[1:]
    if lengths is not None:
        ends = [start + length for start, length in zip(offsets, lengths.tolist(), strict=False)]
    values, axis = tensor.values(), int(tensor._ragged_idx) - 1
    return [
        values.narrow(axis, start, end - start) for start, end in zip(offsets, ends, strict=False)
    ]


def without_rows(values: Any, ragged: int) -> Any:
    """A jagged nested tensor of no rows; `values` has no elements in that dim."""
    import torch

    none = torch.zeros(0, 0, device="cpu")
    return jagged(values, RowOffsets(torch.zeros(1, dtype=torch.int64), none, none), ragged)


def ragged_dim_of(tensor: Any) -> int:
    """The ragged dim of the batch, as stored in a nested tensor; 0 if there is none, or if it is the rows' first dim.

    torch names the first dim even if the rows had the same size in all dims.
    """
    import torch

    named = int(tensor._ragged_idx) if tensor.layout == torch.jagged else 0
    return named if named > 1 else 0
