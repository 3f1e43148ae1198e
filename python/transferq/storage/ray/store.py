"""RayStore: samples in Ray's object store.

Values are in Ray's shared memory, several to an object, and are read by copying them out.  The references are
held by a named actor (see `holder`).  The process that starts the system makes that actor, and the actor ends
with it.  With `tensor_transport`, tensors use Ray Direct Transport instead (see `tensors`).
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np

from ..._impl.system import ControllerInfo
from ...errors import ConfigError, StorageFullError, UnreachableError
from ...ray.actor import NAMESPACE, kill
from ..kv import StorageClientFactory, StorageKVClient, memory
from . import holder as holders
from .holder import SMALL

logger = logging.getLogger("transferq")

OBJECT_BYTES = 4 << 20
"""Values of a put share objects up to this size: large enough to amortise Ray's cost per object, small enough to free."""
TWICE_SHARE = 8
"""A put's data is in the store twice until the holder has put it again: at most an eighth of it, or one object."""
JOIN_BYTES = 16 << 10
"""If the pieces of a value are smaller than this on average, they are joined first."""

_connecting = threading.Lock()
_detached: set[str] = set()
"""Holders that this process made to outlive it, and that do not watch their system yet."""


def connected(section: Mapping[str, Any], start: bool = False) -> tuple[Any, bool]:
    """Ray's module, connected to a cluster; and whether this call started one, which `start` allows."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"backend.storage_backend: RayStore needs Ray ({error}): install the extra 'ray' of transferq "
            "(see the README)"
        ) from None
    with _connecting:
        if ray.is_initialized():
            return ray, False
        address = section.get("address")
        start = start and address is None and bool(section.get("auto_init", True))
        try:
            ray.init(address=None if start else (address or "auto"))
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UnreachableError(
                f"backend.RayStore: no Ray cluster at {address or 'any address on this machine'}: {error}; "
                "call ray.init() first, or name one in backend.RayStore.address"
            ) from error
        started = start and _is_own(ray)
    logger.info("RayStore: %s Ray at %s", "started" if started else "found", _address(ray))
    return ray, started


def _is_own(ray: Any) -> bool:
    """Whether `ray.init()` started a cluster instead of finding one: then the node belongs to this process."""
    return getattr(ray._private.worker, "_global_node", None) is not None


def _address(ray: Any) -> str:
    return str(ray.get_runtime_context().gcs_address)


def holder_name(section: Mapping[str, Any], epoch: int) -> str:
    """Name of the actor that holds a system's references."""
    return str(section.get("holder") or f"transferq-store-{epoch:016x}")


def find_holder(ray: Any, section: Mapping[str, Any], epoch: int) -> Any:
    """The actor that holds a system's references."""
    name = holder_name(section, epoch)
    try:
        return ray.get_actor(name, namespace=NAMESPACE)
    except ValueError:
        place = section.get("address")
        raise UnreachableError(
            f"backend.RayStore: the actor {name!r}, which holds the samples of this system, is not in the Ray "
            f"cluster at {_address(ray)}"
            + (f"; it was made in the one at {place}" if place else "")
        ) from None


def offer_holder(
    ray: Any, section: Mapping[str, Any], epoch: int, info: ControllerInfo | None
) -> None:
    """Make the actor if there is none: for a system that was not started by a process with Ray.

    It outlives this process, so it watches the system and ends with it.
    """
    name = holder_name(section, epoch)
    if section.get("holder"):
        holder = find_holder(ray, section, epoch)
        if name in _detached:
            _detached.discard(name)
            ray.get(holder.watch.remote(info))
        return
    holder = holders.start(
        None, name=name, namespace=NAMESPACE, get_if_exists=True, lifetime="detached"
    )
    ray.get(holder.watch.remote(info))


@contextmanager
def failures() -> Iterator[None]:
    """Convert Ray's errors to those of this package."""
    import ray.exceptions as of_ray

    try:
        yield
    except (of_ray.ObjectStoreFullError, of_ray.OutOfDiskError) as error:
        raise StorageFullError(
            f"Ray's object store {_room()}is full: {_first_line(error)}; clear samples, or start Ray with a larger "
            "object_store_memory"
        ) from error
    except of_ray.RayActorError as error:
        raise UnreachableError(
            f"the actor with the references of this system has died, and the samples with it: {_first_line(error)}; put "
            "them again, or load a checkpoint"
        ) from error


