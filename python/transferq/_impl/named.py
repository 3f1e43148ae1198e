"""Errors about arguments of the wrong type: they name the argument and what is expected.

Calls do not check the types of their arguments up front: that would cost every call time.  Instead, when a call
raises a built-in error, its arguments are compared with the table below; if one has the wrong type, the error names it.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import ArgumentTypeError, InvalidArgumentError, TransferQueueError

if TYPE_CHECKING:
    from typing import ParamSpec

    P = ParamSpec("P")

R = TypeVar("R")

RAW = (TypeError, AttributeError, ValueError, LookupError, ArithmeticError)
"""What Python raises for a wrong argument."""

Kind = tuple[Callable[[Any], bool], str]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) or hasattr(value, "__float__")


def _integer(value: Any) -> bool:
    return hasattr(value, "__index__")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _listed(value: Any) -> bool:
    """Whether it is a list or list-like: with a length and an order."""
    return not isinstance(value, (str, bytes, Mapping)) and (
        isinstance(value, Sequence) or (hasattr(value, "__len__") and hasattr(value, "__getitem__"))
    )


def _texts(value: Any) -> bool:
    return isinstance(value, str) or (_listed(value) and all(map(_text, value)))


def _texts_or_none(value: Any) -> bool:
    return _listed(value) and all(each is None or isinstance(each, str) for each in value)


def _integers(value: Any) -> bool:
    return _integer(value) or (_listed(value) and all(map(_integer, value)))


def _map(value: Any) -> bool:
    return isinstance(value, Mapping)


def _maps(value: Any) -> bool:
    return _listed(value) and all(map(_map, value))


def _columns(value: Any) -> bool:
    from .tensors import is_tensordict

    return isinstance(value, Mapping) or is_tensordict(value)


def _batch(value: Any) -> bool:
    from ..metadata import BatchMeta

    return isinstance(value, BatchMeta)


def _batches(value: Any) -> bool:
    from ..metadata import BatchMeta, KVBatchMeta

    return _listed(value) and all(
        each is None or isinstance(each, (BatchMeta, KVBatchMeta)) for each in value
    )


def _by_key(value: Any) -> bool:
    from ..metadata import KVBatchMeta

    return isinstance(value, KVBatchMeta)


def _path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


TEXT: Kind = (_text, "a str")
TEXTS: Kind = (_texts, "a str or a list of str")
COUNT: Kind = (_integer, "an int")
COUNTS: Kind = (_integers, "an int or a list of int")
MAP: Kind = (_map, "a map")
MAPS: Kind = (_maps, "a list of maps, one per sample")
COLUMNS: Kind = (_columns, "a TensorDict, or a dict of columns by field")
BATCHES: Kind = (_batches, "a list of batches of metadata")

KINDS: dict[str, Kind] = {
    "batch_size": COUNT,
    "checkpoint_dir": (_path, "a path"),
    "chunks": COUNT,
    "client_id": TEXT,
    "config": MAP,
    "custom_meta": MAPS,
    "data": COLUMNS,
    "data_fields": TEXTS,
    "data_parser": (callable, "a function of the columns"),
    "dp_rank": COUNT,
    "extra_info": MAP,
    "field_names": TEXTS,
    "field_schema": MAP,
    "field_name": TEXT,
    "fields": COLUMNS,
    "global_indexes": COUNTS,
    "group": TEXT,
    "groups": (_texts_or_none, "a list with a str or None per sample"),
    "indexes": COUNTS,
    "indices": COUNTS,
    "info_dict": MAP,
    "key": TEXT,
    "keys": TEXTS,
    "keys_to_select": TEXTS,
    "limit": COUNT,
    "manager_type": TEXT,
    "meta": (_by_key, "a KVBatchMeta"),
    "metadata": (_batch, "a BatchMeta"),
    "micro_batch_size": COUNT,
    "mode": TEXT,
    "name": TEXT,
    "n_samples_per_prompt": COUNT,
    "other": (_batch, "a BatchMeta"),
    "partition_id": TEXT,
    "partition_ids": TEXTS,
    "sample_indices": COUNTS,
    "sampling_config": MAP,
    "select_fields": TEXTS,
    "since": COUNT,
    "tag": MAP,
    "tags": MAPS,
    "task_name": TEXT,
    "tensor_dict": COLUMNS,
    "timeout": (_number, "a number of seconds"),
}
"""Expected kind by parameter name; None is also accepted where the annotation or the default allows it."""

OTHERS: dict[str, Kind] = {
    "concat.data": BATCHES,
    "KVBatchMeta.__init__.fields": TEXTS,
    "load_controller_checkpoint.path": (_path, "a path"),
    "load_storage_checkpoint.path": (_path, "a path"),
    "save_checkpoint.metadata": MAP,
    "save_controller_checkpoint.path": (_path, "a path"),
    "save_storage_checkpoint.path": (_path, "a path"),
}
"""Parameters whose names mean something else in other calls."""


def kind_of(function: Callable[..., Any], name: str) -> Kind | None:
    """The kind that a parameter expects."""
    qualified = function.__qualname__
    short = qualified.rpartition(".")[2].lstrip("_") if "__init__" not in qualified else qualified
    return OTHERS.get(f"{short}.{name}") or KINDS.get(name)


def explain(
    function: Callable[..., Any], args: Sequence[Any], named: Mapping[str, Any], error: Exception
) -> None:
    """Raise an ArgumentTypeError if the error was caused by an argument of the wrong type."""
    if isinstance(error, TransferQueueError):
        return
    try:
        signature = inspect.signature(function)
        given = signature.bind(*args, **named).arguments
    except TypeError:
        # Wrong number of arguments: Python's own message is clear, except that it names the steps behind the call.
        short = function.__qualname__.rpartition(".")[2]
        words = str(error).removeprefix(f"{function.__qualname__}()")
        if short.startswith("_") and not short.startswith("__") and words != str(error):
            raise TypeError(f"{short[1:]}(){words}") from None
        return
    for name, value in given.items():
        kind = kind_of(function, name)
        if kind is None or (value is None and _takes_none(signature.parameters[name])):
            continue
        if not kind[0](value):
            raise ArgumentTypeError(
                f"{name}: expected {kind[1]}, got {_shown(value, kind)}"
            ) from error
        _check_texts(name, value, error)


def _takes_none(parameter: inspect.Parameter) -> bool:
    return parameter.default is None or "None" in str(parameter.annotation)


def _shown(value: Any, kind: Kind) -> str:
    """The type of a value; for a list, also which entry is wrong."""
    if _listed(value) and kind in (TEXTS, COUNTS, MAPS):
        one = {TEXTS: _text, COUNTS: _integer, MAPS: _map}[kind]
        for place, each in enumerate(value):
            if not one(each):
                return f"{type(each).__name__} ({each!r:.40}) at place {place}"
    return type(value).__name__


def _check_texts(name: str, value: Any, error: Exception) -> None:
    """Refuse text that cannot be used as a name."""
    for each in [value] if isinstance(value, str) else value if _listed(value) else ():
        if isinstance(each, str) and ("\0" in each or _odd(each)):
            raise InvalidArgumentError(
                f"{name}: {each!r:.60} holds a zero character or half of a surrogate pair, which names "
                "cannot contain; replace it"
            ) from error


def _odd(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def named(function: Callable[P, R]) -> Callable[P, R]:
    """Make errors of a function about wrong types name the argument."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except RAW as error:
            explain(function, args, kwargs, error)
            raise

    return call
