"""The implementations that the suite runs on: each starts the real thing and declares what a test may do to it."""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from support.addresses import free_ports
from support.daemons import Daemon
from support.mooncake_servers import MooncakeMaster
from support.redis_servers import RedisCluster, RedisServer, values_of
from support.relay import Relay
from transferq.storage.ray import holder as ray_holder
from transferq.storage.ray import store as ray_store

from .backend import TESTS, Backend, built

# --- storage units, over each transport -------------------------------------------------------------


class Units(Backend):
    """Storage units in a separate daemon."""

    type = "SimpleStorage"
    can = frozenset({"restart", "pause", "fill", "share", "collect", "atomic", "transport"})
    tcp: ClassVar[str] = ""
    family: ClassVar[str] = "unix"
    """Families of the clients' sockets."""
    shares: ClassVar[bool] = False
    """Whether clients map the units' memory."""
    before: ClassVar[tuple[str, ...]] = ()
    """Command that starts the units' daemon."""
    units: ClassVar[int] = 2
    daemon: Daemon | None = None

    def settings(self) -> list[str]:
        return ["controller.owner_timeout=2s", "controller.session_grace=1s"]

    def open_system(self) -> None:
        listen = ["--listen", f"tcp:{self.tcp}:0"] if self.tcp else []
        self.system.start(*listen, role="controller", settings=self.settings())
        if self.tcp:
            addresses = self.system.address.split(",")
            self.system.address = next(one for one in addresses if one.startswith("tcp:"))
        self.restart()

    def listen(self) -> str:
        """Where the units listen."""
        return f"tcp:{self.tcp}:0" if self.tcp else f"unix:{self.folder}/unit-%d.sock"

    def restart(self) -> None:
        size = self.room or 4 << 30
        self.daemon = self.system.join(
            "--listen",
            self.listen(),
            name="unit",
            before=self.before,
            settings=[
                f"backend.SimpleStorage.total_storage_size={size}",
                f"backend.SimpleStorage.num_data_storage_units={1 if self.room else self.units}",
            ],
        )

    def kill(self) -> None:
        assert self.daemon is not None
        self.daemon.kill()
        for left in self.folder.glob("*.sock"):
            left.unlink()

    def processes(self) -> list[int]:
        running = self.daemon is not None and self.daemon.process.poll() is None
        return [self.daemon.pid] if self.daemon is not None and running else []

    def stored(self) -> int:
        return sum(int(owner["used_bytes"]) for owner in self.system.status()["storage"])


class SharedMemory(Units):
    """Clients map the units' memory."""

    title = "SimpleStorage, shared memory"
    shares = True


class UnixStream(Units):
    """The units have no memory that could be shared: all data goes over their unix socket."""

    title = "SimpleStorage, unix socket"
    before = (sys.executable, str(TESTS / "support" / "refuse.py"), "memfd_create=ENOSYS", "--")


class Tcp(Units):
    """Clients reach controller and units over TCP only."""

    title = "SimpleStorage, TCP"
    tcp = "127.0.0.1"
    family = "tcp"


class Tcp6(Units):
    """Like TCP, on IPv6."""

    title = "SimpleStorage, TCP on IPv6"
    tcp = "[::1]"
    family = "tcp6"


# --- Redis ------------------------------------------------------------------------------------------


class Redis(Backend):
    """One redis-server."""

    type = "Redis"
    can = frozenset(
        {"restart", "pause", "fill", "delay", "share", "collect", "atomic", "kv", "in c"}
    )
    server: RedisServer | None = None
    relay: Relay | None = None

    def arguments(self) -> list[str]:
        """Arguments of the server."""
        return []

    def open_store(self) -> None:
        limits = ["--maxmemory", str(self.room), "--maxmemory-policy", "noeviction"]
        self.server = RedisServer(
            self.folder / "redis",
            free_ports(1)[0],
            *self.arguments(),
            *(limits if self.room else []),
        )

    def close_store(self) -> None:
        if self.relay is not None:
            self.relay.close()
        if self.server is not None:
            self.server.stop()

    def asked(self, *words: str) -> str:
        """The server's answer."""
        assert self.server is not None
        return self.server.ask(*words)

    def stored(self) -> int:
        return values_of(self.asked("KEYS", "tq/*"))

    def kill(self) -> None:
        assert self.server is not None
        self.server.stop()

    def restart(self) -> None:
        assert self.server is not None
        self.server.restart()

    def processes(self) -> list[int]:
        running = self.server is not None and self.server.process.poll() is None
        return [self.server.process.pid] if self.server is not None and running else []


