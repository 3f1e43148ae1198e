"""Reads: turn what was read into tensors, in the layout that the reader wants.

With torch and tensordict installed a read returns a TensorDict, otherwise a dict.  Rows without dims become a
dense column, and values a NonTensorStack (a list without torch), whatever the layout.  Other tensors:

`jagged`: a nested tensor with jagged layout (if torch allows it, else a strided one, else a stack).
`dense`: a tensor if all rows have one shape, otherwise as jagged.
`padded`: a tensor with room for the longest row, with the gaps filled.

Without torch a column is an array if all rows have one shape (or are padded), and otherwise a list of
arrays; types that NumPy lacks (bfloat16, 8-bit floats) become unsigned integers with the same bits.

Long texts and bytes are built straight from memory shared by a storage unit; the read does not copy them first (`Left`).
If they have been removed from there meanwhile, the read is repeated, with a copy.

Nothing else is copied either: tensors use memory of the library, which is freed with the last tensor over
it, and rows are read straight into their padded place.  Only these cost a second copy: padding
rows that differ in more than their first dim, metadata of several partitions, and layouts of data that
came from a storage manager written in Python.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .._core import VALUE, Data, Left, Meta, jagged_rows
from ..errors import DtypeError, InvalidArgumentError, RowCountError
from .column import Layout
from .dtypes import Dtype, have_torch, numpy_dtype_back, torch_dtypes_back, unpacked_type
from .encoding import Decoder
from .layouts import added_fields, lay_out_rows, merged_dim, pad_rows, padded_length
from .ragged import RAGGED_MANY, RowOffsets, jagged, row_offsets
from .read_options import Padding, ReadOptions
from .tensors import (
    array_over,
    pack_rows,
    shaped,
    stack_of_rows,
    tensor_over,
    tensordict_of,
    tensordict_of_tensors,
)
from .work import ROWS, Work, are_heavy

if TYPE_CHECKING:
    from .._core import Client, DataColumn, MetaField
    from .calls import Steps


class _GoneError(Exception):
    """Values that a read left in the store are no longer there."""


# --- reading --------------------------------------------------------------------------------------


def read(
    core: Client,
    pieces: Sequence[Meta],
    names: Sequence[str],
    options: ReadOptions | None,
    decoder: Decoder,
    *,
    zero_copy: bool = False,
) -> Steps[Any]:
    """Read fields of samples, in the requested layouts."""
    if options is not None:
        options.added(names)
    if len(pieces) == 1 and options is not None:
        return (yield from _read_placed(core, pieces[0], names, options, decoder, zero_copy))
    if len(pieces) == 1:
        data: Data = yield core.get(pieces[0], names, zero_copy=zero_copy, leave_values=True)
        try:
            return (yield from _laid_out(data, decoder))
        except _GoneError:
            data = yield core.get(pieces[0], names, zero_copy=zero_copy)
        return (yield from _laid_out(data, decoder))
    # The parts are copied together below.
    started = [core.get(piece, names) for piece in pieces]
    parts: list[Data] = []
    for op in started:
        parts.append((yield op))
    rows = sum(map(len, parts))
    heavy = rows > ROWS or any(are_heavy(data.columns, rows) for data in parts)
    return (yield Work(heavy, _merge, parts, decoder, options))


def packed(
    core: Client,
    found: Meta,
    data: Data,
    options: ReadOptions | None,
    decoder: Decoder,
    *,
    zero_copy: bool = False,
) -> Steps[Any]:
    """The columns of a read without special options, in the order of the field names."""
    columns = sorted(data.columns)
    try:
        return (yield from _laid_out(data, decoder, options, columns=columns))
    except _GoneError:
        names = [column.name for column in columns]
        data = yield core.get(found, names, zero_copy=zero_copy)
    return (yield from _laid_out(data, decoder, options))


def _laid_out(
    data: Data,
    decoder: Decoder,
    options: ReadOptions | None = None,
    memory: Mapping[str, Any] | None = None,
    columns: Sequence[DataColumn] | None = None,
) -> Steps[Any]:
    """Turn what was read into the result of the call."""
    columns = data.columns if columns is None else columns
    rows = len(data)

    def make() -> Any:
        return _result(_columns(columns, rows, decoder, options, memory), rows)

    if are_heavy(columns, rows):
        return (yield Work(True, make))
    return make()


def _read_placed(
    core: Client,
    piece: Meta,
    names: Sequence[str],
    options: ReadOptions,
    decoder: Decoder,
    zero_copy: bool,
) -> Steps[Any]:
    """Read columns that the library lays out and places.

    Pad values and page-locked memory need dtypes and shapes.  Metadata may lack them (if it was made by hand), or they
    may be outdated (if samples were overwritten): then the controller is asked.
    """
    known = piece
    leave = True
    for last in (False, False, True):
        plan = _Plan.make(known, names, options)
        if plan is not None:
            try:
                data: Data = yield core.get(
                    piece,
                    names,
                    plan.layouts,
                    plan.memory or None,
                    zero_copy=zero_copy,
                    leave_values=leave,
                )
                return (yield from _laid_out(data, decoder, options, plan.memory))
            except _GoneError:
                leave = False
            except (RowCountError, DtypeError):
                if last or not plan.needs_schema:
                    raise
        known = yield core.resolve(
            piece.partition, indexes=piece.indexes, fields=names, lenient=True
        )
    data = yield core.get(piece, names)
    return (yield from _laid_out(data, decoder, options))


class _Plan(NamedTuple):
    """How the library should place the columns of a read."""

    layouts: list[Layout]
    memory: dict[str, Any]
    """Page-locked memory by field."""
    needs_schema: bool
    """Whether the plan depends on the dtypes and shapes in the metadata."""

    @classmethod
    def make(cls, meta: Meta, names: Sequence[str], options: ReadOptions) -> _Plan | None:
        """The plan; None if too little is known about the fields."""
        fields = {column.name: column for column in meta.fields}
        plan = cls([], {}, options.pin_memory)
        for name in names:
            padded = options.layout(name) == "padded"
            padding = options.padding(name) if padded else Padding()
            if not padded and not options.pin_memory:
                continue
            column = fields.get(name)
            if column is not None and _keeps_its_form(column):
                continue
            pad = b""
            code = bits = address = size = 0
            if padding.value != 0 or options.pin_memory:
                if column is None or not column.bits:
                    return None
                code, bits = column.code, column.bits
                pad = _element(name, padding.value, (code, bits)) if padding.value != 0 else b""
                plan = plan._replace(needs_schema=True)
            if options.pin_memory and column is not None:
                shapes = _shapes_of(column, len(meta))
                if shapes is None:
                    return None
                size = _bytes_of(shapes, bits // 8, padding if padded else None)
                plan.memory[name] = _pinned(size)
                address = plan.memory[name].data_ptr() if size else 0
            plan.layouts.append(
                Layout(
                    name, padded, padding.length, padding.multiple, code, bits, pad, address, size
                )
            )
        return plan


def _keeps_its_form(column: MetaField) -> bool:
    """Whether the rows of a field are known to be no tensors of one dtype, which are never padded."""
    return bool(column.bits) and (column.kind == VALUE or column.types is not None)


def _element(field: str, value: Any, dtype: Dtype) -> bytes:
    """One element of a dtype, as bytes."""
    try:
        if not have_torch():
            import numpy as np

            return np.array([value], dtype=numpy_dtype_back(dtype)).tobytes()
        import torch

        made = torch.tensor([value], dtype=torch_dtypes_back()[dtype], device="cpu")
        return bytes(made.view(torch.uint8).tolist())
    except (RuntimeError, OverflowError, TypeError, ValueError, KeyError) as error:
        raise InvalidArgumentError(
            f"field {field!r} cannot be padded with {value!r}: {error}"
        ) from None


def _shapes_of(column: MetaField, rows: int) -> Any:
    """Shapes of the rows as one array (rows x dims) or a list of tuples; None if they are unknown."""
    import numpy as np

    shape: Any = column.shape
    ndims: Any = column.ndims
    dims: Any = column.dims
    if shape is not None:
        return np.tile(np.array(shape, dtype=np.int64), (rows, 1))
    if ndims is None:
        return None
    depths = np.frombuffer(ndims, dtype=np.uint32)
    sizes = np.frombuffer(dims, dtype=np.uint64).astype(np.int64)
    if len(depths) and (depths == depths[0]).all():
        return sizes.reshape(rows, int(depths[0]))
    starts = np.concatenate(([0], np.cumsum(depths))).tolist()
    return [tuple(sizes[starts[row] : starts[row + 1]].tolist()) for row in range(rows)]


def _can_pad(shapes: Any) -> bool:
    """Whether the library can pad rows of these shapes: they differ only in their first dim, if at all."""
    return (
        not isinstance(shapes, list)
        and len(shapes) > 0
        and shapes.shape[1] > 0
        and bool((shapes[:, 1:] == shapes[0, 1:]).all())
    )


def _bytes_of(shapes: Any, itemsize: int, padding: Padding | None) -> int:
    """Size of a column in bytes."""
    import math

    if isinstance(shapes, list):
        return itemsize * sum(math.prod(shape) for shape in shapes)
    if padding is not None and _can_pad(shapes):
        length = padded_length(int(shapes[:, 0].max()), padding)
        return itemsize * len(shapes) * length * int(math.prod(shapes[0, 1:].tolist()))
    return itemsize * int(shapes.prod(axis=1).sum())


def _pinned(size: int) -> Any:
    """Page-locked memory; torch caches it, and reuses it only after copies from it to a GPU are done."""
    import torch

    return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)


# --- columns --------------------------------------------------------------------------------------


def _result(columns: Iterator[tuple[str, Any]], rows: int) -> Any:
    fields = dict(columns)
    if not have_torch():
        return fields
    import torch

    for column in fields.values():
        if not isinstance(column, torch.Tensor):
            return tensordict_of(fields, [rows])
    return tensordict_of_tensors(fields, rows)


def _columns(
    columns: Sequence[DataColumn],
    rows: int,
    decoder: Decoder,
    options: ReadOptions | None,
    memory: Mapping[str, Any] | None,
) -> Iterator[tuple[str, Any]]:
    """The columns that were read, by field, with the fields that padding adds."""
    offsets: dict[bytes, RowOffsets] = {}
    for column in columns:
        name = column.name
        layout = "jagged" if options is None else options.layout(name)
        read = _Column(column, rows, offsets, (memory or {}).get(name))
        if read.kind == VALUE or read.types is not None or layout != "padded" or options is None:
            yield name, read.packed(layout, decoder)
            continue
        padding = options.padding(name)
        if read.length is None:
            value, lengths = pad_rows(name, read.rows(decoder), padding)
        else:
            value, lengths = read.padded(), read.first_dims()
        yield name, value
        yield from added_fields(name, padding, lengths, value)


class _Column:
    """One column that was read."""

    def __init__(
        self,
        column: DataColumn,
        count: int,
        offsets: dict[bytes, RowOffsets] | None = None,
        memory: Any = None,
    ) -> None:
        """`offsets` holds the offsets of columns read so far: equal ones share one object, as torch expects."""
        self.name, self.kind = column.name, column.kind
        self.length, self.ragged_dim, self.types = column.length, column.ragged_dim, column.types
        self._dtype = (column.code, column.bits)
        self._ragged = column.ragged
        self._shape: Any = column.shape
        self._ndims: Any = column.ndims
        self._dims: Any = column.dims
        self._offsets = column.offsets
        self._count = count
        self._known = {} if offsets is None else offsets
        data = column.data
        self._left: Left | None = data if isinstance(data, Left) else None
        self._bytes = memoryview(b"" if isinstance(data, Left) else data)
        self._tensor = memory  # the same bytes as a tensor, if the reader owns them

    def _over(self, shape: Sequence[int], start: int = 0, end: int | None = None) -> Any:
        """A tensor or array with this shape over the column's bytes, or over some of them."""
        end = len(self._bytes) if end is None else end
        if self._tensor is not None:
            return shaped(self._tensor[start:end].view(torch_dtypes_back()[self._dtype]), shape)
        made = tensor_over if have_torch() else array_over
        return made(self._bytes[start:end], self._dtype, shape)

    def _sizes(self) -> Any:
        """Dims of all rows as an array of rows x dims; None if the rows differ in the number of dims, or have none."""
        import numpy as np

        depths = np.frombuffer(self._ndims, dtype=np.uint32)
        if not len(depths) or depths[0] == 0 or (depths != depths[0]).any():
            return None
        return np.frombuffer(self._dims, dtype=np.uint64).astype(np.int64).reshape(self._count, -1)

    def first_dims(self) -> Any:
        """The first dim of each row."""
        return self._sizes()[:, 0].copy()

    def padded(self) -> Any:
        """The column, whose rows are at equal distances."""
        inner = [int(dim) for dim in self._sizes()[0, 1:]]
        assert self.length is not None
        return self._over((self._count, self.length, *inner))

    def packed(self, layout: str, decoder: Decoder) -> Any:
        """The column in jagged or dense layout."""
        if self.types is not None:
            return stack_of_rows(self.rows(decoder))
        if self.kind == VALUE:
            return pack_rows(self.rows(decoder))
        if not self._ragged and (layout == "dense" or not self._shape or not have_torch()):
            return self._over((self._count, *self._shape))
        return self._jagged(decoder) if have_torch() else self.rows(decoder)

    def _jagged(self, decoder: Decoder) -> Any:
        known = self.ragged_dim
        found = jagged_rows(self._ndims, self._dims, known - 1 if 1 < known < RAGGED_MANY else 0)
        if found is None or (known == RAGGED_MANY and len(found[3]) > 1):
            return pack_rows(self.rows(decoder), known)
        offsets, least, most, shape = found
        rows = self._known.get(offsets)
        if rows is None:
            rows = self._known[offsets] = row_offsets(offsets, least, most)
        if 1 < known < RAGGED_MANY:
            return jagged(self._side_by_side(shape, known, decoder), rows, known)
        return jagged(self._over(shape), rows)

    def _side_by_side(self, shape: Sequence[int], ragged_dim: int, decoder: Decoder) -> Any:
        """The values of a field that is ragged beyond the first dim of its rows, which are end to end: one copy."""
        import torch

        axis = ragged_dim - 1
        if self._count == 1:
            return self._over(shape)
        if self._ragged:
            return torch.cat(self.rows(decoder), axis)
        # Rows of equal shape are moved by one call.
        moved = self._over((self._count, *self._shape)).movedim(0, axis)
        return moved.reshape(shape).detach()  # a view if nothing had to be moved

    def rows(self, decoder: Decoder) -> list[Any]:
        """The rows, one object each."""
        if self.types is not None:
            return self._mixed_rows(decoder)
        if self._left is not None:
            decoded = decoder.decode_left(self._left, self._offsets)
            if decoded is None:
                raise _GoneError
            return decoded
        if self.kind == VALUE:
            return decoder.decode_rows(self.name, self._bytes, self._offsets)
        bounds = memoryview(self._offsets).tolist()
        sizes = memoryview(self._dims).tolist()
        values: list[Any] = []
        start = 0
        for row, depth in enumerate(memoryview(self._ndims).tolist()):
            shape = sizes[start : start + depth]
            start += depth
            values.append(self._over(shape, bounds[row], bounds[row + 1]))
        return values

    def _mixed_rows(self, decoder: Decoder) -> list[Any]:
        """Rows that differ in dtype or kind; each begins at its offset."""
        assert self.types is not None
        sizes = memoryview(self._dims).tolist()
        starts = memoryview(self._offsets).tolist()
        values: list[Any] = []
        at = 0
        for row, depth in enumerate(memoryview(self._ndims).tolist()):
            shape = sizes[at : at + depth]
            at += depth
            dtype = unpacked_type(memoryview(self.types).cast("B").cast("I")[row])
            start = starts[row]
            if dtype is None:
                ends = array("Q", [0, shape[0]])
                part = self._bytes[start : start + shape[0]]
                values += decoder.decode_rows(self.name, part, ends)
            else:
                end = start + math.prod(shape) * dtype[1] // 8
                made = tensor_over if have_torch() else array_over
                values.append(made(self._bytes[start:end], dtype, shape))
        return values


# --- several parts --------------------------------------------------------------------------------


def _merge(parts: Sequence[Data], decoder: Decoder, options: ReadOptions | None) -> Any:
    """Join the parts of a read; all of them have the same fields."""
    rows: dict[str, list[Any]] = {}
    dims: dict[str, int] = {}
    for data in parts:
        for column in data.columns:
            read = _Column(column, len(data))
            rows.setdefault(read.name, []).extend(read.rows(decoder))
            dims[read.name] = merged_dim(dims.get(read.name, 0), read.ragged_dim)
    columns = (
        made
        for name, values in rows.items()
        for made in lay_out_rows(name, values, options, dims[name])
    )
    return _result(columns, sum(len(data) for data in parts))
