"""Runs a daemon whose controller picks with a Python sampler: `python -m transferq.host`, with tqd's options.

`init()` starts it instead of tqd if the configuration contains such a sampler: either as an object, which is
pickled and sent through the standard input, or as `module:Class`, which is imported.  The daemon is the same
C code as in tqd; Python runs only while the sampler is called.

    python -m transferq.host all-in-one --runtime-dir DIR --set controller.sampler=my.module:MySampler
"""

from __future__ import annotations

import inspect
import json
import logging
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ._host import run_daemon, view_sample
from ._impl.encoding import TagDecoder
from ._impl.tag_names import MARK, tag_key
from .errors import ConfigError, SamplerError
from .samplers import BaseSampler

logger = logging.getLogger("transferq")

PICKLED = "--pickled-sampler"
"""First argument if the sampler is sent pickled through the standard input."""


class PartitionView:
    """The part of a partition that a sampler may see while it picks; valid during the call."""

    def __init__(self, view: object, partition_id: str, ready: Sequence[int]) -> None:
        """View the ready samples of a partition."""
        self.partition_id = partition_id
        self.global_indexes = set(ready)
        self._view = view
        self._places = {index: place for place, index in enumerate(ready)}

    def get_custom_meta(self, global_indices: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Tags of ready samples; other samples are left out."""
        decoder = TagDecoder()
        found: dict[int, dict[str, Any]] = {}
        for index in global_indices:
            place = self._places.get(index)
            if place is not None:
                _, _, tags = view_sample(self._view, place)
                found[index] = {
                    tag_key(name) if name[0] == MARK else name: decoder.decode(value)
                    for name, value in tags
                }
        return found

    def get_groups(self, global_indices: Sequence[int]) -> dict[int, tuple[str | None, int]]:
        """Per ready sample, the group given at the put, or None, and its position in joining order."""
        return {
            index: view_sample(self._view, self._places[index])[:2]
            for index in global_indices
            if index in self._places
        }


class _Adapter:
    """Calls a sampler for the controller, and checks what it returns."""

    def __init__(self, sampler: BaseSampler, name: str) -> None:
        self._sampler = sampler
        self.name = name
        self._extras = _accepted(sampler.sample)

    def pick(
        self, view: object, ready: list[int], size: int, partition: str, task: str, config: str
    ) -> tuple[list[int], list[int], str | None]:
        """Call the sampler; returns the sampled and consumed indexes, and the slot of a result that it caches."""
        settings: dict[str, Any] = json.loads(config)
        known = {
            "partition": PartitionView(view, partition, ready),
            "task_name": task,
            "partition_id": partition,
        }
        extras = {key: value for key, value in known.items() if key in self._extras}
        try:
            returned = self._sampler(ready, size, **{**extras, **settings})
        except BaseException as error:
            raise self._failed(error) from error
        sampled, consumed = self._checked(returned)
        return sampled, consumed, self._slot(partition, task, settings) if sampled else None

    def _failed(self, error: BaseException) -> Exception:
        logger.warning("sampler %s failed", self.name, exc_info=error)
        try:
            message = str(error).encode("utf-8", "backslashreplace").decode()
        except Exception:  # noqa: BLE001  # the sampler's own code
            message = "(it cannot be printed)"
        text = f"sampler {self.name!r} raised {type(error).__name__}: {message}"
        return ValueError(text) if isinstance(error, ValueError) else SamplerError(text)

    def _checked(self, returned: Any) -> tuple[list[int], list[int]]:
        try:
            sampled, consumed = returned
        except (TypeError, ValueError):
            raise SamplerError(
                f"sampler {self.name!r} returned {_short(returned)}, "
                "not the indexes that it sampled and those that are consumed"
            ) from None
        return self._indexes("sampled", sampled), self._indexes("consumed", consumed)

    def _indexes(self, what: str, indexes: Any) -> list[int]:
        try:
            found = [operator.index(index) for index in indexes]
        except TypeError:
            found = []
            wrong = True
        else:
            wrong = isinstance(indexes, (str, bytes)) or any(
                isinstance(index, bool) for index in indexes
            )
        if wrong:
            raise SamplerError(
                f"sampler {self.name!r} returned {_short(indexes)} as {what}, not a list of indexes"
            )
        if what == "sampled" and len(set(found)) < len(found):
            twice = next(index for place, index in enumerate(found) if index in found[:place])
            raise SamplerError(f"sampler {self.name!r} returned sample {twice} twice")
        return found

    def _slot(self, partition: str, task: str, settings: dict[str, Any]) -> str | None:
        """Name of a result that the sampler caches, so that the controller does not free its samples."""
        if settings.get("dp_rank") is None or not self._has_cached(partition, task, settings):
            return None
        return f"dp_rank={settings['dp_rank']} batch_index={settings.get('batch_index')}"[:255]

    def _has_cached(self, partition: str, task: str, settings: dict[str, Any]) -> bool:
        return bool(self._sampler.has_cached_result(partition, task, settings))

    def kept(self, partition: str, task: str, config: str) -> bool:
        """Whether the sampler has a cached result even though too few samples are ready."""
        return self._has_cached(partition, task, json.loads(config))

    def forget(self, partition: str) -> None:
        """Drop the cached results of a partition that was cleared."""
        self._sampler.clear_cache(partition)


def _accepted(sample: Callable[..., Any]) -> set[str]:
    """Those optional arguments of a claim that the sampler accepts."""
    extras = {"partition", "task_name", "partition_id"}
    try:
        parameters = inspect.signature(sample).parameters.values()
    except (TypeError, ValueError):
        return extras
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return extras
    return extras & {parameter.name for parameter in parameters}


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # the value's own code
        text = f"a {type(value).__name__} that cannot be printed"
    return text if len(text) <= 80 else text[:77] + "..."


# --- finding the sampler --------------------------------------------------------------------------


def _unpickle(payload: bytes, name: str) -> Any:
    import pickle

    try:
        return pickle.loads(payload)  # noqa: S301  # from the process that started this one
    except Exception as error:
        raise ConfigError(
            f"{name!r} cannot be unpickled in the controller's process: "
            f"{type(error).__name__}: {error}"
        ) from error


def _import(name: str) -> Any:
    """Import the class named by `module:Class`."""
    import importlib

    module, separator, path = name.partition(":")
    if not separator or not module or not path:
        raise ConfigError(f"no sampler {name!r}; one written in Python is named module:Class")
    try:
        return operator.attrgetter(path)(importlib.import_module(module))
    except Exception as error:
        raise ConfigError(
            f"{name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _loader(payload: bytes | None) -> Callable[[str], _Adapter]:
    """A function that makes the sampler when the daemon asks for it by name."""

    def load(name: str) -> _Adapter:
        sampler = _import(name) if payload is None else _unpickle(payload, name)
        if isinstance(sampler, type) and issubclass(sampler, BaseSampler):
            try:
                sampler = sampler()
            except Exception as error:
                raise ConfigError(
                    f"{name!r} cannot be made: {type(error).__name__}: {error}"
                ) from error
        if not isinstance(sampler, BaseSampler):
            raise ConfigError(f"{name!r} is no transferq.BaseSampler, but {_short(sampler)}")
        return _Adapter(sampler, name)

    return load


def main(arguments: list[str] | None = None) -> int:
    """Run the daemon; returns its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    payload = None
    if given[:1] == [PICKLED]:
        given = given[1:]
        payload = sys.stdin.buffer.read()
    return run_daemon(given, _loader(payload))


if __name__ == "__main__":
    sys.exit(main())
