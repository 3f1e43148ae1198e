"""Finding, starting and ending a system in this process's Ray cluster.

Such a system is an actor named `TransferQueueSystem:NAME` in the namespace `transfer_queue`, with NAME as
in TQ_SYSTEM; see `daemons` for what it runs.  Ray allows one actor per name, which settles a race between two
inits.  The system ends with the process that started it, and with its job.  With `ray.lifetime: detached` it stays
until that process calls `close()`, or any other process calls `stop()`.

In a Ray worker `init()` without a configuration only attaches; with one it may start a system.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .._impl.system import (
    START_SECONDS,
    STOP_SECONDS,
    ControllerInfo,
    Handle,
    find,
    node,
    python_sampler,
    ray_in_use,
    system_name,
)
from ..config import settings
from ..errors import ConfigError, InternalError, TransferQueueError, UnreachableError
from .actor import (
    NAMESPACE,
    SimpleStorageUnit,
    TransferQueueController,
    kill,
    on_node,
    wanted_options,
)
from .daemons import PLACES, Head, Plan, RayHandle, local_name

logger = logging.getLogger("transferq")

ENDING_SECONDS = 30.0
"""How long a system may take to end before another one with its name is started."""

CALLS_AT_ONCE = 10_000
"""Workers served concurrently by the head; they only wait there."""


def actor_name(name: str) -> str:
    """Name of the actor of the system with this name."""
    return f"TransferQueueSystem:{name}"


def wanted(given: Mapping[str, Any]) -> Any:
    """Ray's module if systems are looked up and started in its cluster; else None."""
    asked = (given.get("ray") or {}).get("cluster")
    ray = ray_in_use() if asked is not False else None
    if asked and ray is None:
        raise ConfigError(
            "ray.cluster: true, but Ray is not initialised here: call ray.init() first"
        )
    return ray


def in_worker(ray: Any) -> bool:
    """Whether this process runs Ray tasks or actors, rather than a driver."""
    return bool(ray.get_runtime_context().worker.mode == ray.WORKER_MODE)


class Job(NamedTuple):
    """The job of a Ray cluster that this process belongs to."""

    node: str
    job: str


def job() -> Job | None:
    """The job that this process belongs to now; None outside Ray."""
    ray = ray_in_use()
    return Job(str(node()), ray.get_runtime_context().get_job_id()) if ray is not None else None


class RaySystem:
    """A system that this process started in a Ray cluster."""

    def __init__(self, handle: RayHandle, head: Any, ended: Callable[[], None]) -> None:
        """The system, its actor, and a function to call after it has ended."""
        self.handle = handle
        self._head = head
        self._ended = ended
        self._owner = os.getpid()
        self._job = job()

    @property
    def detached(self) -> bool:
        """Whether the system stays when this process ends."""
        return self.handle.detached

    def stop(self) -> None:
        """End the system and wait until it has ended.  Does nothing in a forked child, or if the job is already over."""
        ray = ray_in_use()
        if ray is not None and os.getpid() == self._owner and job() == self._job:
            _end(ray, self._head)
            self._ended()


def _end(ray: Any, head: Any) -> None:
    from ray.exceptions import GetTimeoutError, RayError

    try:
        ray.get(head.stop.remote(), timeout=3 * STOP_SECONDS)
    except GetTimeoutError:
        logger.warning("the system's daemons did not end in time; they end with their actors")
    except RayError:
        pass  # the actor has died
    kill(ray, head)


def stop(name: str | None = None) -> bool:
    """End the system with this name in this process's Ray cluster, whoever started it; returns whether there was one.

    The default name is that of TQ_SYSTEM (`default`).  Meant for detached systems whose starter is gone.
    """
    ray = ray_in_use()
    if ray is None:
        raise UnreachableError("Ray is not initialised here: call ray.init() first")
    head = _find(ray, name or system_name())
    if head is not None:
        _end(ray, head)
    return head is not None


def attach(ray: Any) -> ControllerInfo | None:
    """The system named by this environment in the Ray cluster, or None."""
    found = _attach_or_start(ray, None)
    return found[0].info if found is not None else None


def find_outside() -> Handle | None:
    """The system named by this environment on this machine, if it is not in a Ray cluster."""
    name = system_name()
    handle = find(name)
    if handle is None or handle.name == local_name(name):
        return None  # belongs to another cluster, or is ending
    logger.info("attached to %s", handle)
    return handle


