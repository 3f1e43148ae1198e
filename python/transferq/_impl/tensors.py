"""Writing tensors: turns the user's data into columns (for the opposite direction see `reading`).

No bytes are copied here: a column refers to the memory of the caller's tensors.  Tensors on a GPU are
copied to the host once, into page-locked memory that torch caches.
"""

from __future__ import annotations

import functools
import sys
from array import array
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from .._core import TENSOR, VALUE
from ..errors import InvalidArgumentError, RowCountError
from .column import Column
from .dtypes import (
    UINT,
    Dtype,
    have_torch,
    numpy_dtype,
    numpy_dtype_back,
    packed_type,
    torch_dtypes,
    torch_dtypes_back,
    unpacked_type,
)
from .encoding import Encoder
from .ragged import RAGGED_MANY, ragged_dim_of, side_by_side
from .stacks import stack_of_objects, stacked_values
from .words import counted

if TYPE_CHECKING:
    from tensordict import TensorDict

    from .torch_types import Tensor

    Fields: TypeAlias = TensorDict | Mapping[str, Any]


class Batch(NamedTuple):
    """Columns of one put, with the objects that own their memory."""

    rows: int
    columns: list[Column]
    keep: list[Any]


class Rows(list[Any]):
    """Rows of a column that are values, even if they are arrays."""


# --- in -------------------------------------------------------------------------------------------


def is_tensor(value: Any) -> bool:
    """Whether it is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_tensor_type(kind: type) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and issubclass(kind, torch.Tensor)


def is_array(value: Any) -> bool:
    """Whether it is a NumPy array."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def is_plain_array(value: Any) -> bool:
    """Whether it is an array with nothing but elements: the mask of a masked array would be lost."""
    return is_array(value) and not isinstance(value, sys.modules["numpy"].ma.MaskedArray)


def is_tensordict(value: Any) -> bool:
    """Whether it is a TensorDict (of any class)."""
    if type(value) is dict or sys.modules.get("tensordict") is None:
        return False
    return isinstance(value, _tensordict_base())


@functools.cache
def _tensordict_base() -> type[Any]:
    from tensordict import TensorDictBase

    base: type[Any] = TensorDictBase
    return base


def row_count(fields: Fields) -> int:
    """Number of rows of a batch; RowCountError names a column without rows."""
    if is_tensordict(fields):
        size: Any = fields.batch_size  # type: ignore[union-attr]
        if len(size) == 0:
            raise RowCountError("the TensorDict has no batch dimension; expected batch_size [rows]")
        return int(size[0])
    for name, column in fields.items():
        return _rows_of(name, column)
    return 0


def _rows_of(name: str, column: Any) -> int:
    if is_tensor(column) and column.is_nested:
        return int(column.size(0))
    if is_tensor(column) or is_array(column):
        if column.ndim == 0:
            raise RowCountError(
                f"field {name!r}: a value without dims has no rows; expected one row per sample"
            )
        return int(column.shape[0])
    if isinstance(column, (str, bytes, Mapping)) or not hasattr(column, "__len__"):
        if is_tensordict(column):
            return int(column.batch_size[0])
        raise RowCountError(
            f"field {name!r}: expected one row per sample, got {type(column).__name__}"
        )
    return len(column)


def to_batch(fields: Fields, encoder: Encoder) -> Batch:
    """Columns of a TensorDict, or of a mapping from names to tensors, arrays or lists of rows."""
    rows = row_count(fields)
    # In a mapping, arrays are tensors; in the rows of a TensorDict they are values.
    arrays = not is_tensordict(fields)
    batch = Batch(rows, [], [])
    for name, column in fields.items():
        if not isinstance(name, str):
            raise InvalidArgumentError(f"a field's name must be a str, got {name!r}")
        try:
            add_column(batch, name, column, encoder, arrays)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"field {name!r}: {error}") from None
    return batch


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is of torch's own class, on the CPU, with contiguous elements that need no conversion."""
    import torch

    return bool(
        tensor.is_cpu
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and not tensor.is_conj()
    )


