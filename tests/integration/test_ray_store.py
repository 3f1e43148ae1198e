"""Data in Ray's object store: the holder of the references, which process outlives which, and what is freed."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import torch

import transferq
from support.daemons import System, wait_exit
from support.runtime import own_runtime
from support.waiting import wait_until
from transferq.errors import ConfigError, LostError, StorageFullError, UnreachableError
from transferq.ray.actor import NAMESPACE, kill
from transferq.storage.ray import store as ray_store
from transferq.storage.ray.holder import CALLS_AT_ONCE, Holder

pytestmark = pytest.mark.timeout(300)  # processes that import torch and Ray, several in a test

STORE_BYTES = 100 << 20
CONFIG = {
    "backend": {"storage_backend": "RayStore"},
    "client": {"timeout": 20},
    "ray": {
        "cluster": False
    },  # a system of this machine only, so that processes without Ray find it too
}


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A small cluster for this process; a full store does not spill to disk."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        _system_config={
            "automatic_object_spilling_enabled": False,
            "local_fs_capacity_threshold": 0.0,
        },
    )
    yield ray
    ray.shutdown()


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Systems are looked up in a directory for this test."""
    with own_runtime():
        yield
        transferq.close()


@pytest.fixture
def client(ray: Any) -> transferq.TransferQueueClient:
    """The client of a system started by this process."""
    transferq.init(CONFIG)
    return transferq.get_client()


@pytest.fixture
def direct(ray: Any) -> transferq.TransferQueueClient:
    """The client of a system whose tensors use Ray Direct Transport."""
    transferq.init(
        {
            **CONFIG,
            "backend": {"storage_backend": "RayStore", "RayStore": {"tensor_transport": "nixl"}},
        }
    )
    return transferq.get_client()


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program in another process."""
    return subprocess.run(
        [sys.executable, "-c", "import os, signal\nimport numpy as np\nimport transferq\n" + code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def holder(ray: Any, client: transferq.TransferQueueClient) -> Any:
    """The actor that holds the references."""
    section = client.system_config["backend"]["RayStore"]
    return ray_store.find_holder(ray, section, client._core.epoch)


def wait_empty(ray: Any, client: transferq.TransferQueueClient) -> None:
    """Dead values are removed gradually; each put makes the collector check again."""
    held = holder(ray, client)
    for _ in range(1000):
        if ray.get(held.count.remote()) == 0:
            return
        transferq.kv_put("k", "wake", {"x": np.zeros(1)})
        transferq.kv_clear(["k"], "wake")
    raise AssertionError(ray.get(held.count.remote()))


def gone(ray: Any, name: str) -> bool:
    """Whether there is no longer an actor with this name."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            actor = ray.get_actor(name, namespace=NAMESPACE)
            pid = ray.get(actor.pid.remote())
        except (ValueError, ray.exceptions.RayActorError):
            return True
        wait_exit(pid, deadline - time.monotonic())
    return False


def arrays(column: Any) -> list[np.ndarray]:
    """Rows as arrays."""
    return [np.asarray(row) for row in column.unbind()]


@pytest.mark.slow
def test_all_kinds_of_values(client: transferq.TransferQueueClient) -> None:
    """As they are read from the object store."""
    check_kinds(client)


def check_kinds(client: transferq.TransferQueueClient) -> None:
    """Small, large, ragged, empty and other values; an overwrite; a second stage; a claim; a part."""
    rows = {
        "small": np.arange(24, dtype=np.int16).reshape(6, 2, 2),
        "large": np.arange(6 * 300_000, dtype=np.float64).reshape(6, 300_000),
        "ragged": [np.arange(n, dtype=np.int64) for n in (3, 0, 5, 1, 1, 70_000)],
        "text": ["a", "", "ünïcode", None, {"k": [1, 2]}, b"bytes"],
    }
    meta = client.put(rows, partition_id="p")
    got = client.get_data(meta)
    for name in ("small", "large", "ragged"):
        for mine, theirs in zip(rows[name], arrays(got[name]), strict=True):
            assert mine.dtype == theirs.dtype
            assert np.array_equal(mine, theirs), name
    assert list(got["text"]) == rows["text"]
    client.put({"small": rows["small"] * 3}, metadata=meta.select_fields(["small"]))
    client.put({"reward": np.arange(6, dtype=np.float32)}, metadata=meta)
    again = client.get_data(client.get_meta(["small", "reward"], 4, "p", task_name="t"))
    assert np.array_equal(np.asarray(again["reward"]), np.arange(4, dtype=np.float32))
    assert np.array_equal(np.stack(arrays(again["small"])), rows["small"][:4] * 3)
    few = client.get_data(meta.select_samples([5, 0]).select_fields(["ragged"]))
    assert [row.shape[0] for row in few["ragged"].unbind()] == [70_000, 3]


