"""Finding, starting and stopping a system on this machine.

A system started here has its own directory, BASE/NAME, with its sockets, its token and `handle.json`, by which
other processes find it.  BASE is $XDG_RUNTIME_DIR/ctq, or ctq-UID in the temporary folder; only its user can
other processes find it.  BASE is $XDG_RUNTIME_DIR/ctq, or ctq-UID in the temporary folder; only its user can
read it.  A process holds a lock on BASE while it starts a system, so if two processes start at once, one starts

The daemon watches the process that started it, ends with that process, and removes the directory.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import errors
from .._core import runtime_clear, runtime_dir, runtime_open
from ..config import settings
from ..errors import (
    AuthenticationError,
    ConfigError,
    InternalError,
    NameLengthError,
    TimedOutError,
    TransferQueueError,
    UnreachableError,
    UnsupportedError,
)

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

# Modules that are slow to import are imported where they are used.
logger = logging.getLogger("transferq")

START_SECONDS = 60.0
"""How long a daemon may take to start until all its parts serve."""

STOP_SECONDS = 10.0
"""How long a daemon may take to end before it is killed."""

OTHER_CAUSES = {
    str(kind.code): kind
    for kind in (AuthenticationError, TimedOutError, UnreachableError, UnsupportedError)
}
"""Why a daemon may fail to start without a mistake in its configuration, by the code that the daemon reports."""


class ControllerInfo(NamedTuple):
    """How to reach a system."""

    address: str
    token_file: str | None = None
    token: str | None = None
    allowed: str | None = None
    """Libraries and modules that the system's configuration may name for its storage backend, joined by colons:
    those named by a handle in this user's own directory, and those allowed by a client that passes this info on."""

    def __repr__(self) -> str:
        """Identifies the system; the secret must not appear in logs."""
        return f"ControllerInfo(address={self.address!r}, token_file={self.token_file!r})"


ControllerInfo.__module__ = "transferq"  # where users find it, and so what pickles name


class Handle(NamedTuple):
    """A system on this machine, as described by its `handle.json`."""

    address: str
    token_file: str
    pid: int
    owner_pid: int
    name: str
    user: str
    created: float
    version: str
    library: str = ""
    module: str = ""

    @property
    def allowed(self) -> str:
        """The code that the storage backend may run in clients that find the system by this handle."""
        return ":".join(filter(None, (self.library, self.module)))

    @property
    def info(self) -> ControllerInfo:
        """How to reach the system."""
        return ControllerInfo(self.address, self.token_file, allowed=self.allowed)

    def __str__(self) -> str:
        age = max(0, round(time.time() - self.created))
        return (
            f"system {self.name!r} of {self.user or 'this user'}, process {self.pid}, {age} s old"
        )


def from_environment(given: Mapping[str, Any]) -> ControllerInfo | None:
    """The system whose address is in the configuration or the environment."""
    address = given.get("address") or os.environ.get("TQ_ADDRESS")
    token_file = given.get("token_file") or os.environ.get("TQ_TOKEN_FILE")
    return ControllerInfo(address, token_file) if address else None


def ray_in_use() -> Any:
    """Ray's module if Ray is initialised in this process, else None."""
    ray: Any = sys.modules.get("ray")
    initialised = getattr(ray, "is_initialized", None)  # the module may be half imported
    return ray if initialised is not None and initialised() else None


def node() -> str | None:
    """Name of the cluster node that this process runs on; None outside a cluster."""
    ray = ray_in_use()
    return ray.get_runtime_context().get_node_id() if ray is not None else None


def system_name() -> str:
    """Name of the system used by processes in this environment: $TQ_SYSTEM, or `default`."""
    name = os.environ.get("TQ_SYSTEM") or "default"
    if "/" in name:
        raise NameLengthError(f"TQ_SYSTEM: {name!r}: '/' is not allowed in a system's name")
    if name.startswith("."):
        raise NameLengthError(f"TQ_SYSTEM: {name!r}: a system's name does not begin with a dot")
    if len(name.encode()) > 64:
        raise NameLengthError(
            f"TQ_SYSTEM: {name[:24]!r}...: a system's name has at most 64 bytes, this one {len(name.encode())}"
        )
    return name


def base_directory() -> Path:
    """Parent of the directories of this user's systems."""
    from pathlib import Path

    return Path(runtime_dir())


def find(name: str) -> Handle | None:
    """The running system with this name."""
    import json

    try:
        descriptor = runtime_open(name)
    except UnreachableError:
        return None
    try:
        fields = json.loads(_read(descriptor, "handle.json"))
        handle = Handle(**{key: fields[key] for key in Handle._fields if key in fields})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    finally:
        os.close(descriptor)
    return handle if _is_alive(handle) else None


