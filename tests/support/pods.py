"""Pods on one machine, like those of a container runtime, made only of namespaces: nothing is left when they end.

A `Cluster` is a user namespace with a bridge in a separate network namespace.  Each `Pod` in it has mount, pid, ipc,
network and uts namespaces, an address on the bridge, a firewall that admits a range of ports, 64 KiB of /dev/shm, a
read-only root and its own folder for temporary files, at the same path in all pods.  Programs in a pod run
without capabilities, as a user without a passwd entry, and without HOME.

`Hosts` are just two hosts with a link between them: for tests that need another host, not a pod.

All of this depends on two or more processes that wait for the end of their standard input, so it ends with its
creator, however that ends.  It needs a kernel that lets this user create user namespaces, which root always may.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

USER = 54321
SECONDS = 30.0

_WAIT = "echo ready; exec cat >/dev/null"


def read_line(stream: IO[str], what: str, seconds: float = SECONDS) -> str:
    """The next line, or an assertion that names the process that did not answer."""
    readable, _, _ = select.select([stream], [], [], seconds)
    assert readable, f"{what}: no answer in {seconds} s"
    return stream.readline().strip()


class _Held:
    """A process that holds namespaces until `close`."""

    def __init__(self, command: Sequence[str], what: str) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        answer = read_line(self.process.stdout, what)
        if answer != "ready":
            _, error = self.process.communicate()
            raise AssertionError(
                f"{what}: this machine does not permit it, and the test needs it: {answer} {error}"
            )

    @property
    def pid(self) -> int:
        """A process in the namespaces (except the pid namespace, which contains its children)."""
        return self.process.pid

    def close(self) -> None:
        """Ends the process, and with it the namespaces."""
        self.process.communicate()


def _run(command: Sequence[str], text: str | None = None) -> None:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"


class Cluster:
    """A bridge and the pods on it."""

    def __init__(self) -> None:
        """Starts without pods."""
        self.pods: list[Pod] = []
        self.held = _Held(
            [
                *("unshare", "--user", "--map-root-user", "--net", "--mount"),
                *("sh", "-c", "ip link add tq0 type bridge && ip link set tq0 up && " + _WAIT),
            ],
            "user and network namespaces with a bridge",
        )

    def enter(self, *names: str) -> list[str]:
        """Prefix for a command that runs it in namespaces of the cluster."""
        return [
            *("nsenter", "-t", str(self.held.pid), "--user", "--preserve-credentials"),
            *(f"--{name}" for name in names),
        ]

    def close(self) -> None:
        """Ends all pods, then the cluster."""
        for pod in self.pods:
            pod.close()
        self.held.close()


class Host:
    """One of two hosts: programs on it see its network and, at `folder`, files that the other host does not see."""

    def __init__(self, address: str, before: Sequence[str], folder: Path) -> None:
        """Makes the host, with the namespaces that the command `before` makes around its program."""
        self.address = address
        self.held = _Held(
            [
                *before,
                *("sh", "-c", f"mount -t tmpfs tmpfs '{folder}' && ip link set lo up && {_WAIT}"),
            ],
            "user and network namespaces",
        )

    def enter(self) -> list[str]:
        """Prefix for a command that runs it on this host."""
        return [
            *("nsenter", "-t", str(self.held.pid), "--user", "--preserve-credentials"),
            *("--net", "--mount"),
        ]


class Hosts:
    """Two hosts, joined only by a link (a veth): `10.78.0.1` and `10.78.0.2`."""

    def __init__(self, folder: Path) -> None:
        """Makes the hosts; each has its own folder mounted at `folder`, which must exist."""
        space = ("--net", "--mount")
        self.first = Host("10.78.0.1", ["unshare", "--user", "--map-root-user", *space], folder)
        try:
            inside = ["nsenter", "-t", str(self.first.held.pid), "--user", "--preserve-credentials"]
            self.second = Host("10.78.0.2", [*inside, "unshare", *space], folder)
        except BaseException:
            self.first.held.close()
            raise
        try:
            link = ("ip", "link", "add", "tq0", "type", "veth", "peer", "tq0")
            _run([*self.first.enter(), *link, "netns", str(self.second.held.pid)])
            for host in (self.first, self.second):
                _run([*host.enter(), "ip", "addr", "add", f"{host.address}/24", "dev", "tq0"])
                _run([*host.enter(), "ip", "link", "set", "tq0", "up"])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends both; programs still running on them continue on an isolated network."""
        self.second.held.close()
        self.first.held.close()


class Pod:
    """One pod: `10.77.0.NUMBER` on the bridge, with `ports` open."""

    def __init__(self, cluster: Cluster, number: int, ports: tuple[int, int], folder: Path) -> None:
        """Makes the pod; `folder` must exist, and the pod sees its own, empty folder there."""
        self.name = f"pod-{number}"
        self.address = f"10.77.0.{number}"
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        set_up = " && ".join(
            [
                f"hostname {self.name}",
                "mount -t tmpfs -o size=64k tmpfs /dev/shm",
                f"mount -t tmpfs -o mode=1777 tmpfs '{folder}'",
                "mount -o remount,bind,ro /",
                _WAIT,
            ]
        )
        self.held = _Held(
            [
                *cluster.enter("net", "mount"),
                *("unshare", "--mount", "--pid", "--ipc", "--net", "--uts"),
                *("--fork", "--kill-child", "--mount-proc", "sh", "-c", set_up),
            ],
            f"namespaces of {self.name}",
        )
        cluster.pods.append(self)
        link, pid = f"tq{number}", str(self.held.pid)
        _run(
            [
                *cluster.enter("net"),
                *("ip", "link", "add", link, "type", "veth", "peer", "eth0", "netns", pid),
            ]
        )
        _run([*cluster.enter("net"), "ip", "link", "set", link, "master", "tq0", "up"])
        self._inside("ip", "link", "set", "lo", "up")
        self._inside("ip", "addr", "add", f"{self.address}/24", "dev", "eth0")
        self._inside("ip", "link", "set", "eth0", "up")
        self._inside(
            "nft",
            "-f",
            "-",
            text=f"""
table inet pod {{
    chain input {{
        type filter hook input priority 0; policy drop;
        iif lo accept
        ct state established,related accept
        meta l4proto ipv6-icmp accept
        tcp dport {ports[0]}-{ports[1]} accept
    }}
}}
""",
        )

    def _enter(self) -> list[str]:
        pid = self.held.pid
        return [
            *("nsenter", "-t", str(pid), "--user", "--preserve-credentials"),
            *("--mount", "--ipc", "--net", "--uts", f"--pid=/proc/{pid}/ns/pid_for_children"),
        ]

    def _inside(self, *command: str, text: str | None = None) -> None:
        _run([*self._enter(), *command], text)

    def start(self, *command: str, log: Path, **environment: str) -> subprocess.Popen[str]:
        """Starts a program in the pod; the caller reads its standard output, its errors go to the log."""
        variables = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
            "TMPDIR": str(self.folder),
            "TQ_LOG": "info",
            **environment,
        }
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [
                    *self._enter(),
                    *("unshare", "--user", f"--map-user={USER}", f"--map-group={USER}"),
                    *("env", "-i", *(f"{name}={value}" for name, value in variables.items())),
                    *command,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.processes.append(process)
        return process

    def close(self) -> None:
        """Ends the pod: its first process, and with it all others."""
        self.held.close()
        for process in self.processes:
            process.communicate()
