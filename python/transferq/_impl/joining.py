"""Joining batches: whether they fit together, and their joined columns and pieces."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .._core import Meta
from ..errors import TransferQueueError, UnsupportedError
from .columns import copy_schema, copy_tags, equal_runs, merge_extra_info

if TYPE_CHECKING:
    from ..metadata import BatchMeta
    from .columns import Schema


def concat_schemas(batches: Sequence[BatchMeta]) -> dict[str, Schema]:
    """The schemas of batches that are joined end to end."""
    merged: dict[str, Schema] = {}
    for name, base in batches[0].field_schema.items():
        having = [batch for batch in batches if name in batch.field_schema]
        fields = [batch.field_schema[name] for batch in having]
        nested = any(field.get("is_nested") for field in fields)
        shapes = {tuple(field["shape"]) for field in fields if field.get("shape") is not None}
        nested = nested or len(shapes) > 1
        if any("per_sample_dtypes" in field for field in fields) or (
            len({field.get("dtype") for field in fields}) > 1
        ):
            merged[name] = {
                "dtype": None,
                "shape": None,
                "is_nested": False,
                "is_non_tensor": True,
                "per_sample_shapes": [
                    shape for batch in having for shape in batch.get_shapes(name)
                ],
                "per_sample_dtypes": [
                    dtype for batch in having for dtype in batch.get_dtypes(name)
                ],
            }
            continue
        merged[name] = {**base, "is_nested": nested, "shape": None if nested else base.get("shape")}
        if nested:
            merged[name]["per_sample_shapes"] = [
                shape for batch in having for shape in batch.get_shapes(name)
            ]
    return merged


def check_alike(first: BatchMeta, known: Mapping[str, Any], batch: BatchMeta, number: int) -> None:
    """Raise ValueError if fields, or their dtypes, contradict those of the first batch."""
    if batch.field_names != first.field_names:
        raise ValueError(
            f"concat: fields differ: {first.field_names} in batch 0, {batch.field_names} in batch {number}"
        )
    found = batch._dtypes()
    if is_one_field(first, batch):
        return
    for name in first.field_names:
        mine, theirs = known.get(name), found.get(name)
        if mine != theirs:
            raise ValueError(
                f"concat: field {name!r} is {mine} in batch 0 and {theirs} in batch {number}"
            )


def is_one_field(first: BatchMeta, batch: BatchMeta) -> bool:
    """Whether both are metadata from one system for one partition: there, rows of a field may differ."""
    pieces = [*first._pieces, *batch._pieces]
    return all(piece.epoch for piece in pieces) and len({piece.partition for piece in pieces}) == 1


def differing(ours: list[Any], theirs: list[Any]) -> str:
    """Where two lists first differ."""
    if len(ours) != len(theirs):
        return f"{len(ours)} here, {len(theirs)} there"
    place = next(at for at, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1])
    return f"at place {place} {ours[place]!r} here, {theirs[place]!r} there"


def join(pieces: Sequence[Meta]) -> list[Meta]:
    """Join neighbouring pieces of one partition where the library can."""
    joined: list[Meta] = []
    for _, start, end in equal_runs([piece.partition for piece in pieces]):
        same = pieces[start:end]
        if len(same) == 1:
            joined.append(same[0])
            continue
        try:
            joined.append(Meta.concat(same))
        except TransferQueueError as error:
            if isinstance(error, UnsupportedError):
                raise
            joined.extend(same)  # of different epochs or fields
    return joined


def union(cls: type[BatchMeta], mine: BatchMeta, other: BatchMeta) -> BatchMeta:
    """Fields of both for the same samples; if both have a field, the other's is used."""
    if other is None or other.size == 0:
        return mine.copy()
    if mine.size == 0:
        return other.copy()
    for what in ("global_indexes", "partition_ids"):
        if getattr(mine, what) != getattr(other, what):
            raise ValueError(
                f"union: {what} do not match ({differing(getattr(mine, what), getattr(other, what))}); both need the "
                "same samples in the same order"
            )
    aligned = other._split([len(piece) for piece in mine._pieces])
    made = cls._wrap(
        (piece.union(theirs) for piece, theirs in zip(mine._pieces, aligned, strict=True)),
        {**mine.extra_info, **other.extra_info},
    )
    if mine._schema is not None or other._schema is not None:
        made._schema = copy_schema({**mine.field_schema, **other.field_schema}, None)
    made._status = mine.production_status & other.production_status
    if mine._tags is not None or other._tags is not None:
        made._tags = copy_tags(mine.custom_meta)
        for tags, theirs in zip(made._tags, copy_tags(other.custom_meta), strict=True):
            tags.update(theirs)
    if mine._notes is not None or other._notes is not None:
        made._notes = [
            copy.deepcopy({**notes, **theirs})
            for notes, theirs in zip(
                mine._custom_backend_meta, other._custom_backend_meta, strict=True
            )
        ]
    return made


def concat(cls: type[BatchMeta], data: Sequence[BatchMeta] | None, validate: bool) -> BatchMeta:
    """Join batches end to end; ValueError if they contradict each other and `validate` is set."""
    batches = [batch for batch in data or () if batch is not None and batch.size > 0]
    if not batches:
        return cls.empty()
    first = batches[0]
    if validate:
        known = first._dtypes()
        for number, batch in enumerate(batches):
            check_alike(first, known, batch, number)
    made = cls._wrap(
        join([piece for batch in batches for piece in batch._pieces]),
        merge_extra_info([batch.extra_info for batch in batches]),
    )
    if any(batch._schema is not None for batch in batches):
        made._schema = concat_schemas(batches)
    if any(batch._status is not None for batch in batches):
        import numpy as np

        made._status = np.concatenate([batch.production_status for batch in batches])
    if any(batch._tags is not None for batch in batches):
        made._tags = [dict(tags) for batch in batches for tags in batch.custom_meta]
    if any(batch._notes is not None for batch in batches):
        made._notes = [dict(notes) for batch in batches for notes in batch._custom_backend_meta]
    return made
