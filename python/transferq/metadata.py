"""Metadata: which samples a call is about, and what is known about their fields.

A `BatchMeta` consists of a few pieces.  Each piece is a metadata object of the C library for samples of one
partition; its columns (indexes, schemas, tags) are built on first use.  Slicing and chunking therefore work
on the C objects and create no Python object per cell.  A `KVBatchMeta` names samples by their keys.
"""

from __future__ import annotations

import copy
import logging
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from ._core import Meta
from ._impl.columns import (
    PER_SAMPLE,
    Schema,
    as_status,
    changed_tags,
    check_length,
    check_order,
    copy_schema,
    copy_tags,
    dtypes_of,
    equal_runs,
    even_ranges,
    refuse_unknown_fields,
    schema_of,
    schema_of_fields,
    status_of,
    tags_of,
)
from ._impl.extra_info import ExtraInfo
from ._impl.joining import concat, union
from ._impl.kv_metadata import KVBatchMeta
from ._impl.named import named
from ._impl.sample_view import SampleList, SampleView
from ._impl.tensors import row_count
from ._impl.words import counted

if TYPE_CHECKING:
    from ._impl.columns import Places, Status
    from ._impl.tensors import Fields

logger = logging.getLogger("transferq")


class BatchMeta(ExtraInfo):
    """Metadata of an ordered batch of samples: the result of a claim, and the input of a read."""

    __slots__ = (
        "_indexes",
        "_notes",
        "_partitions",
        "_pieces",
        "_schema",
        "_status",
        "_tags",
    )

    @named
    def __init__(
        self,
        global_indexes: Sequence[int] = (),
        partition_ids: Sequence[str] = (),
        field_schema: Mapping[str, Schema] | None = None,
        production_status: Sequence[int] | Status | None = None,
        extra_info: Mapping[str, Any] | None = None,
        custom_meta: Sequence[Mapping[str, Any]] | None = None,
        _custom_backend_meta: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Build metadata by hand, for samples named by partition and index."""
        if len(global_indexes) != len(partition_ids):
            raise ValueError(
                f"expected a partition per index, got {len(global_indexes)} indexes and "
                f"{counted(len(partition_ids), 'partition')}"
            )
        size = len(global_indexes)
        schema = {name: dict(field) for name, field in (field_schema or {}).items()}
        for name, field in schema.items():
            for key in PER_SAMPLE:
                check_length(f"{key} of field {name!r}", field.get(key), size)
        check_length("production_status", production_status, size)
        check_length("custom_meta", custom_meta or None, size)
        check_length("_custom_backend_meta", _custom_backend_meta or None, size)

        fields = sorted(schema)
        self._pieces: list[Meta] = [
            Meta.make(partition, [int(global_indexes[i]) for i in range(start, end)], fields)
            for partition, start, end in equal_runs(partition_ids)
        ]
        self._indexes: list[int] | None = None
        self._partitions: list[str] | None = None
        self._schema: dict[str, Schema] | None = schema
        self._status: Status | None = as_status(production_status, size)
        self._tags: list[dict[str, Any]] | None = [
            dict(tags) for tags in custom_meta or [{}] * size
        ]
        self._notes: list[dict[str, Any]] | None = [
            dict(notes) for notes in _custom_backend_meta or [{}] * size
        ]
        self.extra_info = dict(extra_info or {})

    @classmethod
    def _wrap(
        cls, pieces: Iterable[Meta], extra_info: Mapping[str, Any] | None = None
    ) -> BatchMeta:
        """Wrap metadata of the C library."""
        self = cls.__new__(cls)
        self._pieces = [piece for piece in pieces if len(piece)]
        self._indexes = None
        self._partitions = None
        self._schema = None
        self._status = None
        self._tags = None
        self._notes = None
        self.extra_info = dict(extra_info or {})
        return self

    @classmethod
    def empty(cls, extra_info: Mapping[str, Any] | None = None) -> BatchMeta:
        """Metadata of no samples."""
        return cls._wrap([], extra_info)

    # --- looking inside ---------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Number of samples."""
        return sum(len(piece) for piece in self._pieces)

    def __len__(self) -> int:
        return self.size

    @property
    def global_indexes(self) -> list[int]:
        """Index of each sample."""
        if self._indexes is None:
            self._indexes = [
                index for piece in self._pieces for index in memoryview(piece.indexes).tolist()
            ]
        return self._indexes

    @global_indexes.setter
    def global_indexes(self, indexes: Sequence[int]) -> None:
        check_length("global_indexes", indexes, self.size)
        self._rename(list(indexes), self.partition_ids)

    @property
    def partition_ids(self) -> list[str]:
        """Partition of each sample."""
        if self._partitions is None:
            self._partitions = [
                name for piece in self._pieces for name in [piece.partition] * len(piece)
            ]
        return self._partitions

    @partition_ids.setter
    def partition_ids(self, partitions: Sequence[str]) -> None:
        check_length("partition_ids", partitions, self.size)
        self._rename(self.global_indexes, list(partitions))

    def _rename(self, indexes: list[int], partitions: list[str]) -> None:
        """Refer to other samples; everything else in this metadata now describes those."""
        other = BatchMeta(
            indexes,
            partitions,
            self.field_schema,
            self.production_status,
            None,
            self.custom_meta,
            self._custom_backend_meta,
        )
        self._become(other)

    @property
    def groups(self) -> list[str | None]:
        """The group (the prompt) that each sample was put with; None for a sample without one.

        Group samplers hand out whole groups.  Once one sample of a group is cleared, the rest are no longer handed
        out unless another sample is put into the group, so clear them too.
        """
        return [group for piece in self._pieces for group in piece.groups]

    @property
    def field_names(self) -> list[str]:
        """Names of the fields, sorted."""
        if self._schema is not None:
            return sorted(self._schema)
        return sorted(self._pieces[0].field_names) if self._pieces else []

    @property
    def field_schema(self) -> dict[str, Schema]:
        """Per field: dtype, shape, is_nested, is_non_tensor; per_sample_shapes, per_sample_dtypes if rows differ in them."""
        if self._schema is None:
            self._schema = schema_of(self._pieces)
        return self._schema

    @field_schema.setter
    def field_schema(self, schema: Mapping[str, Schema]) -> None:
        made = BatchMeta(self.global_indexes, self.partition_ids, schema)
        self._pieces = [
            piece.select(None, [name for name in piece.field_names if name in schema]).union(named)
            for piece, named in zip(
                self._split([len(piece) for piece in made._pieces]), made._pieces, strict=True
            )
        ]
        self._schema = made._schema

    @property
    def production_status(self) -> Status:
        """Per sample: 1 if all fields are ready.

        As in TransferQueue it is an array of int8: count with `production_status.sum()`, because Python's own `sum()`
        adds in int8 and overflows above 127.
        """
        if self._status is None:
            self._status = status_of(self._pieces)
        return self._status

    @production_status.setter
    def production_status(self, status: Sequence[int] | Status) -> None:
        check_length("production_status", status, self.size)
        self._status = as_status(status, self.size)

    @property
    def is_ready(self) -> bool:
        """Whether the batch is not empty and all its samples are ready."""
        return self.size > 0 and bool((self.production_status == 1).all())

    @property
    def custom_meta(self) -> list[dict[str, Any]]:
        """Tags of each sample; a put with this metadata stores the changes made here."""
        if self._tags is None:
            self._tags = [tags for piece in self._pieces for tags in tags_of(piece)]
        return self._tags

    @custom_meta.setter
    def custom_meta(self, tags: Sequence[Mapping[str, Any]]) -> None:
        check_length("custom_meta", tags, self.size)
        self._tags = [dict(each) for each in tags]

    @property
    def _custom_backend_meta(self) -> list[dict[str, Any]]:
        """Per sample, the note of the storage manager on each field."""
        if self._notes is None:
            self._notes = [{} for _ in range(self.size)]
        return self._notes

    @_custom_backend_meta.setter
    def _custom_backend_meta(self, notes: Sequence[Mapping[str, Any]]) -> None:
        check_length("_custom_backend_meta", notes, self.size)
        self._notes = [dict(each) for each in notes]

    @property
    def samples(self) -> SampleList:
        """The samples one by one, for inspection."""
        return SampleList(self)

    @named
    def get_dtypes(self, field_name: str) -> list[Any]:
        """Element type of a field, once per sample."""
        field = self._field(field_name)
        each = field.get("per_sample_dtypes")
        return list(each) if each is not None else [field.get("dtype")] * self.size

    @named
    def get_shapes(self, field_name: str) -> list[Any]:
        """Shape of each sample's row of a field."""
        field = self._field(field_name)
        each = field.get("per_sample_shapes")
        return list(each) if each is not None else [field.get("shape")] * self.size

    def _dtypes(self) -> dict[str, Any]:
        """Element type of each field, as in field_schema."""
        if self._schema is None:
            return dtypes_of(self._pieces)
        return {name: field.get("dtype") for name, field in self._schema.items()}

    def _find(self, place: int) -> tuple[Meta, int]:
        """The piece that holds a sample, and the sample's place in that piece."""
        for piece in self._pieces:
            if place < len(piece):
                return piece, place
            place -= len(piece)
        raise IndexError("the batch has become smaller")

    def _field(self, name: str) -> Schema:
        if name not in self.field_schema:
            raise KeyError(f"no field {name!r} in the metadata; there are {self.field_names}")
        return self.field_schema[name]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BatchMeta):
            return NotImplemented
        return (
            self.global_indexes == other.global_indexes
            and self.partition_ids == other.partition_ids
            and self.field_names == other.field_names
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        size = self.size
        first = self[:8].global_indexes if size > 8 else self.global_indexes
        shown = ", ".join(map(str, first)) + (", ..." if size > 8 else "")
        partitions = list(dict.fromkeys(piece.partition for piece in self._pieces))
        return (
            f"BatchMeta(size={size}, partitions={partitions}, global_indexes=[{shown}], "
            f"field_names={self.field_names}, is_ready={self.is_ready}, extra_info={self.extra_info})"
        )

    # --- custom_meta: tags ------------------------------------------------------------------------

    def get_all_custom_meta(self) -> list[dict[str, Any]]:
        """A deep copy of the tags of all samples."""
        return copy_tags(self.custom_meta)

    @named
    def update_custom_meta(self, custom_meta: Sequence[Mapping[str, Any]] | None) -> None:
        """Merge tags into those of each sample."""
        if custom_meta is None:
            return
        check_length("custom_meta", custom_meta, self.size)
        for tags, more in zip(self.custom_meta, custom_meta, strict=True):
            tags.update(more)

    def clear_custom_meta(self) -> None:
        """Drop all tags from this metadata; stored tags stay."""
        self._tags = [{} for _ in range(self.size)]

    def _changed_tags(self) -> list[tuple[Meta, list[dict[str, Any]]]]:
        """Per piece, the tags that differ from those received from the system."""
        return [] if self._tags is None else changed_tags(self._pieces, self._tags)

    # --- deriving batches -------------------------------------------------------------------------

    @named
    def select_samples(self, sample_indices: Sequence[int]) -> BatchMeta:
        """Samples by their place in this batch, in the given order."""
        try:
            places = array("I", sample_indices)
        except OverflowError:
            places = array("I")
        if len(places) != len(sample_indices) or (places and max(places) >= self.size):
            raise ValueError(
                f"places must be in the range 0 to {self.size - 1}, got {list(sample_indices[:8])}"
            )
        return self._pick(places)

    def _pick(self, places: Places) -> BatchMeta:
        """Samples by their places, which are known to exist; None: all."""
        selected = BatchMeta._wrap(self._select(places), self.extra_info)
        selected._take_columns(self, places)
        return selected

    def _select(self, places: Places) -> list[Meta]:
        if places is None:
            return self._pieces
        if len(self._pieces) <= 1:
            return [piece.select(places) for piece in self._pieces if len(places)]
        import numpy as np

        ends = np.cumsum([len(piece) for piece in self._pieces])
        wanted = np.asarray(places, dtype=np.int64)
        owners = np.searchsorted(ends, wanted, side="right")
        cuts = np.flatnonzero(np.diff(owners)) + 1
        pieces = []
        for part in np.split(wanted, cuts) if len(wanted) else ():
            number = int(np.searchsorted(ends, part[0], side="right"))
            rows = part - (ends[number] - len(self._pieces[number]))
            pieces.append(self._pieces[number].select(rows.astype(np.uint32)))
        return pieces

    def _take_columns(self, source: BatchMeta, places: Places) -> None:
        """Copy rows of the columns that were built or changed in the source."""
        if source._schema is not None:
            self._schema = copy_schema(source._schema, places)
        if source._status is not None:
            self._status = source._status[slice(None) if places is None else places].copy()
        if source._tags is not None:
            self._tags = copy_tags(source._tags, places)
        if source._notes is not None:
            self._notes = copy_tags(source._notes, places)

    @named
    def select_fields(self, field_names: Sequence[str], *, strict: bool = False) -> BatchMeta:
        """The same samples with only some of the fields; unknown fields are left out.

        With `strict` they are an UnknownFieldError.
        """
        mine = set(self.field_names)
        if strict:
            refuse_unknown_fields("fields of the metadata", field_names, self.field_names)
        wanted = [name for name in dict.fromkeys(field_names) if name in mine]
        selected = BatchMeta._wrap(
            (
                piece.select(None, [name for name in wanted if name in set(piece.field_names)])
                for piece in self._pieces
            ),
            copy.deepcopy(self.extra_info),
        )
        selected._take_columns(self, None)
        if selected._schema is not None:
            selected._schema = {name: selected._schema[name] for name in wanted}
        elif wanted and selected._status is not None:
            selected._status = None
        return selected

    def copy(self) -> BatchMeta:
        """A deep copy."""
        return copy.deepcopy(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> BatchMeta:
        made = BatchMeta._wrap(self._pieces, copy.deepcopy(self.extra_info, memo))
        made._take_columns(self, None)
        return made

    @overload
    def __getitem__(self, item: int) -> BatchMeta: ...
    @overload
    def __getitem__(self, item: slice) -> BatchMeta: ...
    def __getitem__(self, item: int | slice) -> BatchMeta:
        size = self.size
        if isinstance(item, slice):
            import numpy as np

            bounds = range(*item.indices(size))
            whole = bounds == range(size)
            return self._pick(
                None
                if whole
                else np.arange(bounds.start, bounds.stop, bounds.step).astype(np.uint32)
            )
        try:
            place = item.__index__()
        except AttributeError:
            raise TypeError(f"expected a place or a slice, got {type(item).__name__}") from None
        place += size if place < 0 else 0
        if not 0 <= place < size:
            raise IndexError(
                f"place {item} is out of range: the batch has {counted(size, 'sample')}"
            )
        return self._pick(array("I", [place]))

    @named
    def chunk(self, chunks: int) -> list[BatchMeta]:
        """Split into `chunks` batches of nearly equal size; the first ones are larger, the last ones may be empty."""
        return [self[start:end] for start, end in even_ranges(self.size, chunks)]

    def chunk_by_partition(self) -> list[BatchMeta]:
        """One batch per partition."""
        import numpy as np

        places: dict[str, list[Any]] = {}
        start = 0
        for piece in self._pieces:
            spans = places.setdefault(piece.partition, [])
            spans.append(np.arange(start, start + len(piece), dtype=np.uint32))
            start += len(piece)
        if len(places) == 1:
            return [self._pick(None)]
        return [self._pick(np.concatenate(spans)) for spans in places.values()]

    @named
    def reorder(self, indices: Sequence[int]) -> None:
        """Put the samples into another order, in place."""
        self._become(self._pick(check_order(indices, self.size)))

    def _become(self, other: BatchMeta) -> None:
        self._pieces = other._pieces
        self._indexes = None
        self._partitions = None
        self._schema = other._schema
        self._status = other._status
        self._tags = other._tags
        self._notes = other._notes

    @named
    def add_fields(self, tensor_dict: Fields, set_all_ready: bool = True) -> BatchMeta:
        """Add the fields of a batch of data, in place; stores nothing."""
        rows = row_count(tensor_dict)
        if rows == 0:
            logger.warning("add_fields: the data has no rows; nothing is added")
            return self
        if rows != self.size:
            raise ValueError(f"add_fields: expected {counted(self.size, 'row')}, got {rows}")
        schema = self.field_schema
        status = self.production_status
        schema.update(schema_of_fields(tensor_dict))
        self._pieces = [
            piece.union(
                Meta.make(
                    piece.partition, piece.indexes, list(tensor_dict.keys()), piece.incarnations
                )
            )
            for piece in self._pieces
        ]
        if set_all_ready:
            status[:] = 1
        return self

    def _published(self, pieces: list[Meta]) -> None:
        """Adopt the pieces returned by a put of this metadata, one for each of its own."""
        names = [name for piece in pieces[:1] for name in piece.field_names]
        fresh = schema_of(pieces)
        self._pieces = [mine.union(new) for mine, new in zip(self._pieces, pieces, strict=True)]
        if self._schema is not None:
            self._schema.update({name: fresh[name] for name in names})
        self._status = as_status([1] * self.size, self.size) if names else self._status
        self._tags = None

    @named
    def union(self, other: BatchMeta) -> BatchMeta:
        """Fields of both for the same samples; if both have a field, the other's is used."""
        return union(BatchMeta, self, other)

    def _split(self, sizes: Sequence[int]) -> list[Meta]:
        """Split the same samples into pieces of these sizes, each within one partition."""
        if [len(piece) for piece in self._pieces] == list(sizes):
            return self._pieces
        pieces = []
        start = 0
        for size in sizes:
            parts = self._select(array("I", range(start, start + size)))
            pieces.append(parts[0] if len(parts) == 1 else Meta.concat(parts))
            start += size
        return pieces

    @classmethod
    @named
    def concat(cls, data: Sequence[BatchMeta] | None, validate: bool = True) -> BatchMeta:
        """Join batches end to end; empty ones are skipped.

        ValueError if fields, their dtypes or entries of extra_info contradict each other.
        """
        return concat(cls, data, validate)

    # --- pickling ---------------------------------------------------------------------------------

    def __reduce__(self) -> tuple[Any, ...]:
        packed = [piece.pack() for piece in self._pieces]
        columns = (self._schema, self._status, self._tags, self._notes)
        return _rebuild, (packed, columns, self.extra_info)


def _rebuild(
    packed: list[bytes], columns: tuple[Any, ...], extra_info: dict[str, Any]
) -> BatchMeta:
    made = BatchMeta._wrap(map(Meta.unpack, packed), extra_info)
    made._schema, status, made._tags, made._notes = columns
    # Arrays received through shared memory may be read-only.
    made._status = None if status is None else status.copy()
    return made


__all__ = ["BatchMeta", "KVBatchMeta", "SampleList", "SampleView"]
