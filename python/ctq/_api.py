"""The functions of the package: init and close, and the calls on samples by key."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import system
from ._arguments import Parser, expect_text
from ._calls import Steps, twins
from ._named import named
from .client import TransferQueueClient
from .config import Config, as_given, read
from .errors import (
    ArgumentTypeError,
    AuthenticationError,
    ClosedError,
    InvalidArgumentError,
    TransferQueueError,
    UnknownFieldError,
    UnreachableError,
)
from .in_force import differences, warn, without_effect
from .metadata import KVBatchMeta
from .read_options import LayoutOption, PaddingOption
from .tensors import is_tensordict

if TYPE_CHECKING:
    from tensordict import TensorDict

    from .ray_cluster import RaySystem
    from .tensors import Fields

logger = logging.getLogger("ctq")


PROBE_SECONDS = 1.0
"""How long `init` waits for an answer of the system in use before it looks for another one."""


class _Session(NamedTuple):
    """What init made."""

    client: TransferQueueClient
    system: system.System | RaySystem | None
    actor: Any = None
    job: Any = None
    """The job of Ray whose system it is."""

    @property
    def is_over(self) -> bool:
        """Whether it was of a job of Ray that this process has left."""
        if self.job is None:
            return False
        from . import ray_cluster

        return bool(ray_cluster.job() != self.job)

    def lost(self) -> TransferQueueError | None:
        """Why the system cannot be used any more; None while it answers, and while it is only slow."""
        try:
            self.client.get_events(since=2**63 - 1, limit=1, timeout=PROBE_SECONDS)
        except (UnreachableError, AuthenticationError, ClosedError) as error:
            return error
        except TransferQueueError:
            pass  # somebody is there
        return None


class _Process:
    """What this process has in use."""

    def __init__(self) -> None:
        self.session: _Session | None = None
        self.lock = threading.Lock()

    def forked(self) -> None:
        """The child's lock may have been held by a thread that it does not have."""
        self.lock = threading.Lock()


_process = _Process()
os.register_at_fork(after_in_child=_process.forked)


@named
def init(conf: Any = None, *, attach: bool | None = None, name: str | None = None) -> Config:
    """Find a running system, or start one, and connect to it; returns the final configuration.

    `conf` is a map, the path of a YAML file or an OmegaConf (see config.yaml for what it may hold).  A system
    is looked for by `address` in it, then by TQ_ADDRESS (with TQ_TOKEN_FILE), then by the name in TQ_SYSTEM
    (`default`): in the Ray cluster, where Ray is initialised, and on this machine.  When there is none it is
    started, on this machine or with storage on every node of the Ray cluster, and ends with this process or
    with `close`.  With `attach=True` none is started: UnreachableError.  That is the default in a Ray worker
    that gives no configuration.  `name` is what others see this process as.  The configuration is returned in
    the form that was given: an OmegaConf for an OmegaConf.  It says what is in force: settings that a system which
    runs already cannot take over have no effect, and a warning names each of them.  Another process attaches with its
    `address` and `token_file`.  The latter is None for a system in a Ray cluster, whose secret lies in no file that all
    nodes see: there the address alone is enough, for the system's actor hands the secret over.  Without Ray a process
    attaches by name, on the controller's machine.

    A second call returns the configuration of the system in use.  When that has ended, the call says so in a
    warning and does what a first one does: it attaches to the system that runs now, or starts one.
    """
    with _process.lock:
        given = read(conf)
        if _process.session is not None:
            over = _process.session.is_over
            lost = None if over else _process.session.lost()
            if not over and lost is None:
                used = _process.session.client.config
                warn(differences(given, used), "this process has called init() before")
                return as_given(conf, used)
            if lost is not None:
                logger.warning("%s", lost)
            _leave(at_exit=lost is None)
        client: TransferQueueClient | None = None
        info, started, job = _find_or_start(given, (attach, conf is not None))
        try:
            client = TransferQueueClient(name, info, config=given)
            if started is None:
                ignored = without_effect(given, client.system_config)
                warn(ignored, f"{system.describe(info)} was running already")
            actor = _offer_actor(client.config, info) if started or job is None else None
        except BaseException:
            if client is not None:
                client.close()
            if started is not None:
                started.stop()
            raise
        _process.session = _Session(client, started, actor, job)
        if job is not None:
            # Ray's own end, which is registered when it is imported, must come after ours.
            atexit.unregister(_end)
            atexit.register(_end)
        return as_given(conf, client.config)


