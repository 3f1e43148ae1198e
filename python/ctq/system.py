"""Finding, starting and stopping a system on this machine.

A system that was started here has a directory of its own, BASE/NAME, with its sockets, its token and
`handle.json`, by which others find it.  BASE is $XDG_RUNTIME_DIR/ctq, or ctq-UID in the temporary folder;
only its user can look into it.  Whoever starts a system holds a lock on BASE itself meanwhile, so of two
processes that start at once one starts and the other attaches.

The daemon watches the process that started it and ends with it, taking the directory along.
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

from . import errors
from ._core import runtime_clear, runtime_dir, runtime_open
from .config import settings
from .errors import (
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

# Modules that take long to import are imported where they are used.
logger = logging.getLogger("ctq")

START_SECONDS = 60.0
"""How long a daemon may take until all its parts serve."""

STOP_SECONDS = 10.0
"""How long a daemon may take to end before it is killed."""

OTHER_CAUSES = {
    str(kind.code): kind
    for kind in (AuthenticationError, TimedOutError, UnreachableError, UnsupportedError)
}
"""What keeps a daemon from starting and is no mistake in its configuration, by the code that it tells."""


class ControllerInfo(NamedTuple):
    """How to reach a system."""

    address: str
    token_file: str | None = None
    token: str | None = None
    allowed: str | None = None
    """Libraries and modules that the system's configuration may name for its storage backend, joined by colons: those
    that a handle in a place of this user's own names, and those that a client which passes this on allows."""

    def __repr__(self) -> str:
        """What identifies it; the secret is not for logs."""
        return f"ControllerInfo(address={self.address!r}, token_file={self.token_file!r})"


class Handle(NamedTuple):
    """A system of this machine, as its `handle.json` describes it."""

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
        """What its storage backend may run in clients that come by this handle."""
        return ":".join(filter(None, (self.library, self.module)))

    @property
    def info(self) -> ControllerInfo:
        """How to reach it."""
        return ControllerInfo(self.address, self.token_file, allowed=self.allowed)

    def __str__(self) -> str:
        age = max(0, round(time.time() - self.created))
        return (
            f"system {self.name!r} of {self.user or 'this user'}, process {self.pid}, {age} s old"
        )


def from_environment(given: Mapping[str, Any]) -> ControllerInfo | None:
    """The system that the configuration or the environment names by address."""
    address = given.get("address") or os.environ.get("TQ_ADDRESS")
    token_file = given.get("token_file") or os.environ.get("TQ_TOKEN_FILE")
    return ControllerInfo(address, token_file) if address else None


def ray_in_use() -> Any:
    """Ray's module where Ray is initialised in this process, else None."""
    ray: Any = sys.modules.get("ray")
    initialised = getattr(ray, "is_initialized", None)  # it may be half imported
    return ray if initialised is not None and initialised() else None


def node() -> str | None:
    """Name of the node of a cluster that this process is on; None when it is in none."""
    ray = ray_in_use()
    return ray.get_runtime_context().get_node_id() if ray is not None else None


def system_name() -> str:
    """Name of the system that processes of this environment use: $TQ_SYSTEM, or `default`."""
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
    """Where the directories of this user's systems are."""
    from pathlib import Path

    return Path(runtime_dir())


def find(name: str) -> Handle | None:
    """The running system of that name."""
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
    """A file of a system's directory; a link is not followed, and a FIFO not waited for."""
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
    # The number of a process says nothing: it may be that of another container, or of another process by now.
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def describe(info: ControllerInfo) -> str:
    """Which system is at an address, and for how long, as far as can be seen from here."""
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
                break  # it serves elsewhere, or has ended
    return f"the system at {info.address}"


class System:
    """A system that this process has started."""

    detached = False
    """It ends with this process."""

    def __init__(
        self, handle: Handle, process: subprocess.Popen[bytes], ended: Callable[[], None]
    ) -> None:
        self.handle = handle
        self._process = process
        self._ended = ended
        self._owner = os.getpid()

    def stop(self) -> None:
        """End it and wait for its end; nothing of it is left.  In a forked child: does nothing."""
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
            base_directory().rmdir()  # when it was the last one


def not_running(name: str) -> UnreachableError:
    """The error when there is no system to attach to."""
    cluster = "the Ray cluster and in " if ray_in_use() is not None else ""
    return UnreachableError(
        f"no transfer queue is running: looked for an address in the configuration and in TQ_ADDRESS, and for "
        f"the system {name!r} (TQ_SYSTEM) in {cluster}{base_directory()}"
    )


def attach_or_start(given: Mapping[str, Any], start: bool) -> tuple[Handle, System | None]:
    """The system of this environment's name; started when there is none and `start` allows it."""
    name = system_name()
    handle = find(name)
    if handle is None and not start:
        raise not_running(name)
    if handle is not None:
        logger.info("attached to %s", handle)
        return handle, None
    with locked(name) as directory:
        handle = find(name)  # somebody may have been faster
        if handle is not None:
            logger.info("attached to %s", handle)
            return handle, None
        return _start(directory, name, given)


