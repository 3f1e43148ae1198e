"""Element types: those of torch and NumPy, and the numbers that the library uses for them."""

from __future__ import annotations

import functools
import sys
from typing import Any

from .._core import TENSOR, VALUE

Dtype = tuple[int, int]
"""Element type in DLPack's form: code and bits."""

INT, UINT, FLOAT, BFLOAT, COMPLEX, BOOL = 0, 1, 2, 4, 5, 6


@functools.cache
def have_torch() -> bool:
    """Whether results are TensorDicts of tensors: torch and tensordict can be imported."""
    import importlib.util

    return all(importlib.util.find_spec(name) is not None for name in ("torch", "tensordict"))


@functools.cache
def torch_dtypes() -> dict[Any, Dtype]:
    """Element types by torch dtype, for the dtypes that this torch version has."""
    import torch

    names: dict[str, Dtype] = {
        "bool": (BOOL, 8),
        "int8": (INT, 8),
        "int16": (INT, 16),
        "int32": (INT, 32),
        "int64": (INT, 64),
        "uint8": (UINT, 8),
        "uint16": (UINT, 16),
        "uint32": (UINT, 32),
        "uint64": (UINT, 64),
        "float16": (FLOAT, 16),
        "float32": (FLOAT, 32),
        "float64": (FLOAT, 64),
        "bfloat16": (BFLOAT, 16),
        "complex32": (COMPLEX, 32),
        "complex64": (COMPLEX, 64),
        "complex128": (COMPLEX, 128),
        "float8_e4m3fn": (10, 8),
        "float8_e4m3fnuz": (11, 8),
        "float8_e5m2": (12, 8),
        "float8_e5m2fnuz": (13, 8),
        "float8_e8m0fnu": (14, 8),
        "float4_e2m1fn_x2": (17, 8),
    }
    return {getattr(torch, name): dtype for name, dtype in names.items() if hasattr(torch, name)}


@functools.cache
def torch_dtypes_back() -> dict[Dtype, Any]:
    """Torch dtypes by element type."""
    return {dtype: of_torch for of_torch, dtype in torch_dtypes().items()}


_NUMPY_KINDS = {"b": (BOOL, 8), "i": (INT, 0), "u": (UINT, 0), "f": (FLOAT, 0), "c": (COMPLEX, 0)}
_NUMPY_LETTERS = {INT: "i", UINT: "u", FLOAT: "f", COMPLEX: "c", BOOL: "b"}


def numpy_dtype(dtype: Any) -> Dtype | None:
    """The element type of an array, or None if it cannot be a tensor's."""
    if dtype.kind not in _NUMPY_KINDS or (
        dtype.kind in "fc" and dtype.itemsize > 8 * (1 + (dtype.kind == "c"))
    ):
        return None
    code, bits = _NUMPY_KINDS[dtype.kind]
    return code, bits or dtype.itemsize * 8


def numpy_dtype_back(dtype: Dtype) -> Any:
    """The NumPy dtype; for types that NumPy lacks, unsigned integers of the same size."""
    import numpy as np

    code, bits = dtype
    letter = _NUMPY_LETTERS.get(code, "u")
    if code == COMPLEX and bits == 32:
        letter = "u"
    return np.dtype(f"{letter}{bits // 8}")


def dtype_of(dtype: Dtype) -> Any:
    """The element type shown to users: torch's, or NumPy's if torch is not installed."""
    if have_torch():
        return torch_dtypes_back().get(dtype)
    return numpy_dtype_back(dtype)


def describe_dtype(dtype: Any) -> Dtype | None:
    """The element type of a torch or NumPy dtype, or None for anything else."""
    if dtype is None:
        return None
    if sys.modules.get("torch") is not None:
        found = torch_dtypes().get(dtype)
        if found is not None:
            return found
    import numpy as np

    try:
        return numpy_dtype(np.dtype(dtype))
    except TypeError:
        return None


def packed_type(dtype: Dtype | None) -> int:
    """The kind of a row as one number: an element type, or a value (None)."""
    code, bits = dtype or (UINT, 8)
    return (VALUE if dtype is None else TENSOR) << 16 | bits << 8 | code


def unpacked_type(packed: int) -> Dtype | None:
    """The inverse of `packed_type`."""
    return None if packed >> 16 == VALUE else (packed & 0xFF, packed >> 8 & 0xFF)