def _room() -> str:
    """The size of Ray's object store, if Ray tells."""
    import ray
    import ray.exceptions as of_ray

    try:
        size = ray.cluster_resources().get("object_store_memory")
    except (of_ray.RayError, RuntimeError):  # the cluster may be gone
        return ""
    return "" if size is None else f"of {int(size)} bytes "


def _first_line(error: BaseException) -> str:
    """The first line of an error; for an error of an actor's call, of the error raised in the actor."""
    cause = getattr(error, "cause", None)
    told = cause if isinstance(cause, BaseException) else error
    return str(told).strip().split("\n", 1)[0]


def holder_here(ray: Any, root: Any) -> Any:
    """The holder on this node: the actor with the references, or one that it started here."""
    here = str(ray.get_runtime_context().get_node_id())
    return root if ray.get(root.node.remote()) == here else ray.get(root.on_node.remote(here))


class _Started(NamedTuple):
    """What a process made for the system that it started."""

    ray: Any
    holder: Any
    own_cluster: bool

    def end(self) -> None:
        """End it, unless Ray has been shut down meanwhile: then it has already ended."""
        if self.ray.is_initialized():
            kill(self.ray, self.holder)
            if self.own_cluster:
                self.ray.shutdown()


def _store_bytes(ray: Any) -> int:
    """Size of the object store of this node."""
    here = ray.get_runtime_context().get_node_id()
    sizes = (
        node["Resources"].get("object_store_memory", 0)
        for node in ray.nodes()
        if node["NodeID"] == here
    )
    return int(next(sizes, 0))


def _epoch(key: str) -> int:
    """The epoch in a key of the manager's, tq/EPOCH/ID."""
    return int(key.split("/")[1], 16)


