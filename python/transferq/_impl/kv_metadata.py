"""Metadata of samples named by their keys."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ..errors import ArgumentTypeError
from .columns import check_order, even_ranges, merge_extra_info
from .named import named


class KVBatchMeta:
    """Samples named by their keys, with tags."""

    __module__ = "transferq.metadata"  # where users find it, and so what pickles name
    __slots__ = ("extra_info", "fields", "keys", "partition_id", "tags")

    @named
    def __init__(
        self,
        keys: Sequence[str] = (),
        tags: Sequence[Mapping[str, Any]] = (),
        partition_id: str | None = None,
        fields: Sequence[str] | None = None,
        extra_info: Mapping[str, Any] | None = MappingProxyType({}),
    ) -> None:
        """One tag map per key; keys and fields must not repeat."""
        if len(keys) != len(tags):
            raise ValueError(
                f"keys and tags must have same length, got {len(keys)} keys and {len(tags)} tags"
            )
        if partition_id is not None and not isinstance(partition_id, str):
            raise ArgumentTypeError(
                f"partition_id: expected a str, got {type(partition_id).__name__}"
            )
        if len(set(keys)) != len(keys):
            raise ValueError(f"Got duplicated keys: {repeated(keys)}")
        if fields is not None and len(set(fields)) != len(fields):
            raise ValueError(f"Got duplicated fields: {repeated(fields)}")
        self.keys: list[str] = list(keys)
        self.tags: list[dict[str, Any]] = [copy.deepcopy(dict(each)) for each in tags]
        self.partition_id = partition_id
        self.fields: list[str] | None = None if fields is None else list(fields)
        self.extra_info: dict[str, Any] | None = (
            None if extra_info is None else copy.deepcopy(dict(extra_info))
        )

    @classmethod
    def _made(
        cls, keys: list[str], tags: list[dict[str, Any]], partition: str, fields: list[str]
    ) -> KVBatchMeta:
        """Wrap the result of a call: already checked, with lists and maps that have no other owner."""
        self = cls.__new__(cls)
        self.keys = keys
        self.tags = tags
        self.partition_id = partition
        self.fields = fields
        self.extra_info = {}
        return self

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.keys)

    def __len__(self) -> int:
        return len(self.keys)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KVBatchMeta):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.keys[:4])) + (", ..." if len(self.keys) > 4 else "")
        return (
            f"KVBatchMeta(size={self.size}, keys=[{shown}], partition_id={self.partition_id!r}, "
            f"fields={self.fields}, extra_info={self.extra_info})"
        )

    def _at(self, places: Iterable[int]) -> KVBatchMeta:
        where = list(places)
        return KVBatchMeta(
            [self.keys[place] for place in where],
            [self.tags[place] for place in where],
            self.partition_id,
            self.fields,
            self.extra_info,
        )

    @named
    def select_keys(self, keys_to_select: Sequence[str]) -> KVBatchMeta:
        """These samples, in the given order."""
        if len(set(keys_to_select)) != len(keys_to_select):
            raise ValueError(f"Contain duplicate keys: {repeated(keys_to_select)}")
        places = {key: place for place, key in enumerate(self.keys)}
        unknown = [key for key in keys_to_select if key not in places]
        if unknown:
            raise RuntimeError(f"keys {unknown[:8]} not found in current batch")
        return self._at(places[key] for key in keys_to_select)

    @named
    def reorder(self, indexes: Sequence[int]) -> None:
        """Put the samples into another order, in place."""
        check_order(indexes, self.size)
        self.keys = [self.keys[place] for place in indexes]
        self.tags = [self.tags[place] for place in indexes]

    @named
    def chunk(self, chunks: int) -> list[KVBatchMeta]:
        """Split into `chunks` batches of nearly equal size; the first ones are larger, the last ones may be empty."""
        return [self._at(range(start, end)) for start, end in even_ranges(self.size, chunks)]

    @classmethod
    @named
    def concat(cls, data: Sequence[KVBatchMeta] | None) -> KVBatchMeta:
        """Join batches end to end; empty ones are skipped.

        ValueError if keys repeat, or if fields, partitions or entries of extra_info contradict each other.
        """
        batches = [batch for batch in data or () if batch is not None and batch.size > 0]
        if not batches:
            return cls()
        first = batches[0]
        for batch in batches:
            if batch.partition_id != first.partition_id:
                raise ValueError(
                    f"Partition do not match in concat: {first.partition_id!r} and {batch.partition_id!r}"
                )
            if batch.fields is not None and set(batch.fields) != set(first.fields or ()):
                raise ValueError(
                    f"Field names do not match in concat: {first.fields} and {batch.fields}"
                )
        return cls(
            [key for batch in batches for key in batch.keys],
            [tags for batch in batches for tags in batch.tags],
            first.partition_id,
            first.fields,
            merge_extra_info([batch.extra_info or {} for batch in batches]) or None,
        )


def repeated(names: Sequence[str]) -> list[str]:
    """Some of the names that occur more than once."""
    seen: set[str] = set()
    return [name for name in names if name in seen or seen.add(name)][:8]  # type: ignore[func-returns-value]
