"""What is known about samples, as columns: tags, field schemas, readiness; and small helpers for batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .._core import VALUE, Meta, copy_maps
from ..errors import ArgumentTypeError, SerializationError, UnknownFieldError
from .dtypes import dtype_of, unpacked_type
from .encoding import MAX_TAG_DEPTH, Encoder, TagDecoder, TagEncoder, check_depth
from .tag_names import tag_key, tag_name

if TYPE_CHECKING:
    from array import array

    import numpy as np
    import numpy.typing as npt

    from .._core import DataColumn, Integers, MetaField, Tag
    from .column import Column
    from .dtypes import Dtype
    from .tensors import Fields

    Status = npt.NDArray[np.int8]
    Places = array[int] | npt.NDArray[np.uint32] | None

Schema = dict[str, Any]
"""What is known about one field: dtype, shape, is_nested, is_non_tensor, per_sample_shapes, per_sample_dtypes."""

PER_SAMPLE = ("per_sample_shapes", "per_sample_dtypes")
"""Entries of a schema with one item per sample, present if samples differ.  per_sample_dtypes is there if the samples of a
field differ in dtype, or if only some of them are tensors: the others have the dtype None, and the shape None."""


# --- tags -----------------------------------------------------------------------------------------

_FLAT = frozenset({type(None), bool, int, float, str, bytes})


def changed_tags(
    pieces: Sequence[Meta], tags: Sequence[dict[str, Any]]
) -> list[tuple[Meta, list[dict[str, Any]]]]:
    """Per piece, the tags that differ from those received from the system."""
    changed = []
    start = 0
    for piece in pieces:
        mine = tags[start : start + len(piece)]
        start += len(piece)
        differing = [
            {
                name: value
                for name, value in of_sample.items()
                if name not in known or not same_value(known[name], value)
            }
            for of_sample, known in zip(mine, tags_of(piece), strict=True)
        ]
        if any(differing):
            changed.append((piece, differing))
    return changed


def tags_of(meta: Meta) -> list[dict[str, Any]]:
    """Tags of each sample of a piece."""
    return meta.tag_maps(TagDecoder().decode, tag_key)


def copy_tags(maps: list[dict[str, Any]], places: Integers | None = None) -> list[dict[str, Any]]:
    """Deep copies of the tags of all samples, or of the samples at some places."""
    from copy import deepcopy

    return copy_maps(maps, places, deepcopy)


def encode_tags(tags: Sequence[Mapping[str, Any]], what: str = "tags") -> list[Tag]:
    """Tags of samples as columns, one per tag name; an error names a tag that cannot be stored."""
    from array import array

    columns: dict[str, tuple[list[int], list[Any]]] = {}
    for place, sample in enumerate(tags):
        try:
            pairs = sample.items()
        except AttributeError:
            where = what if what == "tag" else f"{what}[{place}]"
            raise ArgumentTypeError(
                f"{where}: expected a map of tags, got {type(sample).__name__}"
            ) from None
        for name, value in pairs:
            if name not in columns:
                columns[name] = ([], [])
            if type(value) not in _FLAT and not check_depth(value, MAX_TAG_DEPTH):
                raise SerializationError(
                    f"tag {name!r}: nested more than {MAX_TAG_DEPTH} levels deep"
                )
            places, values = columns[name]
            places.append(place)
            values.append(value)
    made: list[Tag] = []
    encoder = TagEncoder()
    for name, (places, values) in columns.items():
        encoded, each = encoder.encode_column(f"tag {name}", values)
        sizes = array("I", bytes(4 * len(tags)))
        for place, size in zip(places, each.tolist(), strict=True):
            sizes[place] = size
        made.append((tag_name(name), encoded, sizes))
    return made


# --- schemas --------------------------------------------------------------------------------------


class _Shapes(NamedTuple):
    shape: tuple[int, ...] | None
    each: list[tuple[int, ...]] | None


def schema_of(pieces: Sequence[Meta]) -> dict[str, Schema]:
    """Field schemas of all pieces together."""
    schema: dict[str, Schema] = {}
    for name, columns in _columns_by_name(pieces).items():
        kind, code, bits = columns[0].kind, columns[0].code, columns[0].bits
        sizes = [len(piece) for piece in pieces]
        if _is_mixed(columns):
            schema[name] = _mixed_schema(columns, sizes)
            continue
        if kind == VALUE:
            schema[name] = {"dtype": None, "shape": None, "is_nested": False, "is_non_tensor": True}
            continue
        found = _shapes(columns, sizes)
        schema[name] = {
            "dtype": dtype_of((code, bits)) if bits else None,
            "shape": found.shape,
            "is_nested": found.each is not None,
            "is_non_tensor": False,
        }
        if found.each is not None:
            schema[name]["per_sample_shapes"] = found.each
    return schema


def _is_mixed(columns: Sequence[MetaField | Column]) -> bool:
    """Whether rows of a field differ in dtype or kind; pieces about which nothing is known do not count."""
    known = {
        (column.kind, column.code, column.bits)
        for column in columns
        if column.shape is not None or column.ndims is not None
    }
    return len(known) > 1 or any(column.types is not None for column in columns)


def types_of(column: MetaField | DataColumn | Column, size: int) -> list[Dtype | None]:
    """The element type of each row; None for other values."""
    if column.types is None:
        return [None if column.kind == VALUE else (column.code, column.bits)] * size
    return [unpacked_type(packed) for packed in memoryview(column.types).cast("B").cast("I")]


def _mixed_schema(columns: Sequence[MetaField | Column], sizes: Sequence[int]) -> Schema:
    types = [
        each for column, size in zip(columns, sizes, strict=True) for each in types_of(column, size)
    ]
    shapes = _shapes(columns, sizes)
    each: Sequence[Any] = shapes.each or [shapes.shape] * len(types)
    return {
        "dtype": None,
        "shape": None,
        "is_nested": False,
        "is_non_tensor": True,
        "per_sample_shapes": [
            None if dtype is None else shape for dtype, shape in zip(types, each, strict=True)
        ],
        "per_sample_dtypes": [None if dtype is None else dtype_of(dtype) for dtype in types],
    }


def _settled(field: Schema) -> Schema:
    """The schema of some samples of a mixed field: a uniform schema, if these samples do not differ."""
    dtypes = field.get("per_sample_dtypes")
    if dtypes is None:
        return field
    shapes = field.get("per_sample_shapes") or [None] * len(dtypes)
    filled = {
        dtype
        for dtype, shape in zip(dtypes, shapes, strict=True)
        if dtype is None or shape is None or 0 not in shape
    } or set(dtypes)
    if len(filled) != 1 or (None in filled) != (None in dtypes):
        return field
    dtype = filled.pop()
    if dtype is None:
        return {"dtype": None, "shape": None, "is_nested": False, "is_non_tensor": True}
    nested = len(set(shapes)) > 1
    made: Schema = {
        "dtype": dtype,
        "shape": None if nested else shapes[0],
        "is_nested": nested,
        "is_non_tensor": False,
    }
    return {**made, "per_sample_shapes": shapes} if nested else made


def copy_schema(schema: Mapping[str, Schema], places: Places) -> dict[str, Schema]:
    """A deep copy for all samples, or for the samples at some places."""
    from copy import deepcopy

    copied: dict[str, Schema] = {}
    for name, field in schema.items():
        copied[name] = {
            key: deepcopy(value) for key, value in field.items() if key not in PER_SAMPLE
        }
        for key in PER_SAMPLE:
            each = field.get(key)
            if each is not None:
                copied[name][key] = (
                    list(each) if places is None else [each[place] for place in places.tolist()]
                )
        copied[name] = _settled(copied[name])
    return copied


def dtypes_of(pieces: Sequence[Meta]) -> dict[str, Any]:
    """Element types of the fields of all pieces, without shapes."""
    return {
        name: None
        if found[0].kind == VALUE or not found[0].bits or _is_mixed(found)
        else dtype_of((found[0].code, found[0].bits))
        for name, found in _columns_by_name(pieces).items()
    }


def _columns_by_name(pieces: Sequence[Meta]) -> dict[str, list[MetaField]]:
    """Columns of the fields that all pieces have."""
    columns: dict[str, list[MetaField]] = {}
    for piece in pieces:
        for column in piece.fields:
            columns.setdefault(column.name, []).append(column)
    return {name: found for name, found in columns.items() if len(found) == len(pieces)}


def _shapes(columns: Sequence[MetaField | Column], sizes: Sequence[int]) -> _Shapes:
    uniform = {column.shape for column in columns}
    first = columns[0].shape
    if len(uniform) == 1 and first is not None:
        return _Shapes(_torch_shape(first), None)
    each: list[tuple[int, ...]] = []
    for column, size in zip(columns, sizes, strict=True):
        shape, ndims = column.shape, column.ndims
        dims: Any = column.dims
        if shape is not None:
            each.extend([tuple(shape)] * size)
        elif ndims is None:
            return _Shapes(None, None)  # nothing is known yet
        else:
            flat = memoryview(dims).tolist()
            depths = memoryview(ndims).tolist()
            start = 0
            if depths and depths[0] and depths.count(depths[0]) == len(depths):
                each.extend(zip(*[iter(flat)] * depths[0], strict=True))
                continue
            for depth in depths:
                each.append(tuple(flat[start : start + depth]))
                start += depth
    return _Shapes(None, each)


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    from .dtypes import have_torch

    if not have_torch():
        return shape
    import torch

    size: tuple[int, ...] = torch.Size(shape)
    return size


def schema_of_fields(fields: Fields) -> dict[str, Schema]:
    """Schema of a batch of data, as it would be after a put."""
    from .tensors import to_batch

    schema: dict[str, Schema] = {}
    for column in to_batch(fields, Encoder()).columns:
        name = column.name
        if column.types is not None:
            schema[name] = _mixed_schema([column], [column.rows])
            continue
        if column.kind == VALUE:
            schema[name] = {"dtype": None, "shape": None, "is_nested": False, "is_non_tensor": True}
            continue
        found = _shapes([column], [0])
        schema[name] = {
            "dtype": dtype_of((column.code, column.bits)),
            "shape": found.shape,
            "is_nested": found.each is not None,
            "is_non_tensor": False,
        }
        if found.each is not None:
            schema[name]["per_sample_shapes"] = found.each
        if column.ragged_dim:
            schema[name]["ragged_dim"] = column.ragged_dim
    return schema


def rows_of_schema(field: Mapping[str, Any], start: int, end: int) -> Schema:
    """The schema of a field for some of the field's rows."""
    return _settled(
        {
            key: value[start:end] if key in PER_SAMPLE and value is not None else value
            for key, value in field.items()
        }
    )