def _groups(sizes: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Group values into objects."""
    start, bytes_ = 0, 0
    for end, pieces in enumerate(sizes):
        if end > start and bytes_ + sum(pieces) > OBJECT_BYTES:
            yield start, end
            start, bytes_ = end, 0
        bytes_ += sum(pieces)
    yield start, len(sizes)


def _pieces(pointers: Sequence[int], sizes: Sequence[int]) -> list[Any]:
    """A value as arrays over its memory, which Ray copies once."""
    views = list(map(memory, pointers, sizes))
    if len(views) > 1 and sum(sizes) < JOIN_BYTES * len(views):
        views = [memoryview(b"".join(views))]
    return [np.frombuffer(view, np.uint8) for view in views]


class Share:
    """A byte budget shared by threads; a request larger than the whole budget gets all of it."""

    def __init__(self, size: int) -> None:
        """Start with the whole budget free."""
        self._size = size
        self._taken = 0
        self._changed = threading.Condition()

    def take(self, size: int, wait: bool) -> bool:
        """Take some, or return False if there is not enough; pass `wait` only if this thread holds nothing."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._has(size))
            elif not self._has(size):
                return False
            self._taken += size
            return True

    def give(self, size: int) -> None:
        """Return bytes to the budget."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()

    def _has(self, size: int) -> bool:
        return self._taken == 0 or self._taken + size <= self._size


class _Adoptions:
    """Objects of one put that the holder puts again, oldest first.

    When a failed put is tried again, none of its calls may still be running: they would take the room that the next
    attempt needs, and add keys that were removed.  So leaving the `with` block waits for all of them.
    """

    def __init__(self, ray: Any, holder: Any, twice: Share) -> None:
        self._ray = ray
        self._holder = holder
        self._twice = twice
        self._calls: deque[tuple[Any, int]] = deque()

    def __enter__(self) -> _Adoptions:
        return self

    def __exit__(self, *_: object) -> None:
        while self._calls:
            # Retrieve the error, or Ray prints it; the first error is already being raised.
            with suppress(self._ray.exceptions.RayError):
                self._finish()

    def add(self, keys: list[str], group: list[Any], size: int) -> None:
        """Put an object, once enough of the earlier ones have been put again."""
        while not self._twice.take(size, wait=not self._calls):
            self._finish()
        try:
            call = self._holder.adopt.remote(keys, [self._ray.put(group)])
        except BaseException:
            self._twice.give(size)
            raise
        self._calls.append((call, size))

    def finish(self) -> None:
        """Wait until all objects have been put again."""
        while self._calls:
            self._finish()

    def _finish(self) -> None:
        call, size = self._calls.popleft()
        try:
            self._ray.get(call)
        finally:
            self._twice.give(size)


@StorageClientFactory.register("RayStore")
class RayStore(StorageKVClient):
    """A client of the holder and of Ray's object store."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Connect to Ray."""
        super().__init__(config)
        self._ray, _ = connected(config)
        self._roots: dict[int, Any] = {}
        self._here: dict[int, Any] = {}
        self._twice = Share(_store_bytes(self._ray) // TWICE_SHARE)

    # --- around the system ------------------------------------------------------------------------

    @classmethod
    def manager_type(cls, section: Mapping[str, Any]) -> str | None:
        """Use a different manager with a tensor transport.

        This also connects to Ray early, which is best done in the caller's thread.
        """
        connected(section)
        return "RayTensors" if section.get("tensor_transport") else None

    @classmethod
    def starting(
        cls, section: Mapping[str, Any], detached: bool
    ) -> tuple[dict[str, Any], Callable[[], None]]:
        """Make the holder; it ends with this process, or with the system at the latest."""
        ray, own_cluster = connected(section, start=True)
        name = f"transferq-store-{secrets.token_hex(8)}"
        lifetime = {"lifetime": "detached"} if detached else {}
        holder = holders.start(None, name=name, namespace=NAMESPACE, **lifetime)
        if detached:
            _detached.add(name)
        made = _Started(ray, holder, own_cluster)
        ray.get(holder.node.remote())
        return {**section, "address": _address(ray), "holder": name}, made.end

    @classmethod
    def connected(cls, info: ControllerInfo, epoch: int, section: Mapping[str, Any]) -> None:
        """Make sure that the holder exists."""
        offer_holder(connected(section)[0], section, epoch, info)

    # --- values by key ----------------------------------------------------------------------------

    def put_from(self, keys: list[str], pointers: list[list[int]], sizes: list[list[int]]) -> None:
        """Send small values with the call; put the others, and have the node's holder put them again."""
        epoch = _epoch(keys[0])
        with failures():
            if sum(map(sum, sizes)) <= SMALL:
                values = [
                    b"".join(map(memory, *each)) for each in zip(pointers, sizes, strict=True)
                ]
                self._ray.get(self._root(epoch).keep.remote(keys, values))
                return
            with _Adoptions(self._ray, self._holder_here(epoch), self._twice) as adoptions:
                for start, end in _groups(sizes):
                    group = [
                        _pieces(*each)
                        for each in zip(pointers[start:end], sizes[start:end], strict=True)
                    ]
                    adoptions.add(keys[start:end], group, sum(map(sum, sizes[start:end])))
                adoptions.finish()

    def get_into(self, keys: list[str], pointers: list[int], sizes: list[int]) -> list[bool]:
        """Copy values out of Ray's shared memory."""
        with failures():
            found, refs = self._ray.get(self._root(_epoch(keys[0])).find.remote(keys))
            groups = holders.fetch(refs)
        return [
            self._copy(value, groups, memory(pointer, size))
            for value, pointer, size in zip(found, pointers, sizes, strict=True)
        ]

    @staticmethod
    def _copy(value: Any, groups: list[Any], into: memoryview) -> bool:
        if isinstance(value, tuple):
            group = groups[value[0]]
            pieces = None if group is None else group[value[1]]
        else:
            pieces = None if value is None else [np.frombuffer(value, np.uint8)]
        if pieces is None or sum(piece.nbytes for piece in pieces) != len(into):
            return False
        start = 0
        target = np.frombuffer(into, np.uint8)
        for piece in pieces:
            np.copyto(target[start : start + piece.nbytes], piece)
            start += piece.nbytes
        return True

    def remove(self, keys: list[str]) -> Sequence[bool]:
        """Drop references; Ray frees an object with its last one."""
        with failures():
            gone: list[bool] = self._ray.get(self._root(_epoch(keys[0])).remove.remote(keys))
        return gone

    def _root(self, epoch: int) -> Any:
        if epoch not in self._roots:
            self._roots[epoch] = find_holder(self._ray, self.config, epoch)
        return self._roots[epoch]

    def _holder_here(self, epoch: int) -> Any:
        """The holder on this node."""
        if epoch not in self._here:
            self._here[epoch] = holder_here(self._ray, self._root(epoch))
        return self._here[epoch]