def add_column(batch: Batch, name: str, column: Any, encoder: Encoder, arrays: bool) -> None:
    """Add a column to a batch; `arrays`: whether arrays are tensors rather than values."""
    if is_tensor(column) and _torch_ok(column):
        given = _rows_of(name, column)
        made = _jagged_column(name, column, batch.keep) if column.is_nested else None
        if made is None and column.is_nested:
            made = _torch_rows(name, list(column.unbind()), batch.keep)
            made = _named_ragged(made, ragged_dim_of(column))
        elif made is None:
            tensor = _ready(column, batch.keep)
            shape = tuple(tensor.shape[1:])
            made = dense_column(
                name, torch_dtypes()[tensor.dtype], given, shape, [slice_of(tensor)]
            )
    elif arrays and is_plain_array(column) and numpy_dtype(column.dtype) is not None:
        given = _rows_of(name, column)
        contiguous = _contiguous(column, batch.keep)
        dtype = numpy_dtype(column.dtype)
        assert dtype is not None
        made = dense_column(name, dtype, given, tuple(column.shape[1:]), [contiguous])
    else:
        items = row_list(name, column, batch.rows)
        given = len(items)
        made = None
        if items and all(_is_tensor_type(kind) for kind in set(map(type, items))):
            made = _torch_rows(name, items, batch.keep)
        elif arrays and items and not isinstance(column, Rows) and all(map(is_plain_array, items)):
            made = _array_rows(name, items, batch.keep)
        if made is None:
            made = _mixed_rows(name, items, batch.keep, encoder)
        if made is None:
            slices, sizes = encoder.encode_slices(name, items, batch.keep)
            made = Column(name, VALUE, UINT, 8, given, None, None, sizes, slices)
    if given != batch.rows:
        raise RowCountError(f"field {name!r}: expected {counted(batch.rows, 'row')}, got {given}")
    assert made is not None
    batch.columns.append(made)


def _named_ragged(column: Column | None, dim: int) -> Column | None:
    return column if column is None or dim == 0 else column._replace(ragged_dim=dim)


def row_list(name: str, column: Any, rows: int) -> list[Any]:
    """The rows of a non-tensor column."""
    if sys.modules.get("tensordict") is not None:
        from tensordict import NonTensorData, NonTensorStack, TensorDictBase

        if isinstance(column, NonTensorStack):
            return stacked_values(column)
        if isinstance(column, NonTensorData):
            # As in TransferQueue: a value with as many items as there are rows has one for each row.
            data = column.data
            if is_array(data) and data.ndim and data.shape[0] == rows:
                return list(data)
            return list(data) if type(data) is list and len(data) == rows else [data] * rows
        if isinstance(column, TensorDictBase):
            return [column[row] for row in range(int(column.batch_size[0]))]
    _rows_of(name, column)
    return _unbound(column) if is_tensor(column) else list(column)


def _unbound(tensor: Tensor) -> list[Tensor]:
    """The rows of a tensor, as data: detached from autograd."""
    import torch

    tensor = tensor.detach()
    if tensor.layout == torch.jagged and tensor._ragged_idx == 1 and tensor.lengths() is None:
        # torch's own unbind requires the first offset to be 0.
        ends = tensor.offsets().tolist()
        return [tensor.values()[start:end] for start, end in pairwise(ends)]
    return list(tensor.unbind())


def _torch_ok(tensor: Tensor) -> bool:
    """Whether it is a tensor with rows of plain elements."""
    import torch

    return tensor.layout in (torch.strided, torch.jagged) and tensor.dtype in torch_dtypes()


def _ready(tensor: Tensor, keep: list[Any]) -> Tensor:
    """The tensor on the CPU and contiguous; kept alive by `keep`."""
    import torch

    if type(tensor) is torch.Tensor and is_plain(tensor):
        keep.append(tensor)
        return tensor
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        tensor = _to_host(tensor)
    tensor = tensor.resolve_conj().resolve_neg() if tensor.is_conj() or tensor.is_neg() else tensor
    tensor = tensor.contiguous()
    keep.append(tensor)
    return tensor