def status_of(pieces: Sequence[Meta]) -> Status:
    """Per sample, a 1 if all fields of its piece are ready."""
    import numpy as np

    parts = []
    for piece in pieces:
        ready = np.full(len(piece), bool(piece.fields))
        for column in piece.fields:
            flags = np.frombuffer(memoryview(column.ready), dtype=np.uint8)
            ready &= (flags == 1) if len(flags) else False
        parts.append(ready.astype(np.int8))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int8)


# --- small helpers --------------------------------------------------------------------------------


def as_status(status: Sequence[int] | Status | None, size: int) -> Status:
    """A given production status as an array of `size` numbers; zeros without one."""
    import numpy as np

    return np.zeros(size, dtype=np.int8) if status is None else np.array(status, dtype=np.int8)


def check_length(what: str, column: Any, size: int) -> None:
    """Refuse a list that is not as long as there are samples."""
    if column is not None and len(column) != size:
        raise ValueError(f"{what}: expected {size} entries, got {len(column)}")


def check_order(places: Sequence[int], size: int) -> npt.NDArray[np.uint32]:
    """Check that the places contain each number once, and return them as an array."""
    import numpy as np

    if len(places) != size:
        raise ValueError(f"reorder: {len(places)} places does not match the batch of {size}")
    order = np.asarray(places, dtype=np.int64)
    found = np.sort(order)
    if not np.array_equal(found, np.arange(size)):
        if found[0] < 0 or found[-1] >= size:
            raise ValueError(f"reorder: places must be in the range 0 to {size - 1}")
        raise ValueError("Contain duplicate indexes: reorder expects every place once")
    return order.astype(np.uint32)