class RedisUnix(Redis):
    """Redis over its unix socket."""

    title = "Redis, unix socket"

    def arguments(self) -> list[str]:
        return ["--unixsocket", str(self.folder / "redis.sock")]

    def delayed(self) -> Relay:
        """Put a relay in front of the server."""
        self.relay = Relay(self.folder / "relay.sock", self.folder / "redis.sock")
        return self.relay

    def section(self) -> dict[str, Any]:
        path = self.folder / ("relay.sock" if self.relay else "redis.sock")
        return {"url": f"unix://{path}", "timeout": 10}


class RedisTcp(Redis):
    """Redis over TCP, with a password."""

    title = "Redis, TCP and password"

    def arguments(self) -> list[str]:
        return ["--requirepass", "open sesame"]

    def delayed(self) -> Relay:
        """Put a relay in front of the server."""
        assert self.server is not None
        self.relay = Relay(("127.0.0.1", 0), ("127.0.0.1", self.server.port))
        return self.relay

    def section(self) -> dict[str, Any]:
        assert self.server is not None
        port = self.relay.address[1] if self.relay else self.server.port
        return {"url": f"redis://:open%20sesame@127.0.0.1:{port}", "timeout": 10}

    def asked(self, *words: str) -> str:
        return super().asked("--no-auth-warning", "-a", "open sesame", *words)


class RedisNodes(Backend):
    """A Redis cluster of three nodes."""

    title = "Redis cluster"
    type = "Redis"
    can = frozenset({"pause", "share", "collect", "atomic", "kv", "in c"})
    cluster: RedisCluster | None = None

    def open_store(self) -> None:
        self.cluster = RedisCluster(self.folder)

    def close_store(self) -> None:
        if self.cluster is not None:
            self.cluster.stop()

    def section(self) -> dict[str, Any]:
        assert self.cluster is not None
        return {"url": self.cluster.url, "cluster": True, "timeout": 10}

    def stored(self) -> int:
        assert self.cluster is not None
        return sum(values_of(server.ask("KEYS", "tq/*")) for server in self.cluster.servers)

    def processes(self) -> list[int]:
        return [one.process.pid for one in self.cluster.servers] if self.cluster else []


# --- files, through each form of client and manager -------------------------------------------------


class Files(Backend):
    """A folder; killing and restarting it stands for a volume that comes back empty."""

    can = frozenset({"restart", "share", "collect", "atomic"})
    is_process = False

    @property
    def store(self) -> Path:
        """The folder of the files."""
        return self.folder / "store"

    def open_store(self) -> None:
        self.store.mkdir()

    def stored(self) -> int:
        return len(list(self.store.iterdir()))

    def kill(self) -> None:
        gone = self.folder / "gone"
        self.store.rename(gone)
        shutil.rmtree(gone)

    def restart(self) -> None:
        self.store.mkdir()


def libraries() -> tuple[str, str]:
    """Backends in C from outside the tree: FileStore and DirStore."""
    return built("examples", "file_store.so"), built("src", "manager", "dir_store.so")


class FilesInC(Files):
    """The example of a KV client in C."""

    title = "FileStore, the example in C"
    type = "FileStore"
    can = Files.can | {"kv", "in c"}

    def section(self) -> dict[str, Any]:
        return {"library": libraries()[0], "path": str(self.store)}


class FilesInPython(Files):
    """The example of a KV client in Python."""

    title = "PyFileStore, the example in Python"
    type = "PyFileStore"
    can = Files.can | {"kv", "by pointer"}

    def section(self) -> dict[str, Any]:
        return {"module": "file_store", "path": str(self.store)}


