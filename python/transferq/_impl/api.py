"""The functions of the package: init and close, and the calls on samples by key."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..client import TransferQueueClient
from ..config import Config, as_given, read
from ..errors import (
    ArgumentTypeError,
    AuthenticationError,
    ClosedError,
    InvalidArgumentError,
    TransferQueueError,
    UnknownFieldError,
    UnreachableError,
)
from ..metadata import KVBatchMeta
from . import log, system
from .arguments import Parser, expect_text
from .calls import Steps, twins
from .in_force import differences, warn, without_effect
from .named import named
from .read_options import LayoutOption, PaddingOption
from .tensors import is_tensordict

if TYPE_CHECKING:
    from tensordict import TensorDict

    from ..ray.cluster import RaySystem
    from .tensors import Fields

logger = logging.getLogger("transferq")


PROBE_SECONDS = 1.0
"""How long `init` waits for the system in use to answer before it looks for another one."""


class _Session(NamedTuple):
    """What `init` made."""

    client: TransferQueueClient
    system: system.System | RaySystem | None
    actor: Any = None
    job: Any = None
    """The Ray job that the system belongs to."""

    @property
    def is_over(self) -> bool:
        """Whether the system belongs to a Ray job that this process has left."""
        if self.job is None:
            return False
        from ..ray import cluster

        return bool(cluster.job() != self.job)

    def lost(self) -> TransferQueueError | None:
        """Why the system can no longer be used; None while it answers, or is merely slow."""
        try:
            self.client.get_events(since=2**63 - 1, limit=1, timeout=PROBE_SECONDS)
        except (UnreachableError, AuthenticationError, ClosedError) as error:
            return error
        except TransferQueueError:
            pass  # the system answered
        return None


class _Process:
    """The session of this process."""

    def __init__(self) -> None:
        self.session: _Session | None = None
        self.lock = threading.Lock()

    def forked(self) -> None:
        """Replace the lock: in the parent it may have been held by a thread that the child does not have."""
        self.lock = threading.Lock()


_process = _Process()
os.register_at_fork(after_in_child=_process.forked)


@named
def init(conf: Any = None, *, attach: bool | None = None, name: str | None = None) -> Config:
    """Find a running system, or start one, and connect to it; returns the final configuration.

    `conf` is a map, the path of a YAML file or an OmegaConf (config.yaml lists all keys).  A system is looked
    up by the `address` in `conf`, then by TQ_ADDRESS (with TQ_TOKEN_FILE), then by the name in TQ_SYSTEM
    (default: `default`), first in the Ray cluster, if Ray is initialised, then on this machine.  If there is none,
    it is started, on this machine or with storage on every node of the Ray cluster; it ends with this process or
    with `close`.  With `attach=True` none is started, and a missing system is an UnreachableError; this is the
    default in a Ray worker that gives no configuration.  `name` identifies this process to others.

    The configuration is returned in the form in which it was given: an OmegaConf for an OmegaConf.  It contains
    the settings in force: those that a running system can no longer adopt have no effect, and a warning names
    each of them.  Another process attaches with its `address` and `token_file`.  `token_file` is None for a system
    in a Ray cluster, because its secret is in no file that all nodes share; there the address alone is enough, and
    the system's actor hands the secret over.  Without Ray, a process on the controller's machine attaches by name.

    A second call returns the configuration of the system in use.  If that system has ended, the call logs a
    warning and acts like a first call: it attaches to the system that runs now, or starts one.

        config = transferq.init({"backend": {"SimpleStorage": {"total_storage_size": "8GiB"}}})
        config.address  # for processes elsewhere: transferq.init({"address": ..., "token_file": ...})
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
            # Ray registers its exit handler on import; ours must run before it, so it is registered later.
            atexit.unregister(_end)
            atexit.register(_end)
        return as_given(conf, client.config)


def _find_or_start(
    given: Config, asked: tuple[bool | None, bool]
) -> tuple[system.ControllerInfo, system.System | RaySystem | None, Any]:
    """Where the system is, the part that was started here if any, and the Ray job that it belongs to."""
    attach, configured = asked
    info = system.from_environment(given)
    ray = system.ray_in_use()
    if info is not None:
        return (_with_secret(info, ray) if ray is not None else info), None, None
    if ray is not None or given.get("ray"):
        from ..ray import cluster

        ray = cluster.wanted(given)
    if ray is None:
        handle, started = system.attach_or_start(given, start=not attach)
        return handle.info, started, None
    found = cluster.attach(ray)
    if found is not None:
        return found, None, cluster.job()
    if attach is None:
        attach = cluster.in_worker(ray) and not configured
    local = cluster.find_outside()
    if local is not None:
        return local.info, None, None
    if attach:
        raise system.not_running(system.system_name())
    return *cluster.start(ray, given), cluster.job()


