"""The samples of a BatchMeta one by one, for inspection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, overload

from .columns import PER_SAMPLE
from .words import counted

if TYPE_CHECKING:
    from ..metadata import BatchMeta


class SampleView:
    """One sample of a batch, for inspection."""

    __slots__ = ("_batch", "_place")

    def __init__(self, batch: BatchMeta, place: int) -> None:
        self._batch = batch
        self._place = place

    @property
    def global_index(self) -> int:
        """Index of the sample."""
        piece, row = self._batch._find(self._place)
        index: int = memoryview(piece.indexes)[row]
        return index

    @property
    def partition_id(self) -> str:
        """Partition of the sample."""
        return self._batch._find(self._place)[0].partition

    @property
    def production_status(self) -> int:
        """1 if all fields are ready."""
        return int(self._batch.production_status[self._place])

    @property
    def custom_meta(self) -> Mapping[str, Any]:
        """Tags of the sample; read-only."""
        return MappingProxyType(self._batch.custom_meta[self._place])

    @property
    def fields(self) -> Mapping[str, Mapping[str, Any]]:
        """What is known about the sample's fields; read-only."""
        fields = {}
        for name, field in self._batch.field_schema.items():
            each = field.get("per_sample_shapes")
            known = {key: value for key, value in field.items() if key not in PER_SAMPLE}
            if each is not None:
                known["shape"] = each[self._place]
            dtypes = field.get("per_sample_dtypes")
            if dtypes is not None:
                known["dtype"] = dtypes[self._place]
                known["is_non_tensor"] = known["dtype"] is None
            fields[name] = MappingProxyType(known)
        return MappingProxyType(fields)

    def __repr__(self) -> str:
        return (
            f"SampleView(global_index={self.global_index}, partition_id={self.partition_id!r}, "
            f"production_status={self.production_status}, fields={list(self.fields)})"
        )


class SampleList(Sequence[SampleView]):
    """The samples of a batch, one by one."""

    __slots__ = ("_batch",)

    def __init__(self, batch: BatchMeta) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return self._batch.size

    @overload
    def __getitem__(self, place: int) -> SampleView: ...
    @overload
    def __getitem__(self, place: slice) -> list[SampleView]: ...
    def __getitem__(self, place: int | slice) -> SampleView | list[SampleView]:
        if isinstance(place, slice):
            return [SampleView(self._batch, each) for each in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(
                f"place {place} is out of range: the batch has {counted(len(self), 'sample')}"
            )
        return SampleView(self._batch, place % len(self))

    def __iter__(self) -> Iterator[SampleView]:
        return (SampleView(self._batch, place) for place in range(len(self)))
