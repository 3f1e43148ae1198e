"""The named actor through which Ray tools inspect the system.

In a process that uses Ray, `init()` makes the actor `TransferQueueController` in the namespace
`transfer_queue`.  It is one more client of the system, uses no CPU of the cluster, and ends with `close()`:

    actor = ray.get_actor("TransferQueueController", namespace="transfer_queue")
    ray.get(actor.list_partitions.remote())
    ray.get(actor.get_partition_snapshot.remote("train")).keys_mapping

A second system in a cluster, under a different name (TQ_SYSTEM), has the actor `TransferQueueController:NAME`.
The system itself does not depend on it.  transferq does not import Ray for it: `ray.actor: true` in the configuration
requests the actor; null (the default) makes it if Ray is already in use.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .._core import Meta
from .._impl.system import STOP_SECONDS, ControllerInfo, ray_in_use, system_name
from ..client import TransferQueueClient
from ..config import Config
from ..errors import ConfigError, UnknownPartitionError, UnsupportedError
from ..metadata import BatchMeta

logger = logging.getLogger("transferq")

ACTOR_NAME = "TransferQueueController"
NAMESPACE = "transfer_queue"
NAME_SECONDS = 10.0
"""How long an ending actor may keep the name."""


@dataclass
class PartitionSnapshot:
    """The state of a partition at one moment; a copy that does not change.

    Rows of `production_status` and of the columns in `consumption_status` are global indexes.
    """

    partition_id: str
    global_indexes: set[int]
    """Samples of the partition."""
    production_status: Any
    """1 if a sample (row) has a field (column)."""
    consumption_status: dict[str, Any]
    """Per task, 1 if it has consumed a sample."""
    field_name_mapping: dict[str, int]
    """Column of each field."""
    field_schema: dict[str, dict[str, Any]]
    """Per field: dtype, shape, is_nested, is_non_tensor."""
    custom_meta: dict[int, dict[str, Any]]
    """Tags of each sample that has any."""
    keys_mapping: dict[str, int]
    """Index of each key."""
    revert_keys_mapping: dict[int, str] = field(default_factory=dict)
    """Key of each index that has one."""
    pre_allocated_global_indexes: set[int] = field(default_factory=set)
    """Samples reserved in advance that have no data yet."""

    @property
    def total_samples_num(self) -> int:
        """Number of samples, without those reserved in advance."""
        return len(self.global_indexes)

    @property
    def total_fields_num(self) -> int:
        """Number of fields."""
        return len(self.field_name_mapping)

    @property
    def allocated_samples_num(self) -> int:
        """Rows of the status arrays."""
        return int(self.production_status.shape[0])

    @property
    def allocated_fields_num(self) -> int:
        """Columns of the production status."""
        return int(self.production_status.shape[1])

    def get_statistics(self) -> dict[str, Any]:
        """Total number of samples, number produced per field and number consumed per task."""
        total = self.total_samples_num

        def share(count: Any) -> float:
            return int(count) / total if total else 0

        produced = (self.production_status == 1).any(1).sum() if self.field_name_mapping else 0
        fields = {
            name: (self.production_status[:, column] == 1).sum()
            for name, column in self.field_name_mapping.items()
        }
        tasks = {name: (status == 1).sum() for name, status in self.consumption_status.items()}
        return {
            "partition_id": self.partition_id,
            "total_samples_num": total,
            "total_fields_num": self.total_fields_num,
            "allocated_samples_num": self.allocated_samples_num,
            "allocated_fields_num": self.allocated_fields_num,
            "registered_tasks": list(self.consumption_status),
            "produced_samples": int(produced),
            "production_progress": share(produced),
            "field_statistics": {
                name: {"produced_samples": int(count), "production_progress": share(count)}
                for name, count in fields.items()
            },
            "consumption_statistics": {
                name: {"consumed_samples": int(count), "consumption_progress": share(count)}
                for name, count in tasks.items()
            },
        }


class ControllerWindow:
    """The methods of the actor: a window onto the controller, which is a separate daemon."""

    def __init__(self, info: ControllerInfo) -> None:
        """Attach to the system at an address."""
        self._info = info
        self._client = TransferQueueClient(f"{ACTOR_NAME} (Ray)", info)

    def address(self) -> str:
        """Address of the system that the actor is attached to."""
        return self._info.address

    def get_config(self) -> Config:
        """The system's configuration."""
        return self._client.config

    def list_partitions(self) -> list[str]:
        """Names of the partitions."""
        names: list[str] = self._client.get_partition_list()
        return names

    def get_partition_snapshot(self, partition_id: str) -> PartitionSnapshot | None:
        """The state of a partition; None if there is none with this name."""
        return snapshot(self._client, partition_id)

    def get_partition_index_range(self, partition_id: str) -> list[int]:
        """Indexes of a partition's samples, including those reserved in advance."""
        found = snapshot(self._client, partition_id)
        if found is None:
            return []
        return sorted(found.global_indexes | found.pre_allocated_global_indexes)

    def clear_partition(self, partition_id: str, clear_consumption: bool = True) -> None:
        """Remove a partition and everything in it; does nothing if there is no such partition."""
        if not clear_consumption:
            raise ValueError("clear_consumption: what was consumed goes with the samples")
        self._client.clear_partition(partition_id)

    def get_consumption_status(self, partition_id: str, task_name: str) -> tuple[Any, Any]:
        """Indexes and, for each, 1 if the task has consumed it; (None, None) if there is no such partition."""
        status: tuple[Any, Any] = self._client.get_consumption_status(task_name, partition_id)
        return status

    def get_production_status(self, partition_id: str, data_fields: list[str]) -> tuple[Any, Any]:
        """Indexes and, for each, a 1 per field that is ready; (None, None) if there is no such partition."""
        status: tuple[Any, Any] = self._client.get_production_status(data_fields, partition_id)
        return status

    def reset_consumption(self, partition_id: str, task_name: str | None = None) -> None:
        """Make consumed samples claimable again, for one task or for all tasks."""
        self._client.reset_consumption(partition_id, task_name)


