"""Columns to and from a tensor transport: each is one flat tensor, on the device where its values are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..._impl.dtypes import torch_dtypes
from ..._impl.encoding import Decoder, Encoder
from ..._impl.ragged import ragged_dim_of
from ..._impl.tensors import is_plain_array, is_tensordict, row_list
from ..._impl.words import counted
from ...errors import InvalidArgumentError, RowCountError

if TYPE_CHECKING:
    from ..._impl.tensors import Fields

Shape = tuple[int, ...]


class Flat(NamedTuple):
    """A column: its elements end to end, or encoded values."""

    bytes: Any
    """A byte tensor with no other owner; for encoded values an array of bytes."""
    meta: dict[str, Any]
    """dtype, device and shape (or shapes) of tensors; else the sizes of the encoded values."""
    sizes: list[int]
    """Bytes of each row."""

    def schema(self) -> dict[str, Any]:
        """The column's schema for the controller."""
        if "sizes" in self.meta:
            return {"dtype": None, "shape": None, "is_nested": False, "is_non_tensor": True}
        shapes = self.meta.get("shapes")
        known = {
            "dtype": self.meta["dtype"],
            "shape": self.meta.get("shape"),
            "is_nested": shapes is not None,
            "is_non_tensor": False,
        }
        if "ragged_dim" in self.meta:
            known["ragged_dim"] = self.meta["ragged_dim"]
        return known if shapes is None else {**known, "per_sample_shapes": shapes}


def flat_columns(fields: Fields, rows: int, encoder: Encoder) -> Iterator[tuple[str, Flat]]:
    """The columns of a batch, copied, so that later changes to the caller's tensors have no effect."""
    arrays = not is_tensordict(fields)
    for name, column in fields.items():
        if not isinstance(name, str):
            raise InvalidArgumentError(f"a field's name must be a str, got {name!r}")
        flat = _tensors(name, column, rows, arrays)
        if flat is None:
            items = row_list(name, column, rows)
            encoded, ends = encoder.encode_column(name, items)
            sizes = [int(size) for size in ends]
            flat = Flat(np.frombuffer(memoryview(encoded), np.uint8), {"sizes": sizes}, sizes)
        if len(flat.sizes) != rows:
            raise RowCountError(
                f"field {name!r}: expected {counted(rows, 'row')}, got {len(flat.sizes)}"
            )
        yield name, flat


def _tensors(name: str, column: Any, rows: int, arrays: bool) -> Flat | None:
    """A column of tensors; None for other values."""
    import torch

    if arrays and is_plain_array(column):
        column = _of_array(column)
    if isinstance(column, torch.Tensor) and not column.is_nested:
        if column.layout != torch.strided or column.dtype not in torch_dtypes():
            return None
        if column.ndim == 0:
            raise RowCountError(f"field {name!r}: a value without dims has no rows")
        shape = tuple(column.shape[1:])
        return _flat([column], [shape] * column.shape[0], shape)
    if isinstance(column, torch.Tensor):
        items = list(column.unbind())
        if column.layout == torch.jagged and column.lengths() is None and column._ragged_idx == 1:
            offsets = column.offsets()
            whole = column.values()[int(offsets[0]) : int(offsets[-1])]
            return _flat([whole], [tuple(row.shape) for row in items])
    else:
        items = row_list(name, column, rows)
        if arrays and items and all(map(is_plain_array, items)):
            items = [_of_array(item) for item in items]
    if not items or not all(isinstance(item, torch.Tensor) for item in items):
        return None
    dim = ragged_dim_of(column) if isinstance(column, torch.Tensor) else 0
    kinds = {(item.dtype, item.layout, item.is_nested, item.device) for item in items}
    dtype, layout, is_nested, _ = next(iter(kinds))
    if len(kinds) > 1 or layout != torch.strided or is_nested or dtype not in torch_dtypes():
        return None
    made = _flat(items, [tuple(item.shape) for item in items])
    return made._replace(meta={**made.meta, "ragged_dim": dim}) if dim else made


def _of_array(array: Any) -> Any:
    """The array as a tensor if torch has its dtype; otherwise unchanged."""
    import torch

    try:
        return torch.from_numpy(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))
    except TypeError:
        return array


def _flat(tensors: Sequence[Any], shapes: list[Shape], shape: Shape | None = None) -> Flat:
    import torch

    first = tensors[0]
    if first.device.type == "cuda":
        torch.cuda.synchronize(first.device)  # the values may come from any stream
    with torch.no_grad():
        parts = [_plain(tensor).reshape(-1) for tensor in tensors]
        flat = torch.cat(parts) if len(parts) > 1 else parts[0].clone()
    meta: dict[str, Any] = {"dtype": first.dtype, "device": first.device.type}
    if shape is None and shapes and all(each == shapes[0] for each in shapes):
        shape = shapes[0]
    if shape is None:
        meta["shapes"] = shapes
    else:
        meta["shape"] = shape
    size = first.element_size()
    return Flat(flat.view(torch.uint8), meta, [math.prod(each) * size for each in shapes])


def _plain(tensor: Any) -> Any:
    tensor = tensor.detach()
    return tensor.resolve_conj().resolve_neg() if tensor.is_conj() or tensor.is_neg() else tensor


def rows_of_group(
    data: Any, meta: Mapping[str, Any], start: int, rows: Sequence[int], decoder: Decoder
) -> list[Any]:
    """Some rows of a group whose first row is `start`; `data` is the fetched group."""
    if "sizes" in meta:
        sizes = meta["sizes"]
        view = memoryview(b"" if data is None else data)
        ends = [0, *itertools.accumulate(sizes[start : max(rows) + 1])]
        return [decoder.decode(view[ends[row - start] : ends[row - start + 1]]) for row in rows]
    return _tensor_rows(data, meta, start, rows)


def _tensor_rows(data: Any, meta: Mapping[str, Any], start: int, rows: Sequence[int]) -> list[Any]:
    import torch

    shapes: Any = meta.get("shapes")
    shape: Any = meta.get("shape")
    if data is None:
        empty = torch.empty(0, dtype=meta["dtype"])
        return [empty.reshape(shape if shapes is None else shapes[row]) for row in rows]
    flat = data.view(meta["dtype"])
    if shapes is None:
        whole = flat.view(-1, *shape)
        return [whole[row - start] for row in rows]
    ends = [0, *itertools.accumulate(math.prod(each) for each in shapes[start : max(rows) + 1])]
    return [flat[ends[row - start] : ends[row - start + 1]].view(shapes[row]) for row in rows]
