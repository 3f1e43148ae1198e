"""Every public name of the contract, and how it can be called."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

Kind = Literal["function", "class", "method", "attribute", "module", "version", "resource", "key"]


@dataclass(frozen=True)
class Name:
    """A public name: its module, and its kind."""

    path: str
    kind: Kind
    seed: bool = False
    """The name is from the seed, and 0.1.11 no longer has it; ours has it as an alias."""
    listed: str | None = None
    """Id of a known difference."""


# Parameters of public methods that upstream's own parts use among themselves: programs never pass them.
INTERNAL_PARAMETERS = {"socket", "zmq_io_threads", "zmq_max_sockets"}

KV = ["kv_put", "kv_batch_put", "kv_batch_get", "kv_batch_get_by_meta", "kv_list", "kv_clear"]
FUNCTIONS = [
    "init",
    "close",
    "get_client",
    "get_metrics_endpoint",
    "save_checkpoint",
    "load_checkpoint",
    *KV,
    *(f"async_{name}" for name in KV),
]
CLIENT = [
    "put",
    "get_data",
    "get_meta",
    "set_custom_meta",
    "clear_partition",
    "clear_samples",
    "get_consumption_status",
    "get_production_status",
    "check_consumption_status",
    "check_production_status",
    "reset_consumption",
    "get_partition_list",
    "kv_retrieve_meta",
    "kv_retrieve_keys",
    "kv_list",
    "save_controller_checkpoint",
    "load_controller_checkpoint",
    "save_storage_checkpoint",
    "load_storage_checkpoint",
]
BATCH_ATTRIBUTES = [
    "size",
    "global_indexes",
    "partition_ids",
    "field_names",
    "field_schema",
    "production_status",
    "custom_meta",
    "extra_info",
    "samples",
    "is_ready",
]
BATCH_METHODS = [
    "select_fields",
    "select_samples",
    "add_fields",
    "chunk",
    "chunk_by_partition",
    "concat",
    "union",
    "reorder",
    "copy",
    "empty",
    "get_shapes",
    "get_dtypes",
    "get_all_custom_meta",
    "update_custom_meta",
    "clear_custom_meta",
    "get_extra_info",
    "set_extra_info",
    "update_extra_info",
    "remove_extra_info",
    "has_extra_info",
    "get_all_extra_info",
    "clear_extra_info",
    "__len__",
    "__getitem__",
]
KV_ATTRIBUTES = ["keys", "tags", "fields", "partition_id", "extra_info", "size"]
KV_METHODS = ["select_keys", "chunk", "concat", "reorder", "__len__"]
SAMPLERS = {
    "BaseSampler": "base",
    "SequentialSampler": "sequential_sampler",
    "GRPOGroupNSampler": "grpo_group_n_sampler",
    "RankAwareSampler": "rank_aware_sampler",
    "SeqlenBalancedSampler": "seqlen_balanced_sampler",
}
SAMPLER_METHODS = [
    "sample",
    "has_cached_result",
    "clear_cache",
    "save_checkpoint",
    "load_checkpoint",
]
# The modules that programs import from; the rest are internal to upstream.
MODULES = [
    "client",
    "interface",
    "metadata",
    "controller",
    "metrics",
    "sampler",
    *(f"sampler.{module}" for module in SAMPLERS.values()),
    "dataloader",
    "dataloader.streaming_dataset",
    "dataloader.streaming_dataloader",
    "storage",
    "storage.simple_storage",
    "storage.managers",
    "storage.managers.base",
    "storage.managers.simple_storage_manager",
    "storage.clients",
    "storage.clients.base",
    "utils",
    "utils.enum_utils",
    "utils.logging_utils",
]
CONFIG_KEYS = [
    "controller.sampler",
    "controller.polling_mode",
    "metrics.enabled",
    "metrics.port",
    "backend.storage_backend",
    "backend.SimpleStorage.total_storage_size",
    "backend.SimpleStorage.num_data_storage_units",
    "backend.MooncakeStore.auto_init",
    "backend.MooncakeStore.metadata_server",
    "backend.MooncakeStore.master_server_address",
    "backend.MooncakeStore.local_hostname",
    "backend.MooncakeStore.protocol",
    "backend.MooncakeStore.global_segment_size",
    "backend.MooncakeStore.local_buffer_size",
    "backend.MooncakeStore.device_name",
]


def _all() -> list[Name]:
    names = [Name(function, "function") for function in FUNCTIONS]
    names.append(Name("TransferQueueClient", "class"))
    for method in CLIENT:
        names += [
            Name(f"TransferQueueClient.{prefix}{method}", "method") for prefix in ("", "async_")
        ]
    names += [
        Name(f"TransferQueueClient.{method}", "method")
        for method in ("initialize_storage_manager", "close")
    ]
    names.append(Name("BatchMeta", "class"))
    names += [Name(f"BatchMeta.{name}", "attribute") for name in BATCH_ATTRIBUTES]
    names += [Name(f"BatchMeta.{name}", "method") for name in BATCH_METHODS]
    names.append(Name("KVBatchMeta", "class"))
    names += [Name(f"KVBatchMeta.{name}", "attribute") for name in KV_ATTRIBUTES]
    names += [Name(f"KVBatchMeta.{name}", "method") for name in KV_METHODS]
    for sampler in SAMPLERS:
        names.append(Name(sampler, "class"))
        names += [Name(f"{sampler}.{method}", "method") for method in SAMPLER_METHODS]
    names += [Name(name, "class") for name in ("StreamingDataset", "StreamingDataLoader")]
    for name in ("StreamingDataset", "StreamingDataLoader"):
        names += [Name(f"{name}.{method}", "method") for method in ("reset", "step")]
    names.append(Name("StreamingDataLoader.get_buffer", "method"))
    names.append(Name("dataloader.streaming_dataset:chunk_batch_fn", "function"))
    names.append(Name("dataloader.streaming_dataset:default_fetch_batch_fn", "function"))
    names.append(Name("StorageKeyNotFoundError", "class"))
    for path in (
        "storage:StorageManager",
        "storage:StorageManagerFactory",
        "storage:AsyncSimpleStorageManager",
        "storage.managers.base:KVStorageManager",
        "storage.clients:StorageKVClient",
        "storage.clients:StorageClientFactory",
        "client:AsyncTransferQueueClient",
        "controller:TransferQueueController",
        "controller:TransferQueueController.options",
        "controller:TransferQueueController.remote",
        "storage:SimpleStorageUnit",
        "storage.simple_storage:SimpleStorageUnit",
        "storage.simple_storage:SimpleStorageUnit.options",
        "storage.simple_storage:SimpleStorageUnit.remote",
        "utils.enum_utils:Role",
        "utils.enum_utils:ProductionStatus",
    ):
        names.append(Name(path, "attribute"))
    names += [
        Name("TransferQueueStorageManager", "attribute", seed=True),
        Name("TransferQueueStorageManagerFactory", "attribute", seed=True),
        Name("AsyncSimpleStorageManager", "attribute", seed=True),
        Name("AsyncTransferQueueClient", "attribute", seed=True),
    ]
    names += [Name(module, "module") for module in MODULES]
    names += [Name("__version__", "version"), Name("config.yaml", "resource")]
    names += [Name(key, "key") for key in CONFIG_KEYS]
    return names


NAMES: list[Name] = _all()

Look = dict[str, Any]


def look(name: Name) -> Look:
    """Describe what a name refers to in this environment."""
    import transfer_queue

    try:
        if name.kind == "module":
            importlib.import_module(f"transfer_queue.{name.path}")
            return {"found": True}
        if name.kind == "version":
            return {"found": transfer_queue.__version__}
        files = resources.files("transfer_queue")
        if name.kind == "resource":
            return {"found": (files / name.path).is_file()}
        if name.kind == "key":
            return {"found": _accepted(name.path)}
        found = _find(name.path)
    except (ImportError, AttributeError) as error:
        return {"found": False, "why": f"{type(error).__name__}: {error}"}
    told: Look = {"found": True}
    if name.kind in ("function", "method", "class"):
        told["async"] = inspect.iscoroutinefunction(found)
        told["parameters"] = _parameters(found)
    return told


def _find(path: str) -> Any:
    module, _, rest = path.rpartition(":")
    found: Any = importlib.import_module(".".join(filter(None, ["transfer_queue", module])))
    for part in rest.split("."):
        # A dataclass field with a default factory is not an attribute of the class.
        if part not in getattr(found, "__dataclass_fields__", ()):
            found = getattr(found, part)
    return found


def _accepted(key: str) -> bool:
    """Whether the packaged configuration has a key, or the package accepts one without a warning."""
    import logging

    import yaml

    text = (resources.files("transfer_queue") / "config.yaml").read_text("utf-8")
    entry = yaml.safe_load(text)
    for part in key.split("."):
        entry = entry.get(part, {}) if isinstance(entry, dict) else {}
        if entry == {}:
            break
    else:
        return True
    from transferq import config

    given: Any = "x"
    for part in reversed(key.split(".")):
        given = {part: given}
    warnings: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = warnings.append  # type: ignore[method-assign]
    logging.getLogger("transferq").addHandler(handler)
    try:
        config.read(given)
    except config.ConfigError:
        return True  # the key is known, and its values are checked
    finally:
        logging.getLogger("transferq").removeHandler(handler)
    return not warnings


def _parameters(found: Any) -> list[list[str | None]] | None:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return None
    return [
        [each.name, each.kind.name, None if each.default is each.empty else repr(each.default)]
        for each in signature.parameters.values()
        if each.name not in ("self", *INTERNAL_PARAMETERS)
    ]


def differences(name: Name, upstream: Look, ours: Look) -> list[str]:
    """The differences visible to a program that uses the name."""
    if not ours["found"]:
        return [f"not there: {ours.get('why', '')}"]
    if name.kind == "version":
        return [] if _release(ours["found"]) >= _release("0.1.11") else ["older than 0.1.11"]
    if name.seed:
        return []
    if not upstream["found"]:
        return [f"upstream has no such name: {upstream.get('why', '')}"]
    found = []
    if upstream.get("async") != ours.get("async"):
        found.append("one is a coroutine function and the other is not")
    if upstream.get("parameters") is not None and ours.get("parameters") is not None:
        found += _missing_parameters(upstream["parameters"], ours["parameters"])
    return found


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())


def _missing_parameters(
    upstream: list[list[str | None]], ours: list[list[str | None]]
) -> list[str]:
    """Parameters that ours does not accept in the same way."""
    found = []
    catch_all = {each[1] for each in ours}
    for place, (name, kind, default) in enumerate(upstream):
        if kind in ("VAR_POSITIONAL", "VAR_KEYWORD"):
            if kind not in catch_all:
                found.append(f"takes no {name} ({kind})")
            continue
        same = ours[place] if place < len(ours) else None
        if kind == "KEYWORD_ONLY":
            same = next((each for each in ours if each[0] == name), None)
        if same is None or same[0] != name:
            found.append(f"parameter {place} is {same and same[0]}, not {name}")
        elif (default is None and same[2] is not None) or same[2] == default:
            continue
        elif same[2] is None:
            found.append(f"{name} has no default, and {default} there")
        elif "factory" not in str(default) and (default, same[2]) not in SAME_DEFAULTS:
            found.append(f"{name} is {same[2]} by default, and {default} there")
    return found


# Defaults that are equivalent for a caller.
SAME_DEFAULTS = {("[]", "()"), ("None", "()"), ("{}", "mappingproxy({})")}
