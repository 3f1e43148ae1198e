"""Samples by metadata: insert, claim, read, update, clear, status."""

from __future__ import annotations

import inspect
import pickle
import re
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

import transferq
from transferq import errors

torch = pytest.importorskip("torch")
TensorDict = pytest.importorskip("tensordict").TensorDict


def put(client: Any, pid: str, n: int, start: int = 0, **kwargs: Any) -> Any:
    return client.put({"x": torch.arange(start, start + n)}, partition_id=pid, **kwargs)


def fetch(
    client: Any, pid: str, n: int, fields: list[str] | None = None, task: str = "t", **kwargs: Any
) -> Any:
    return client.get_meta(fields or ["x"], n, pid, task_name=task, **kwargs)


def test_put_claim_read_clear(client: Any, pid: str) -> None:
    meta = put(client, pid, 4)
    assert (meta.size, meta.field_names, meta.is_ready) == (4, ["x"], True)
    assert meta.partition_ids == [pid] * 4
    claimed = fetch(client, pid, 3)
    assert claimed.global_indexes == sorted(claimed.global_indexes)
    assert client.get_data(claimed)["x"].tolist() == [0, 1, 2]
    assert client.get_data(claimed[2:0:-1])["x"].tolist() == [2, 1]
    indexes, consumed = client.get_consumption_status("t", pid)
    assert indexes.tolist() == sorted(meta.global_indexes)
    assert consumed.tolist() == [1, 1, 1, 0]
    client.clear_samples(claimed)
    assert client.get_consumption_status("t", pid)[0].tolist() == meta.global_indexes[3:]
    client.clear_samples(claimed)
    client.clear_samples(transferq.BatchMeta())


def test_schema_of_what_was_put(client: Any, pid: str) -> None:
    data = TensorDict(
        {
            "d": torch.zeros(2, 3, dtype=torch.bfloat16),
            "r": torch.nested.as_nested_tensor([torch.ones(2), torch.ones(5)], layout=torch.jagged),
            "s": ["a", "b"],
        },
        batch_size=[2],
    )
    client.put(data, partition_id=pid)
    claimed = fetch(client, pid, 2, ["d", "r", "s"])
    schema = claimed.field_schema
    assert schema["d"] == {
        "dtype": torch.bfloat16,
        "shape": (3,),
        "is_nested": False,
        "is_non_tensor": False,
    }
    assert schema["r"]["is_nested"]
    assert claimed.get_shapes("r") == [(2,), (5,)]
    assert claimed.get_dtypes("r") == [torch.float32] * 2
    assert schema["s"]["is_non_tensor"]
    assert claimed[1:].get_shapes("r") == [(5,)]
    copied = pickle.loads(pickle.dumps(claimed))
    assert copied.field_schema == schema
    assert list(client.get_data(copied)["s"]) == ["a", "b"]


def test_put_with_metadata_adds_columns_in_place(client: Any, pid: str) -> None:
    put(client, pid, 3)
    claimed = fetch(client, pid, 2)
    claimed.update_custom_meta([{"v": 1}, {"v": 2}])
    returned = client.put({"y": torch.ones(2, 2)}, metadata=claimed)
    assert returned is claimed
    assert claimed.field_names == ["x", "y"]
    assert claimed.is_ready
    assert claimed.custom_meta == [{"v": 1}, {"v": 2}]
    again = fetch(client, pid, 2, ["x", "y"], task="u")
    assert again.global_indexes == claimed.global_indexes
    assert again.custom_meta == [{"v": 1}, {"v": 2}]
    assert sorted(client.get_data(claimed).keys()) == ["x", "y"]


def test_insert_reserves_samples(client: Any, pid: str) -> None:
    meta = client.get_meta(["a", "b"], 3, pid, mode="insert")
    assert (meta.size, meta.field_names, meta.is_ready) == (3, ["a", "b"], False)
    assert meta.production_status.tolist() == [0, 0, 0]
    assert client.get_consumption_status("t", pid)[1].tolist() == [0, 0, 0]
    client.put({"a": torch.ones(3), "b": torch.zeros(3)}, metadata=pickle.loads(pickle.dumps(meta)))
    assert fetch(client, pid, 3, ["a", "b"]).global_indexes == sorted(meta.global_indexes)
    with pytest.raises(ValueError, match="batch_size must be positive"):
        client.get_meta(["a"], -1, pid, mode="insert")
    assert client.get_meta(["a"], 0, pid, mode="insert").size == 0


