"""The Ray actors that hold what samples refer to in Ray's object store.

One actor holds all references of a system, by key.  An object of Ray's ends with the process that put it, so what a client puts is put again by an
actor on the client's node, and outlives the client; the actor of the references does that on its own node,
and starts one on each other node.

Values up to SMALL bytes go to the actor with the call, and lie in its memory.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ..system import ControllerInfo

logger = logging.getLogger("ctq")

NAMESPACE = "transfer_queue"
SMALL = 64 << 10
CALLS_AT_ONCE = 16
WATCH_SECONDS = 5.0
"""How often a holder that watches its system looks whether that is there."""
GONE_SECONDS = 10.0
"""A system that has not answered for so long has ended."""


class Place(NamedTuple):
    """Where a value is: in an object, at this place of a list."""

    ref: Any
    row: int


class Holder:
    """The actor: `root` is the one with the references, None in that one itself."""

    def __init__(self, root: Any = None) -> None:
        self._root = root
        self._values: dict[str, bytes | Place] = {}
        self._others: dict[str, Any] = {}
        self._lock = threading.Lock()

    def node(self) -> str:
        """The node that it runs on."""
        return str(_ray().get_runtime_context().get_node_id())

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    # --- owning -----------------------------------------------------------------------------------

    def on_node(self, node: str) -> Any:
        """The actor that puts for clients on a node; started when there is none."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        with self._lock:
            if node not in self._others:
                there = NodeAffinitySchedulingStrategy(node, soft=False)
                me = _ray().get_runtime_context().current_actor
                self._others[node] = start(me, scheduling_strategy=there)
            return self._others[node]

    def adopt(self, keys: list[str], box: list[Any]) -> None:
        """Put again what a client has put, a list with a value for each key, and keep it."""
        box = self.own(box)
        if self._root is None:
            self.add(keys, box)
        else:
            _ray().get(self._root.add.remote(keys, box))

    def own(self, box: list[Any]) -> list[Any]:
        """Put again what a client has put; returns references to objects that are this process's."""
        ray = _ray()
        return [ray.put(ray.get(ref)) for ref in box]

    # --- values by key ----------------------------------------------------------------------------

    def keep(self, keys: list[str], values: list[bytes]) -> None:
        """Keep small values."""
        with self._lock:
            self._values.update(zip(keys, values, strict=True))

    def add(self, keys: list[str], box: list[Any]) -> None:
        """Keep the reference to a list with a value for each key."""
        with self._lock:
            for row, key in enumerate(keys):
                self._values[key] = Place(box[0], row)

    def find(self, keys: list[str]) -> tuple[list[Any], list[Any]]:
        """For each key the value, or the place of its reference and its row, or None; and the references."""
        refs: dict[Any, int] = {}
        found: list[Any] = []
        with self._lock:
            for key in keys:
                value = self._values.get(key)
                if isinstance(value, Place):
                    found.append((refs.setdefault(value.ref, len(refs)), value.row))
                else:
                    found.append(value)
        return found, list(refs)

    def remove(self, keys: list[str]) -> list[bool]:
        """Forget keys; False for one that was not there."""
        with self._lock:
            return [self._values.pop(key, None) is not None for key in keys]

    def count(self) -> int:
        """How many values there are."""
        with self._lock:
            return len(self._values)

    # --- the end ----------------------------------------------------------------------------------

    def watch(self, info: ControllerInfo) -> None:
        """End when the system has ended; for a holder that Ray keeps without the process that made it."""
        threading.Thread(target=self._watch, args=(info,), daemon=True).start()

    def _watch(self, info: ControllerInfo) -> None:
        from .._core import Client
        from ..errors import TimedOutError, TransferQueueError

        ray = _ray()
        try:
            core = Client(
                info.address,
                token=info.token,
                token_file=info.token_file,
                name="ray-holder",
                manager="",
            )
            while True:
                try:
                    core.events(1 << 62, 1, True, WATCH_SECONDS).result()
                except TimedOutError:
                    core.list_partitions(timeout=GONE_SECONDS).result()
        except TransferQueueError as error:
            logger.info("the system of this holder has ended: %s", error)
        ray.kill(ray.get_runtime_context().current_actor)


def _ray() -> Any:
    return sys.modules["ray"]


def start(root: Any, **options: Any) -> Any:
    """Start a holder; it takes no CPU, and is started again when its process dies."""
    return (
        _ray()
        .remote(Holder)
        .options(
            num_cpus=0,
            max_concurrency=CALLS_AT_ONCE,
            max_restarts=-1,
            max_task_retries=-1,
            **options,
        )
        .remote(root)
    )


def fetch(refs: Sequence[Any]) -> list[Any]:
    """What each reference refers to, None for what is lost."""
    ray = _ray()
    gone = (
        ray.exceptions.ObjectLostError,
        ray.exceptions.ObjectFreedError,
        ray.exceptions.RayDirectTransportError,
    )
    try:
        return list(ray.get(list(refs)))
    except gone:
        pass
    values: list[Any] = []
    for ref in refs:
        try:
            values.append(ray.get(ref))
        except gone:
            values.append(None)
    return values