@pytest.mark.slow
def test_a_killed_producer(client: transferq.TransferQueueClient) -> None:
    """Samples, large and small, of a process that was killed after its put are read by another one."""
    transferq.kv_put("from-here", "p", {"x": np.arange(3)})
    ended = python(
        """
transferq.init()
assert np.asarray(transferq.kv_batch_get(["from-here"], "p")["x"][0]).tolist() == [0, 1, 2]
transferq.kv_batch_put(["a", "b"], "p", {"large": np.arange(1 << 20).reshape(2, 1 << 19)})
transferq.kv_put("c", "p", {"small": np.arange(5)})
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    large = arrays(transferq.kv_batch_get(["a", "b"], "p")["large"])
    assert np.array_equal(np.stack(large), np.arange(1 << 20).reshape(2, 1 << 19))
    assert np.asarray(transferq.kv_batch_get(["c"], "p")["small"][0]).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_clear_frees_the_object_store(ray: Any, client: transferq.TransferQueueClient) -> None:
    """Five times the store's capacity goes through it."""
    for number in range(10):
        meta = client.put({"x": np.full((8, 6 << 20), number, np.uint8)}, partition_id="p")
        assert int(np.asarray(client.get_data(meta)["x"][7])[-1]) == number
        client.clear_partition("p")
    wait_empty(ray, client)


@pytest.mark.slow
def test_a_full_store(ray: Any) -> None:
    """A put that does not fit fails as full, leaves nothing, and the next one fits."""
    transferq.init({**CONFIG, "client": {"timeout": 3}})
    client = transferq.get_client()
    with pytest.raises(StorageFullError):
        client.put({"x": np.zeros((40, 4 << 20), np.uint8)}, partition_id="p")
    assert transferq.kv_list() == {}
    meta = client.put({"x": np.ones((4, 4 << 20), np.uint8)}, partition_id="q")
    assert int(np.asarray(client.get_data(meta)["x"][3]).sum()) == 4 << 20


def held_back() -> type[Holder]:
    """A class that is sent to other processes by value, because they do not have this module."""

    class HeldBack(Holder):
        """A holder that has no room for the first object, and delays the others."""

        def __init__(self) -> None:
            super().__init__()
            self._arrived = 0
            self._goes_on = threading.Event()

        def arrived(self) -> int:
            """Number of objects that it was to put again."""
            return self._arrived

        def go_on(self) -> None:
            """Put them again now."""
            self._goes_on.set()

        def adopt(self, keys: list[str], box: list[Any]) -> None:
            """Like the holder's method, but delayed."""
            import ray

            with self._lock:
                self._arrived += 1
                first = self._arrived == 1
            if first:
                raise ray.exceptions.ObjectStoreFullError("no room for the first")
            self._goes_on.wait()
            super().adopt(keys, box)

    return HeldBack


@pytest.mark.slow
def test_a_failed_put_leaves_nothing_on_its_way(
    ray: Any, client: transferq.TransferQueueClient
) -> None:
    """It ends after the holder has handled all of it, which is an eighth of the store at most."""
    slow = ray.remote(held_back()).options(num_cpus=0, max_concurrency=CALLS_AT_ONCE).remote()
    epoch = client._core.epoch
    store = ray_store.RayStore(client.system_config["backend"]["RayStore"])
    store._here[epoch] = slow
    at_once = STORE_BYTES // 8 // (4 << 20)
    assert ray.get(slow.arrived.remote()) == 0  # it is there
    rows = np.ones((9, 4 << 20), np.uint8)
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(
            store.put_from,
            [f"tq/{epoch:016x}/{row:x}" for row in range(9)],
            [[row.ctypes.data] for row in rows],
            [[row.nbytes] for row in rows],
        )
        try:
            wait_until(
                f"{at_once} puts to arrive",
                lambda: ray.get(slow.arrived.remote()),
                lambda arrived: arrived >= at_once,
                30,
            )
            with pytest.raises(FutureTimeoutError):
                put.result(1)
            assert ray.get(slow.arrived.remote()) == at_once
        finally:
            ray.get(slow.go_on.remote())
        with pytest.raises(StorageFullError, match="no room for the first"):
            put.result(60)
    kill(ray, slow)


@pytest.mark.slow
def test_a_put_that_waited_for_room_is_done_when_there_is_some(
    ray: Any, client: transferq.TransferQueueClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts without room leave nothing in the store and nothing in transit, however many there were."""
    tries: SimpleQueue[int] = SimpleQueue()
    put_from = ray_store.RayStore.put_from

    def noting(store: ray_store.RayStore, keys: list[str], *where: Any) -> None:
        try:
            put_from(store, keys, *where)
        except StorageFullError:
            tries.put(len(keys))
            raise

    monkeypatch.setattr(ray_store.RayStore, "put_from", noting)
    rows = np.ones((8, 4 << 20), np.uint8)
    for number in range(5):
        # In pieces of the put's size: the store needs no larger hole for the next round.
        blocks = [ray.put(np.zeros(4 << 20, np.uint8)) for _ in range(18)]
        with ThreadPoolExecutor(1) as pool:
            put = pool.submit(client.put, {"x": rows * number}, partition_id="p")
            for _ in range(3):
                tries.get(timeout=30)
            assert not put.done()
            blocks.clear()
            freed = time.monotonic()
            meta = put.result(60)
        assert time.monotonic() - freed < 10
        assert int(np.asarray(client.get_data(meta)["x"][7])[-1]) == number
        client.clear_partition("p")
        wait_empty(ray, client)
        while not tries.empty():
            tries.get()


@pytest.mark.slow
def test_lost_objects_are_named(ray: Any, client: transferq.TransferQueueClient) -> None:
    """When a holder is killed, its lost samples are named; it is restarted for new data."""
    meta = client.put({"x": np.zeros((3, 1 << 20))}, partition_id="p")
    held = holder(ray, client)
    os.kill(ray.get(held.pid.remote()), signal.SIGKILL)
    with pytest.raises(LostError, match="x"):
        client.get_data(meta)
    meta = client.put({"x": np.ones((3, 1 << 20))}, partition_id="q")
    assert float(np.asarray(client.get_data(meta)["x"][2]).sum()) == 1 << 20


@pytest.mark.slow
def test_two_systems(client: transferq.TransferQueueClient) -> None:
    """Two systems in one cluster have separate holders, and do not see each other."""
    transferq.kv_put("k", "p", {"x": np.arange(3)})
    section = client.system_config["backend"]["RayStore"]
    ended = python(
        f"""
config = transferq.init({{"backend": {{"storage_backend": "RayStore", "RayStore": {{"address": {section["address"]!r}}}}}}})
assert config.backend.RayStore.holder != {section["holder"]!r}
assert transferq.kv_list() == {{}}
transferq.kv_put("k", "p", {{"x": np.arange(7)}})
print(np.asarray(transferq.kv_batch_get(["k"], "p")["x"][0]).tolist())
transferq.close()
""",
        TQ_SYSTEM="other",
    )
    assert ended.stdout.strip() == "[0, 1, 2, 3, 4, 5, 6]", ended.stderr
    assert np.asarray(transferq.kv_batch_get(["k"], "p")["x"][0]).tolist() == [0, 1, 2]


@pytest.mark.slow
def test_the_holder_ends_with_its_system(ray: Any, client: transferq.TransferQueueClient) -> None:
    """`close` in the process that started the system ends the holder."""
    name = client.system_config["backend"]["RayStore"]["holder"]
    transferq.close()
    assert gone(ray, name)


@pytest.mark.slow
def test_a_clean_end_leaves_nothing_in_a_cluster_of_the_users_own(
    ray: Any, client: transferq.TransferQueueClient, capfd: pytest.CaptureFixture[str]
) -> None:
    """No actor, and no object: what the store can hold fits again."""
    client.put({"x": np.ones((8, 6 << 20), np.uint8)}, partition_id="p")
    client.put({"x": np.ones((8, 100), np.uint8)}, partition_id="q")
    mine = ray.put(b"mine")
    transferq.close()
    deadline = time.monotonic() + 60
    while left := [each["name"] for each in list_named(ray) if each["namespace"] == NAMESPACE]:
        assert time.monotonic() < deadline, left
    while True:  # Ray frees objects shortly after the actor that owned them
        try:
            blocks = [ray.put(np.zeros(4 << 20, np.uint8)) for _ in range(22)]
            break
        except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError):
            assert time.monotonic() < deadline
    assert len(blocks) == 22
    assert ray.get(mine) == b"mine"
    assert "stay in RayStore" not in capfd.readouterr().err


def list_named(ray: Any) -> list[dict[str, str]]:
    """The live named actors, in all namespaces."""
    named: list[dict[str, str]] = ray.util.list_named_actors(all_namespaces=True)
    return named


@pytest.mark.slow
def test_a_system_of_daemons(ray: Any, system: System) -> None:
    """If no process with Ray starts the system, the first client makes a holder, which outlives it but not the system."""
    address = ray.get_runtime_context().gcs_address
    system.start(
        settings=["backend.storage_backend=RayStore", f'backend.RayStore={{address: "{address}"}}']
    )
    writer = system.client("writer")
    meta = writer.put({"x": np.arange(1 << 18).reshape(2, 1 << 17)}, partition_id="p")
    name = ray_store.holder_name({}, writer._core.epoch)
    writer.close()
    reader = system.client("reader")
    assert np.asarray(reader.get_data(meta)["x"][1])[-1] == (1 << 18) - 1
    reader.close()
    system.close()
    assert gone(ray, name)


@pytest.mark.slow
def test_the_wrong_cluster(ray: Any, system: System) -> None:
    """A client in a different cluster than the system's data says where that is."""
    system.start(
        settings=[
            "backend.storage_backend=RayStore",
            'backend.RayStore={address: "192.0.2.1:1", holder: "elsewhere"}',
        ]
    )
    with pytest.raises(UnreachableError, match=r"no.*'elsewhere'|'elsewhere'.*192\.0\.2\.1:1"):
        system.client()


# --- Ray Direct Transport -------------------------------------------------------------------------

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_the_transport_carries_the_tensors() -> None:
    """The example: 256 MiB go from an actor to a process, none of it through an object store of 80 MiB."""
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / "ray_direct.py")],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    reads = re.findall(r"transport: process (\d+) reads (\d+) bytes", ended.stdout)
    offers = re.findall(r"transport: process (\d+) offers (\d+) bytes", ended.stdout)
    assert sum(int(size) for _, size in reads) == 4 * 64 * ((1 << 20) + 4)
    assert not {process for process, _ in reads} & {process for process, _ in offers}
    assert re.search(r"in Ray's object store: +0\.0 MiB more", ended.stdout)


