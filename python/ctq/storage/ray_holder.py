"""The Ray actors that hold what samples refer to in Ray's object store.

One actor holds all references of a system: by key those of values, and by record those of tensors (see
`ray_tensors`).  An object of Ray's ends with the process that put it, so what a client puts is put again by an
actor on the client's node, and outlives the client; the actor of the references does that on its own node,
and starts one on each other node.

Values up to SMALL bytes go to the actor with the call, and lie in its memory.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from .ray_records import Records

if TYPE_CHECKING:
    from ..system import ControllerInfo

logger = logging.getLogger("ctq")

SMALL = 64 << 10
CALLS_AT_ONCE = 16
WATCH_SECONDS = 5.0
"""How often a holder that watches its system looks whether that is there."""
UNUSED_SECONDS = 60.0
"""How long a reference may be on its way."""
GONE_SECONDS = 10.0
"""A system that has not answered for so long has ended."""


class Place(NamedTuple):
    """Where a value is: in an object, at this place of a list."""

    ref: Any
    row: int


class Borrowed:
    """What Ray notes in this process of tensors that lie in another one.

    Ray keeps these notes for ever (its issue 57962), so they are removed here, some time after their last use: a
    reference may still be on its way.  They are internal to Ray: where they are not found, nothing is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_use: dict[str, int] = {}
        self._unused: dict[str, float] = {}
        """When each was used last, oldest first."""

    @contextmanager
    def used(self, refs: Sequence[Any]) -> Iterator[None]:
        """Use references."""
        names = [ref.hex() for ref in refs]
        with self._lock:
            for name in names:
                self._in_use[name] = self._in_use.get(name, 0) + 1
                self._unused.pop(name, None)
        try:
            yield
        finally:
            with self._lock:
                for name in names:
                    self._in_use[name] -= 1
                    if not self._in_use[name]:
                        del self._in_use[name]
                        self._unused[name] = time.monotonic()
                self._remove_old()

    def forget(self, groups: Sequence[Any]) -> None:
        """References are given up."""
        with self._lock:
            for group in groups:
                if hasattr(group, "hex") and not isinstance(group, bytes):
                    self._unused[group.hex()] = time.monotonic()
            self._remove_old()

    def _remove_old(self) -> None:
        manager = _transport_manager()
        known = getattr(manager, "_managed_rdt_metadata", None)
        while self._unused:
            name, since = next(iter(self._unused.items()))
            if since + UNUSED_SECONDS > time.monotonic():
                return
            del self._unused[name]
            if known is not None and not manager.rdt_store.is_primary_copy(name):
                with manager._lock:
                    known.pop(name, None)

    @staticmethod
    def free_here(ref: Any) -> None:
        """Let Ray free a tensor of this process at once.

        Of an actor's tensors it asks the actor, by a call to it that may have to wait for the one that runs.
        """
        manager = _transport_manager()
        known = getattr(manager, "_managed_rdt_metadata", {})
        try:
            from ray.experimental.rdt.rdt_manager import RDTSource

            with manager._lock:
                known[ref.hex()] = known[ref.hex()]._replace(src_actor=RDTSource.DRIVER)
        except (ImportError, AttributeError, KeyError, ValueError):
            logger.debug("this version of Ray frees tensors of an actor when the actor is idle")


def _transport_manager() -> Any:
    return getattr(_ray()._private.worker.global_worker, "rdt_manager", None)


class Holder(Records):
    """The actor: `root` is the one with the references, None in that one itself."""

    def __init__(self, root: Any = None) -> None:
        self._borrowed = Borrowed()
        super().__init__(self._borrowed.forget)
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

    def prepare(self) -> None:
        """Import torch, which references to tensors need, and which takes seconds, before the first comes."""
        importlib.import_module("torch")

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
        """How many values and records there are."""
        with self._lock:
            return len(self._values) + self.records()

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