def _find_or_start(
    given: Config, asked: tuple[bool | None, bool]
) -> tuple[system.ControllerInfo, system.System | RaySystem | None, Any]:
    """Where the system is, what was started of it, and the job of Ray whose it is."""
    attach, configured = asked
    info = system.from_environment(given)
    ray = system.ray_in_use()
    if info is not None:
        return (_with_secret(info, ray) if ray is not None else info), None, None
    if ray is not None or given.get("ray"):
        from . import ray_cluster

        ray = ray_cluster.wanted(given)
    if ray is None:
        handle, started = system.attach_or_start(given, start=not attach)
        return handle.info, started, None
    found = ray_cluster.attach(ray)
    if found is not None:
        return found, None, ray_cluster.job()
    if attach is None:
        attach = ray_cluster.in_worker(ray) and not configured
    local = ray_cluster.find_outside()
    if local is not None:
        return local.info, None, None
    if attach:
        raise system.not_running(system.system_name())
    return *ray_cluster.start(ray, given), ray_cluster.job()


def _with_secret(info: system.ControllerInfo, ray: Any) -> system.ControllerInfo:
    """A system by its address, with the secret that it has if it is the one of the Ray cluster.

    There it lies in no file: what init() returned names the address only.
    """
    from . import ray_cluster

    found = ray_cluster.attach(ray) if info.token_file is None else None
    here = set(info.address.split(","))
    return info if found is None or here.isdisjoint(found.address.split(",")) else found


def _offer_actor(config: Config, info: system.ControllerInfo) -> Any:
    """The actor for tools on Ray, where Ray is in use or the configuration asks for it."""
    if "ray" not in sys.modules and not config.ray.actor:
        return None
    from . import ray_actor

    return ray_actor.offer(config, info)


def close() -> None:
    """Leave the system; in the process that started it, end it.  May be repeated."""
    with _process.lock:
        _leave()


def _leave(at_exit: bool = False) -> None:
    """Leave the system, and end it when this process has started it; at its exit a detached one stays.

    Of some stores only a client can remove what the system has there, so ours is there until the system has ended.
    """
    session, _process.session = _process.session, None
    if session is None:
        return
    if session.actor is not None and not session.is_over:
        from . import ray_actor

        ray_actor.withdraw(session.actor)
    streaming = sys.modules.get("ctq.streaming")
    if streaming is not None:
        streaming.leave(session.client._info)
    ends = session.system
    if ends is not None and at_exit and ends.detached:
        ends = None
    first = ends is not None and _removed_by_clients(session.client)
    try:
        if ends is not None and first:
            ends.stop()
    finally:
        session.client.close()
    if ends is not None and not first:
        ends.stop()


def _removed_by_clients(client: TransferQueueClient) -> bool:
    """Whether the store is one that the daemon cannot go through: those with clients in Python."""
    if client.config.backend.storage_backend in ("SimpleStorage", "Redis"):
        return False
    from .storage import StorageClientFactory

    return StorageClientFactory.known(client.config.backend.storage_backend) is not None


def _end() -> None:
    """Close at the end of the process; a detached system stays."""
    with _process.lock:
        _leave(at_exit=True)


atexit.register(_end)


def get_client() -> TransferQueueClient:
    """The client that init made."""
    session = _process.session
    if session is None:
        raise ClosedError("this process is attached to no system: call ctq.init() first")
    return session.client


def _client() -> TransferQueueClient:
    """The client; a process that has not called init attaches to a running system."""
    if _process.session is None:
        init(attach=True)
    return get_client()


def get_metrics_endpoint() -> str | None:
    """Where the system serves its metrics for Prometheus: `host:port`; None when it does not, or there is no system.

    They are served by systems that were started with `metrics.enabled`, at `/metrics`.
    """
    try:
        client = _client()
    except UnreachableError:
        return None
    endpoint = client.system_config.get("metrics", {}).get("endpoint")
    return str(endpoint) if endpoint else None


def _kv_put(
    key: str,
    partition_id: str,
    fields: Fields | None = None,
    tag: Mapping[str, Any] | None = None,
    data_parser: Parser | None = None,
    *,
    group: str | None = None,
) -> Steps[KVBatchMeta]:
    """Store fields, a tag map or both of one sample by key; it is made when it does not exist.

    In a dict, tensors are the sample's own, without a dimension for samples; other values are kept as they
    are.  Earlier fields and tags stay; returned are the tags and the names of all fields.
    """
    if fields is None and tag is None:
        raise InvalidArgumentError("kv_put: expected fields, a tag or both")
    expect_text("key", key)
    if fields is not None and not is_tensordict(fields) and not isinstance(fields, Mapping):
        raise ArgumentTypeError(
            f"fields: expected a TensorDict or a dict, got {type(fields).__name__}"
        )
    return (yield from _client()._kv_put(key, partition_id, fields, tag, data_parser, group=group))


def _kv_batch_put(
    keys: list[str],
    partition_id: str,
    fields: Fields | None = None,
    tags: Sequence[Mapping[str, Any]] | None = None,
    data_parser: Parser | None = None,
    *,
    groups: Sequence[str | None] | None = None,
) -> Steps[KVBatchMeta]:
    """Store columns, tags or both of samples by key, all or nothing; those that do not exist are made.

    Earlier fields and tags stay; returned are the tags and the names of all fields.
    """
    return (
        yield from _client()._kv_batch_put(
            keys, partition_id, fields, tags, data_parser, groups=groups
        )
    )


