"""The actors that run the daemons of a system in a Ray cluster.

The head is one actor on the node of the first `init()`.  It runs the controller and that node's storage units, and
has one actor on every other node to run that node's units.  The head owns these actors, so Ray ends them with it;
Ray restarts an actor whose process has died.  An actor restarts its daemon if that dies; the data in its units is
lost, which the controller reports per sample.  If the controller dies, the system ends, because its table exists
nowhere else.

Daemons are not children of their actors, because Ray kills the children of a worker with it, before they could clean
up.  Instead, they watch their actor's process and end with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .._impl.system import (
    START_SECONDS,
    STOP_SECONDS,
    ControllerInfo,
    base_directory,
    daemon_options,
    environment,
    fail_to_start,
    find,
    host_program,
    locked,
    read_ready,
    remove,
    tqd_program,
)
from ..errors import InternalError, TransferQueueError, UnreachableError
from .actor import NAMESPACE, kill, on_node

logger = logging.getLogger("transferq")

PAUSES = (0.1, 10.0)
"""Seconds before a failed start of a daemon is retried: the first pause, and the longest."""

PLACES = ("XDG_RUNTIME_DIR", "TMPDIR")
"""Environment variables that determine where the directories of systems are."""

LOOK_SECONDS = 0.2
"""How often to check whether a process has ended, where no notification is available."""

NODE_UNITS = {"max_restarts": -1, "max_concurrency": 4}
"""Ray options for the actor of a node."""

SECRET = "secret"
"""File in a daemon's directory with data for the daemon that others must not see."""

_DETACH = '"$@" <"$0" >&2 & echo $!'
"""Run by a shell: detaches the daemon, with the file $0 as its standard input."""


class Plan(NamedTuple):
    """What to run as a system, as requested by the process that starts it."""

    name: str
    id: str
    settings: tuple[str, ...]
    """The daemons' --set options."""
    sampler: tuple[bool, bytes | None]
    """Whether the sampler is written in Python, and its pickle unless it is imported by name."""
    units: bool
    """Whether the system keeps its data in storage units."""
    detached: bool
    user: str
    places: dict[str, str]
    """The environment variables by which the starter finds the directories of systems."""
    actors: tuple[str, ...] = ()
    """Names of actors that the storage has made, and that end with the system."""
    options: Mapping[str, Any] | None = None
    """The starter's options for the actors of other nodes."""


class RayHandle(NamedTuple):
    """A system in a Ray cluster, as described by its head."""

    name: str
    id: str
    address: str
    token: str
    node: str
    job: str
    user: str
    detached: bool
    created: float
    allowed: str = ""
    """Libraries and modules of the storage backend, joined by colons."""

    @property
    def info(self) -> ControllerInfo:
        """How to reach the system."""
        return ControllerInfo(self.address, token=self.token, allowed=self.allowed)

    def __repr__(self) -> str:
        return f"RayHandle({self})"

    def __str__(self) -> str:
        age = max(0, round(time.time() - self.created))
        life = "detached" if self.detached else f"of job {self.job}"
        return (
            f"system {self.name!r} of {self.user or 'this user'}, in the Ray cluster, {life}, with its controller on "
            f"node {self.node}, {age} s old"
        )


# --- daemons --------------------------------------------------------------------------------------


