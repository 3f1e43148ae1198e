"""The keys of the configuration, each with a check of its values.

The build generates the table from config/keys.toml, like the daemon's table, so both accept the same values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import InvalidArgumentError
from .config_table import BACKENDS, KEYS, OPTIONAL, UNITS

__all__ = [
    "BACKENDS",
    "BUILT_IN",
    "FOR_ALL_BACKENDS",
    "OPTIONAL",
    "SECTIONS",
    "TABLE",
    "Key",
    "quantity",
]

FOR_ALL_BACKENDS = frozenset({"module", "library"})
"""Keys allowed in the section of any backend: what registers its manager."""

BUILT_IN = {name: module for name, module in BACKENDS.items() if module is not None}
"""Backends written in Python that are part of the package, with the module that registers each."""

_UNITS = {
    kind: {suffix.lower(): factor for suffix, factor in units.items()}
    for kind, units in UNITS.items()
}
_QUANTITY = re.compile(r"\s*([+-]?\d+(?:\.\d*)?(?:e[+-]?\d+)?)\s*([a-z%]*)\s*", re.IGNORECASE)


def quantity(kind: str, value: Any) -> float | None:
    """A number of `seconds` or `bytes`, also from text such as "250ms" or "25%"; None for anything else."""
    if not isinstance(value, str):
        return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    match = _QUANTITY.fullmatch(value)
    if match is None:
        return None
    number, unit = float(match.group(1)), match.group(2).lower()
    if kind == "bytes" and unit == "%":
        from .._core import memory_limit

        return number / 100 * memory_limit()[0] if number <= 100 else None
    return number * _UNITS[kind][unit] if unit in _UNITS[kind] else None


class Key(NamedTuple):
    """One key; config/keys.toml says what the fields mean."""

    path: str
    kind: str
    default: Any
    expects: str
    """Description of a valid value, for "expected ..."."""
    null: bool
    """Whether null is allowed."""
    scope: str
    read_by: tuple[str, ...]
    hidden: bool
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    counts_below: int

    @property
    def is_read(self) -> bool:
        """Whether the key has an effect: `init()` also returns keys that have none, and TransferQueue has others."""
        return bool(self.read_by)

    @property
    def is_of_optional_section(self) -> bool:
        """Whether the key is in the section of a backend other than the default."""
        return self.path.rpartition(".")[0] in OPTIONAL

    def accepts(self, value: Any) -> bool:
        """Whether a value is valid for this key."""
        return (value is None and self.null) or _CHECKS[self.kind](self, value)

    def in_range(self, number: float) -> bool:
        """Whether a number is within the limits."""
        return (self.minimum is None or number >= self.minimum) and (
            self.maximum is None or number <= self.maximum
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(key: Key, value: Any) -> bool:
    # For a backend, empty text may mean that there is no value.
    return isinstance(value, str) and (value != "" or key.is_of_optional_section)


def _texts(key: Key, value: Any) -> bool:
    return _text(key, value) or (
        isinstance(value, list) and all(_text(key, each) for each in value)
    )


def _number(key: Key, value: Any) -> bool:
    return _is_whole(value) and key.in_range(value)


def _seconds(key: Key, value: Any) -> bool:
    number = quantity("seconds", value)
    return number is not None and key.in_range(number)


def _bytes(key: Key, value: Any) -> bool:
    if isinstance(value, float):
        return False
    if _is_whole(value) and 0 < value < key.counts_below:
        return True
    number = quantity("bytes", value)
    return number is not None and key.in_range(number)


def _layout(key: Key, value: Any) -> bool:
    from .read_options import as_layouts

    return _can_be_read(as_layouts, value)


def _padding(key: Key, value: Any) -> bool:
    from .read_options import as_paddings

    return _can_be_read(as_paddings, value)


def _can_be_read(read: Callable[[Any], Any], value: Any) -> bool:
    try:
        read(value)
    except InvalidArgumentError:
        return False
    return True


_CHECKS: dict[str, Callable[[Key, Any], bool]] = {
    "any": lambda key, value: True,
    "bool": lambda key, value: isinstance(value, bool),
    "bytes": _bytes,
    "choice": lambda key, value: isinstance(value, str) and value in key.choices,
    "count": _number,
    "layout": _layout,
    "map": lambda key, value: isinstance(value, Mapping),
    "number": _number,
    "padding": _padding,
    # Features of TransferQueue that this system does not have may only be switched off.
    "upstream": lambda key, value: (
        not value or (isinstance(value, Mapping) and not value.get("enabled"))
    ),
    "seconds": _seconds,
    "text": _text,
    "texts": _texts,
}

TABLE = {row["path"]: Key(**row) for row in KEYS}
"""All keys by path."""

SECTIONS = frozenset(path[:end] for path in TABLE for end in range(len(path)) if path[end] == ".")
"""The paths that have keys below them."""
