"""Options of reads: layout and padding of fields, and whether to use page-locked memory."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ..errors import InvalidArgumentError
from .dtypes import have_torch

LAYOUTS = ("jagged", "dense", "padded")
ANY = "*"
"""Stands for all fields that are not listed."""

LayoutOption: TypeAlias = "str | Mapping[str, str]"
"""A layout, or one per field."""
PaddingOption: TypeAlias = "float | Mapping[str, Any]"
"""A pad value, or per field a pad value or a map of `value`, `multiple`, `length`, `lengths`, `mask`."""

R = TypeVar("R")


class Padding(NamedTuple):
    """How one field is padded."""

    value: Any = 0
    """The value that fills the gaps."""
    multiple: int = 1
    """The padded length is a multiple of this."""
    length: int = 0
    """The padded length is at least this."""
    lengths: str | None = None
    """Field to add with the length of each row."""
    mask: str | None = None
    """Field to add that is true where the row is and false in the gaps."""


class ReadOptions(NamedTuple):
    """The layouts of the fields of a read, and whether to use page-locked memory."""

    layouts: Mapping[str, str]
    paddings: Mapping[str, Padding]
    pin_memory: bool

    def layout(self, field: str) -> str:
        """The layout of a field."""
        return self.layouts.get(field) or self.layouts.get(ANY) or "jagged"

    def padding(self, field: str) -> Padding:
        """The padding of a field."""
        return self.paddings.get(field) or self.paddings.get(ANY) or Padding()

    @property
    def is_packed(self) -> bool:
        """Whether no column is padded or in page-locked memory: all stay as the library returns them."""
        return not self.pin_memory and "padded" not in self.layouts.values()

    def added(self, fields: Sequence[str]) -> set[str]:
        """Names of the fields that padding adds; none of them may be a field that is read."""
        names: set[str] = set()
        for field in fields:
            if self.layout(field) == "padded":
                for name in filter(None, self.padding(field)[3:]):
                    if name in names or name in fields:
                        raise InvalidArgumentError(
                            f"padding of field {field!r}: there is a field {name!r} already: give what is added "
                            "another name"
                        )
                    names.add(name)
        return names


def read_options(
    config: Mapping[str, Any],
    layout: LayoutOption | None,
    padding: PaddingOption | None,
    pin_memory: bool | None,
) -> ReadOptions | None:
    """The options of a read, combined with the `client` section of the configuration; None if there is nothing special.

    A field for which the read gives a padding, but no layout, is padded.
    """
    layouts = as_layouts(config.get("layout") or "jagged")
    paddings = as_paddings(config.get("padding") or {})
    if layout is not None:
        layouts = _over(layouts, as_layouts(layout), layout)
    if padding is not None:
        given = as_paddings(padding)
        paddings = _over(paddings, given, padding)
        if layout is None:
            layouts = _over(layouts, dict.fromkeys(given, "padded"), padding)
    pin = bool(config.get("pin_memory")) if pin_memory is None else bool(pin_memory)
    pin = pin and _can_pin()
    if not pin and all(name == "jagged" for name in layouts.values()):
        return None
    return ReadOptions(layouts, paddings, pin)


def _over(configured: dict[str, R], given: dict[str, R], option: object) -> dict[str, R]:
    """Combine options: values for some fields override the configuration's, a value for all fields replaces them."""
    return {**configured, **given} if isinstance(option, Mapping) else given


def as_layouts(layout: Any) -> dict[str, str]:
    """The layout of each field; InvalidArgumentError for an unknown layout."""
    layouts = dict(layout) if isinstance(layout, Mapping) else {ANY: layout}
    for field, name in layouts.items():
        if name not in LAYOUTS:
            where = "" if field == ANY else f" of field {field!r}"
            raise InvalidArgumentError(
                f"layout{where}: expected {', '.join(LAYOUTS[:-1])} or {LAYOUTS[-1]}, got {name!r}"
            )
    return layouts


def as_paddings(padding: Any) -> dict[str, Padding]:
    """The padding of each field; InvalidArgumentError for anything else."""
    paddings = padding if isinstance(padding, Mapping) else {ANY: padding}
    return {field: _as_padding(field, given) for field, given in paddings.items()}


def _as_padding(field: str, given: Any) -> Padding:
    if isinstance(given, Padding):
        return given
    if isinstance(given, (bool, int, float, complex)):
        return Padding(given)
    wanted = (
        f"padding of field {field!r}: expected a number or a map of {', '.join(Padding._fields)}"
    )
    if not isinstance(given, Mapping) or not set(given) <= set(Padding._fields):
        raise InvalidArgumentError(f"{wanted}, got {given!r}")
    made = Padding(**given)
    if not isinstance(made.value, (bool, int, float, complex)):
        raise InvalidArgumentError(f"{wanted}; value: got {made.value!r}")
    for name, least in (("multiple", 1), ("length", 0)):
        count = getattr(made, name)
        if not isinstance(count, int) or isinstance(count, bool) or not least <= count < 1 << 63:
            raise InvalidArgumentError(f"{wanted}; {name}: got {count!r}")
    for added in (made.lengths, made.mask):
        if added is not None and (not isinstance(added, str) or field == ANY):
            raise InvalidArgumentError(
                f"{wanted}; lengths and mask name a field to add, for one field each, got {added!r}"
            )
    return made


@functools.cache
def _can_pin() -> bool:
    """Whether there is an accelerator that benefits from page-locked memory; warns if there is none."""
    if not have_torch():
        raise InvalidArgumentError("pin_memory: expected torch to be installed")
    import torch

    if torch.cuda.is_available():
        return True
    warnings.warn(
        "pin_memory is set but no CUDA device is found: reads land in ordinary memory",
        UserWarning,
        stacklevel=2,
    )
    return False
