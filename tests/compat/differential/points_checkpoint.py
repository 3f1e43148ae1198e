"""Point 22: checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from .cases import Script, case


def told(folder: Path) -> dict[str, object]:
    """The properties of a checkpoint's file that the contract defines."""
    read = json.loads((folder / "metadata.json").read_text())
    return {name: read.get(name) for name in ("storage_saved", "user_metadata")}


@case(22)
def a_checkpoint_brings_everything_back(c: Script) -> None:
    tq, client, pid, folder = c.tq, c.client, c.pid(), c.scratch / "saved"
    tq.kv_batch_put(
        ["a", "b"], pid, c.data(x=c.rows(2), r=torch.tensor([1, 2])), [{"v": 1}, {"v": 2}]
    )
    tq.kv_put("c", pid, {"x": torch.ones(2), "s": "text"})
    client.get_meta(["x"], 2, pid, "fetch", "t")
    c.call(tq.save_checkpoint, folder, metadata={"step": 7})
    c.note(told(folder))
    client.clear_partition(pid)
    tq.kv_put("z", c.pid("later"), {"x": torch.ones(2)})
    c.call(tq.load_checkpoint, folder)
    c.call(tq.kv_list, pid)
    c.call(tq.kv_batch_get, ["a", "b", "c"], pid)
    c.call(tq.kv_batch_get, ["a", "b"], pid, ["r"])
    c.status(client.get_consumption_status, "t", pid)
    c.call(client.get_meta, ["x"], 1, pid, "fetch", "t")
    c.note(c.pid("later") in client.get_partition_list())


@case(22)
def a_checkpoint_without_data(c: Script) -> None:
    tq, pid, folder = c.tq, c.pid(), c.scratch / "saved"
    c.fill(["a"], pid)
    c.call(tq.save_checkpoint, str(folder), include_storage=False)
    c.note(told(folder))
    c.call(tq.load_checkpoint, str(folder))
    c.call(tq.kv_batch_get, ["a"], pid)


@case(22)
def saving_again_replaces_the_directory(c: Script) -> None:
    tq, pid, folder = c.tq, c.pid(), c.scratch / "saved"
    c.fill(["a"], pid)
    c.call(tq.save_checkpoint, folder, metadata={"step": 1})
    c.fill(["b"], pid)
    c.call(tq.save_checkpoint, folder, metadata={"step": 2})
    c.note(told(folder))
    tq.kv_clear(["a", "b"], pid)
    c.call(tq.load_checkpoint, folder)
    c.call(tq.kv_batch_get, ["a", "b"], pid)
    c.note(sorted(path.name for path in c.scratch.iterdir()))


@case(22)
def what_is_no_checkpoint(c: Script) -> None:
    tq = c.tq
    c.call(tq.load_checkpoint, c.scratch / "nothing")
    (c.scratch / "empty").mkdir()
    c.call(tq.load_checkpoint, c.scratch / "empty")
    c.fill(["a"], c.pid())
    c.call(tq.kv_batch_get, "a", c.pid())
