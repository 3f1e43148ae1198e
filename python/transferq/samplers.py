"""Samplers: they decide which of the ready samples a claim gets.

A built-in sampler in the configuration, given by name, class or instance, runs in the controller, in C, with
the settings of the instance.  To write your own sampler, subclass `BaseSampler`; the controller is then
started in a Python process (`transferq.host`), which calls it.  Every sampler can also be called directly, with
lists of indexes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

from . import _core
from .errors import ArgumentTypeError, ConfigError, InvalidArgumentError

Picked: TypeAlias = tuple[list[int], list[int]]
"""The result of a sampler: the indexes that the claim gets, and those that count as consumed from now on."""


class BaseSampler(ABC):
    """Base of all samplers; a subclass implements `sample`."""

    def __init__(self) -> None:
        """Start without cached results.

        In `_states[partition_id][task_name][dp_rank][batch_index]` samplers keep a result that several ranks ask for.
        """
        self._states: dict[Any, Any] = {}

    @abstractmethod
    def sample(
        self, ready_indexes: list[int], batch_size: int, *args: Any, **kwargs: Any
    ) -> Picked:
        """Pick from the ready indexes; two empty lists if too few of them fit.

        Keyword arguments are `task_name`, `partition_id`, the entries of the claim's `sampling_config`, and, in the
        controller, `partition`, which gives access to tags, `partition.get_custom_meta(indexes)`, and
        groups, `partition.get_groups(indexes)`.
        """

    def __call__(self, *args: Any, **kwargs: Any) -> Picked:
        """The same as `sample`."""
        return self.sample(*args, **kwargs)

    def has_cached_result(
        self, partition_id: str, task_name: str, sampling_config: dict[str, Any] | None = None
    ) -> bool:
        """Whether a result is cached for the dp_rank and batch_index of the sampling_config."""
        config = sampling_config or {}
        rank = config.get("dp_rank")
        kept = self._states.get(partition_id, {}).get(task_name, {})
        return rank is not None and config.get("batch_index") in kept.get(rank, {})

    def clear_cache(self, partition_id: str) -> None:
        """Drop the cached results of a partition; called when the partition is cleared."""
        self._states.pop(partition_id, None)

    def save_checkpoint(self) -> dict[str, Any]:
        """The sampler's state for a checkpoint."""
        return {"_states": self._states}

    def load_checkpoint(self, state: dict[str, Any]) -> None:
        """Restore the state returned by `save_checkpoint`."""
        self._states = state["_states"]

    def __repr__(self) -> str:
        """The class with its constructor arguments, as far as they are known."""
        made_with = ", ".join(
            f"{key}={getattr(self, key)!r}"
            for key in ("n_samples_per_prompt", "dp_size")
            if hasattr(self, key)
        )
        return f"{type(self).__name__}({made_with})"

    def _kept(self, partition_id: str, task_name: str, rank: Any) -> dict[Any, Any]:
        """The cached results of a rank, by batch_index."""
        kept: dict[Any, Any] = (
            self._states.setdefault(partition_id, {}).setdefault(task_name, {}).setdefault(rank, {})
        )
        return kept


class SequentialSampler(BaseSampler):
    """Ready samples in index order; if called directly, fewer than requested if there are not enough."""

    def sample(
        self, ready_indexes: list[int], batch_size: int, *args: Any, **kwargs: Any
    ) -> Picked:
        """The first `batch_size` indexes."""
        picked = ready_indexes[:batch_size]
        return picked, picked


