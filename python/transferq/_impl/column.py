"""What the extension takes: a column to put, and how to lay a column out that is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from typing_extensions import Buffer

Slice: TypeAlias = "Buffer | tuple[int, int]"
"""Memory: an object with the buffer protocol, or an address and a size in bytes."""


class Column(NamedTuple):
    """A column to put: the rows of one field."""

    name: str
    """Name of the field."""
    kind: int
    """TENSOR or VALUE."""
    code: int
    """Code of the dtype, as in DLPack."""
    bits: int
    """Bits of an element."""
    rows: int
    """Number of rows."""
    shape: tuple[int, ...] | None
    """Shape of every row; None if rows differ, and for other values."""
    ndims: Any
    """Rows that differ in shape: the number of dims of each row, as a buffer of 32-bit integers; else None."""
    dims: Any
    """Rows that differ in shape: the dims of all rows, one row after another, as a buffer of 64-bit integers.  Other
    values: the encoded size of each row.  Else None."""
    slices: Sequence[Slice]
    """The bytes of the rows end to end; other values have one slice per row, or dims."""
    ragged_dim: int = 0
    """Dim of a row, counted from 1, that the caller declares ragged; 0: the library finds it."""
    types: Any = None
    """Kind and dtype of each row if rows differ in them, as a buffer of 32-bit integers (`dtypes.packed_type`)."""


class Layout(NamedTuple):
    """How the library should lay out a column that is read."""

    field: str
    """Name of the field."""
    padded: bool
    """Whether rows are padded to one length in their first dim."""
    length: int
    """Least length to pad to, in elements of the first dim."""
    multiple: int
    """The length to pad to is a multiple of this; 0 and 1: of any."""
    code: int
    """Code of the dtype of `pad`, as in DLPack."""
    bits: int
    """Bits of an element of `pad`."""
    pad: bytes
    """One element to pad with; empty: zeros."""
    address: int
    """Address of the memory to read into; 0: memory of the library."""
    size: int
    """Size of that memory in bytes."""