@pytest.mark.slow
def test_all_kinds_by_transport(direct: transferq.TransferQueueClient) -> None:
    """Tensors of all kinds, mixed with other values."""
    check_kinds(direct)


@pytest.mark.slow
def test_tensors_by_transport(direct: transferq.TransferQueueClient) -> None:
    """Element types, views, rows without elements; what is put and what is read are copies."""
    dtypes = (torch.bool, torch.int8, torch.float16, torch.bfloat16, torch.complex64, torch.float64)
    columns = {str(dtype): torch.arange(12).reshape(4, 3).to(dtype) for dtype in dtypes}
    columns["view"] = torch.arange(24).reshape(6, 4).t()[:, ::2]
    columns["empty"] = torch.empty(4, 0, 2)
    columns["scalar"] = torch.arange(4.0, requires_grad=True)
    wanted = {name: column.detach().clone() for name, column in columns.items()}
    meta = direct.put(columns, partition_id="p")
    for column in columns.values():
        column.detach().zero_()
    for _ in range(2):
        got = direct.get_data(meta, layout="dense")
        for name, column in wanted.items():
            assert got[name].dtype == column.dtype
            assert torch.equal(got[name], column), name
            got[name].zero_()


@pytest.mark.slow
def test_tensors_end_with_their_process(direct: transferq.TransferQueueClient) -> None:
    """Tensors of a killed process are lost, and named; other values of it are still there."""
    ended = python(
        """
import torch
transferq.init()
transferq.kv_batch_put(["a", "b"], "p", {"x": torch.ones(2, 1000), "text": ["one", "two"]})
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert list(transferq.kv_batch_get(["a", "b"], "p", ["text"])["text"]) == ["one", "two"]
    with pytest.raises(LostError, match=r"\['x'\].* samples \[0, 1\]"):
        transferq.kv_batch_get(["a", "b"], "p")
    transferq.kv_batch_put(["a", "b"], "p", {"x": torch.zeros(2, 1000)})
    assert float(transferq.kv_batch_get(["a", "b"], "p")["x"][1].sum()) == 0


@pytest.mark.slow
def test_cleared_tensors_are_freed(ray: Any, direct: transferq.TransferQueueClient) -> None:
    """Overwritten and cleared tensors are freed in the process that put them."""
    stored = ray._private.worker.global_worker.rdt_manager.rdt_store
    held = holder(ray, direct)
    meta = direct.put({"x": torch.zeros(4, 5)}, partition_id="p")
    direct.put({"x": torch.ones(4, 5)}, metadata=meta)
    assert float(direct.get_data(meta)["x"][3].sum()) == 5
    direct.clear_partition("p")
    deadline = time.monotonic() + 30
    while stored.get_num_objects() and time.monotonic() < deadline:
        assert ray.get(held.count.remote()) == 0
    assert stored.get_num_objects() == 0


@pytest.mark.slow
def test_a_refused_put_leaves_nothing(ray: Any, direct: transferq.TransferQueueClient) -> None:
    """The controller refuses samples that were cleared; the tensors that were offered are withdrawn."""
    meta = direct.put({"x": torch.zeros(4, 5)}, partition_id="p")
    gone = direct.put({"x": torch.ones(2, 5)}, partition_id="p")
    direct.clear_samples(gone)
    with pytest.raises(transferq.errors.ClearedError):
        direct.put({"x": torch.ones(2, 5)}, metadata=gone)
    assert ray.get(holder(ray, direct).count.remote()) == 1
    assert torch.equal(direct.get_data(meta, layout="dense")["x"], torch.zeros(4, 5))


@pytest.mark.slow
def test_a_put_that_is_given_up_may_be_published(
    ray: Any, direct: transferq.TransferQueueClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that stops waiting for the controller does not know the outcome, so data that may be published stays."""
    assert direct._managed is not None
    manager = direct._managed.manager
    publish = manager.notify_data_update

    async def too_late(*args: Any) -> None:
        await publish(*args)
        raise asyncio.CancelledError

    with monkeypatch.context() as patch, pytest.raises(asyncio.CancelledError):
        patch.setattr(manager, "notify_data_update", too_late)
        asyncio.run(direct.async_put({"x": torch.ones(4, 5)}, partition_id="p"))
    meta = direct.get_meta(["x"], 4, "p", mode="force_fetch")
    assert torch.equal(direct.get_data(meta, layout="dense")["x"], torch.ones(4, 5))


@pytest.mark.slow
def test_nixl_is_not_installed(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """init() names the extra."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "nixl" else find(name, *rest),
    )
    section = {"tensor_transport": "nixl"}
    with pytest.raises(
        ConfigError, match=r"'nixl' needs NIXL: install the extra 'nixl' of transferq"
    ):
        transferq.init({"backend": {"storage_backend": "RayStore", "RayStore": section}})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("transport", "message"), [("telepathy", "no transport that Ray knows"), ("gloo", "one-sided")]
)
def test_no_such_transport(ray: Any, transport: str, message: str) -> None:
    """It is refused at init, by its path in the configuration."""
    section = {"tensor_transport": transport}
    with pytest.raises(ConfigError, match=rf"RayStore\.tensor_transport: '{transport}'.*{message}"):
        transferq.init({"backend": {"storage_backend": "RayStore", "RayStore": section}})