def _to_host(tensor: Tensor) -> Tensor:
    """A copy on the host; from a GPU in page-locked memory, which torch caches for later copies."""
    import torch

    if tensor.device.type == "meta":
        raise InvalidArgumentError("a tensor on the meta device has no data to store")
    if tensor.device.type != "cuda":
        return tensor.cpu()
    copy: Tensor = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    return copy.copy_(tensor)


def slice_of(tensor: Tensor) -> tuple[int, int]:
    """Address and size of a contiguous tensor's bytes."""
    return tensor.data_ptr(), tensor.numel() * tensor.element_size()


def _contiguous(values: Any, keep: list[Any]) -> Any:
    """The array in C order and native byte order, as one flat buffer; kept alive by `keep`."""
    import numpy as np

    values = np.asarray(values, dtype=values.dtype.newbyteorder("="), order="C")
    keep.append(values)
    return values.reshape(-1).view(np.uint8) if values.size else b""


def dense_column(
    name: str, dtype: Dtype, rows: int, shape: tuple[int, ...], slices: list[Any]
) -> Column:
    """A column whose rows have one shape."""
    # A call of the class costs three times as much, which a put of many small columns feels.
    return tuple.__new__(Column, (name, TENSOR, *dtype, rows, shape, None, None, slices, 0, None))


def _ragged(
    name: str, dtype: Dtype, shapes: Sequence[tuple[int, ...]], slices: list[Any]
) -> Column:
    if all(shape == shapes[0] for shape in shapes):
        return dense_column(name, dtype, len(shapes), tuple(shapes[0]), slices)
    ndims = array("I", map(len, shapes))
    dims = array("Q", [dim for shape in shapes for dim in shape])
    return Column(name, TENSOR, *dtype, len(shapes), None, ndims, dims, slices)


def _torch_rows(name: str, rows: list[Tensor], keep: list[Any]) -> Column | None:
    """A column of tensors, one per row; None if they differ in dtype, or do not have plain elements."""
    import torch

    kinds = {(row.dtype, row.layout, row.is_nested, row.is_cpu) for row in rows}
    dtype, layout, is_nested, is_cpu = next(iter(kinds))
    if len({kind[:3] for kind in kinds}) > 1 or layout != torch.strided or is_nested:
        return None
    if dtype not in torch_dtypes():
        return None
    shapes = [tuple(row.shape) for row in rows]
    ready = rows
    if len(kinds) > 1 or not (is_cpu and _all_plain(rows)):
        together = None if is_cpu else _together(rows, shapes)
        ready = [_ready(row, keep) for row in (rows if together is None else [together])]
    keep.extend(ready)
    sizes = [row.nbytes for row in ready]
    slices = list(zip(map(torch.Tensor.data_ptr, ready), sizes, strict=True))
    return _ragged(name, torch_dtypes()[dtype], shapes, slices)


def _mixed_rows(name: str, rows: list[Any], keep: list[Any], encoder: Encoder) -> Column | None:
    """A column of tensors of several dtypes, or of tensors and other values; None if no row is a tensor."""
    plain = [is_tensor(row) and not row.is_nested and _torch_ok(row) for row in rows]
    if not any(plain):
        return None
    types = array("I")
    ndims, dims = array("I"), array("Q")
    slices: list[Any] = []
    for row, is_row in zip(rows, plain, strict=True):
        if is_row:
            ready = _ready(row, keep)
            types.append(packed_type(torch_dtypes()[ready.dtype]))
            ndims.append(ready.ndim)
            dims.extend(ready.shape)
            slices.append(slice_of(ready))
        else:
            parts, sizes = encoder.encode_slices(name, [row], keep)
            types.append(packed_type(None))
            ndims.append(1)
            dims.append(sizes[0])
            slices.extend(parts)
    first = unpacked_type(types[0])
    kind, dtype = (VALUE, (UINT, 8)) if first is None else (TENSOR, first)
    return Column(name, kind, *dtype, len(rows), None, ndims, dims, slices, 0, types)