def _read(directory: int, name: str) -> bytes:
    """Read a file of a system's directory, without following a link or waiting for a FIFO."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with open(os.open(name, flags, dir_fd=directory), "rb") as file:
        return file.read()


def _is_alive(handle: Handle) -> bool:
    import socket

    path = handle.address.split(",")[0].removeprefix("unix:")
    if not path.startswith("/"):
        try:
            os.kill(handle.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    # The process number proves nothing: it may belong to another container, or have been reused.
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def describe(info: ControllerInfo) -> str:
    """Which system is at an address, and how long it has been running, as far as this process can see."""
    import json
    from pathlib import Path

    for endpoint in info.address.split(","):
        path = endpoint.removeprefix("unix:")
        if path.startswith("/"):
            try:
                fields = json.loads((Path(path).parent / "handle.json").read_text("utf-8"))
                age = max(0, round(time.time() - float(fields["created"])))
                return f"the system {str(fields['name'])!r} at {endpoint}, started {age} s ago"
            except (OSError, ValueError, KeyError, TypeError):
                break  # the system serves elsewhere, or has ended
    return f"the system at {info.address}"


class System:
    """A system started by this process."""

    detached = False
    """The system ends with this process."""

    def __init__(
        self, handle: Handle, process: subprocess.Popen[bytes], ended: Callable[[], None]
    ) -> None:
        self.handle = handle
        self._process = process
        self._ended = ended
        self._owner = os.getpid()

    def stop(self) -> None:
        """End the system, wait until it has ended, and leave nothing behind.  Does nothing in a forked child."""
        import signal

        if os.getpid() != self._owner:
            return
        ended, self._ended = self._ended, lambda: None
        try:
            self._stop_process(signal.SIGTERM)
        finally:
            ended()

    def _stop_process(self, with_signal: int) -> None:
        if self._process.poll() is not None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(with_signal)
        if not _wait_for_end(self._process, STOP_SECONDS):
            logger.warning("%s did not end within %g s and is killed", self.handle, STOP_SECONDS)
            self._process.kill()
            self._process.wait()
            remove(self.handle.name)
        with suppress(OSError):
            base_directory().rmdir()  # if this was the last system


def not_running(name: str) -> UnreachableError:
    """The error for when there is no system to attach to."""
    cluster = "the Ray cluster and in " if ray_in_use() is not None else ""
    return UnreachableError(
        f"no transfer queue is running: looked for an address in the configuration and in TQ_ADDRESS, and for "
        f"the system {name!r} (TQ_SYSTEM) in {cluster}{base_directory()}"
    )


def attach_or_start(given: Mapping[str, Any], start: bool) -> tuple[Handle, System | None]:
    """The system named by this environment; started if there is none and `start` allows it."""
    name = system_name()
    handle = find(name)
    if handle is None and not start:
        raise not_running(name)
    if handle is not None:
        logger.info("attached to %s", handle)
        return handle, None
    with locked(name) as directory:
        handle = find(name)  # another process may have been faster
        if handle is not None:
            logger.info("attached to %s", handle)
            return handle, None
        return _start(directory, name, given)


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """Hold the lock of the base directory; yields the (existing) directory of the system."""
    import fcntl

    base = base_directory()
    while True:
        descriptor = runtime_open(None, True)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                os.close(runtime_open(name, True))
                current = os.stat(base, follow_symlinks=False)
            except FileNotFoundError:
                continue  # the last system has just ended
            directory = base / name
            if not os.path.samestat(current, os.fstat(descriptor)):
                with suppress(OSError):
                    directory.rmdir()
                continue
            # From here on the base directory is not empty, so no other process removes it.
            try:
                yield directory
            except BaseException:
                with suppress(OSError):
                    directory.rmdir()
                with suppress(OSError):
                    base.rmdir()
                raise
            return
        finally:
            os.close(descriptor)


def _start(directory: Path, name: str, given: Mapping[str, Any]) -> tuple[Handle, System]:
    """Start whatever the storage needs, then a daemon; wait until all its parts serve."""
    from ..storage.backends import starting

    remove(name, keep=True)  # left by a system that was killed
    given, ended = starting(given)
    try:
        handle, process = _start_daemon(directory, name, given)
    except BaseException:
        ended()
        raise
    return handle, System(handle, process, ended)


def _start_daemon(
    directory: Path, name: str, given: Mapping[str, Any]
) -> tuple[Handle, subprocess.Popen[bytes]]:
    import subprocess

    program, payload = _program(given)
    reading, writing = os.pipe()
    command = [
        *program,
        "all-in-one",
        f"--name={name}",
        *daemon_options(directory, writing),
        *(f"--set={setting}" for setting in settings(given)),
    ]
    try:
        try:
            process = subprocess.Popen(
                command,
                pass_fds=(writing,),
                stdin=subprocess.PIPE if payload else subprocess.DEVNULL,
                start_new_session=True,
                env=environment(program),
            )
        finally:
            os.close(writing)
        if payload and process.stdin is not None:
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(payload)
        answer = read_ready(reading)
    finally:
        os.close(reading)
    handle = find(name) if answer == "ready" else None
    if handle is None:
        process.kill()
        status = process.wait()
        remove(name, keep=True)
        fail_to_start(answer, status)
    assert handle is not None
    logger.info("started %s", handle)
    if own_temporary_directory():
        logger.warning(
            "started %s below %s, for TMPDIR says so: a process with another TMPDIR does not find it and starts a "
            "system of its own; set XDG_RUNTIME_DIR or TQ_ADDRESS to the same in all of them",
            handle,
            base_directory(),
        )
    return handle, process


def own_temporary_directory() -> bool:
    """Whether systems are looked up in a temporary directory that other processes may not share."""
    base = base_directory()  # XDG_RUNTIME_DIR/ctq, or ctq-UID in the temporary directory
    return base.name != "ctq" and str(base.parent) != "/tmp"


def daemon_options(directory: Path, ready: int) -> list[str]:
    """Options for a tqd that ends with this process and reports on a descriptor when it serves."""
    return [
        f"--runtime-dir={directory}",
        f"--parent-pid={os.getpid()}",
        f"--ready-fd={ready}",
        # Less verbose than a tqd started by hand: its messages go to this process's standard error.
        "--set=log.level=warn",
    ]


def read_ready(descriptor: int) -> str:
    """What a tqd reports: "ready" when it serves, or why it does not start."""
    answer = b""
    deadline = time.monotonic() + START_SECONDS
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            return f"error: it was not ready within {START_SECONDS:g} s"
        chunk = os.read(descriptor, 4096)
        if not chunk:
            return answer.decode("utf-8", "replace").strip()
        answer += chunk


def environment(program: list[str]) -> dict[str, str]:
    """The environment variables of a daemon's process."""
    # Finds programs of this Python environment, such as storage servers, even if it is not activated.
    paths = [os.path.dirname(sys.executable), os.environ.get("PATH") or os.defpath]
    made = {**os.environ, "PATH": os.pathsep.join(filter(None, paths))}
    if len(program) > 1:
        # Import a sampler's module from wherever this process would.
        made["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return made


def fail_to_start(answer: str, status: int | None = None) -> None:
    """Raise the error that a daemon which does not serve has reported."""
    said, _, code = answer.partition("\ncode: ")
    reason = said.removeprefix("error:").strip()
    if not reason or reason == "ready":
        ended = "it ended" if status is None else f"exit status {status}"
        raise InternalError(f"the daemon tqd did not start: {ended}, see its messages above")
    # The first line is usually about the configuration, perhaps prefixed with the option that set it.
    about = reason.split(":")[0 if not reason.startswith("--set:") else 2].strip()
    kind = OTHER_CAUSES.get(code) or (ConfigError if "." in about else _class_of(code))
    raise kind(f"the daemon tqd did not start: {reason}")


def _class_of(code: str) -> type[TransferQueueError]:
    """The error class for a code reported by a daemon."""
    # Classes that exist only in Python share the code of the class they derive from.
    classes = (getattr(errors, name) for name in errors.__all__)
    direct = (kind for kind in classes if TransferQueueError in kind.__bases__)
    return next((kind for kind in direct if str(kind.code) == code), InternalError)


def _program(given: Mapping[str, Any]) -> tuple[list[str], bytes | None]:
    """The command of the daemon to start, and what to send it through its standard input.

    The command is tqd, unless the sampler is written in Python: then a Python process runs the daemon.
    """
    in_python, payload = python_sampler(given)
    return (host_program(payload), payload) if in_python else (tqd_program(), None)


def python_sampler(given: Mapping[str, Any]) -> tuple[bool, bytes | None]:
    """Whether the sampler is written in Python, and its pickle unless it is imported by name."""
    from ..samplers import is_in_python, pickled

    name = (given.get("controller") or {}).get("sampler") or ""
    return (True, pickled(name)) if is_in_python(name) else (False, None)


def host_program(payload: bytes | None) -> list[str]:
    """The command of a daemon whose sampler is in Python, read from standard input or imported by name."""
    if not sys.executable:
        raise ConfigError(
            "controller.sampler: one written in Python needs a Python to run in, and sys.executable names none"
        )
    host = [sys.executable, "-m", "transferq.host"]
    return host if payload is None else [*host, "--pickled-sampler"]


def tqd_program() -> list[str]:
    """The command of the tqd of this environment."""
    import shutil
    from pathlib import Path

    beside = Path(sys.executable).parent / "tqd"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("tqd")
    if found is None:
        raise InternalError(
            f"the daemon tqd is neither in {beside.parent} nor on PATH: install the package transferq into this environment"
        )
    return [found]


def _wait_for_end(process: subprocess.Popen[bytes], seconds: float) -> bool:
    import select
    import subprocess

    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process.poll() is not None
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        ended = bool(poller.poll(seconds * 1000))
    finally:
        os.close(descriptor)
    if ended:
        process.wait()
    return ended


def remove(name: str, keep: bool = False) -> None:
    """Remove what a killed daemon left in its system's directory, and with `keep` unset the directory itself."""
    try:
        descriptor = runtime_open(name)
    except UnreachableError:
        return
    try:
        runtime_clear(descriptor)
        if not keep:
            os.rmdir(base_directory() / name)  # fails on a link, whose target stays as it is
    finally:
        os.close(descriptor)