def _kv_batch_get(
    keys: list[str] | str,
    partition_id: str,
    select_fields: list[str] | str | None = None,
    *,
    layout: LayoutOption | None = None,
    padding: PaddingOption | None = None,
    pin_memory: bool | None = None,
    zero_copy: bool = False,
    strict: bool = False,
) -> Steps[TensorDict]:
    """Read samples by key, in the order of the keys; unknown keys are left out.

    Fields are those that all of these samples have.  Names in `select_fields` that are not among them are left
    out; when none is left the result is empty.  ValueError when none of the keys exists, or when there is
    no field that all of them have.  With `strict` every unknown key, and every name in `select_fields` that is
    not a field of all of the samples, is an error that names it.  `layout`, `padding`, `pin_memory` and `zero_copy`
    are as in `TransferQueueClient.get_data`.
    """
    return (
        yield from _client()._kv_batch_get(
            keys,
            partition_id,
            select_fields,
            layout=layout,
            padding=padding,
            pin_memory=pin_memory,
            zero_copy=zero_copy,
            strict=strict,
        )
    )


def _kv_batch_get_by_meta(
    meta: KVBatchMeta,
    select_fields: list[str] | str | None = None,
    *,
    layout: LayoutOption | None = None,
    padding: PaddingOption | None = None,
    pin_memory: bool | None = None,
    zero_copy: bool = False,
    strict: bool = False,
) -> Steps[TensorDict]:
    """Read the samples of a KVBatchMeta: its fields, or some of them; ValueError for one that it lacks.

    With `strict` keys that are not there any more are an UnknownKeyError; else they are left out.
    `layout`, `padding`, `pin_memory` and `zero_copy` are as in `TransferQueueClient.get_data`.
    """
    if meta.partition_id is None:
        raise InvalidArgumentError("the KVBatchMeta has no partition_id")
    wanted = meta.fields
    if select_fields is not None:
        wanted = [select_fields] if isinstance(select_fields, str) else list(select_fields)
        unknown = [name for name in wanted if name not in (meta.fields or ())]
        if unknown:
            raise UnknownFieldError(
                f"select_fields: {unknown} not found in the KVBatchMeta, which has {meta.fields}"
            )
    return (
        yield from _kv_batch_get(
            meta.keys,
            meta.partition_id,
            wanted,
            layout=layout,
            padding=padding,
            pin_memory=pin_memory,
            zero_copy=zero_copy,
            strict=strict,
        )
    )


def _kv_list(partition_id: str | None = None) -> Steps[dict[str, dict[str, Any]]]:
    """Keys with their tags, per partition: of one partition, or of all."""
    return (yield from _client()._kv_list(partition_id))


def _kv_clear(keys: list[str] | str, partition_id: str) -> Steps[None]:
    """Remove samples by key; unknown ones are skipped."""
    yield from _client()._kv_clear(keys, partition_id)


def _save_checkpoint(
    checkpoint_dir: str | os.PathLike[str],
    *,
    include_storage: bool = True,
    metadata: Mapping[str, Any] | None = None,
    partition_id: str | None = None,
) -> Steps[None]:
    """Save the system's state as a directory, which appears whole or not at all; a former one is replaced.

    `metadata` is a map for whoever loads it, kept in metadata.json.  Only one partition is saved when
    `partition_id` is given.  `include_storage=False` leaves out data that outlives the system by itself; what
    is kept in the memory of storage units is always saved.
    """
    client = get_client()
    if not include_storage and client.config["backend"]["storage_backend"] == "SimpleStorage":
        logger.warning(
            "include_storage=False: SimpleStorage keeps data in memory only, so it is saved all the same"
        )
        include_storage = True
    yield from client._save_checkpoint(
        checkpoint_dir, include_storage, metadata, partition_id=partition_id
    )


def _load_checkpoint(checkpoint_dir: str | os.PathLike[str]) -> Steps[None]:
    """Replace the system's state by a checkpoint's (or, when it has one partition only, that partition).

    All or nothing: FileNotFoundError without one, CheckpointError when it is incomplete or was altered,
    StorageFullError when there is no room for its data.
    """
    yield from get_client()._load_checkpoint(checkpoint_dir)


save_checkpoint, async_save_checkpoint = twins(_save_checkpoint)
load_checkpoint, async_load_checkpoint = twins(_load_checkpoint)
kv_put, async_kv_put = twins(_kv_put)
kv_batch_put, async_kv_batch_put = twins(_kv_batch_put)
kv_batch_get, async_kv_batch_get = twins(_kv_batch_get)
kv_batch_get_by_meta, async_kv_batch_get_by_meta = twins(_kv_batch_get_by_meta)
kv_list, async_kv_list = twins(_kv_list)
kv_clear, async_kv_clear = twins(_kv_clear)
