"""The Ray actors that hold what samples refer to in Ray's object store.

One actor holds all references of a system: references to values by key, and references to tensors by record
(see `tensors`).  A Ray object is lost when the process that put it ends.  Therefore, an actor on the
client's node puts each object again, and the copy outlives the client.  The actor with the references does so on
its own node and starts one actor on every other node.

Values of up to SMALL bytes are sent to the actor with the call, and kept in its memory.
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

from .records import Records

if TYPE_CHECKING:
    from ..._impl.system import ControllerInfo

logger = logging.getLogger("transferq")

SMALL = 64 << 10
CALLS_AT_ONCE = 16
WATCH_SECONDS = 5.0
"""How often a holder that watches its system checks whether it is still there."""
UNUSED_SECONDS = 60.0
"""How long a reference may be in transit."""
GONE_SECONDS = 10.0
"""A system that has not answered for this long has ended."""


class Place(NamedTuple):
    """Where a value is: an object, and the value's place in the list it contains."""

    ref: Any
    row: int


class Borrowed:
    """Ray's bookkeeping, in this process, of tensors in other processes.

    Ray keeps these entries forever (its issue 57962), so they are removed here some time after their last use, because
    a reference may still be in transit.  They are internal to Ray; if they are not found, nothing is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_use: dict[str, int] = {}
        self._unused: dict[str, float] = {}
        """Time of the last use of each, oldest first."""

    @contextmanager
    def used(self, refs: Sequence[Any]) -> Iterator[None]:
        """Mark references as in use."""
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
        """Drop references that are no longer needed."""
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

        For tensors of an actor, Ray calls the actor, and that call may have to wait for the running one.
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
    """The actor; `root` is the actor with the references, or None in that actor itself."""

    def __init__(self, root: Any = None) -> None:
        self._borrowed = Borrowed()
        super().__init__(self._borrowed.forget)
        self._root = root
        self._values: dict[str, bytes | Place] = {}
        self._others: dict[str, Any] = {}
        self._lock = threading.Lock()

    def node(self) -> str:
        """The node that the actor runs on."""
        return str(_ray().get_runtime_context().get_node_id())

    def pid(self) -> int:
        """The actor's process."""
        return os.getpid()

    def prepare(self) -> None:
        """Import torch ahead: references to tensors need it, and the import takes seconds."""
        importlib.import_module("torch")

    # --- taking ownership -------------------------------------------------------------------------

    def on_node(self, node: str) -> Any:
        """The actor that puts for clients on a node; started if there is none."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        with self._lock:
            if node not in self._others:
                there = NodeAffinitySchedulingStrategy(node, soft=False)
                me = _ray().get_runtime_context().current_actor
                self._others[node] = start(me, scheduling_strategy=there)
            return self._others[node]

    def adopt(self, keys: list[str], box: list[Any]) -> None:
        """Put and keep a client's list again, with one value for each key."""
        box = self.own(box)
        if self._root is None:
            self.add(keys, box)
        else:
            _ray().get(self._root.add.remote(keys, box))

    def own(self, box: list[Any]) -> list[Any]:
        """Put a client's list again; returns references to objects owned by this process."""
        ray = _ray()
        return [ray.put(ray.get(ref)) for ref in box]

    # --- values by key ----------------------------------------------------------------------------

    def keep(self, keys: list[str], values: list[bytes]) -> None:
        """Keep small values."""
        with self._lock:
            self._values.update(zip(keys, values, strict=True))

    def add(self, keys: list[str], box: list[Any]) -> None:
        """Keep the reference to a list with one value for each key."""
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
        """Drop keys; False for one that did not exist."""
        with self._lock:
            return [self._values.pop(key, None) is not None for key in keys]

    def count(self) -> int:
        """Number of values and records."""
        with self._lock:
            return len(self._values) + self.records()

    # --- ending -----------------------------------------------------------------------------------

    def watch(self, info: ControllerInfo) -> None:
        """End after the system has ended; for a holder that Ray keeps even after its creator has exited."""
        threading.Thread(target=self._watch, args=(info,), daemon=True).start()

    def _watch(self, info: ControllerInfo) -> None:
        from ..._core import Client
        from ...errors import TimedOutError, TransferQueueError

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
    """Start a holder; it uses no CPU, and is restarted if its process dies."""
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
    """The object behind each reference; None for those that are lost."""
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