def test_force_fetch_ignores_size_sampler_and_consumption(client: Any, pid: str) -> None:
    put(client, pid, 3)
    fetch(client, pid, 3)
    reserved = client.get_meta(["x"], 1, pid, mode="insert")
    everything = client.get_meta(["x"], 1, pid, mode="force_fetch", task_name="t")
    assert everything.size == 4
    ready = dict(zip(everything.global_indexes, everything.production_status.tolist(), strict=True))
    assert ready.pop(reserved.global_indexes[0]) == 0
    assert list(ready.values()) == [1, 1, 1]
    assert sorted(client.get_consumption_status("t", pid)[1].tolist()) == [0, 1, 1, 1]


def test_reading_what_is_not_ready(client: Any, pid: str) -> None:
    both = transferq.BatchMeta.concat(
        [put(client, pid, 1), client.get_meta(["x"], 1, pid, mode="insert")], validate=False
    )
    with pytest.raises(errors.NotReadyError, match="x"):
        client.get_data(both)
    with pytest.raises(errors.UnknownFieldError, match="nothing"):
        client.get_data(client.get_meta(["nothing"], 1, pid, mode="insert"))


def test_a_claim_waits_for_samples(client: Any, pid: str) -> None:
    claimed: list[Any] = []
    waiting = threading.Thread(target=lambda: claimed.append(fetch(client, pid, 4)))
    waiting.start()
    put(client, pid, 2)
    put(client, pid, 2, start=2)
    waiting.join(20)
    assert sorted(client.get_data(claimed[0])["x"].tolist()) == [0, 1, 2, 3]


def test_an_unmet_claim_times_out_and_blocks_nobody(client: Any, pid: str) -> None:
    put(client, pid, 2)
    errors_seen: list[BaseException] = []

    def claim() -> None:
        try:
            fetch(client, pid, 5, timeout=1.0)
        except errors.TimedOutError as error:
            errors_seen.append(error)

    waiting = threading.Thread(target=claim)
    waiting.start()
    assert fetch(client, pid, 2, task="other").size == 2
    waiting.join(20)
    assert isinstance(errors_seen[0], TimeoutError)
    assert client.get_consumption_status("t", pid)[1].tolist() == [0, 0]
    assert fetch(client, pid, 2).size == 2


def test_groups(client: Any, pid: str) -> None:
    for step in range(2):
        client.put({"x": torch.arange(3) + 10 * step}, partition_id=pid, groups=["a", "b", "c"])
    claimed = fetch(client, pid, 2, sampling_config={"n_samples_per_prompt": 2})
    assert claimed.size == 2
    with pytest.raises(errors.NameLengthError):
        client.put({"x": torch.arange(1)}, partition_id=pid, groups=["g" * 1100])
    with pytest.raises(ValueError, match="groups: expected 1, got 2"):
        client.put({"x": torch.arange(1)}, partition_id=pid, groups=["a", "b"])


def test_production_status(client: Any, pid: str) -> None:
    meta = put(client, pid, 3)
    client.put({"y": torch.ones(2)}, metadata=meta[:2])
    indexes, produced = client.get_production_status(["x", "y"], pid)
    assert indexes.tolist() == meta.global_indexes
    assert produced.tolist() == [[1, 1], [1, 1], [1, 0]]
    assert client.get_production_status(["x", "none"], pid) == (None, None)
    assert client.get_production_status([], pid) == (None, None)
    assert client.check_production_status(["x"], pid)
    assert not client.check_production_status(["x", "y"], pid)


def test_consumption_and_reset(client: Any, pid: str) -> None:
    put(client, pid, 2)
    for task in ("t", "u"):
        fetch(client, pid, 2, task=task)
        assert client.check_consumption_status(task, pid)
    assert client.reset_consumption(pid, "t")
    assert not client.check_consumption_status("t", pid)
    assert client.check_consumption_status("u", pid)
    assert client.reset_consumption(pid)
    assert client.get_consumption_status("u", pid)[1].tolist() == [0, 0]
    assert fetch(client, pid, 2).size == 2