class DirStore(Files):
    """A storage manager in C from outside the tree."""

    title = "DirStore, a manager in C"
    type = "DirStore"

    def section(self) -> dict[str, Any]:
        return {"library": libraries()[1], "path": str(self.store)}


class ValueFiles(Files):
    """A value-form KV client, as for TransferQueue."""

    title = "ValueFiles, a client of values"
    type = "ValueFiles"
    can = Files.can - {"collect", "atomic"} | {"kv", "by value"}
    encodes = False

    def section(self) -> dict[str, Any]:
        return {"module": "conformance.stores", "path": str(self.store)}


class FileManager(Files):
    """A storage manager in Python, as for TransferQueue."""

    title = "FileManager, a manager in Python"
    type = "FileManager"
    can = Files.can - {"collect", "atomic"}
    encodes = False

    def section(self) -> dict[str, Any]:
        return {"module": "conformance.stores", "path": str(self.store)}


# --- Mooncake ---------------------------------------------------------------------------------------


class Mooncake(Backend):
    """A master and one process that holds the data; the clients hold none."""

    title = "MooncakeStore, TCP"
    type = "MooncakeStore"
    can = frozenset({"restart", "fill", "share", "collect", "atomic", "kv", "by pointer"})
    master: MooncakeMaster | None = None

    def open_store(self) -> None:
        self.master = MooncakeMaster(self.room or 4 << 30, self.patience)

    def close_store(self) -> None:
        if self.master is not None:
            self.master.stop()

    def section(self) -> dict[str, Any]:
        assert self.master is not None
        return {"master_server_address": self.master.address, "global_segment_size": 0}

    def register(self) -> None:
        importlib.import_module("transferq.storage.mooncake")

    def stored(self) -> int:
        assert self.master is not None
        return self.master.keys()

    def kill(self) -> None:
        assert self.master is not None
        self.master.stop()

    def restart(self) -> None:
        assert self.master is not None
        self.master.start(self.room or 4 << 30)

    def processes(self) -> list[int]:
        running = self.master.processes if self.master is not None else []
        return [one.pid for one in running if one.poll() is None]


# --- Ray --------------------------------------------------------------------------------------------


class RayObjects(Backend):
    """Ray's object store. All systems of the suite use one cluster, in which each has its own holder."""

    title = "RayStore"
    type = "RayStore"
    can = frozenset({"share", "collect", "atomic", "kv", "by pointer"})
    HOLDER = "conformance"
    actor: Any = None

    @staticmethod
    def ray() -> Any:
        """Ray, connected to this process's cluster, which is started if necessary."""
        import ray

        if not ray.is_initialized():
            ray.init(
                address="local",
                num_cpus=2,
                object_store_memory=3 << 30,
                include_dashboard=False,
                log_to_driver=False,
            )
            atexit.register(ray.shutdown)
        return ray

    def open_store(self) -> None:
        ray = self.ray()
        self.address = str(ray.get_runtime_context().gcs_address)
        self.holder = f"{self.HOLDER}-{self.folder.name}"
        self.actor = ray_holder.start(None, name=self.holder, namespace=ray_store.NAMESPACE)
        ray.get(self.actor.node.remote())

    def close_store(self) -> None:
        if self.actor is not None:
            self.ray().kill(self.actor)

    def section(self) -> dict[str, Any]:
        return {"address": self.address, "holder": self.holder}

    @property
    def environment(self) -> dict[str, str]:
        """The secret of the cluster is in Ray's environment, which workers do not inherit."""
        return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}

    def register(self) -> None:
        importlib.import_module("transferq.storage.ray.store")

    def stored(self) -> int:
        return int(self.ray().get(self.actor.count.remote()))


BACKENDS: dict[str, Callable[..., Backend]] = {
    "simple-shm": SharedMemory,
    "simple-unix": UnixStream,
    "simple-tcp": Tcp,
    "simple-tcp6": Tcp6,
    "redis-unix": RedisUnix,
    "redis-tcp": RedisTcp,
    "redis-cluster": RedisNodes,
    "mooncake": Mooncake,
    "ray": RayObjects,
    "files-c": FilesInC,
    "files-python": FilesInPython,
    "dirstore": DirStore,
    "values": ValueFiles,
    "manager-python": FileManager,
}