@contextmanager
def locked(name: str) -> Iterator[Path]:
    """Hold the lock of the base directory; gives the (existing) directory of the system."""
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
                continue  # the last system ended just now
            directory = base / name
            if not os.path.samestat(current, os.fstat(descriptor)):
                with suppress(OSError):
                    directory.rmdir()
                continue
            # From here on the base directory has something in it, so nobody removes it.
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
    """Start a daemon, and before it what its storage needs; wait until all its parts serve."""
    from .storage.backends import starting

    remove(name, keep=True)  # what a system that was killed has left
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
    """Whether systems are looked for in a temporary directory that other processes need not have."""
    base = base_directory()  # XDG_RUNTIME_DIR/ctq, or ctq-UID in the temporary directory
    return base.name != "ctq" and str(base.parent) != "/tmp"


def daemon_options(directory: Path, ready: int) -> list[str]:
    """Options of a tqd that ends with this process, and says on a descriptor when it serves."""
    return [
        f"--runtime-dir={directory}",
        f"--owner-pid={os.getpid()}",
        f"--ready-fd={ready}",
        # Quieter than by hand: its messages go to this process's standard error.
        "--set=log.level=warn",
    ]


def read_ready(descriptor: int) -> str:
    """What a tqd says when it serves ("ready"), or why it does not start."""
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
    """What a daemon's process has for an environment."""
    # Programs of this environment, such as the servers of storage backends, are found without it being active.
    paths = [os.path.dirname(sys.executable), os.environ.get("PATH") or os.defpath]
    made = {**os.environ, "PATH": os.pathsep.join(filter(None, paths))}
    if len(program) > 1:
        # A sampler's module is looked for where this process would find it.
        made["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return made


def fail_to_start(answer: str, status: int | None = None) -> None:
    """Raise what a daemon that does not serve has answered."""
    said, _, code = answer.partition("\ncode: ")
    reason = said.removeprefix("error:").strip()
    if not reason or reason == "ready":
        ended = "it ended" if status is None else f"exit status {status}"
        raise InternalError(f"the daemon tqd did not start: {ended}, see its messages above")
    # What it says first is usually about the configuration that it was given, perhaps after the option that it came by.
    about = reason.split(":")[0 if not reason.startswith("--set:") else 2].strip()
    kind = OTHER_CAUSES.get(code) or (ConfigError if "." in about else _class_of(code))
    raise kind(f"the daemon tqd did not start: {reason}")


def _class_of(code: str) -> type[TransferQueueError]:
    """The class of errors with a code that a daemon tells."""
    # Classes of Python's own have the code of the one that they derive from.
    classes = (getattr(errors, name) for name in errors.__all__)
    direct = (kind for kind in classes if TransferQueueError in kind.__bases__)
    return next((kind for kind in direct if str(kind.code) == code), InternalError)


def _program(given: Mapping[str, Any]) -> tuple[list[str], bytes | None]:
    """The daemon to start, and what it is to be told through its standard input.

    It is tqd, unless the sampler is written in Python: then a Python process runs the daemon.
    """
    in_python, payload = python_sampler(given)
    return (host_program(payload), payload) if in_python else (tqd_program(), None)


def python_sampler(given: Mapping[str, Any]) -> tuple[bool, bytes | None]:
    """Whether the sampler is written in Python, and pickled when it is not to be imported by its name."""
    from .samplers import is_in_python, pickled

    name = (given.get("controller") or {}).get("sampler") or ""
    return (True, pickled(name)) if is_in_python(name) else (False, None)


def host_program(payload: bytes | None) -> list[str]:
    """The command of a daemon with a sampler in Python, which comes through its standard input or by name."""
    if not sys.executable:
        raise ConfigError(
            "controller.sampler: one written in Python needs a Python to run in, and sys.executable names none"
        )
    host = [sys.executable, "-m", f"{__package__}.host"]
    return host if payload is None else [*host, "--pickled-sampler"]


def tqd_program() -> list[str]:
    """The command of the daemon of this environment."""
    import shutil
    from pathlib import Path

    beside = Path(sys.executable).parent / "tqd"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("tqd")
    if found is None:
        raise InternalError(
            f"the daemon tqd is neither in {beside.parent} nor on PATH: install the package ctq into this environment"
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
    """Remove what a daemon that was killed has left in the directory of its system, and the directory unless it is kept."""
    try:
        descriptor = runtime_open(name)
    except UnreachableError:
        return
    try:
        runtime_clear(descriptor)
        if not keep:
            os.rmdir(base_directory() / name)  # of a link nothing is removed
    finally:
        os.close(descriptor)
