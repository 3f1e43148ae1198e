"""Answers in a form that can be saved and compared: type, dtype, shape, layout, values, order.

Global indexes are relative to the first one that was free when the case began, because earlier cases determine
which indexes are allocated.  Errors are described by the built-in classes by which they can be caught.
"""

from __future__ import annotations

import builtins
import datetime
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tensordict import NonTensorData, NonTensorStack, TensorDict, TensorDictBase

Answer = Any

# Classes that programs catch by name, besides built-in classes.
CAUGHT = {"StorageKeyNotFoundError"}


def of_error(error: BaseException) -> Answer:
    """The classes by which an error can be caught, nearest first."""
    names = [
        cls.__name__
        for cls in type(error).__mro__
        if cls.__name__ in CAUGHT
        or (
            getattr(builtins, cls.__name__, None) is cls
            and cls not in (Exception, BaseException, object)
        )
    ]
    return {"error": names or ["Exception"]}


def of(value: Any, base: int = 0) -> Answer:
    """An answer, in the form to save."""
    if value is None or (isinstance(value, (bool, str)) and type(value) in (bool, str)):
        return value
    if type(value) is int:
        return value
    if type(value) is float:
        return {"float": repr(value)}
    if isinstance(value, BaseException):
        return of_error(value)
    name = type(value).__name__
    if name in ("BatchMeta", "KVBatchMeta"):
        return (of_meta if name == "BatchMeta" else of_kv_meta)(value, base)
    for kind, written in _KINDS:
        if isinstance(value, kind):
            return written(value, base)
    return {"object": name, "text": repr(value) if " at 0x" not in repr(value) else ""}


def of_meta(meta: Any, base: int) -> Answer:
    """A BatchMeta; indexes relative to `base`.

    The fields of an empty batch, and fields that no sample of the batch has yet, are the differences D06 and D07,
    which have separate cases.
    """
    written = bool((np.asarray(meta.production_status) == 1).any())
    return {
        "BatchMeta": [index - base for index in meta.global_indexes],
        "partitions": list(meta.partition_ids),
        "fields": of(list(meta.field_names) if meta.size else []),
        "schema": {
            name: of_schema(field) for name, field in sorted(meta.field_schema.items()) if written
        },
        "status": of(meta.production_status),
        "ready": meta.is_ready,
        "tags": of(list(meta.custom_meta)),
        "extra_info": of(meta.extra_info),
    }


def of_schema(field: Mapping[str, Any]) -> Answer:
    """A BatchMeta's description of one field, without the differences D02 and D03.

    Those have separate cases: a nested field whose rows have one shape is described as dense, the shape of a
    nested field is that of its rows, and a row without dimensions counts as one with one element.
    """
    shape, each = field.get("shape"), field.get("per_sample_shapes")
    shapes = None if each is None else [list(one) if one else [1] for one in each]
    if shapes and all(one == shapes[0] for one in shapes):
        shape, shapes = shapes[0], None
    return {
        "dtype": of(field.get("dtype")),
        "shape": None if shape is None or shapes else list(shape) or [1],
        "is_nested": bool(shapes),
        "is_non_tensor": of(field.get("is_non_tensor")),
        "each": shapes,
    }


def of_kv_meta(meta: Any, base: int) -> Answer:
    """A KVBatchMeta."""
    del base
    return {
        "KVBatchMeta": list(meta.keys),
        "tags": of(list(meta.tags)),
        "partition": meta.partition_id,
        "fields": of(meta.fields),
        "extra_info": of(meta.extra_info),
    }


def of_tensor(tensor: torch.Tensor, base: int) -> Answer:
    """A tensor: nested ones by their rows."""
    del base
    told: dict[str, Any] = {
        "tensor": str(tensor.dtype),
        "device": str(tensor.device),
        "grad": tensor.requires_grad,
    }
    if tensor.is_nested:
        told["layout"] = str(tensor.layout)
        told["rows"] = [_values(row) for row in tensor.unbind()]
        if tensor.layout == torch.jagged:
            told["offsets"] = tensor.offsets().tolist()
            told["ragged dim"] = tensor._ragged_idx
    else:
        told |= _values(tensor)
    return told


def _values(tensor: torch.Tensor) -> dict[str, Any]:
    plain = tensor.detach()
    if plain.dtype.itemsize == 1 and plain.dtype.is_floating_point:
        plain = plain.view(torch.uint8)  # tolist() does not support fp8 everywhere
    return {"shape": list(plain.shape), "values": of(plain.tolist())}


def of_tensordict(data: TensorDictBase, base: int) -> Answer:
    """A TensorDict: its batch size and its columns, as returned by `data[name]`."""
    return {
        "TensorDict": list(data.batch_size),
        "columns": {
            str(name): {"by get": type(data.get(name)).__name__, "value": of(data[name], base)}
            for name in sorted(data.keys())
        },
    }


def of_array(array: np.ndarray[Any, Any], base: int) -> Answer:
    """A NumPy array."""
    return {
        "array": str(array.dtype),
        "shape": list(array.shape),
        "values": of(array.tolist(), base),
    }


def _of_map(value: Mapping[Any, Any], base: int) -> Answer:
    name = type(value).__name__
    entries = [[of(key, base), of(entry, base)] for key, entry in value.items()]
    entries.sort(key=repr)  # cases where the order matters record it themselves
    return {"map": "dict" if name in ("dict", "Config", "DictConfig") else name, "entries": entries}


def _of_float(value: Any, base: int) -> Answer:
    del base
    return {"scalar": type(value).__name__, "value": "nan" if math.isnan(value) else repr(value)}


_KINDS: list[tuple[Any, Any]] = [
    (torch.Tensor, of_tensor),
    (NonTensorStack, lambda value, base: {"NonTensorStack": of(value.tolist(), base)}),
    (
        NonTensorData,
        lambda value, base: {
            "NonTensorData": of(value.data, base),
            "batch": list(value.batch_size),
        },
    ),
    ((TensorDict, TensorDictBase), of_tensordict),
    (np.ndarray, of_array),
    (np.floating, _of_float),
    (np.generic, lambda value, _: {"scalar": str(value.dtype), "value": repr(value.tolist())}),
    (torch.dtype, lambda value, _: str(value)),
    (torch.Size, lambda value, _: {"Size": list(value)}),
    (Mapping, _of_map),
    (tuple, lambda value, base: {"tuple": [of(each, base) for each in value]}),
    (list, lambda value, base: {"list": [of(each, base) for each in value]}),
    ((set, frozenset), lambda value, base: {"set": sorted(repr(of(each, base)) for each in value)}),
    ((bytes, bytearray), lambda value, _: {type(value).__name__: bytes(value).hex()}),
    (datetime.datetime, lambda value, _: {"datetime": value.isoformat()}),
    (type, lambda value, _: {"class": value.__name__}),
]


def agree(upstream: Answer, ours: Answer) -> bool:
    """Whether two answers agree; for errors, whether ours is caught wherever upstream's is."""
    if isinstance(upstream, dict) and isinstance(ours, dict):
        if "error" in upstream and "error" in ours:
            return upstream["error"][0] in [*ours["error"], "Exception"]
        return upstream.keys() == ours.keys() and all(
            agree(upstream[key], ours[key]) for key in upstream
        )
    if isinstance(upstream, list) and isinstance(ours, list):
        return len(upstream) == len(ours) and all(map(agree, upstream, ours))
    return type(upstream) is type(ours) and upstream == ours


__all__ = ["Answer", "agree", "of"]
