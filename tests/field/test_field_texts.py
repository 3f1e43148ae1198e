"""Errors name the thing, the value, the limit and the remedy, and have the right class."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
import torch

import transferq
from transferq._impl.system import attach_or_start

InputOutputError = transferq.errors.InputOutputError


@pytest.fixture
def busy() -> Any:
    """A port used by another program."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize(
    ("settings", "kind", "text"),
    [
        (
            lambda port: {"controller": {"listen": f"tcp:127.0.0.1:{port}"}},
            InputOutputError,
            "cannot listen on tcp:127.0.0.1:PORT: Address already in use: another program uses this port; "
            "take another one, or port 0 for a free one",
        ),
        (
            lambda port: {
                "metrics": {"enabled": True},
                "net": {"port_range": f"{port}-{port}", "bind": "127.0.0.1"},
            },
            transferq.errors.ConfigError,
            "PORT-PORT has 1 port, and 4 are needed at 127.0.0.1: 1 for the controller, "
            "2 for storage units, 1 for the metrics; give a longer range",
        ),
        (
            lambda port: {"controller": {"listen": "tcp:no.such.host.invalid:0"}},
            InputOutputError,
            "cannot listen on tcp:no.such.host.invalid:0: host 'no.such.host.invalid' is not known here",
        ),
        (
            lambda port: {"net": {"bind": "192.0.2.7"}},
            InputOutputError,
            "cannot listen on tcp:192.0.2.7:0: Cannot assign requested address: no network interface of this "
            "machine has this address",
        ),
        (
            lambda port: {"controller": {"listen": "tcp:127.0.0.1:99999"}},
            transferq.errors.InvalidArgumentError,
            "endpoint 'tcp:127.0.0.1:99999': the port is not a number from 0 to 65535",
        ),
        (
            lambda port: {"controller": {"listen": "unix:/nonexistent/folder/x"}},
            InputOutputError,
            "cannot listen on unix:/nonexistent/folder/x: No such file or directory",
        ),
    ],
)
def test_an_endpoint_that_cannot_be_had_is_an_error_of_a_fitting_class(
    busy: int,
    settings: Callable[[int], dict[str, Any]],
    kind: type[Exception],
    text: str,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "ctq").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("TQ_SYSTEM", "texts")
    for name in ("TQ_ADDRESS", "TQ_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(kind) as raised:
        attach_or_start(settings(busy), True)
    assert type(raised.value) is kind
    assert text.replace("PORT", str(busy)) in str(raised.value)


@pytest.mark.parametrize("form", ["sync", "async"])
def test_a_strict_read_by_key_names_what_is_not_there(client: Any, pid: str, form: str) -> None:
    def read(keys: list[str], fields: list[str] | None = None, **options: Any) -> Any:
        if form == "sync":
            return transferq.kv_batch_get(keys, pid, fields, **options)
        return asyncio.run(transferq.async_kv_batch_get(keys, pid, fields, **options))

    transferq.kv_batch_put(["a", "b"], pid, {"x": torch.arange(2), "y": torch.arange(2)})
    transferq.kv_batch_put(["b"], pid, {"z": torch.arange(1)})
    assert read(["a", "c"]).batch_size == (1,)  # as upstream
    assert read(["a"], ["typo"]).batch_size == (0,)
    assert read(["b", "a"], ["x"], strict=True)["x"].tolist() == [1, 0]
    assert set(read(["b"], strict=True).keys()) == {"x", "y", "z"}
    for layout in (None, "padded"):
        with pytest.raises(transferq.errors.UnknownKeyError) as raised:
            read(["a", "c", "d"], ["x"], strict=True, layout=layout)
        assert (
            f"2 of 3 keys not found in partition '{pid}': ['c', 'd']; `tq ls '{pid}'` lists its keys"
            in str(raised.value)
        )
        with pytest.raises(transferq.errors.UnknownFieldError) as unknown:
            read(["a", "b"], ["x", "typo", "z"], strict=True, layout=layout)
        assert "unknown fields ['typo', 'z'], there are ['x', 'y']" in str(unknown.value)


def test_strict_metadata_names_what_is_not_there(client: Any, pid: str) -> None:
    meta = client.put({"x": torch.arange(2), "y": torch.arange(2)}, partition_id=pid)
    assert meta.select_fields(["x", "typo"]).field_names == ["x"]  # as upstream
    assert meta.select_fields(["x"], strict=True).field_names == ["x"]
    with pytest.raises(
        transferq.errors.UnknownFieldError,
        match=r"unknown fields \['typo'\], there are \['x', 'y'\]",
    ):
        meta.select_fields(["x", "typo"], strict=True)
    more = {"z": torch.arange(2)}
    client.put(more, metadata=meta, partition_id=pid, strict=True)
    client.put(more, metadata=meta, partition_id="other")  # as upstream
    with pytest.raises(
        transferq.errors.InvalidArgumentError, match=f"'other', but the samples .* in \\['{pid}'\\]"
    ):
        client.put(more, metadata=meta, partition_id="other", strict=True)


def test_the_metadata_of_a_claim_tells_the_groups(client: Any, pid: str) -> None:
    client.put({"x": torch.arange(3)}, partition_id=pid, groups=["a", None, "b"])
    meta = client.get_meta(["x"], 3, pid, task_name="t")
    assert meta.groups == ["a", None, "b"]
    assert meta[1:].groups == [None, "b"]
    assert transferq.BatchMeta([0], [pid]).groups == [None]


def test_messages_count_one_as_one(client: Any, pid: str) -> None:
    with pytest.raises(
        transferq.errors.TimedOutError, match=f"claim of 1 sample of partition '{pid}'"
    ):
        client.get_meta(["x"], 1, pid, task_name="t", timeout=0.01)
    meta = client.put({"x": torch.arange(1)}, partition_id=pid)
    with pytest.raises(transferq.errors.TimedOutError, match="the partition has 1 sample;"):
        client.get_meta(["x", "y"], 2, pid, task_name="t", timeout=0.01)
    with pytest.raises(transferq.errors.RowCountError, match="expected 1 row, one per sample"):
        client.put({"y": torch.arange(2)}, metadata=meta)
