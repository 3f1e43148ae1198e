"""Which settings of a configuration are in force, and which have no effect because the system is already running.

A process that attaches to a system gets that system's configuration.  Its own settings count only for what each process
does for itself: all of `client` and `serialization`, how it looks for a system (`ray`, `address`), and what its claims
contain (`controller.sampler`, `controller.sampling_config`, `controller.polling_mode`).  Everything else was
decided when the daemons were started.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..config import SAMPLE_COUNT_LIMIT, Config, defaults, knows, merge
from .config_keys import TABLE, quantity

logger = logging.getLogger("transferq")

PLACE = {key.path.partition(".")[0] for key in TABLE.values() if key.scope == "search"}
"""Settings that only locate a system; they are not compared."""

LOCAL = (
    "client.",
    "serialization.",
    *(key.path for key in TABLE.values() if key.scope == "process"),
)
"""Settings that each process decides for itself."""

COUNTED = "backend.SimpleStorage.total_storage_size"
"""The size setting whose small numbers are counts of samples, not bytes."""


class Ignored(NamedTuple):
    """A requested setting that has no effect."""

    key: str
    wished: Any
    actual: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.wished)} was asked for, {_shown(self.actual)} is in force"


def in_force(system: Mapping[str, Any], given: Mapping[str, Any]) -> Config:
    """The configuration of a process: the system's, with its own settings where they have an effect.

    An equal value in a different form ("64MiB") is kept in the form in which it was given.
    """
    final = merge(merge(defaults(), system), given)
    for ignored in without_effect(given, system):
        *sections, name = ignored.key.split(".")
        section: dict[str, Any] = final
        for each in sections:
            section = section[each]
        section[name] = copy.deepcopy(ignored.actual)
    _fill(final, system)
    return final


def without_effect(given: Mapping[str, Any], system: Mapping[str, Any]) -> list[Ignored]:
    """The requested settings that differ from a running system's, in the order of the configuration."""
    return [
        each
        for each in differences(given, merge(defaults(), system))
        # A claim may ask for an immediate answer, but it cannot make a controller in polling mode wait.
        if not each.key.startswith(LOCAL)
        and (each.key != "controller.polling_mode" or not each.wished)
    ]


def differences(given: Mapping[str, Any], used: Mapping[str, Any]) -> list[Ignored]:
    """The requested settings that differ from the configuration in use."""
    backend = _at(used, "backend.storage_backend")
    found = []
    for key, wished in _leaves({name: part for name, part in given.items() if name not in PLACE}):
        if key.startswith("backend.") and key.count(".") > 1 and key.split(".")[1] != backend:
            continue  # of another backend: the difference in storage_backend is reported
        actual = _at(used, key)
        if not _same(key, wished, actual):
            found.append(Ignored(key, wished, actual))
    return found


def warn(ignored: list[Ignored], why: str) -> None:
    """Warn about settings that have no effect, by name, with the reason."""
    if ignored:
        logger.warning(
            "configuration: %s no effect, because %s: %s",
            "1 key has" if len(ignored) == 1 else f"{len(ignored)} keys have",
            why,
            "; ".join(map(str, ignored)),
        )


def _leaves(given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The keys that have an effect, with their values; null requests nothing."""
    for name, value in given.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and not knows(key):
            yield from _leaves(value, f"{key}.")
        elif value is not None and (knows(key) or key.count(".") > 1):
            yield key, value


def _at(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _fill(final: dict[str, Any], system: Mapping[str, Any]) -> None:
    """Replace null by the system's value."""
    for name, value in system.items():
        if isinstance(value, Mapping) and isinstance(final.get(name), dict):
            _fill(final[name], value)
        elif final.get(name) is None:
            final[name] = copy.deepcopy(value)


def _same(key: str, wished: Any, actual: Any) -> bool:
    if wished in ({}, []):
        return True
    kind = TABLE[key].kind if key in TABLE else ""
    if kind == "bytes":
        if isinstance(wished, int) and wished < SAMPLE_COUNT_LIMIT and key == COUNTED:
            return True  # a count of samples: it limits nothing, and has its own warning
        return _close(quantity("bytes", wished), quantity("bytes", actual))
    if isinstance(actual, list) != isinstance(wished, list):
        return _list(wished) == _list(actual)
    if (
        isinstance(wished, str)
        and isinstance(actual, (int, float))
        and not isinstance(actual, bool)
    ):
        return quantity("seconds", wished) == actual
    return bool(wished == actual)


def _close(wished: float | None, actual: float | None) -> bool:
    """Whether two sizes are equal but for fractions of a byte, which the daemon cuts off."""
    return wished is not None and actual is not None and abs(wished - actual) < 1


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _shown(value: Any) -> str:
    """A value for display, without the password of a URL."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "nothing" if value is None else re.sub(r"//[^@/]*@", "//***@", str(value))