def _all_plain(rows: list[Tensor]) -> bool:
    """Whether all rows are on the CPU with elements that need no conversion."""
    from torch import Tensor

    return (
        all(map(Tensor.is_contiguous, rows))
        and not any(map(Tensor.is_neg, rows))
        and not (rows[0].is_complex() and any(map(Tensor.is_conj, rows)))
    )


def _together(rows: list[Tensor], shapes: Sequence[tuple[int, ...]]) -> Tensor | None:
    """Rows on a GPU joined into one tensor there, so that one copy brings them to the host; None for others."""
    import torch

    inner = shapes[0][1:]
    if any(len(shape) != len(shapes[0]) or shape[1:] != inner for shape in shapes):
        return None
    if len({row.device for row in rows}) > 1:
        return None
    try:
        with torch.no_grad():
            joined: Tensor = torch.cat(rows) if shapes[0] else torch.stack(rows)
            return joined
    except (RuntimeError, NotImplementedError):  # torch does not support this for some dtypes
        return None


def _array_rows(name: str, rows: list[Any], keep: list[Any]) -> Column | None:
    """A column of arrays, one per row; None if they differ in dtype or cannot be tensors."""
    dtype = numpy_dtype(rows[0].dtype)
    if dtype is None or any(numpy_dtype(row.dtype) != dtype for row in rows):
        return None
    slices = [_contiguous(row, keep) for row in rows]
    return _ragged(name, dtype, [tuple(row.shape) for row in rows], slices)


def _jagged_column(name: str, tensor: Tensor, keep: list[Any]) -> Column | None:
    """A column over a jagged nested tensor whose rows are end to end, without splitting it; otherwise None."""
    import numpy as np
    import torch

    if tensor.layout != torch.jagged or tensor.lengths() is not None or tensor._ragged_idx != 1:
        return None
    values, offsets = tensor.values().detach(), tensor.offsets().cpu()
    first, last = int(offsets[0]), int(offsets[-1])
    ready = _ready(values[first:last], keep)
    lengths = (offsets[1:] - offsets[:-1]).numpy()
    dtype, rows, inner = torch_dtypes()[tensor.dtype], len(lengths), tuple(ready.shape[1:])
    if rows == 0 or (lengths == lengths[0]).all():
        shape = (int(lengths[0]) if rows else 0, *inner)
        return dense_column(name, dtype, rows, shape, [slice_of(ready)])
    dims: Any = np.empty((rows, 1 + len(inner)), dtype=np.uint64)
    dims[:, 0] = lengths
    dims[:, 1:] = inner
    ndims: Any = np.full(rows, 1 + len(inner), dtype=np.uint32)
    return Column(name, TENSOR, *dtype, rows, None, ndims, dims.reshape(-1), [slice_of(ready)])


# --- out ------------------------------------------------------------------------------------------


def empty() -> Any:
    """The result of reading nothing."""
    return tensordict_of({}, [0]) if have_torch() else {}


def tensordict_of(fields: Mapping[str, Any], batch_size: Sequence[int]) -> Any:
    """A TensorDict with these columns."""
    from tensordict import TensorDict

    return TensorDict(dict(fields), batch_size=list(batch_size))


def tensordict_of_tensors(fields: dict[str, Any], rows: int) -> Any:
    """A TensorDict of columns that are known to be tensors, jagged or not, with `rows` rows.

    If a column is jagged, the checks of its constructor would cost more than the rest of a small read.
    """
    from tensordict import TensorDict

    unchecked = getattr(TensorDict, "_new_unsafe", None)
    if unchecked is None:  # this tensordict no longer has it
        return tensordict_of(fields, [rows])
    import torch

    return unchecked(fields, batch_size=torch.Size([rows]))


