"""Real Redis servers for tests: single ones and clusters; they are ready once their log says so."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .addresses import free_ports


class RedisServer:
    """One redis-server on 127.0.0.1 that keeps nothing on disk."""

    def __init__(self, folder: Path, port: int, *args: str) -> None:
        """Start the server and wait until it serves."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.port = port
        self.args = args
        self.url = f"redis://127.0.0.1:{port}"
        self.process = self._run()

    def _run(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [
                *("redis-server", "--bind", "127.0.0.1", "--port", str(self.port)),
                *("--save", "", "--appendonly", "no", "--dir", str(self.folder), *self.args),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.wait_log("Ready to accept connections")
        return self.process

    def restart(self) -> None:
        """Start the server again, empty, after `stop`."""
        self._run()

    def wait_log(self, text: str) -> None:
        """Read its log up to a line that contains the text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if text in line:
                return
        raise AssertionError(f"redis-server ended without logging {text!r}")

    def ask(self, *words: str) -> str:
        """The answer to a command, as printed by redis-cli."""
        return redis_cli("-p", str(self.port), *words)

    def values(self) -> int:
        """Number of values: keys except those that record live systems."""
        return values_of(self.ask("KEYS", "*"))

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def values_of(keys: str) -> int:
    """How many of the keys are values, rather than records of live systems."""
    return sum(not key.endswith(("/lease", "/looks", "/kept")) for key in keys.split())


def redis_cli(*words: str) -> str:
    """The output of redis-cli, which must succeed."""
    done = subprocess.run(["redis-cli", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


class RedisCluster:
    """Three masters without replicas."""

    def __init__(self, folder: Path) -> None:
        """Start the masters, join them, and wait until each of them serves the cluster."""
        ports = free_ports(6)
        self.servers = [
            RedisServer(
                folder / f"redis-{port}",
                port,
                *("--cluster-enabled", "yes", "--cluster-port", str(bus)),
                *("--cluster-config-file", "nodes.conf"),
            )
            for port, bus in zip(ports[:3], ports[3:], strict=True)
        ]
        self.url = self.servers[0].url
        nodes = [f"127.0.0.1:{server.port}" for server in self.servers]
        redis_cli("--cluster", "create", *nodes, "--cluster-replicas", "0", "--cluster-yes")
        for server in self.servers:
            server.wait_log("Cluster state changed: ok")

    def sizes(self) -> list[int]:
        """Number of values at each node."""
        return [server.values() for server in self.servers]

    def reshard(self, slots: int) -> None:
        """Move this many slots, with their keys, from the first node to the last one."""
        first, last = self.servers[0], self.servers[-1]
        redis_cli(
            *("--cluster", "reshard", f"127.0.0.1:{first.port}"),
            *("--cluster-from", first.ask("CLUSTER", "MYID")),
            *("--cluster-to", last.ask("CLUSTER", "MYID")),
            *("--cluster-slots", str(slots), "--cluster-yes"),
        )

    def stop(self) -> None:
        """End all of them."""
        for server in self.servers:
            server.stop()
