"""Layouts of rows that need a copy: for rows that are not contiguous; and the fields that padding adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InvalidArgumentError
from .dtypes import have_torch
from .ragged import RAGGED_MANY
from .read_options import Padding, ReadOptions
from .tensors import is_tensordict, pack_rows, tensordict_of


def padded_length(longest: int, padding: Padding) -> int:
    """The padded length for rows of at most this length."""
    length: int = max(longest, padding.length)
    return -(-length // padding.multiple) * padding.multiple


def added_fields(
    field: str, padding: Padding, lengths: Any, value: Any
) -> Iterator[tuple[str, Any]]:
    """The fields that padding adds."""
    import numpy as np

    if padding.lengths is None and padding.mask is None:
        return
    if lengths is None:
        raise InvalidArgumentError(
            f"padding of field {field!r}: its rows have no dims, and so no lengths and no mask"
        )
    mask = np.arange(value.shape[1]) < lengths[:, None]
    for name, column in ((padding.lengths, lengths), (padding.mask, mask)):
        if name is not None:
            yield name, _as_tensor(column)


def _as_tensor(values: Any) -> Any:
    if not have_torch():
        return values
    import torch

    return torch.from_numpy(values)


def merged_dim(one: int, other: int) -> int:
    """Combine two pieces of knowledge about the ragged dim."""
    return one or other if not one or not other or one == other else RAGGED_MANY


def with_ragged_dims(fields: Any, dims: Mapping[str, int]) -> Any:
    """A TensorDict whose nested columns are ragged in the dim of their fields; other columns stay as they are."""
    for name, dim in dims.items():
        column = fields.get(name)
        if dim <= 1 or not getattr(column, "is_nested", False):
            continue
        import torch

        is_jagged = column.layout == torch.jagged
        if is_jagged == (dim == RAGGED_MANY) or (is_jagged and column._ragged_idx != dim):
            fields[name] = pack_rows(list(column.unbind()), dim)
    return fields


def lay_out(fields: Any, options: ReadOptions | None) -> Any:
    """A TensorDict (or dict) with its columns in the requested layouts."""
    if options is None:
        return fields
    names = list(fields.keys())
    options.added(names)
    columns: dict[str, Any] = {}
    for name in names:
        column = fields.get(name)
        rows = (
            list(column.unbind())
            if hasattr(column, "unbind") and not is_tensordict(column)
            else None
        )
        columns.update([(name, column)] if rows is None else lay_out_rows(name, rows, options))
    return tensordict_of(columns, fields.batch_size) if is_tensordict(fields) else columns


def lay_out_rows(
    name: str, rows: list[Any], options: ReadOptions | None, ragged_dim: int = 0
) -> Iterator[tuple[str, Any]]:
    """Rows of any kind as a column, with the fields that padding adds."""
    layout = "jagged" if options is None else options.layout(name)
    tensors = bool(rows) and all(_is_row(row) and row.dtype == rows[0].dtype for row in rows)
    if options is None or layout == "jagged" or not tensors:
        yield name, pack_rows(rows, ragged_dim)
    elif layout == "dense":
        same = all(row.shape == rows[0].shape for row in rows)
        yield name, _pinned_copy(_stack(rows) if same else pack_rows(rows, ragged_dim), options)
    else:
        padding = options.padding(name)
        value, lengths = pad_rows(name, rows, padding)
        yield name, _pinned_copy(value, options)
        yield from added_fields(name, padding, lengths, value)


def _is_row(row: Any) -> bool:
    """Whether a row is a plain tensor, or, without torch, an array."""
    if not have_torch():
        import numpy as np

        return isinstance(row, np.ndarray)
    import torch

    return isinstance(row, torch.Tensor) and not row.is_nested


def _stack(rows: list[Any]) -> Any:
    if not have_torch():
        import numpy as np

        return np.stack(rows)
    import torch

    return torch.stack(rows)


def pad_rows(field: str, rows: list[Any], padding: Padding) -> tuple[Any, Any]:
    """Rows padded in all of their dims, and their lengths (None if they have no dims)."""
    import numpy as np

    depths = {row.ndim for row in rows}
    if len(depths) != 1:
        raise InvalidArgumentError(
            f"field {field!r}: rows of {' and '.join(map(str, sorted(depths)))} dims cannot be padded together: read it "
            "with layout jagged, or these samples by themselves"
        )
    if depths == {0}:
        return _stack(rows), None
    sizes = np.array([tuple(row.shape) for row in rows], dtype=np.int64)
    shape = sizes.max(axis=0).tolist()
    shape[0] = padded_length(shape[0], padding)
    made = _full(field, rows[0], [len(rows), *shape], padding.value)
    for place, row in enumerate(rows):
        place_of_row: Any = (place, *map(slice, row.shape))
        made[place_of_row] = row
    return made, sizes[:, 0].copy()


def _full(field: str, like: Any, shape: list[int], value: Any) -> Any:
    """A tensor or array like another, filled with a value."""
    try:
        if have_torch():
            return like.new_full(shape, value)
        import numpy as np

        return np.full(shape, value, dtype=like.dtype)
    except (RuntimeError, OverflowError, TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"field {field!r} cannot be padded with {value!r}: {error}"
        ) from None


def _pinned_copy(column: Any, options: ReadOptions) -> Any:
    return column.pin_memory() if options.pin_memory else column
