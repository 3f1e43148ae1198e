"""What every client of a key-value store must do, tested on the bare client: in C, in Python, in both forms."""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from transferq.storage import StorageClientFactory
from transferq.storage.kv import POINTER_FORM, VALUE_FORM, has_form

from .backend import Backend, built
from .backends import BACKENDS

Store = Callable[[], Any]


@pytest.mark.needs("kv", "in c")
def test_in_c(opened: Backend) -> None:
    """The program tests/conformance/kv_client.c, whose every test must pass."""
    section = opened.section()
    done = subprocess.run(
        [
            built("tests", "conformance", "kv_client"),
            opened.type,
            section.pop("library", "-"),
            json.dumps(section),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "partial" in done.stdout
    assert opened.stored() == 0


@pytest.fixture
def store(opened: Backend) -> Iterator[Store]:
    """Makes clients of the class registered by the backend's module."""
    made: list[Any] = []

    def make() -> Any:
        opened.register()
        made.append(StorageClientFactory.create(opened.type, opened.section()))
        return made[-1]

    yield make
    for client in made:
        client.close()


def pieces_of(value: np.ndarray, cuts: int) -> tuple[list[int], list[int]]:
    """Addresses and sizes of the pieces that a value is cut into."""
    each = len(value) // cuts
    sizes = [each] * (cuts - 1) + [len(value) - each * (cuts - 1)]
    starts = [value.ctypes.data + sum(sizes[:i]) for i in range(cuts)]
    return starts, sizes


def moves(client: Any, first: int, sizes: list[int]) -> None:
    """Values in, out, and removed; missing ones are reported."""
    keys = [f"tq/c0ffee/{first + i:x}" for i in range(len(sizes))]
    values = [(np.arange(size) * 7 + first + i).astype(np.uint8) for i, size in enumerate(sizes)]
    cut = [pieces_of(value, min(3, len(value))) for value in values]
    for _ in range(2):  # a repeat is not an error
        client.put_from(keys, [pointers for pointers, _ in cut], [lengths for _, lengths in cut])
    got = [np.zeros(size + 1, dtype=np.uint8) for size in sizes]
    pointers = [one.ctypes.data for one in got]
    assert list(client.get_into(keys, pointers, sizes)) == [True] * len(keys)
    for value, one in zip(values, got, strict=True):
        assert np.array_equal(one[:-1], value)
        assert one[-1] == 0  # nothing is written past its end
    half = len(keys) // 2
    assert list(client.remove(keys[:half])) == [True] * half
    there = [False] * half + [True] * (len(keys) - half)
    assert list(client.get_into(keys, pointers, sizes)) == there
    assert list(client.remove(keys)) == there


@pytest.mark.needs("kv", "by pointer")
def test_pointer_form(opened: Backend, store: Store) -> None:
    """put_from, get_into and remove, of small and large values, of none, and from several threads."""
    client, other = store(), store()
    assert has_form(type(client), POINTER_FORM)
    assert client.name == other.name
    assert 0 < len(client.name) <= 200
    limit = client.value_max or 5_000_000
    moves(client, 0, [min(size, limit) for size in (1, 2, 7, 4096, 65_536, 262_145, 5_000_000)])
    moves(client, 100, [64] * 200)
    key = ["tq/c0ffee/" + "a" * 53]
    value = np.arange(100, dtype=np.uint8)
    client.put_from(key, [[value.ctypes.data]], [[100]])
    got = (ctypes.c_uint8 * 100)()
    assert list(other.get_into(key, [ctypes.addressof(got)], [100])) == [True]
    assert bytes(got) == value.tobytes()
    assert list(other.remove(key)) == [True]
    assert list(client.get_into(key, [ctypes.addressof(got)], [100])) == [False]
    many = np.arange(40_000, dtype=np.uint8)  # split into thousands of pieces
    starts = [many.ctypes.data + 8 * i for i in range(5000)]
    key = ["tq/c0ffee/b"]
    client.put_from(key, [starts], [[8] * 5000])
    large = (ctypes.c_uint8 * 40_000)()
    assert list(other.get_into(key, [ctypes.addressof(large)], [40_000])) == [True]
    assert bytes(large) == many.tobytes()
    assert list(client.remove(key)) == [True]
    with ThreadPoolExecutor(4) as pool:
        for each in [
            pool.submit(moves, client, 1000 * (1 + i), [1 + 997 * j for j in range(20)])
            for i in range(8)
        ]:
            each.result()
    assert opened.stored() == 0


@pytest.mark.needs("kv", "by value")
def test_value_form(opened: Backend, store: Store) -> None:
    """put, get and clear, of tensors and of objects, overwritten and from several threads."""
    client, other = store(), store()
    assert has_form(type(client), VALUE_FORM)
    values = {
        "t": torch.arange(10.0),
        "empty": torch.zeros(0),
        "large": torch.arange(1_000_000),
        "bf16": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        "zero": torch.tensor(5),
        "text": "ünïcode",
        "map": {"a": [1, None], "t": torch.ones(2)},
    }
    keys = [f"c0ffee/{name}" for name in values]

    def read(one: Any, notes: Any) -> list[Any]:
        tensors = [value if isinstance(value, torch.Tensor) else None for value in values.values()]
        shapes = [None if tensor is None else tuple(tensor.shape) for tensor in tensors]
        dtypes = [None if tensor is None else tensor.dtype for tensor in tensors]
        found: list[Any] = one.get(keys, shapes, dtypes, notes)
        return found

    for _ in range(2):
        notes = client.put(keys, list(values.values()))
        assert notes is None or len(notes) == len(keys)
        for one in (client, other):
            for value, got in zip(values.values(), read(one, notes), strict=True):
                if isinstance(value, torch.Tensor):
                    assert got.dtype == value.dtype
                    assert torch.equal(got, value)
                elif isinstance(value, dict):
                    assert got["a"] == value["a"]
                    assert torch.equal(got["t"], value["t"])
                else:
                    assert got == value
    client.clear(keys, custom_backend_meta=notes)
    client.clear(keys, custom_backend_meta=notes)  # missing keys are not an error
    assert read(other, notes) == [None] * len(keys)

    def many(number: int) -> None:
        mine = [f"c0ffee/{number}-{i}" for i in range(20)]
        noted = client.put(mine, [torch.full((50,), number + i) for i in range(20)])
        got = client.get(mine, [(50,)] * 20, [torch.int64] * 20, noted)
        assert [int(tensor[49]) for tensor in got] == [number + i for i in range(20)]
        client.clear(mine, custom_backend_meta=noted)

    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(many, 100 * i) for i in range(8)]:
            each.result()
    assert opened.stored() == 0


def test_every_client_is_tried() -> None:
    """A backend with a client has exactly one of the forms above."""
    forms = {"in c", "by pointer", "by value"}
    for name, backend in BACKENDS.items():
        assert len(forms & backend.can) == ("kv" in backend.can), name