# --- options that a program sets for its actors ---------------------------------------------------


class ActorOptions:
    """The result of `options` of an actor class: the options to make the actor with."""

    def __init__(self, kind: type[ActorClass], options: Mapping[str, Any]) -> None:
        """Options as Ray takes them."""
        self.kind = kind
        self.given = dict(options)

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Make the actor, if it can be made by hand."""
        return self.kind.make(self.given, *args, **kwargs)


class ActorClass:
    """An actor class as Ray programs know it.

    Such programs replace `options` by their own function that adds to the options it is given (a runtime_env,
    resources): every actor that `init()` makes in place of this class gets these additions.
    """

    @classmethod
    def options(cls, **options: Any) -> ActorOptions:
        """Options for actors of this class, as Ray takes them."""
        return ActorOptions(cls, options)

    @classmethod
    def remote(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an actor by hand, if that is possible."""
        return cls.options().remote(*args, **kwargs)

    @staticmethod
    def make(options: Mapping[str, Any], /, *args: Any, **kwargs: Any) -> Any:
        """Make an actor with these options, or raise an error that says why that is not possible."""
        raise NotImplementedError


class TransferQueueController(ControllerWindow, ActorClass):
    """The controller: an actor attached to the system at an address (a ControllerInfo)."""

    @staticmethod
    def make(
        options: Mapping[str, Any], /, info: ControllerInfo | None = None, *_: Any, **__: Any
    ) -> Any:
        """Make the actor."""
        if not isinstance(info, ControllerInfo):
            raise UnsupportedError(
                "TransferQueueController.remote: the controller is a daemon that init() starts; call init(), "
                "and hand over its controller.zmq_info for an actor that looks into it"
            )
        import ray

        return ray.remote(ControllerWindow).options(**usable(options)).remote(info)


class SimpleStorageUnit(ActorClass):
    """The storage units: processes that `init()` starts on every node, each node with an actor that looks after them."""

    @staticmethod
    def make(options: Mapping[str, Any], /, *args: Any, **kwargs: Any) -> Any:
        """Refuse: storage units are not made by hand."""
        raise UnsupportedError(
            "SimpleStorageUnit.remote: storage units are started by init(), on every node of the cluster; say how many "
            "with backend.SimpleStorage.num_data_storage_units"
        )


def wanted_options(kind: type[ActorClass]) -> dict[str, Any]:
    """The options added by a program that has replaced `options`."""
    made = kind.options()
    return usable(made.given) if isinstance(made, ActorOptions) else {}