class RankAwareSampler(BaseSampler):
    """Ready samples in order; all ranks that ask with the same dp_rank and batch_index get the same ones."""

    def sample(
        self,
        ready_indexes: list[int],
        batch_size: int,
        dp_rank: int,
        batch_index: int,
        task_name: str = "",
        partition_id: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> Picked:
        """The first `batch_size` indexes, or none if there are fewer; the same ones again for the same step."""
        if dp_rank < 0:
            raise InvalidArgumentError(f"dp_rank {dp_rank} must be greater than or equal to 0")
        steps = self._kept(partition_id, task_name, dp_rank)
        if batch_index not in steps:
            if len(ready_indexes) < batch_size:
                return [], []
            steps[batch_index] = ready_indexes[:batch_size]
        picked = steps[batch_index]
        return list(picked), list(picked)


class GRPOGroupNSampler(BaseSampler):
    """Whole groups of samples: the samples of one prompt.

    In the controller a group is the group named at the put, or else n samples that joined the partition one
    after the other.  Called directly, a group is n consecutive indexes.
    """

    def __init__(self, n_samples_per_prompt: int = 1) -> None:
        """Groups of `n_samples_per_prompt` samples."""
        super().__init__()
        self.n_samples_per_prompt = _count("n_samples_per_prompt", n_samples_per_prompt)

    def sample(
        self,
        ready_indexes: list[int],
        batch_size: int,
        task_name: str = "",
        partition_id: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> Picked:
        """As many whole groups as make up `batch_size`, or none; cached by dp_rank and batch_index."""
        rank, step = kwargs.get("dp_rank"), kwargs.get("batch_index")
        kept = self._states.get(partition_id, {}).get(task_name, {}).get(rank, {})
        if step in kept:
            picked: Picked = kept[step]
            return picked
        size = self.n_samples_per_prompt
        if batch_size % size:
            raise InvalidArgumentError(
                f"batch_size ({batch_size}) must be a multiple of n_samples_per_prompt ({size})"
            )
        chosen = _groups(ready_indexes, size, batch_size // size)
        picked = chosen, chosen.copy()
        if chosen and rank is not None:
            self._kept(partition_id, task_name, rank)[step] = picked
        return picked


class SeqlenBalancedSampler(GRPOGroupNSampler):
    """Whole groups for all data-parallel ranks at once, with nearly equal sums of the tag `total_lengths`.

    The batch size of a claim is that of one rank.
    """

    def __init__(self, n_samples_per_prompt: int = 1, dp_size: int = 1) -> None:
        """Groups of `n_samples_per_prompt` samples, for `dp_size` ranks."""
        super().__init__(n_samples_per_prompt)
        self.dp_size = _count("dp_size", dp_size)
        self._balanced_cache: dict[tuple[str, str, Any], list[list[int]]] = {}

    def sample(
        self,
        ready_indexes: list[int],
        batch_size: int,
        task_name: str = "",
        partition_id: str = "",
        *args: Any,
        **kwargs: Any,
    ) -> Picked:
        """The share of `dp_rank` in step `batch_index`; the first rank to ask in a step picks for all ranks.

        Lengths come from `partition.get_custom_meta(indexes)`; without a `partition`, shares are cut in order.
        """
        rank, step = kwargs.get("dp_rank", 0), kwargs.get("batch_index", 0)
        key = (partition_id, task_name, step)
        shares = self._balanced_cache.get(key)
        if shares is None:
            chosen, _ = super().sample(
                ready_indexes, batch_size * self.dp_size, task_name, partition_id
            )
            if not chosen:
                return [], []
            shares = self._share(chosen, kwargs.get("partition"))
            self._balanced_cache[key] = shares
            for other, share in enumerate(shares):
                self._kept(partition_id, task_name, other)[step] = (share, share.copy())
        share = shares[rank] if rank < len(shares) else []
        return share, share.copy()

    def _share(self, chosen: list[int], partition: Any) -> list[list[int]]:
        size = self.n_samples_per_prompt
        if partition is None:
            each = len(chosen) // self.dp_size
            return [chosen[rank * each : (rank + 1) * each] for rank in range(self.dp_size)]
        tags = partition.get_custom_meta(chosen)
        lengths = [tags.get(index, {}).get("total_lengths", 1) for index in chosen]
        weights = [sum(lengths[at : at + size]) for at in range(0, len(chosen), size)]
        parts = get_seqlen_balanced_partitions(weights, self.dp_size, equal_size=True)
        return [
            [index for group in part for index in chosen[group * size : (group + 1) * size]]
            for part in parts
        ]

    def clear_cache(self, partition_id: str) -> None:
        """Drop the cached results of a partition."""
        super().clear_cache(partition_id)
        for key in [key for key in self._balanced_cache if key[0] == partition_id]:
            del self._balanced_cache[key]

    def save_checkpoint(self) -> dict[str, Any]:
        """The sampler's state for a checkpoint."""
        return {**super().save_checkpoint(), "_balanced_cache": self._balanced_cache}

    def load_checkpoint(self, state: dict[str, Any]) -> None:
        """Restore the state returned by `save_checkpoint`."""
        super().load_checkpoint(state)
        self._balanced_cache = state["_balanced_cache"]


class UnevenPartsError(InvalidArgumentError, AssertionError):
    """The items cannot be split into this number of parts."""


def get_seqlen_balanced_partitions(
    seqlen_list: Sequence[float], k_partitions: int, equal_size: bool
) -> list[list[int]]:
    """Split items, given by their lengths, into k parts of nearly equal sum (Karmarkar-Karp).

    Each part lists the places of its items; with `equal_size` all parts have the same number of items.
    """
    try:
        numbers = _core.balance([float(length) for length in seqlen_list], k_partitions, equal_size)
    except InvalidArgumentError as error:
        raise UnevenPartsError(str(error)) from None
    parts: list[list[int]] = [[] for _ in range(k_partitions)]
    for place, number in enumerate(numbers):
        parts[number].append(place)
    return parts


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ArgumentTypeError(f"{name} must be an int, got {value!r}")
    if value < 1:
        raise InvalidArgumentError(f"{name} must be positive, got {value}")
    return value


def _groups(ready_indexes: Sequence[int], size: int, wanted: int) -> list[int]:
    """The first `wanted` runs of `size` consecutive indexes end to end; empty if there are too few."""
    ordered = sorted(set(ready_indexes))
    chosen: list[int] = []
    place = 0
    while len(chosen) < wanted * size and place + size <= len(ordered):
        if ordered[place + size - 1] - ordered[place] == size - 1:
            chosen += ordered[place : place + size]
            place += size
        else:
            place += 1
    return chosen if len(chosen) == wanted * size else []


# --- in a configuration ---------------------------------------------------------------------------

_IN_C: dict[type[BaseSampler], tuple[str, ...]] = {
    SequentialSampler: (),
    GRPOGroupNSampler: ("n_samples_per_prompt",),
    RankAwareSampler: (),
    SeqlenBalancedSampler: ("n_samples_per_prompt", "dp_size"),
}
"""The built-in samplers, which the controller has in C, with their constructor arguments."""

_OLD_NAMES = ("sequential", "grpo_group_n")
"""Other names under which the controller knows samplers."""

_BEHAVIOUR = ("sample", "__call__", "has_cached_result", "clear_cache")


_in_python: dict[str, BaseSampler] = {}
"""Samplers written in Python that configurations gave to this process, by name."""


def describe(sampler: Any) -> tuple[str, dict[str, Any]]:
    """Name and settings of a sampler given as an instance or class."""
    if isinstance(sampler, type) and issubclass(sampler, BaseSampler):
        try:
            sampler = sampler()
        except TypeError as error:
            raise ConfigError(f"controller.sampler: {error}; hand over an instance") from error
    if not isinstance(sampler, BaseSampler):
        raise ConfigError(
            f"controller.sampler: expected the name of a sampler, or a sampler, got {sampler!r}"
        )
    known = _in_c(sampler)
    if known is not None:
        return known.__name__, {key: getattr(sampler, key) for key in _IN_C[known]}
    name = f"{type(sampler).__module__}:{type(sampler).__qualname__}"
    _in_python[name] = sampler
    return name, {}


def check_name(name: str) -> None:
    """Refuse an unknown sampler name; a sampler written in Python is imported later, where it runs."""
    known = [kind.__name__ for kind in _IN_C]
    if name and not is_in_python(name) and name not in (*known, *_OLD_NAMES):
        raise ConfigError(
            f"controller.sampler: no sampler {name!r}; there are {', '.join(known)}, and your own as module:Class"
        )


def to_import(name: str) -> None:
    """Note that the sampler is to be imported by name, replacing an object given earlier under that name."""
    _in_python.pop(name, None)


def is_in_python(name: str) -> bool:
    """Whether a name has the form of a sampler written in Python: `module:Class`."""
    return ":" in name


def pickled(name: str) -> bytes | None:
    """The pickle of a sampler that this process was given as an object; None if it is imported by name."""
    import pickle

    sampler = _in_python.get(name)
    if sampler is None:
        return None
    try:
        import cloudpickle  # type: ignore[import-untyped,import-not-found,unused-ignore]

        dumps = cloudpickle.dumps
    except ImportError:
        if type(sampler).__module__ == "__main__":
            raise ConfigError(
                f"controller.sampler: {name!r} is defined in the main program; install cloudpickle, or move "
                "the class into a module that can be imported"
            ) from None
        dumps = pickle.dumps
    try:
        payload: bytes = dumps(sampler)
    except Exception as error:
        raise ConfigError(
            f"controller.sampler: {name!r} cannot be pickled: {type(error).__name__}: {error}"
        ) from error
    return payload


def _in_c(sampler: BaseSampler) -> type[BaseSampler] | None:
    """The built-in class of the sampler, unless its behaviour was changed."""
    known = next((base for base in type(sampler).__mro__ if base in _IN_C), None)
    if known is None or any(
        getattr(type(sampler), name) is not getattr(known, name) or name in vars(sampler)
        for name in _BEHAVIOUR
    ):
        return None
    return known