def _with_secret(info: system.ControllerInfo, ray: Any) -> system.ControllerInfo:
    """Add the secret to a system's address if it is the system of the Ray cluster.

    That secret is in no file: the configuration that init() returned has only the address.
    """
    from ..ray import cluster

    found = cluster.attach(ray) if info.token_file is None else None
    here = set(info.address.split(","))
    return info if found is None or here.isdisjoint(found.address.split(",")) else found


def _offer_actor(config: Config, info: system.ControllerInfo) -> Any:
    """Create the actor for Ray tools if Ray is in use or the configuration asks for it."""
    if "ray" not in sys.modules and not config.ray.actor:
        return None
    from ..ray import actor

    return actor.offer(config, info)


def close() -> None:
    """Leave the system, and stop it if this process started it.  May be called repeatedly."""
    with _process.lock:
        _leave()


def _leave(at_exit: bool = False) -> None:
    """Leave the system, and stop it if this process started it; at process exit a detached system keeps running.

    In some stores only a client can remove the system's data, so our client stays until the system has ended.
    """
    session, _process.session = _process.session, None
    if session is None:
        return
    if session.actor is not None and not session.is_over:
        from ..ray import actor

        actor.withdraw(session.actor)
    streaming = sys.modules.get("transferq.streaming")
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
    """Whether only clients can remove data from the store, because the daemon cannot access it (Python backends)."""
    if client.config.backend.storage_backend in ("SimpleStorage", "Redis"):
        return False
    from ..storage import StorageClientFactory

    return StorageClientFactory.known(client.config.backend.storage_backend) is not None


def _end() -> None:
    """Close at process exit; a detached system keeps running."""
    with _process.lock:
        _leave(at_exit=True)


atexit.register(_end)


def get_client() -> TransferQueueClient:
    """The client that `init` made."""
    session = _process.session
    if session is None:
        raise ClosedError("this process is attached to no system: call transferq.init() first")
    log.forward()  # handlers may have been added since the client was made
    return session.client


def _client() -> TransferQueueClient:
    """The client; a process that has not called `init` attaches to a running system."""
    if _process.session is None:
        init(attach=True)
    return get_client()


def get_metrics_endpoint() -> str | None:
    """Where the system serves its Prometheus metrics, as `host:port`; None if it does not, or if there is no system.

    Systems started with `metrics.enabled` serve them at `/metrics`.
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
    """Store fields, a tag map or both for one sample by key; the sample is created if it does not exist.

    In a dict, tensors are those of the sample itself, without a batch dimension; other values are kept as they
    are.  Earlier fields and tags stay.  Returns the tags and the names of all fields.
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
    """Store columns, tags or both for samples by key, all or nothing; missing samples are created.

    Earlier fields and tags stay.  Returns the tags and the names of all fields.
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

    The fields are those that all of these samples have.  Names in `select_fields` that are not among them are
    left out; if none remains, the result is empty.  ValueError if none of the keys exists, or if the samples
    have no field in common.  With `strict`, any unknown key, and any name in `select_fields` that some of the
    samples lack, is an error that names it.  `layout`, `padding`, `pin_memory` and `zero_copy` are as in
    `TransferQueueClient.get_data`.
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
    """Read the samples of a KVBatchMeta: all of its fields, or some; ValueError for a field that it lacks.

    With `strict`, keys that no longer exist are an UnknownKeyError; otherwise they are left out.
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
    """Keys with their tags, per partition: for one partition, or for all."""
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
    """Save the system's state as a directory, which appears whole or not at all; replaces an existing checkpoint.

    `metadata` is a map for the program that loads the checkpoint, kept in metadata.json.  With `partition_id`
    only that partition is saved.  `include_storage=False` leaves out data that outlives the system by itself;
    data in the memory of storage units is always saved.
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
    """Replace the system's state by a checkpoint's (a checkpoint of one partition replaces only that partition).

    All or nothing: FileNotFoundError if there is no checkpoint, CheckpointError if it is incomplete or was
    altered, StorageFullError if there is no room for its data.
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
