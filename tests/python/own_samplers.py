"""Samplers of a user; in a separate module, so that the controller's process has little to import."""

from __future__ import annotations

import sys
from typing import Any

import transferq
from transferq import samplers


class Secret(Exception):
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Newest(transferq.BaseSampler):
    """The newest samples first; misbehaves on request."""

    def sample(self, ready_indexes: list[int], batch_size: int, **kwargs: Any) -> Any:
        """Behave according to the entry `mode` of the sampling_config."""
        newest = sorted(ready_indexes, reverse=True)[:batch_size]
        wrong: dict[str, Any] = {
            "not ready": ([4711], [4711]),
            "twice": (newest[:1] * 2, newest[:1]),
            "no pair": newest[0],
            "no list": ("ab", "ab"),
            "no index": ([1.5], []),
            "consumes others": (newest, [4711]),
            "negative": ([-1], [-1]),
            "nothing": ([], []),
            "keeps": (newest, []),
            "drops": (newest[:1], sorted(ready_indexes)),
        }
        mode = kwargs.get("mode")
        if mode == "raises":
            raise KeyError("boom")
        if mode == "refuses":
            raise ValueError("no such size")
        if mode == "raises what cannot be sent":
            raise ValueError("half a pair: \ud800")
        if mode in ("raises secrets", "returns secrets"):
            secret = Secret()
            if mode == "returns secrets":
                return secret
            raise secret
        if mode == "exits":
            sys.exit(3)
        if mode == "longest":
            tags = kwargs["partition"].get_custom_meta(ready_indexes)
            newest = sorted(ready_indexes, key=lambda index: -tags[index]["length"])[:batch_size]
        if mode == "by group":
            groups = kwargs["partition"].get_groups([*ready_indexes, 4711])
            assert list(groups) == ready_indexes
            newest = sorted(ready_indexes, key=lambda index: groups[index])[:batch_size]
        if mode == "arguments":
            assert (kwargs["task_name"], kwargs["partition_id"]) == ("train", "p")
            assert kwargs["partition"].partition_id == "p"
        return wrong.get(str(mode), (newest, newest))


class Ranked(transferq.BaseSampler):
    """Like samplers written for TransferQueue: caches the result of a rank, accepts only the arguments it needs."""

    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = mark

    def sample(  # type: ignore[override]
        self,
        ready_indexes: list[int],
        batch_size: int,
        dp_rank: int,
        batch_index: int,
        task_name: str,
        partition_id: str,
    ) -> samplers.Picked:
        """The same samples for every caller of a rank and step."""
        steps = self._kept(partition_id, task_name, dp_rank)
        if batch_index not in steps:
            picked = ready_indexes[-batch_size:]
            steps[batch_index] = (picked, picked)
        result: samplers.Picked = steps[batch_index]
        return result
