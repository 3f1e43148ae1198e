"""Arguments of calls: checks, and conversion to and from the library's forms."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .._core import NAME_MAX
from ..errors import ArgumentTypeError, InvalidArgumentError, RowCountError
from ..metadata import BatchMeta, KVBatchMeta
from .tensors import integers, is_tensordict

if TYPE_CHECKING:
    from .._core import Meta
    from .tensors import Fields

logger = logging.getLogger("transferq")

Parser = Callable[[Any], Any]


def check_keys(keys: Any) -> list[str]:
    """The keys as a list, given as one string or a non-empty list of strings."""
    if isinstance(keys, str):
        return [keys]
    if not isinstance(keys, list):
        raise ArgumentTypeError(f"keys: expected a str or a list of str, got {type(keys).__name__}")
    if not keys:
        raise InvalidArgumentError("keys: expected at least one, got an empty list")
    if set(map(type, keys)) == {str}:
        return keys
    for key in keys:
        if not isinstance(key, str):
            raise ArgumentTypeError(f"keys: expected str, got {key!r}")
    return keys


def expect_text(what: str, given: object) -> None:
    """Refuse anything but a str."""
    if not isinstance(given, str):
        raise ArgumentTypeError(
            f"{what}: expected a str, got {type(given).__name__} ({given!r:.40})"
        )


def warn_nothing_selected(asked: Any, readable: list[str]) -> None:
    """Warn that none of the requested fields can be read."""
    if asked:
        logger.warning(
            "select_fields: none of the fields %s is ready in all of these samples (misspelt?); the result is "
            "empty. Fields that can be read: %s",
            list(asked)[:8],
            readable,
        )


def check_data(what: str, given: object) -> None:
    """Refuse anything that has no columns."""
    if not is_tensordict(given) and not isinstance(given, Mapping):
        raise ArgumentTypeError(
            f"{what}: expected a TensorDict, or a dict of columns by field, got {type(given).__name__}"
        )


def expect_metadata(given: object) -> None:
    """Refuse anything but metadata."""
    if not isinstance(given, BatchMeta):
        hint = ""
        if isinstance(given, KVBatchMeta):
            hint = "; read it with kv_batch_get_by_meta, or get one by kv_retrieve_meta"
        raise ArgumentTypeError(f"metadata: expected a BatchMeta, got {type(given).__name__}{hint}")


def check_put_metadata(given: object) -> None:
    """Refuse anything but metadata; passing a partition instead is the most common slip."""
    if not isinstance(given, BatchMeta):
        hint = f"; did you mean partition_id={given!r}?" if isinstance(given, str) else ""
        raise ArgumentTypeError(f"put: metadata must be a BatchMeta, got {given!r}{hint}")


def sampling_json(config: Mapping[str, Any]) -> str:
    """The sampling_config as JSON, as it is sent."""
    try:
        return json.dumps(config)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"sampling_config: {_no_json(config)}{error}; expected numbers, text, lists and maps"
        ) from None


def _no_json(config: Mapping[str, Any]) -> str:
    """The entry that cannot be written as JSON, followed by a colon."""
    for name, value in config.items():
        try:
            json.dumps({name: value})
        except (TypeError, ValueError):
            return f"{name!r}: "
    return ""


def seconds(timeout: float | None) -> float:
    """A timeout in the library's form, where 0 means the client's own."""
    if timeout is None:
        return 0.0
    if not timeout > 0:
        raise InvalidArgumentError(
            f"timeout: expected a positive number of seconds, got {timeout!r}"
        )
    return -1.0 if timeout == float("inf") else float(timeout)


def field_list(what: str, names: Any) -> list[str]:
    """Field names as a list, given as one string or a list or tuple of strings."""
    if isinstance(names, str):
        return [names]
    if not isinstance(names, (list, tuple)):
        raise ArgumentTypeError(f"{what}: expected a list of str, got {type(names).__name__}")
    for name in names:
        expect_text(what, name)
    return list(dict.fromkeys(names))


def plain_names(names: Any) -> bool:
    """Whether these can be field names, or are None (all); anything else names no field, and is not worth an error."""
    return names is None or (
        isinstance(names, (list, tuple))
        and len(names) > 0
        and all(
            isinstance(name, str)
            and name.isascii()
            and name.isprintable()
            and 0 < len(name) <= NAME_MAX
            for name in names
        )
    )


def common_fields(meta: Meta) -> list[str]:
    """Fields that every sample has, or had and lost (reading a lost one is an error)."""
    return [
        column.name for column in meta.fields if len(column.ready) and all(memoryview(column.ready))
    ]


def progress_arrays(progress: tuple[bytes, int, bytes] | None, flat: bool) -> tuple[Any, Any]:
    """Indexes and flags as arrays: one flag per sample, or (not flat) a row of them; (None, None) without a partition."""
    if progress is None:
        return None, None
    indexes, columns, flags = progress
    status = integers(flags, "u1")
    return integers(indexes, "u4"), status if flat else status.reshape(-1, columns)


def parsed(data: Fields, parser: Parser | None) -> Fields:
    """The data as returned by a parser."""
    if parser is None:
        return data
    given = {name: _for_parser(data, name) for name in data.keys()}  # noqa: SIM118 - a TensorDict iterates over rows
    returned = parser(given)
    changed = given if returned is None else returned
    if not isinstance(changed, Mapping) or set(changed) != set(given):
        raise InvalidArgumentError(
            f"data_parser must keep the fields {sorted(given)}, got "
            f"{sorted(changed) if isinstance(changed, Mapping) else changed!r}"
        )
    for name, column in changed.items():
        if len(column) != len(given[name]):
            raise RowCountError(
                f"data_parser: field {name!r}: expected {len(given[name])} rows, got {len(column)}"
            )
    return changed


def _for_parser(data: Fields, name: str) -> Any:
    """A column in the form that a parser gets: a dense tensor, or a list of rows."""
    column: Any = data.get(name) if is_tensordict(data) else data[name]
    if getattr(column, "is_nested", False):
        return list(column.unbind())
    return list(column.tolist()) if type(column).__name__ == "NonTensorStack" else column


def rows_of(data: Fields, start: int, end: int) -> Fields:
    """Some of the rows of a batch of data."""
    if is_tensordict(data):
        part: Any = data
        return part[start:end]
    return {name: column[start:end] for name, column in data.items()}