def start(ray: Any, given: Mapping[str, Any]) -> tuple[ControllerInfo, RaySystem | None]:
    """Start a system on this node; if another process is faster, attach to its system."""
    found = _attach_or_start(ray, given)
    assert found is not None
    return found[0].info, found[1]


def _attach_or_start(
    ray: Any, given: Mapping[str, Any] | None
) -> tuple[RayHandle, RaySystem | None] | None:
    name = system_name()
    deadline = time.monotonic() + ENDING_SECONDS
    pause = 0.01
    while True:
        head = _find(ray, name)
        if head is None and given is None:
            return None
        started = _start(ray, name, given) if head is None and given is not None else None
        if started is not None:
            return started.handle, started
        handle = _join(ray, head) if head is not None else None
        if handle is not None:
            logger.info("attached to %s", handle)
            return handle, None
        # Another process was faster, or the system is ending: Ray does not notify when it frees the name.
        if time.monotonic() > deadline:
            raise UnreachableError(
                f"the system {name!r} of this Ray cluster has been ending for {ENDING_SECONDS:g} s"
            )
        time.sleep(pause)
        pause = min(2 * pause, 0.5)


def _find(ray: Any, name: str) -> Any:
    try:
        return ray.get_actor(actor_name(name), namespace=NAMESPACE)
    except ValueError:
        return None


def _start(ray: Any, name: str, given: Mapping[str, Any]) -> RaySystem | None:
    """Start whatever the storage needs, then a system; None if an actor with its name exists by now."""
    from ..storage.backends import starting

    given, ended = starting(given)
    started = None
    try:
        started = _start_head(ray, name, given, ended)
    finally:
        if started is None:
            ended()
    return started


def _start_head(
    ray: Any, name: str, given: Mapping[str, Any], ended: Callable[[], None]
) -> RaySystem | None:
    from ray.exceptions import RayActorError

    detached = (given.get("ray") or {}).get("lifetime") == "detached"
    backends = given.get("backend") or {}
    backend = backends.get("storage_backend") or "SimpleStorage"
    holder = (backends.get(backend) or {}).get("holder")
    plan = Plan(
        name=name,
        id=uuid.uuid4().hex[:8],
        settings=tuple(settings(given)),
        sampler=python_sampler(given),
        units=backend == "SimpleStorage",
        detached=detached,
        user=_user(),
        places={name: os.environ[name] for name in PLACES if os.environ.get(name)},
        actors=(str(holder),) if holder else (),
        options=wanted_options(SimpleStorageUnit),
    )
    head = on_node(
        ray,
        Head,
        str(node()),
        wanted_options(TransferQueueController),
        name=actor_name(name),
        namespace=NAMESPACE,
        lifetime="detached" if detached else None,
        max_concurrency=CALLS_AT_ONCE,
    )
    try:
        made = head.remote(plan)
    except ValueError:  # the name is taken
        return None
    try:
        handle = _ask(ray, made)
        if handle is None:
            raise UnreachableError(f"system {name!r} was ended while it started")
    except RayActorError as error:
        raise UnreachableError(
            f"the actor of system {name!r} has died while it started: {_first_line(error)}"
        ) from error
    except BaseException:
        kill(ray, made)
        raise
    logger.info("started %s", handle)
    return RaySystem(handle, made, ended)


def _join(ray: Any, head: Any) -> RayHandle | None:
    """How to reach a system once it serves on this node; None if it is ending, or has ended."""
    from ray.exceptions import RayActorError

    try:
        return _ask(ray, head)
    except RayActorError:
        return None


def _ask(ray: Any, head: Any) -> RayHandle | None:
    """Like `_join`, but RayActorError if it has ended; other errors of Ray are converted to our own."""
    from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

    seconds = 3 * START_SECONDS
    what = f"the system {system_name()!r} of this Ray cluster"
    try:
        handle: RayHandle | None = ray.get(head.join.remote(node()), timeout=seconds)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, TransferQueueError):
            raise cause from None
        raise InternalError(f"{what} did not start: {type(cause).__name__}: {cause}") from error
    except RayActorError:
        raise
    except GetTimeoutError:
        raise UnreachableError(
            f"{what} does not serve on node {node()} after {seconds:g} s"
        ) from None
    except RayError as error:
        raise UnreachableError(f"{what} cannot be reached: {_first_line(error)}") from error
    return handle


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0]


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""
