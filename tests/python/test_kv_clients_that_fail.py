"""Clients of key-value stores that fail, or do not return."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import transferq
from support.kv_stores import started
from transferq.errors import (
    InputOutputError,
    StorageFullError,
)
from transferq.storage import StorageClientFactory, StorageKVClient, memory

values: dict[str, Any] = {}
"""The data of the client below."""


@pytest.fixture(autouse=True)
def ended(runtime_dir: Path) -> Iterator[None]:
    """End the test's system, which no other process sees."""
    yield
    transferq.close()


@StorageClientFactory.register("BrokenStore")
class BrokenStore(StorageKVClient):
    """Fails on request."""

    failure: BaseException | None = None
    answer: ClassVar[Any] = [True]  # too few or too many answers

    def put_from(self, keys: list[str], pointers: list[list[int]], sizes: list[list[int]]) -> None:
        if self.failure is not None:
            raise self.failure
        for key, pieces, lengths in zip(keys, pointers, sizes, strict=True):
            values[key] = b"".join(map(bytes, map(memory, pieces, lengths)))

    def get_into(self, keys: list[str], pointers: list[int], sizes: list[int]) -> Any:
        if self.failure is not None:
            return self.answer
        for key, pointer, size in zip(keys, pointers, sizes, strict=True):
            if key in values:
                memory(pointer, size)[:] = values[key]
        return [key in values for key in keys]

    def remove(self, keys: list[str]) -> list[bool]:
        return [values.pop(key, None) is not None for key in keys]


@pytest.mark.slow
def test_errors_have_their_class() -> None:
    """The caller gets the client's exception, with the store's name; nothing is left behind."""
    started("BrokenStore", client_timeout=2)
    try:
        BrokenStore.failure = OSError("disk on fire")
        with pytest.raises(InputOutputError, match=r"BrokenStore\.put_from: OSError: disk on fire"):
            transferq.kv_put("k", "p", {"x": np.zeros(3)})
        BrokenStore.failure = StorageFullError("no room")
        with pytest.raises(StorageFullError, match="no room"):
            transferq.get_client().put({"x": np.zeros((2, 3))}, partition_id="p")
        assert transferq.kv_list() == {}
        BrokenStore.failure = None
        many = {f"f{i}": np.zeros((2, 70_000)) for i in range(3)}
        meta = transferq.get_client().put(many, partition_id="p")
        BrokenStore.failure = OSError()
        with pytest.raises(InputOutputError, match="expected one bool for each of"):
            transferq.get_client().get_data(meta)
        some = meta.select_samples([0]).select_fields(["f0"])
        for answer, expected in ((7, "one bool for each of 1 keys, got 7"), ("y", "True or False")):
            BrokenStore.answer = answer
            with pytest.raises(InputOutputError, match=rf"BrokenStore\.get_into: .*{expected}"):
                transferq.get_client().get_data(some)
        with pytest.raises(InputOutputError, match=r"for key 'tq/.*', got 'y'"):
            transferq.get_client().get_data(some)
    finally:
        BrokenStore.failure = None
        BrokenStore.answer = [True]


@pytest.mark.slow
def test_closing_while_a_client_blocks(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A call that cannot be stopped is waited for only briefly; when it returns, the client is closed after all."""
    begun, goes_on, closed = threading.Event(), threading.Event(), threading.Event()
    remove = BrokenStore.remove

    def blocks(self: BrokenStore, keys: list[str]) -> list[bool]:
        begun.set()
        assert goes_on.wait(60)
        return remove(self, keys)

    monkeypatch.setattr(BrokenStore, "remove", blocks)
    monkeypatch.setattr(BrokenStore, "close", lambda self: closed.set())
    values.clear()
    started("BrokenStore")
    transferq.kv_put("k", "p", {"x": np.zeros(3)})
    transferq.kv_clear(["k"], "p")
    assert begun.wait(60)
    transferq.close()
    assert not goes_on.is_set() and not closed.is_set()
    assert "its storage has not ended its work 5 s after close" in capfd.readouterr().err
    goes_on.set()
    assert closed.wait(60)
    assert not values