def usable(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without a requirement on TransferQueue in their runtime_env.

    Otherwise Ray would install PyPI's package of that name there, instead of this one.
    """
    kept = dict(options)
    env = dict(kept.pop("runtime_env", None) or {})
    for tool in ("pip", "uv"):
        asked = env.get(tool)
        packages = asked.get("packages") if isinstance(asked, Mapping) else asked
        if not isinstance(packages, list):
            continue
        others = [each for each in packages if not _is_transfer_queue(each)]
        if len(others) == len(packages):
            continue
        logger.info(
            "runtime_env: %s installs nothing for transfer_queue, which is transferq's here", tool
        )
        if others:
            env[tool] = {**asked, "packages": others} if isinstance(asked, Mapping) else others
        else:
            env.pop(tool)
    if env:
        kept["runtime_env"] = env
    return kept


def _is_transfer_queue(requirement: object) -> bool:
    import re

    name = re.match(r"[A-Za-z0-9._-]+", str(requirement).strip())
    return name is not None and re.sub(r"[-_.]+", "", name.group()).lower() == "transferqueue"


# --- inspecting -----------------------------------------------------------------------------------


def snapshot(client: TransferQueueClient, partition_id: str) -> PartitionSnapshot | None:
    """A partition as a client can see it; None if there is none with this name."""
    listed = {each["name"]: each for each in client.status()["partitions"]}
    if partition_id not in listed:
        return None
    tasks = [task["name"] for task in listed[partition_id]["tasks"]]
    started = [(task, client._core.consumption(partition_id, task)) for task in tasks]
    try:
        meta: Meta = client._core.resolve(partition_id, lenient=True, tags=True).result()
    except UnknownPartitionError:
        return None
    batch = BatchMeta._wrap([meta])
    indexes = batch.global_indexes
    columns = {name: column for column, name in enumerate(meta.field_names)}
    consumed = {}
    for task, op in started:
        progress = op.result()
        if progress is not None:
            at, _, flags = progress
            consumed[task] = dict(zip(memoryview(at).cast("I"), memoryview(flags), strict=True))
    keys = {key: index for index, key in zip(indexes, meta.keys, strict=True) if key is not None}
    rows = max([*indexes, *(index for each in consumed.values() for index in each), -1]) + 1
    produced = _zeros(rows, len(columns))
    for column in meta.fields:
        for index, flag in zip(indexes, memoryview(column.ready), strict=True):
            produced[index, columns[column.name]] = flag
    status = {}
    for task, flags in consumed.items():
        status[task] = _zeros(rows)
        for index, flag in flags.items():
            status[task][index] = flag
    return PartitionSnapshot(
        partition_id=partition_id,
        global_indexes=set(indexes),
        production_status=_array(produced),
        consumption_status={task: _array(flags) for task, flags in status.items()},
        field_name_mapping=columns,
        field_schema=batch.field_schema,
        custom_meta={
            index: tags for index, tags in zip(indexes, batch.custom_meta, strict=True) if tags
        },
        keys_mapping=keys,
        revert_keys_mapping={index: key for key, index in keys.items()},
    )


def _zeros(*shape: int) -> Any:
    import numpy as np

    return np.zeros(shape, np.int8)


def _array(filled: Any) -> Any:
    """The status as a tensor if torch is installed."""
    from .._impl.dtypes import have_torch

    if not have_torch():
        return filled
    import torch

    return torch.from_numpy(filled)


# --- the actor ------------------------------------------------------------------------------------


def wanted(config: Mapping[str, Any]) -> Any:
    """Ray's module if the actor is requested, or if Ray is in use in this process; else None."""
    asked = (config.get("ray") or {}).get("actor")
    if asked is None:
        return ray_in_use()
    if not asked:
        return None
    try:
        import ray as imported
    except ImportError as error:
        raise ConfigError(f"ray.actor: true, but Ray cannot be imported: {error}") from None
    if not imported.is_initialized():
        raise ConfigError("ray.actor: true, but Ray is not initialised here: call ray.init() first")
    return imported


def offer(config: Mapping[str, Any], info: ControllerInfo) -> Any:
    """Make the actor if it is wanted and this system has none; returns its handle if this call made it.

    In a Ray cluster a name belongs to one actor.  If a system with another name holds it, the actor of this system
    has the system's name in its own: `TransferQueueController:NAME`.
    """
    ray = wanted(config)
    if ray is None:
        return None
    holder = ""
    for name in (ACTOR_NAME, f"{ACTOR_NAME}:{system_name()}"):
        made, owner = _make_or_find(ray, info, name)
        if owner == info.address:
            return None
        if made is not None:
            if holder:
                logger.warning(
                    "the actor %r of this Ray cluster belongs to %s, and tools that look that name up see that "
                    "system; the actor of this one, at %s, is %r",
                    ACTOR_NAME,
                    holder,
                    info.address,
                    name,
                )
            return made
        holder = holder or (f"the system at {owner}" if owner else "something else")
    logger.warning(
        "the actors %r and %r of this Ray cluster belong to other systems, the first one to %s: the system at %s has "
        "no actor for tools that look inside; start it with a name of its own in TQ_SYSTEM, or set ray.actor: false",
        ACTOR_NAME,
        name,
        holder,
        info.address,
    )
    return None


def _make_or_find(ray: Any, info: ControllerInfo, name: str) -> tuple[Any, str]:
    """An actor that this call has made; or else None, and the address of the system whose actor has the name."""
    deadline = time.monotonic() + NAME_SECONDS
    for pause in pauses():
        try:
            existing = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            existing = None
        try:
            if existing is None:
                return _make(ray, info, name), ""
            address = getattr(existing, "address", None)
            return None, "" if address is None else str(ray.get(address.remote()))
        except (ValueError, ray.exceptions.RayActorError):
            pass  # another process was faster, or the actor's job has just ended
        if time.monotonic() > deadline:
            break
        time.sleep(pause)  # Ray does not notify when it frees a name
    return None, ""


def pauses(longest: float = 0.5) -> Iterator[float]:
    """Growing pauses, up to half a second, between polls of Ray for changes that it does not notify."""
    pause = 0.01
    while True:
        yield pause
        pause = min(2 * pause, longest)


def _make(ray: Any, info: ControllerInfo, name: str) -> Any:
    """Make the actor, on this node: the system's socket and token are accessible from here.

    It serves one call at a time, and therefore has no thread pool; see `kill` for why that matters.
    """
    actor = on_node(
        ray,
        ControllerWindow,
        ray.get_runtime_context().get_node_id(),
        wanted_options(TransferQueueController),
        name=name,
        namespace=NAMESPACE,
        max_concurrency=1,
    )
    return actor.remote(info)


def on_node(ray: Any, kind: type, node: str, wanted: Mapping[str, Any], /, **options: Any) -> Any:
    """An actor class bound to a node, using no CPU there; `wanted` holds further options set by the program."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ours = {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False), **options}
    return ray.remote(kind).options(**{"num_cpus": 0, **wanted, **ours})


def kill(ray: Any, actor: Any, seconds: float = STOP_SECONDS) -> bool:
    """Kill an actor and wait until Ray knows that it is dead; returns whether it is.

    `ray.kill` only sends a message.  If the last reference to the actor is dropped before that message arrives,
    Ray ends the actor gracefully instead.  In Ray 2.60 a graceful end aborts (SIGABRT, with a C++ trace on the driver's
    console) if the actor serves its calls with threads (max_concurrency > 1) and has not had a call yet: the
    destructor of the core worker finds a thread of the pool that nobody has joined.  So the reference is kept
    here until the actor is dead.
    """
    ray.kill(actor)
    return wait_dead(ray, actor, seconds)


def wait_dead(ray: Any, actor: Any, seconds: float) -> bool:
    """Wait until Ray knows that an actor is dead; returns whether it is."""
    deadline = time.monotonic() + seconds
    # No retries, whatever the actor was made with: Ray prints a line for each call that it would retry.
    ready = actor.__ray_ready__.options(max_task_retries=0)
    for pause in pauses():
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            # The call is served if it arrives before the message of ray.kill; otherwise it fails once the actor is dead.
            ray.get(ready.remote(), timeout=left)
        except ray.exceptions.ActorUnavailableError:
            time.sleep(min(pause, left))  # the actor is dying, and such a call returns at once
        except ray.exceptions.RayActorError:
            return True
        except ray.exceptions.GetTimeoutError:
            break
    return False


def withdraw(handle: Any) -> None:
    """End the actor that `offer` made."""
    ray = ray_in_use()
    if handle is not None and ray is not None:
        kill(ray, handle)