def test_unknown_partition(client: Any, pid: str) -> None:
    assert client.get_consumption_status("t", pid) == (None, None)
    assert client.get_production_status(["x"], pid) == (None, None)
    assert client.check_consumption_status("t", pid) is False
    assert client.check_production_status(["x"], pid) is False
    assert client.reset_consumption(pid) is True
    assert client.kv_retrieve_meta(["k"], pid).size == 0
    client.clear_partition(pid)
    assert pid not in client.get_partition_list()


def test_keys_and_indexes(client: Any, pid: str) -> None:
    made = client.kv_retrieve_meta(["a", "b"], pid, create=True)
    assert (made.size, made.field_names, made.is_ready) == (2, [], False)
    assert client.kv_retrieve_meta("b", pid).global_indexes == made.global_indexes[1:]
    assert client.kv_retrieve_keys(made.global_indexes, pid) == ["a", "b"]
    assert client.kv_retrieve_keys(made.global_indexes[0], pid) == ["a"]
    plain = put(client, pid, 1)
    wanted = [*plain.global_indexes, made.global_indexes[0], 1 << 20]
    assert client.kv_retrieve_keys(wanted, pid) == [None, "a", None]
    with pytest.raises(RuntimeError, match="unknown partition 'no such'"):
        client.kv_retrieve_keys(wanted, "no such")
    with pytest.raises(TypeError):
        client.kv_retrieve_keys("a", pid)
    with pytest.raises(ValueError, match="at least one"):
        client.kv_retrieve_keys([], pid)
    client.put({"x": torch.arange(2)}, metadata=made)
    assert client.get_data(client.kv_retrieve_meta(["b", "a"], pid))["x"].tolist() == [1, 0]


def test_set_custom_meta_stores_only_changes(client: Any, pid: str) -> None:
    meta = client.kv_retrieve_meta(["a", "b"], pid, create=True)
    meta.update_custom_meta([{"n": 1}, {"n": 2}])
    client.set_custom_meta(meta)
    stale = client.kv_retrieve_meta(["a", "b"], pid)
    assert stale.custom_meta == [{"n": 1}, {"n": 2}]
    transferq.kv_put("a", pid, tag={"n": 5})
    stale.custom_meta[1]["m"] = 3
    client.set_custom_meta(stale)
    assert transferq.kv_list(pid)[pid] == {"a": {"n": 5}, "b": {"n": 2, "m": 3}}


def test_metadata_of_two_partitions(client: Any, pid: str) -> None:
    other = pid + "-2"
    both = transferq.BatchMeta.concat([put(client, pid, 2), put(client, other, 2, start=10)])
    both.reorder([2, 0, 3, 1])
    assert client.get_data(both)["x"].tolist() == [10, 0, 11, 1]
    client.put({"y": torch.tensor([3, 1, 4, 2])}, metadata=both)
    assert sorted(client.get_data(fetch(client, pid, 2, ["y"]))["y"].tolist()) == [1, 2]
    assert client.get_data(both.select_fields(["y"]))["y"].tolist() == [3, 1, 4, 2]
    client.clear_samples(both)
    assert client.get_consumption_status("t", other)[0].tolist() == []
    client.clear_partition(other)


def test_cleared_samples_cannot_be_read_or_written(client: Any, pid: str) -> None:
    meta = put(client, pid, 2)
    client.clear_samples(meta[:1])
    # Without placements, so that the controller is asked where the data is.
    by_hand = transferq.BatchMeta(meta.global_indexes, meta.partition_ids, meta.field_schema)
    for call in (
        lambda: client.get_data(by_hand),
        lambda: client.put({"y": torch.ones(2)}, metadata=meta),
    ):
        with pytest.raises(errors.ClearedError, match=str(meta.global_indexes[0])) as raised:
            call()
        assert isinstance(raised.value, KeyError)
    assert client.get_data(meta[1:])["x"].tolist() == [1]
    assert client.get_production_status(["x"], pid)[1].tolist() == [[1]]
    assert client.get_production_status(["y"], pid) == (None, None)