class Daemon:
    """A tqd that ends with this process, and can be ended earlier."""

    def __init__(
        self, directory: Path, program: list[str], options: list[str], secret: bytes | None = None
    ) -> None:
        """Start the daemon in its directory, which exists, and wait until all its parts serve.

        The daemon reads `secret` from its standard input.
        """
        self.directory = directory
        self._process: int | None = None
        remove(directory.name, keep=True)  # left by a daemon that was killed
        reading, writing = os.pipe()
        try:
            try:
                self.pid = self._launch(program, options, secret, writing)
            finally:
                os.close(writing)
            with suppress(OSError):  # the process has ended, or the sandbox forbids the call
                self._process = os.pidfd_open(self.pid)
            answer = read_ready(reading)
        except BaseException:
            self.clean()
            raise
        finally:
            os.close(reading)
        if answer != "ready":
            self.stop()
            fail_to_start(answer)

    def _launch(
        self, program: list[str], options: list[str], secret: bytes | None, ready: int
    ) -> int:
        stdin = Path(os.devnull)
        if secret is not None:
            stdin = self.directory / SECRET
            with open(os.open(stdin, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secret)
        command = [
            *program,
            *daemon_options(self.directory, ready),
            *options,
        ]
        shell = subprocess.run(
            ["/bin/sh", "-c", _DETACH, str(stdin), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=(ready,),
            start_new_session=True,
            env=environment(program),
            check=True,
        )
        return int(shell.stdout)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the daemon ends; returns whether it has."""
        if self._process is None:
            return self._look(seconds)
        poller = select.poll()
        poller.register(self._process, select.POLLIN)
        return bool(poller.poll(None if seconds is None else seconds * 1000))

    def _look(self, seconds: float | None) -> bool:
        """Like `wait`, for a process whose end nobody announces."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """End the daemon and leave nothing behind."""
        if not self.wait(0):
            self._signal(signal.SIGTERM)
        if not self.wait(STOP_SECONDS):
            logger.warning("tqd %d did not end within %g s and is killed", self.pid, STOP_SECONDS)
            self._signal(signal.SIGKILL)
            self.wait()
        self.clean()

    def clean(self) -> None:
        """Remove what the daemon left, once it has ended."""
        with suppress(OSError):
            remove(self.directory.name)
        with suppress(OSError):
            base_directory().rmdir()  # if this was the last system

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if self._process is not None:
                signal.pidfd_send_signal(self._process, number)
            else:
                os.kill(self.pid, number)

    def __del__(self) -> None:
        process = getattr(self, "_process", None)
        if process is not None:
            os.close(process)


class Kept:
    """A daemon that is restarted when it dies, by its own thread."""

    def __init__(self, what: str, start: Callable[[], Daemon]) -> None:
        """Begin to start the daemon."""
        self._what = what
        self._start = start
        self._state = threading.Condition()
        self._ending = threading.Event()
        self._daemon: Daemon | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"transferq-{what}", daemon=True)
        self._thread.start()

    def ready(self) -> int:
        """Wait until the daemon serves; returns its process.  Raises the error that keeps it from starting."""
        with self._state:
            self._state.wait_for(lambda: self._serves() or self._error or self._ending.is_set())
            if self._error is not None:
                raise self._error
            if self._daemon is None:
                raise UnreachableError(f"{self._what}: is ending")
            return self._daemon.pid

    def _serves(self) -> bool:
        """Whether the daemon runs; one that has just died may not have been noticed yet."""
        return self._daemon is not None and not self._daemon.wait(0)

    def stop(self) -> None:
        """End the daemon."""
        self._set(None, None, ending=True)
        self._thread.join()

    def _set(self, daemon: Daemon | None, error: Exception | None, ending: bool = False) -> None:
        with self._state:
            if ending:
                self._ending.set()
                if self._daemon is not None:
                    self._daemon.stop()
            self._daemon, self._error = daemon, error
            self._state.notify_all()

    def _run(self) -> None:
        pause = PAUSES[0]
        while not self._ending.wait(0):
            try:
                daemon = self._start()
            except Exception as error:  # noqa: BLE001  # raised to the waiting callers
                self._set(None, error)
                logger.warning("%s: %s; tried again in %g s", self._what, error, pause)
                self._ending.wait(pause)
                pause = min(2 * pause, PAUSES[1])
                continue
            self._set(daemon, None)
            begin = time.monotonic()
            if self._ending.is_set():
                daemon.stop()
            daemon.wait()
            daemon.clean()
            if not self._ending.is_set():
                self._set(None, None)
                logger.error(
                    "%s: tqd %d has died and is started again; what it stored is lost",
                    self._what,
                    daemon.pid,
                )
                # Do not restart at full speed a daemon that dies as soon as it serves.
                pause = min(2 * pause, PAUSES[1]) if begin > time.monotonic() - 10 else PAUSES[0]
                self._ending.wait(pause)


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _options(plan: Plan) -> list[str]:
    """Options for all daemons: listen on the address by which Ray reaches this node, unless configured otherwise.

    Ray itself trusts the network, so there is no need to warn that the daemons listen beyond this machine.
    """
    import ray

    options = ["--set=net.trusted=true", *(f"--set={setting}" for setting in plan.settings)]
    said = any(setting.startswith(("net.bind=", "net.interface=")) for setting in plan.settings)
    if said or os.environ.get("TQ_BIND") or os.environ.get("TQ_INTERFACE"):
        return options
    return [f"--set=net.bind={json.dumps(ray.util.get_node_ip_address())}", *options]


def start_controller(plan: Plan) -> Daemon:
    """Start the system's controller, reached through this node's address.

    Processes of this machine that do not use Ray can find it by name too, unless another system has the name.
    """
    in_python, payload = plan.sampler
    program = [*(host_program(payload) if in_python else tqd_program()), "controller"]
    options = [f"--name={local_name(plan.name)}", *_options(plan)]
    with locked(plan.name) as directory:
        if find(plan.name) is None:
            return Daemon(directory, program, options, payload)
    with locked(f"ray-{plan.id}") as directory:
        pass
    return Daemon(directory, program, options, payload)


def start_units(plan: Plan, handle: RayHandle) -> Daemon:
    """Start the storage units of this node."""
    node = _node_id()
    with locked(f"ray-{plan.id}-{node[:12]}") as directory:
        pass
    options = [
        f"--join={handle.address}",
        f"--token-file={directory / SECRET}",
        f"--set=storage.node={node}",
        f"--set=storage.name=node-{node[:12]}",
        *_options(plan),
    ]
    return Daemon(directory, [*tqd_program(), "storage"], options, handle.token.encode())


def local_name(name: str) -> str:
    """The name in the handle of a Ray cluster's system, on the machine of its controller."""
    return f"{name} (Ray)"


# --- actors ---------------------------------------------------------------------------------------


class NodeUnits:
    """The actor of a node: keeps the node's storage units running.

    Its methods are asynchronous, so it has an event loop and no thread pool; see `actor.kill`.
    """

    def __init__(self, plan: Plan, handle: RayHandle) -> None:
        """Begin to start the units."""
        self._kept = Kept(f"storage units of node {_node_id()}", lambda: start_units(plan, handle))

    async def ready(self) -> int:
        """Wait until the units serve; returns the process of their daemon."""
        return await asyncio.to_thread(self._kept.ready)

    async def stop(self) -> None:
        """End the units."""
        await asyncio.to_thread(self._kept.stop)


class Head:
    """The actor that is the system: runs the controller, and has storage units run on every node."""

    def __init__(self, plan: Plan) -> None:
        """Runs nothing before the first `join`."""
        import ray

        # The starter is on this node, and others look for the system where the starter would.
        for name in PLACES:
            os.environ.pop(name, None)
        os.environ.update({name: at for name, at in plan.places.items() if os.path.isdir(at)})
        self._plan = plan
        self._node = _node_id()
        self._job = str(ray.get_runtime_context().get_job_id())
        self._self = ray.get_runtime_context().current_actor
        self._controller: Daemon | None = None
        self._started: asyncio.Task[RayHandle] | None = None
        self._own: Kept | None = None
        self._actors: dict[str, Any] = {}
        self._units: dict[str, asyncio.Task[int]] = {}
        self._ending = False

    async def join(self, node: str) -> RayHandle | None:
        """How to reach the system, once it serves on this node; None if it is ending."""
        if self._ending:
            return None
        if self._started is None:
            self._started = asyncio.create_task(self._start())
        handle = await asyncio.shield(self._started)
        if self._plan.units:
            await self._units_of(node)
        return handle

    async def units(self) -> dict[str, int]:
        """Processes of the daemons with storage units, by node; waits for those that are starting."""
        found = {node: self._ready(node) for node in list(self._units)}
        return dict(zip(found, await asyncio.gather(*found.values()), strict=True))

    async def stop(self) -> None:
        """End everything that was started."""
        self._ending = True
        await asyncio.gather(*(self._stop_units(node) for node in list(self._actors)))
        for part in (self._own, self._controller):
            if part is not None:
                await asyncio.to_thread(part.stop)
        for name in self._plan.actors:
            await asyncio.to_thread(_kill_named, name)

    # --- the controller ---------------------------------------------------------------------------

    async def _start(self) -> RayHandle:
        plan = self._plan
        self._controller = await asyncio.to_thread(start_controller, plan)
        threading.Thread(target=self._watch, args=(self._controller,), daemon=True).start()
        found = find(self._controller.directory.name)
        if found is None:
            raise InternalError(f"the controller of system {plan.name!r} has died at once")
        handle = RayHandle(
            name=plan.name,
            id=plan.id,
            address=found.address,
            token=Path(found.token_file).read_text("ascii").strip(),
            node=self._node,
            job=self._job,
            user=plan.user,
            detached=plan.detached,
            created=time.time(),
            allowed=found.allowed,
        )
        if plan.units:
            self._everywhere = asyncio.create_task(self._start_everywhere())
        return handle

    def _watch(self, controller: Daemon) -> None:
        """End the system when the controller dies."""
        import ray

        controller.wait()
        if self._ending:
            return
        controller.clean()
        logger.error(
            "the controller of system %r (tqd %d) has died: its samples are lost and the system ends; close() and "
            "init() make a new one",
            self._plan.name,
            controller.pid,
        )
        ray.kill(self._self)

    # --- storage units ----------------------------------------------------------------------------

    async def _start_everywhere(self) -> None:
        import ray

        nodes = await asyncio.to_thread(ray.nodes)
        others = [str(node["NodeID"]) for node in nodes if node["Alive"]]
        results = await asyncio.gather(
            *(self._units_of(node) for node in others), return_exceptions=True
        )
        for node, result in zip(others, results, strict=True):
            if isinstance(result, BaseException) and not self._ending:
                logger.warning("node %s has no storage units: %s", node, result)

    async def _units_of(self, node: str) -> int:
        """Wait until a node's units serve, starting them if necessary."""
        task = self._units.get(node)
        if task is None:
            task = self._units[node] = asyncio.create_task(self._start_units(node))
        try:
            return await asyncio.shield(task)
        except BaseException:
            if task.done() and self._units.get(node) is task:
                del self._units[node]  # the next caller tries again
            raise

    async def _start_units(self, node: str) -> int:
        import ray

        started = self._started
        assert started is not None
        handle = await asyncio.shield(started)
        if self._ending:
            raise UnreachableError(f"system {self._plan.name!r} is ending")
        if node == self._node:
            what = f"storage units of node {node}"
            self._own = self._own or Kept(what, lambda: start_units(self._plan, handle))
            return await self._ready(node)
        units = on_node(ray, NodeUnits, node, self._plan.options or {}, **NODE_UNITS)
        self._actors[node] = units.remote(self._plan, handle)
        try:
            return await asyncio.wait_for(self._ready(node), 1.5 * START_SECONDS)
        except Exception as error:  # noqa: BLE001  # Ray may raise anything
            await self._stop_units(node)
            cause = getattr(error, "cause", None)
            if isinstance(cause, TransferQueueError):
                raise type(cause)(f"node {node}: {cause}") from None
            raise UnreachableError(f"node {node}: storage units did not start: {error!r}") from None

    async def _ready(self, node: str) -> int:
        """The process of the daemon on a node, once it serves."""
        if node == self._node and self._own is not None:
            return await asyncio.to_thread(self._own.ready)
        # Wait for an actor that Ray is restarting, instead of failing as unavailable.
        ready = self._actors[node].ready.options(max_task_retries=-1)
        pid: int = await ready.remote()
        return pid

    async def _stop_units(self, node: str) -> None:
        import ray

        actor = self._actors.pop(node)
        with suppress(Exception):  # the actor may not be running; its daemon ends with it
            await asyncio.wait_for(actor.stop.remote(), STOP_SECONDS)
        await asyncio.to_thread(kill, ray, actor)


def _kill_named(name: str) -> None:
    """End an actor, if it exists."""
    import ray

    with suppress(ValueError):
        kill(ray, ray.get_actor(name, namespace=NAMESPACE))
