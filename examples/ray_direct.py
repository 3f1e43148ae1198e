"""Samples that go from process to process by Ray Direct Transport, without Ray's object store.

An actor puts four batches of 64 MiB of tensors; this process claims and reads them, while all four are kept. The
transport is Ray's NIXL with a log (storage/counted_nixl.py). Ray's object store has 80 MiB and may not spill to disk, so
the 256 MiB would not even fit; and the data in it at the end is measured.

    python examples/ray_direct.py
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import ray
import torch
from tensordict import TensorDict

import transferq

MODULES = str(Path(__file__).parent / "storage")
MIB = 1 << 20
BATCHES, ROWS, ROW = 4, 64, MIB // 4
BATCH_BYTES = ROWS * (ROW * 4 + 4)


@ray.remote(num_cpus=0)
class Producer:
    """A rollout worker."""

    def __init__(self) -> None:
        transferq.init()

    def put(self, number: int) -> int:
        """Put one batch; returns its bytes."""
        batch = TensorDict(
            {
                "tokens": torch.full((ROWS, ROW), number, dtype=torch.int32),
                "reward": torch.arange(ROWS, dtype=torch.float32),
            },
            batch_size=[ROWS],
        )
        transferq.get_client().put(batch, partition_id="step-0")
        return sum(int(column.nbytes) for column in batch.values())


def used() -> int:
    """Bytes in Ray's object store; waits until the figure includes a marker of 8 MiB, so that it is up to date."""
    total = ray.cluster_resources()["object_store_memory"]
    mark = ray.put(bytes(8 * MIB))
    in_use = 0
    while in_use < 8 * MIB:
        time.sleep(0.05)  # nodes report it periodically, without a notification
        in_use = int(total - ray.available_resources().get("object_store_memory", 0))
    del mark
    return max(0, in_use - 8 * MIB)


def main() -> int:
    """Run the example; the exit status is 0 if everything used the transport."""
    sys.path.insert(0, MODULES)
    os.environ["TQ_SYSTEM"] = f"ray-direct-{os.getpid()}"
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=80 * MIB,
        include_dashboard=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
        _system_config={
            "automatic_object_spilling_enabled": False,
            "local_fs_capacity_threshold": 0.0,
        },
    )
    section = {"tensor_transport": "counted_nixl", "module": "counted_nixl"}
    transferq.init({"backend": {"storage_backend": "RayStore", "RayStore": section}})
    client = transferq.get_client()
    before = used()
    producer: Any = Producer.remote()
    put = sum(ray.get([producer.put.remote(number) for number in range(BATCHES)]))
    right = 0
    for number in range(BATCHES):
        claimed = client.get_meta(["tokens", "reward"], ROWS, "step-0", task_name="train")
        batch = client.get_data(claimed, layout="dense")
        right += bool((batch["tokens"] == number).all()) and batch["reward"][-1] == ROWS - 1
    after = used()
    from counted_nixl import CountedNixl

    print(
        f"put and kept:            {put / MIB:7.1f} MiB in {BATCHES} batches, {int(right)} of them read as put"
    )
    print(f"read by the transport:   {CountedNixl.fetched / MIB:7.1f} MiB")
    print(f"in Ray's object store:   {(after - before) / MIB:7.1f} MiB more than before, of 80.0")
    transferq.close()
    ray.shutdown()
    done = right == BATCHES and CountedNixl.fetched == put and after - before < MIB
    print("ray direct: the transport carried all of it" if done else "ray direct: FAILED")
    return 0 if done else 1


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # The libnl in the wheel of NIXL 1.5.1 crashes in its destructor at exit, in every process that has used it for reads.
    os._exit(status)