def test_clearing_what_is_not_there_is_told(
    client: Any, pid: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(client, pid, 1)
    client.clear_samples(transferq.BatchMeta([1 << 20], [pid]))
    assert f"1 of 1 samples are not in partition {pid!r} (cleared before, or never" in caplog.text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda client: client.put(None, partition_id="p"), "data: .* got NoneType"),
        (lambda client: client.put([1], partition_id="p"), "data: .* got list"),
        (lambda client: client.get_data("x"), "metadata: expected a BatchMeta, got str"),
        (
            lambda client: client.get_data(transferq.KVBatchMeta()),
            "read it with kv_batch_get_by_meta",
        ),
        (lambda client: client.clear_samples("x"), "metadata: expected a BatchMeta, got str"),
        (lambda client: client.set_custom_meta([{}]), "metadata: expected a BatchMeta, got list"),
        (lambda _: transferq.kv_batch_put(["k"], "p", [1]), "fields: .* got list"),
        (lambda _: transferq.kv_put("k", "p", "text"), "fields: .* got str"),
    ],
)
def test_arguments_of_a_wrong_type_say_what_was_expected(
    client: Any, call: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        call(client)


def test_a_claim_in_vain_says_what_may_be_misspelt(client: Any, pid: str) -> None:
    with pytest.raises(TimeoutError, match=rf"there is no partition {pid!r} \(misspelt\?\)"):
        client.get_meta(["x"], 1, pid, task_name="t", timeout=0.05)
    put(client, pid, 1)
    with pytest.raises(TimeoutError, match=r"has the fields \['X'\] \(misspelt\?\)"):
        client.get_meta(["x", "X"], 1, pid, task_name="t", timeout=0.05)
    with pytest.raises(TimeoutError) as raised:
        client.get_meta(["x"], 2, pid, task_name="t", timeout=0.05)
    assert "misspelt?" not in str(raised.value)
    with pytest.raises(errors.UnknownPartitionError, match="no such"):
        client.get_meta(["x"], 2, "no such", mode="force_fetch")


def test_the_returned_config_leads_other_clients_to_the_system(client: Any) -> None:
    for info in (
        client.config.controller.zmq_info,
        list(client.config.controller.zmq_info),
        transferq.ControllerInfo(client.config.address, client.config.token_file),
    ):
        other = transferq.TransferQueueClient("other", info, 1, 4096)
        other.initialize_storage_manager("SimpleStorage", client.config.backend.SimpleStorage)
        assert other.get_partition_list() == client.get_partition_list()
        other.close()
    with pytest.raises(ValueError, match="controller_info: expected the address"):
        transferq.TransferQueueClient("other", 5)


def test_the_configuration_of_a_client_is_checked_as_that_of_init(client: Any) -> None:
    for given, message in (
        ({"clint": {"timeout": 1}}, "unknown key 'clint', did you mean 'client'?"),
        ({"client": {"timout": 1}}, "unknown key 'client.timout', did you mean 'timeout'?"),
        ({"client": {"timeout": "soon"}}, "client.timeout: expected"),
        ([1], "must be a map"),
        (
            {"backend": {"X": {"module": 5}}},
            "backend.X.module: expected the name of a module, got 5",
        ),
        (
            {"backend": {"X": {"module": ".x"}}},
            "backend.X.module: expected the name of a module, got '.x'",
        ),
        (
            {"backend": {"storage_backend": "X", "X": {"library": 5}}},
            "backend.X.library: expected a path, got 5",
        ),
    ):
        with pytest.raises(errors.ConfigError, match=re.escape(message)):
            transferq.TransferQueueClient("checked", client._info, config=given)
    # Other forms of the argument of init(), and the result of init().
    for given in ({"client": {"timeout": "250ms"}}, client.config):
        other = transferq.TransferQueueClient("checked", client._info, config=given)
        assert other.config.client.timeout == (0.25 if given is not client.config else 20)
        other.close()


def test_bad_arguments_leave_everything_as_it_was(client: Any, pid: str) -> None:
    meta = put(client, pid, 2)
    cases: list[tuple[type[Exception], str, Any]] = [
        (errors.RowCountError, "expected 2 rows", lambda: client.put({"y": torch.ones(3)}, metadata=meta)),
        (errors.RowCountError, "'y': expected 2 rows, got 3", lambda: client.put({"x": torch.ones(2), "y": torch.ones(3)}, partition_id=pid)),
        (errors.RowCountError, "without dims", lambda: client.put({"y": torch.tensor(1)}, partition_id=pid)),
        (errors.ClaimSizeError, "size", lambda: fetch(client, pid, -1)),
        (errors.NameLengthError, "name|key", lambda: put(client, "", 1)),
        (errors.NameLengthError, "name|key", lambda: put(client, "p" * 1100, 1)),
        (errors.NameLengthError, "name|key", lambda: client.put({"f" * 1100: torch.ones(1)}, partition_id=pid)),
        (errors.NameLengthError, "name|key", lambda: transferq.kv_put("k" * 20000, pid, tag={"a": 1})),
        (errors.InvalidArgumentError, "mode", lambda: client.get_meta(["x"], 1, pid, mode="take")),
        (errors.InvalidArgumentError, "task_name", lambda: client.get_meta(["x"], 1, pid)),
        (errors.InvalidArgumentError, "partition_id", lambda: client.put({"x": torch.ones(1)})),
        (errors.InvalidArgumentError, "no samples", lambda: client.put({"x": torch.ones(1)}, metadata=transferq.BatchMeta())),
        (errors.InvalidArgumentError, "zero character", lambda: put(client, "a\0b", 1)),
        (TypeError, "expected", lambda: fetch(client, pid, 1, fields=5)),
    ]  # fmt: skip
    before = client.status()["partitions"]
    for kind, message, call in cases:
        with pytest.raises(kind, match=message):
            call()
    assert client.status()["partitions"] == before


def test_a_schema_is_forgotten_with_its_last_row(client: Any, pid: str) -> None:
    meta = put(client, pid, 2)
    client.clear_samples(meta)
    client.put({"x": torch.ones(2, dtype=torch.float64)}, partition_id=pid)
    assert fetch(client, pid, 2).get_dtypes("x") == [torch.float64] * 2


def test_a_full_store(runtime_dir: Any, client: Any, pid: str) -> None:
    block = torch.zeros(4, 1 << 20)
    first = client.put({"big": block}, partition_id=pid)
    started = time.monotonic()
    other = transferq.TransferQueueClient("filler", client._info, config={"client": {"timeout": 1}})
    try:
        with pytest.raises(errors.StorageFullError):
            for _ in range(8):
                other.put({"big": block}, partition_id=pid)
        assert time.monotonic() - started < 15
        assert set(first.global_indexes) <= set(client.get_consumption_status("t", pid)[0].tolist())
        client.clear_partition(pid)
        other.put({"big": block}, partition_id=pid)
    finally:
        other.close()


def test_status_and_events(client: Any, pid: str) -> None:
    events = client.get_events()
    last = events[-1]["seq"] if events else 0
    put(client, pid, 3)
    fetch(client, pid, 2)
    found = [event for event in client.get_events(since=last) if event["partition"] == pid]
    assert [(event["kind"], event["samples"], event["task"]) for event in found] == [
        ("put", 3, ""),
        ("claim", 2, "t"),
    ]
    assert set(found[0]) >= {
        "seq",
        "time",
        "kind",
        "session",
        "partition",
        "task",
        "samples",
        "bytes",
    }
    assert found[0]["bytes"] >= 24
    status = client.status()
    partition = next(each for each in status["partitions"] if each["name"] == pid)
    assert partition["samples"] == 3
    assert partition["fields"][0]["produced"] == 3
    assert partition["tasks"] == [{"name": "t", "consumed": 2}]
    assert client.client_id in [session["name"] for session in status["sessions"]]
    assert all(owner["capacity_bytes"] > 0 for owner in status["owners"])


def test_a_waiting_call_for_events(client: Any, pid: str) -> None:
    events = client.get_events()
    last = events[-1]["seq"] if events else 0
    assert client.get_events(since=last, wait=True, timeout=0.05) == []


def test_signatures_and_documentation() -> None:
    for name in (
        "put",
        "get_data",
        "get_meta",
        "kv_retrieve_meta",
        "clear_samples",
        "reset_consumption",
    ):
        sync, asynchronous = (
            getattr(transferq.TransferQueueClient, prefix + name) for prefix in ("", "async_")
        )
        assert inspect.signature(sync) == inspect.signature(asynchronous)
        assert inspect.iscoroutinefunction(asynchronous)
        assert sync.__doc__
        assert (sync.__name__, asynchronous.__name__) == (name, f"async_{name}")
    parameters = list(inspect.signature(transferq.TransferQueueClient.get_meta).parameters)
    assert parameters[:7] == [
        "self", "data_fields", "batch_size", "partition_id", "mode", "task_name", "sampling_config",
    ]  # fmt: skip
    assert list(inspect.signature(transferq.kv_batch_put).parameters)[:5] == [
        "keys", "partition_id", "fields", "tags", "data_parser",
    ]  # fmt: skip
    assert transferq.AsyncTransferQueueClient is transferq.TransferQueueClient


def test_a_closed_client(runtime_dir: Any, client: Any, pid: str) -> None:
    other = transferq.TransferQueueClient("other", client._info)
    other.close()
    other.close()
    with pytest.raises(errors.ClosedError):
        put(other, pid, 1)


def test_sampler_of_one_claim(client: Any, pid: str) -> None:
    """A claim may select its own sampler, whatever the controller's is; an unknown one is refused."""
    put(client, pid, 5, groups=["a", "b", "a", "b", "c"])
    config = {"sampler": "grpo_group_n", "n_samples_per_prompt": 2}
    values = client.get_data(fetch(client, pid, 4, sampling_config=config))["x"].tolist()
    assert {frozenset(values[:2]), frozenset(values[2:])} == {frozenset((0, 2)), frozenset((1, 3))}
    with pytest.raises(errors.UnknownSamplerError, match="nobody"):
        fetch(client, pid, 1, sampling_config={"sampler": "nobody"})


def test_a_partition_in_the_place_of_metadata(client: Any) -> None:
    """The most common slip has a specific error."""
    with pytest.raises(errors.InvalidArgumentError, match="partition_id='p'"):
        client.put({"x": torch.arange(2)}, "p")


def test_sampler_of_a_client_that_attached(client: Any, pid: str) -> None:
    """Its claims use the client's own sampler, not the one the system was started with."""
    config = {
        "controller": {
            "sampler": "GRPOGroupNSampler",
            "sampling_config": {"n_samples_per_prompt": 2},
        }
    }
    other = transferq.TransferQueueClient("other", client._info, config=config)
    put(client, pid, 3, groups=["a", "b", "a"])
    values = other.get_data(fetch(other, pid, 2))["x"].tolist()
    assert sorted(values) == [0, 2]
    with pytest.raises(ValueError, match="3"):
        fetch(other, pid, 3)
    other.close()


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_bad_timeout(client: Any, pid: str, timeout: float) -> None:
    """An invalid timeout is refused, and not waited for."""
    with pytest.raises(errors.InvalidArgumentError, match="timeout"):
        fetch(client, pid, 1, timeout=timeout)


def test_too_many_tags(client: Any, pid: str) -> None:
    """A sample has a bounded number of tags; the put that would exceed it changes nothing."""
    transferq.kv_put("k", pid, tag={f"t{i}": i for i in range(1000)})
    with pytest.raises(errors.InvalidArgumentError, match="1024"):
        transferq.kv_put("k", pid, tag={f"u{i}": i for i in range(100)})
    with pytest.raises(errors.InvalidArgumentError, match="1024"):
        transferq.kv_put("k", pid, tag={f"v{i}": i for i in range(2000)})
    assert len(transferq.kv_list(pid)[pid]["k"]) == 1000


def test_closed_standard_descriptors(runtime_dir: Any, client: Any) -> None:
    """A process without stdin, stdout and stderr works and ends properly."""
    body = "import os; [os.close(n) for n in (0, 1, 2)]; import transferq; transferq.init(attach=True); transferq.kv_list(); transferq.close()"
    assert subprocess.run([sys.executable, "-c", body], check=False, timeout=60).returncode == 0
