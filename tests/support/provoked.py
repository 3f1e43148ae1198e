"""The systems on which the most frequent errors are provoked, and the provocations that take more than one call."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import transferq
from transferq._impl.calls import run

from .addresses import free_ports
from .daemons import System, executable
from .redis_servers import RedisServer
from .relay import Relay
from .waiting import wait_event

SMALL = [
    "backend.SimpleStorage.total_storage_size=64MiB",
    "backend.SimpleStorage.num_data_storage_units=1",
]
MIB = 1 << 20


@dataclass
class Scene:
    """Systems to provoke errors on: a system, another one, a store; each is started on first use."""

    folder: Path
    systems: list[System] = field(default_factory=list)
    stores: list[RedisServer] = field(default_factory=list)

    def start(self, name: str, *settings: str, role: str = "all-in-one") -> System:
        """Start a further system."""
        (self.folder / name).mkdir()
        made = System(self.folder / name)
        self.systems.append(made)
        made.start(role=role, settings=[*SMALL, *settings])
        return made

    @cached_property
    def system(self) -> System:
        """The system for most of the errors."""
        return self.start("one")

    @cached_property
    def other(self) -> System:
        """A system with a different token."""
        return self.start("other")

    @cached_property
    def client(self) -> transferq.TransferQueueClient:
        """A client of the system with a short timeout."""
        return self.system.client("tester", client={"timeout": 1.0})

    @cached_property
    def meta(self) -> transferq.BatchMeta:
        """Four samples with the fields `x` and `t`."""
        data = {"x": np.arange(4), "t": [["a"], ["b"], ["c"], ["d"]]}
        return self.client.put(data, partition_id="train")

    @cached_property
    def checkpoint(self) -> Path:
        """A checkpoint of these samples."""
        assert self.meta.size == 4
        path = self.folder / "checkpoint"
        run(self.client._save_checkpoint(str(path)))
        return path

    def damaged(self, name: str, damage: Callable[[Path], Any]) -> None:
        """Load a copy of the checkpoint, damaged."""
        copy = self.folder / name
        shutil.copytree(self.checkpoint, copy)
        damage(copy)
        run(self.client._load_checkpoint(str(copy)))

    def program(self, name: str, *args: str, address: str | None = None) -> str:
        """The output of a failing `tq` or `tqd`."""
        base = {key: value for key, value in os.environ.items() if not key.startswith("TQ_")}
        base["XDG_RUNTIME_DIR"] = str(self.folder)
        if address is not None:
            base.update(TQ_ADDRESS=address, TQ_TOKEN_FILE=self.system.token_file)
        done = subprocess.run(
            [executable(name), *args],
            env=base,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (1, 2), (done.returncode, done.stdout, done.stderr)
        return done.stderr

    def daemon(self, *args: str) -> str:
        """The output of a daemon that does not start."""
        return self.program("tqd", "all-in-one", "--runtime-dir", str(self.folder / "tqd"), *args)

    def close(self) -> None:
        """End everything that was started."""
        for system in self.systems:
            system.close()
        for store in self.stores:
            store.stop()


# --- provoking errors -----------------------------------------------------------------------------


def claim(scene: Scene, *fields: str, partition: str = "train", **sampling: Any) -> Any:
    """A claim of two samples that times out, or is refused."""
    assert scene.meta.size == 4
    return scene.client.get_meta(
        list(fields), 2, partition, task_name="t", timeout=0.2, sampling_config=sampling or None
    )


def at(scene: Scene, address: str, token_file: str | None = None) -> Any:
    """A put to an address."""
    info = transferq.ControllerInfo(address, token_file or scene.system.token_file)
    config = {"client": {"timeout": 20}}
    client = transferq.TransferQueueClient("stray", info, config=config)
    try:
        return client.put({"x": np.arange(2)}, partition_id="p")
    finally:
        client.close()


def nobody() -> str:
    """An address without a listener."""
    return f"tcp:127.0.0.1:{free_ports(1)[0]}"


def full(scene: Scene) -> Any:
    big = {"b": np.zeros((1, 40 * MIB), dtype=np.uint8)}
    try:
        scene.client.put(big, partition_id="full")
        return scene.client.put(big, partition_id="full")
    finally:
        scene.client.clear_partition("full")


def redis_full(scene: Scene) -> Any:
    limits = ("--maxmemory", str(16 * MIB), "--maxmemory-policy", "noeviction")
    store = RedisServer(scene.folder / "redis", free_ports(1)[0], *limits)
    scene.stores.append(store)
    system = scene.start(
        "on-redis",
        "backend.storage_backend=Redis",
        f'backend.Redis={{"url": "{store.url}"}}',
        role="controller",
    )
    client = system.client("writer", client={"timeout": 1.0})
    for _ in range(8):
        client.put({"b": np.zeros((4, MIB), dtype=np.uint8)}, partition_id="full")


def cleared(scene: Scene) -> Any:
    meta = scene.client.put({"x": np.arange(7)}, partition_id="gone")
    scene.client.clear_samples(meta[1:7])
    scene.client.put({"y": np.arange(7)}, metadata=meta)


def loaded(
    scene: Scene, call: Callable[[transferq.TransferQueueClient, transferq.BatchMeta], Any]
) -> Any:
    """Use of metadata from before a load after the load."""
    client = scene.client
    meta = client.put({"x": np.arange(2)}, partition_id="reloaded")
    path = str(scene.folder / f"reload-{len(list(scene.folder.iterdir()))}")
    run(client._save_checkpoint(path))
    run(client._load_checkpoint(path))
    return call(client, meta)


def forgotten(scene: Scene) -> Any:
    """A partition that was missing in a checkpoint, after loading it."""
    path = str(scene.checkpoint)
    scene.client.put({"x": np.arange(2)}, partition_id="later")
    run(scene.client._load_checkpoint(path))
    scene.client.get_meta(["x"], 2, "later", mode="force_fetch")


def lost(scene: Scene) -> Any:
    system = scene.start("lossy", role="controller")
    unit = system.join(
        "--runtime-dir", str(scene.folder / "lossy" / "unit"), name="u", settings=SMALL
    )
    client = system.client("reader", client={"timeout": 5.0})
    watcher = system.client("watcher", client={"timeout": 20.0})
    client.put({"x": np.arange(4)}, partition_id="train")
    unit.kill()
    wait_event(watcher, lambda event: event["kind"] == "lost")
    return client.get_data(client.get_meta(["x"], 4, "train", mode="force_fetch"))


def not_ready(scene: Scene) -> Any:
    meta = scene.client.put({"x": np.arange(4)}, partition_id="half")
    scene.client.put({"y": np.arange(2)}, metadata=meta[:2])
    return scene.client.get_data(scene.client.get_meta(["x", "y"], 4, "half", mode="force_fetch"))


def strict(scene: Scene) -> Any:
    client = scene.start("strict", "controller.strict_schema=true").client()
    client.put({"x": np.arange(2)}, partition_id="p")
    return client.put({"x": np.zeros(2)}, partition_id="p")


def ended(scene: Scene) -> Any:
    system = scene.start("short")
    client = system.client()
    client.put({"x": np.arange(2)}, partition_id="p")
    system.daemons[0].terminate()
    return client.put({"x": np.arange(2)}, partition_id="p")


def closed(scene: Scene) -> Any:
    client = scene.system.client()
    client.close()
    return client.put({"x": np.arange(2)}, partition_id="p")


def busy(scene: Scene) -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        return scene.daemon("--set", f"controller.listen=tcp:127.0.0.1:{port}")


def padded(scene: Scene, padding: Any, name: str = "r") -> Any:
    torch = pytest.importorskip("torch")
    meta = scene.client.put({name: [torch.arange(2), torch.arange(5)]}, partition_id="ragged")
    return scene.client.get_data(meta, layout="padded", padding={name: padding})


def mixed(scene: Scene) -> Any:
    torch = pytest.importorskip("torch")
    meta = scene.client.put({"m": [torch.zeros(2), torch.zeros(2, 3)]}, partition_id="mixed")
    return scene.client.get_data(meta, layout="padded")


def directory(scene: Scene) -> Any:
    path = scene.folder / "somebody's"
    path.mkdir()
    (path / "thesis.tex").write_text("\\section{1}")
    run(scene.client._save_checkpoint(str(path)))


def cut(path: Path) -> None:
    file = path / "data.bin"
    file.write_bytes(file.read_bytes()[:-5])


def altered(path: Path) -> None:
    file = path / "data.bin"
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])


def config_file(scene: Scene) -> str:
    path = scene.folder / "tqd.yaml"
    path.write_text("controller:\n  sampelr: x\n")
    return scene.daemon("--config", str(path))


def another_version(scene: Scene) -> Any:
    """A client meets a controller of the next protocol version."""
    header = Path(__file__).resolve().parents[2] / "src" / "wire" / "frame.h"
    ours = re.search(r"TQI_PROTOCOL_VERSION (\d+)", header.read_text())
    assert ours is not None
    path = scene.system.runtime / "controller.sock"
    relay = Relay(scene.folder / "relay.sock", path)
    relay.version = int(ours[1]) + 1
    try:
        return at(scene, f"unix:{relay.path}")
    finally:
        relay.close()


FORKED = """
import os, sys
import transferq
client = transferq.TransferQueueClient("parent", transferq.ControllerInfo(*sys.argv[1:]))
op = client._core.events(2**63, 0, True, 5.0)
if os.fork() == 0:
    try:
        op.result()
    except transferq.TransferQueueError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    os._exit(0)
os.wait()
op.cancel()
"""


def forked(scene: Scene) -> str:
    """A child waits for an operation started by its parent."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED, scene.system.address, scene.system.token_file],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def unpickled(scene: Scene) -> Any:
    client = scene.other.client(serialization={"allow_pickle": False})
    return client.put({"x": [object(), object()]}, partition_id="p")
