"""The part of a torch tensor that this package uses, for type checkers: torch itself is optional, and theirs is not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class Tensor(Protocol):
    """A tensor of torch, also a nested one."""

    @property
    def dtype(self) -> Any:
        """The dtype."""

    @property
    def shape(self) -> Sequence[int]:
        """The sizes of the dims."""

    @property
    def ndim(self) -> int:
        """Number of dims."""

    @property
    def layout(self) -> Any:
        """Strided, jagged, or one of the sparse ones."""

    @property
    def device(self) -> Any:
        """Where the elements are."""

    @property
    def is_cpu(self) -> bool:
        """Whether they are in the host's memory."""

    @property
    def is_nested(self) -> bool:
        """Whether it has rows of different shapes."""

    @property
    def nbytes(self) -> int:
        """Size of the elements in bytes."""

    def is_contiguous(self) -> bool:
        """Whether the elements are in C order, end to end."""

    def is_complex(self) -> bool:
        """Whether the elements are complex numbers."""

    def is_neg(self) -> bool:
        """Whether the elements are to be negated when they are read."""

    def is_conj(self) -> bool:
        """Whether they are to be conjugated when they are read."""

    def resolve_neg(self) -> Tensor:
        """The tensor with negated elements."""

    def resolve_conj(self) -> Tensor:
        """The tensor with conjugated elements."""

    def contiguous(self) -> Tensor:
        """The tensor with its elements in C order."""

    def detach(self) -> Tensor:
        """The tensor outside of autograd."""

    def cpu(self) -> Tensor:
        """The tensor in the host's memory."""

    def copy_(self, source: Tensor, /) -> Tensor:
        """Copy the elements of another tensor into this one, and return it."""

    def view(self, shape: Sequence[int], /) -> Tensor:
        """The same elements with another shape."""

    def unbind(self) -> Sequence[Tensor]:
        """The rows."""

    def numel(self) -> int:
        """Number of elements."""

    def element_size(self) -> int:
        """Size of an element in bytes."""

    def data_ptr(self) -> int:
        """Address of the first element."""

    # Of a nested tensor in the jagged layout: values end to end, with the offsets of the rows.

    _ragged_idx: int

    def values(self) -> Any:
        """The values of all rows."""

    def offsets(self) -> Any:
        """Where each row begins in the values, and where the last one ends."""

    def lengths(self) -> Any:
        """Lengths of rows that leave gaps; else None."""