def pack_rows(rows: list[Any], ragged_dim: int = 0) -> Any:
    """Rows of any kind as one column, in the most regular form that they allow.

    `ragged_dim` is the known ragged dim of their field; 0: it is the dim in which these rows differ.
    """
    if not have_torch():
        return rows
    import torch
    from tensordict import NonTensorStack

    if not all(isinstance(row, torch.Tensor) for row in rows):
        return stack_of_objects(rows)
    if any(row.is_nested for row in rows):
        return NonTensorStack(*rows)
    layouts: tuple[Any, ...] = (torch.jagged, torch.strided)
    if any(row.dtype != rows[0].dtype for row in rows):
        filled = [row for row in rows if row.numel()]
        if not filled or any(row.dtype != filled[0].dtype for row in filled):
            return NonTensorStack(*rows)
        # A tensor without elements says nothing about the dtype of its field.
        rows = [row.to(filled[0].dtype) for row in rows]
    if all(row.ndim == 0 for row in rows):
        return torch.stack(rows)
    if ragged_dim > 1:
        if ragged_dim == RAGGED_MANY:
            layouts = (torch.strided,)
        else:
            made = side_by_side(rows, ragged_dim)
            if made is not None:
                return made
    for layout in layouts:
        try:
            return torch.nested.as_nested_tensor(rows, layout=layout)
        except (RuntimeError, TypeError):  # these rows cannot have this layout
            continue
    return NonTensorStack(*rows)


def stack_of_rows(rows: list[Any]) -> Any:
    """Rows that differ in dtype or kind, as a stack of the rows as they are."""
    if not have_torch():
        return rows
    if all(is_tensor(row) for row in rows):
        from tensordict import NonTensorStack

        return NonTensorStack(*rows)
    return stack_of_objects(rows)


def tensor_over(memory: memoryview, dtype: Dtype, shape: Sequence[int]) -> Tensor:
    """A tensor with this shape over memory of the library."""
    import torch

    of_torch = torch_dtypes_back()[dtype]
    if len(memory) == 0:
        # Reads are on the CPU, whatever the user's default device.
        made: Tensor = torch.empty(tuple(shape), dtype=of_torch, device="cpu")
        return made
    return shaped(torch.frombuffer(memory, dtype=of_torch), shape)


def shaped(flat: Tensor, shape: Sequence[int]) -> Tensor:
    """Reshape a flat tensor to one that is not a view, so that torch lets users modify it in place."""
    return flat if len(shape) == 1 else flat.view(tuple(shape)).detach()


def array_over(memory: memoryview, dtype: Dtype, shape: Sequence[int]) -> Any:
    """An array with this shape over memory of the library."""
    import numpy as np

    return np.frombuffer(memory, dtype=numpy_dtype_back(dtype)).reshape(shape)


def tensor_memory(tensor: Tensor) -> tuple[list[Any], tuple[int, int], Tensor] | None:
    """A tensor inside a value: its dtype and shape, its memory, and the owner; None if it is not a plain tensor."""
    import torch

    dtype = torch_dtypes().get(tensor.dtype)
    if dtype is None or tensor.layout is not torch.strided:
        return None
    ready = _ready(tensor, [])
    return [*dtype, list(ready.shape)], slice_of(ready), ready


def tensor_from_bytes(dtype: Dtype, shape: Sequence[int], memory: Any) -> Any:
    """The tensor over its own memory; an array without torch."""
    return (tensor_over if have_torch() else array_over)(memory, dtype, shape)


def integers(memory: bytes, format: str) -> Any:
    """A one-dimensional result of integers: a tensor, or an array without torch."""
    import numpy as np

    values = np.frombuffer(memory, dtype=np.dtype(format))
    wide = values.astype(np.int64 if values.dtype.itemsize > 1 else np.int8)
    if not have_torch():
        return wide
    import torch

    return torch.from_numpy(wide)