def merge_extra_info(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All entries together; ValueError if two contradict each other."""
    merged: dict[str, Any] = {}
    for info in infos:
        for key, value in info.items():
            if key in merged and not same_value(merged[key], value):
                raise ValueError(
                    f"concat: conflicting values of extra_info {key!r}: {merged[key]!r} and {value!r}"
                )
            merged.setdefault(key, value)
    return merged


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are equal; also works on tensors and arrays."""
    if type(one) is not type(other):
        return False
    equal = one == other
    if isinstance(equal, bool):
        return equal
    try:
        return getattr(one, "shape", None) == getattr(other, "shape", None) and bool(equal.all())
    except (AttributeError, TypeError, ValueError):
        return bool(equal)


def equal_runs(items: Sequence[Any]) -> Iterator[tuple[Any, int, int]]:
    """Runs of equal items, each as item, start, end."""
    start = 0
    for place in range(1, len(items) + 1):
        if place == len(items) or items[place] != items[start]:
            yield items[start], start, place
            start = place


def even_ranges(size: int, chunks: int) -> list[tuple[int, int]]:
    """Cut `size` samples into `chunks` ranges (start, end) whose sizes differ by one at most, the larger first."""
    if chunks < 1:
        raise ValueError(f"chunks must be positive, got {chunks}")
    whole, rest = divmod(size, chunks)
    bounds = [0]
    for number in range(chunks):
        bounds.append(bounds[-1] + whole + (number < rest))
    return [(bounds[number], bounds[number + 1]) for number in range(chunks)]


def refuse_unknown_fields(where: str, wanted: Iterable[str], there: Sequence[str]) -> None:
    """Raise UnknownFieldError for wanted fields that do not exist."""
    unknown = [name for name in dict.fromkeys(wanted) if name not in set(there)]
    if unknown:
        raise UnknownFieldError(
            f"{where}: unknown fields {unknown[:8]}, there are {list(there)[:16]}"
        )
