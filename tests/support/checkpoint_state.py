"""The state of a system that a checkpoint saves, besides the values: as JSON that can be compared with any version's."""

from __future__ import annotations

import json
from typing import Any


def describe(client: Any) -> dict[str, Any]:
    """Per partition: samples with key and tag, existing cells, lost cells, what each task has consumed."""
    state: dict[str, Any] = {}
    for partition in client.status()["partitions"]:
        name = partition["name"]
        fields = sorted(field["name"] for field in partition["fields"])
        tasks = sorted(task["name"] for task in partition["tasks"])
        meta = client.get_meta([], 1, name, mode="force_fetch", task_name="describe")
        ready = {}
        for field in fields:
            _, produced = client.get_production_status([field], name)
            ready[field] = [] if produced is None else produced.reshape(-1).tolist()
        state[name] = {
            "indexes": meta.global_indexes,
            "keys": client.kv_retrieve_keys(meta.global_indexes, name),
            "tags": meta.custom_meta,
            "ready": ready,
            "lost": list(partition["lost"]),
            "consumed": {
                task: client.get_consumption_status(task, name)[1].tolist() for task in tasks
            },
        }
    described: dict[str, Any] = json.loads(json.dumps(state, default=repr, sort_keys=True))
    return described
