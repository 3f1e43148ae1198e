"""Jagged nested tensors: which dim is ragged, and how they are made of values that lie end to end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

RAGGED_MANY = 255
"""Ragged dim of a field whose rows differ in several dims."""


class RowOffsets(NamedTuple):
    """Where the rows of a jagged column begin and end, in the form that torch keeps.

    Nested tensors that have it in common have one ragged size, so torch computes with them together.
    """

    offsets: Any
    least: Any
    """Length of the shortest row: the size of the first dim of a tensor without elements."""
    most: Any
    """Length of the longest row, likewise."""


def row_offsets(offsets: bytes, least: int, most: int) -> RowOffsets:
    """Offsets given as 64-bit integers, with the lengths of the shortest and the longest row."""
    import torch

    return RowOffsets(
        torch.frombuffer(bytearray(offsets), dtype=torch.int64),
        torch.zeros(least, 0, device="cpu"),
        torch.zeros(most, 0, device="cpu"),
    )


def offsets_of_lengths(lengths: Sequence[int], device: Any = "cpu") -> RowOffsets:
    """Offsets of rows of those lengths."""
    import torch

    return RowOffsets(
        torch.tensor([0, *accumulate(lengths)], dtype=torch.int64, device=device),
        torch.zeros(min(lengths), 0, device="cpu"),
        torch.zeros(max(lengths), 0, device="cpu"),
    )


def jagged(values: Any, rows: RowOffsets, ragged: int = 1) -> Any:
    """A jagged nested tensor of values that lie end to end along the dim `ragged`, counted with that of the rows.

    torch's own function makes it a view of `values` for autograd, at four times the cost of all the rest of a small
    read; what was just read has no history, so it is made as torch makes one that it unpickles.  The shortest and the
    longest length go with it: where torch does not know them it pads to the sum of all lengths.
    """
    return _jagged_maker()(values, rows, ragged)


@functools.cache
def _jagged_maker() -> Callable[[Any, RowOffsets, int], Any]:
    try:
        from torch.nested._internal.nested_tensor import NestedTensor
    except ImportError:  # a torch that keeps it elsewhere
        return jagged_by_torch
    return lambda values, rows, ragged: NestedTensor(
        values=values,
        offsets=rows.offsets,
        _ragged_idx=ragged,
        _metadata_cache={"min_seqlen": rows.least, "max_seqlen": rows.most},
    )


def jagged_by_torch(values: Any, rows: RowOffsets, ragged: int) -> Any:
    """What `jagged` makes, by torch's public function."""
    import torch

    return torch.nested.nested_tensor_from_jagged(
        values,
        rows.offsets,
        jagged_dim=ragged,
        min_seqlen=len(rows.least),
        max_seqlen=len(rows.most),
    )


def side_by_side(rows: Sequence[Any], ragged_dim: int) -> Any:
    """A jagged nested tensor that is ragged in that dim of the batch, at the cost of one copy.

    None when the rows lack that dim, or differ in another one.
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
    """The rows of a nested tensor; torch's own function takes no jagged one whose first offset is not 0."""
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
    """The dim of the batch that a nested tensor names as its ragged one; 0: none, or just the first of its rows.

    torch names the first also where the rows that it was given agreed in all dims.
    """
    import torch

    named = int(tensor._ragged_idx) if tensor.layout == torch.jagged else 0
    return named if named > 1 else 0
