"""Storing one sample: its values, without a batch dimension, become columns of one row."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgumentError
from .dtypes import have_torch, torch_dtypes
from .tensors import Batch, Rows, add_column, dense_column, is_array, is_plain, is_tensor, slice_of

if TYPE_CHECKING:
    from .encoding import Encoder


def row_batch(fields: Mapping[str, Any], encoder: Encoder) -> Batch:
    """Columns of one sample: tensors have no batch dimension; other values are kept as they are."""
    torch = sys.modules.get("torch")
    tensors: Any = torch.Tensor if torch is not None else None
    batch = Batch(1, [], [])
    for name, value in fields.items():
        if not isinstance(name, str):
            raise InvalidArgumentError(f"a field's name must be a str, got {name!r}")
        if type(value) is tensors and is_plain(value):
            dtype = torch_dtypes().get(value.dtype)
            if dtype is not None:
                batch.keep.append(value)
                batch.columns.append(
                    dense_column(name, dtype, 1, tuple(value.shape), [slice_of(value)])
                )
                continue
        row = _one_row(name, value)
        try:
            add_column(batch, name, row, encoder, True)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"field {name!r}: {error}") from None
    return batch


def one_row(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The values of one sample as columns of one row."""
    return {name: _one_row(name, value) for name, value in fields.items()}


def _one_row(name: str, value: Any) -> Any:
    if is_tensor(value):
        if value.is_nested:
            raise InvalidArgumentError(
                f"field {name!r}: a nested tensor has several rows; use kv_batch_put"
            )
        return value.unsqueeze(0)
    if is_array(value):
        # Without torch, arrays take the place of tensors; with torch they are values.
        return Rows([value]) if have_torch() else value[None]
    return Rows([value])
