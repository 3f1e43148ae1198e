"""User data attached to a batch of samples as a whole."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .named import named


class ExtraInfo:
    """The map `extra_info` of a batch, and the calls on it."""

    __slots__ = ("extra_info",)

    extra_info: dict[str, Any]

    def get_extra_info(self, key: str, default: Any = None) -> Any:
        """One entry of extra_info, or the default."""
        return self.extra_info.get(key, default)

    def set_extra_info(self, key: str, value: Any) -> None:
        """Set one entry of extra_info."""
        self.extra_info[key] = value

    def has_extra_info(self, key: str) -> bool:
        """Whether extra_info has this entry."""
        return key in self.extra_info

    def remove_extra_info(self, key: str) -> Any:
        """Remove one entry from extra_info and return it; None if it does not exist."""
        return self.extra_info.pop(key, None)

    @named
    def update_extra_info(self, info_dict: Mapping[str, Any]) -> None:
        """Set entries of extra_info."""
        self.extra_info.update(info_dict)

    def clear_extra_info(self) -> None:
        """Remove all entries of extra_info."""
        self.extra_info.clear()

    def get_all_extra_info(self) -> dict[str, Any]:
        """A deep copy of extra_info."""
        return copy.deepcopy(self.extra_info)
