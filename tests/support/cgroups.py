"""Control groups for the tests, with a memory limit, on whichever version this machine has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class NoGroups(Exception):
    """This process may not make control groups here; the text says why."""


def _own_group() -> tuple[Path, str]:
    """The directory of this process's group with the memory controller, and the file with its limit."""
    groups = {}
    for line in Path("/proc/self/cgroup").read_text("ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        groups[controllers] = path
    for line in Path("/proc/self/mountinfo").read_text("ascii").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ")[:3]
        root, mount = before.split(" ")[3:5]
        if kind == "cgroup" and "memory" in options.split(","):
            path = next((at for of, at in groups.items() if "memory" in of.split(",")), "/")
            below = path if root == "/" else path.removeprefix(root)
            return Path(mount + below.rstrip("/")), "memory.limit_in_bytes"
        if kind == "cgroup2" and "memory" in Path(mount, "cgroup.controllers").read_text("ascii"):
            below = groups.get("", "/") if root == "/" else groups.get("", "/").removeprefix(root)
            return Path(mount + below.rstrip("/")), "memory.max"
    raise NoGroups("no hierarchy with the memory controller is mounted")


@contextmanager
def limited(memory: int, name: str) -> Iterator[list[str]]:
    """A group below this process's with this much memory; yields the words that start a program in it."""
    own, limit = _own_group()
    group = own / name
    try:
        group.mkdir()
    except OSError as error:
        raise NoGroups(f"{group}: {error.strerror}") from error
    try:
        try:
            (group / limit).write_text(str(memory))
        except OSError as error:
            raise NoGroups(f"{group / limit}: {error.strerror}") from error
        enter = f'echo $$ >"{group}/cgroup.procs" && exec "$@"'
        yield ["/bin/sh", "-c", enter, "sh"]
    finally:
        group.rmdir()
