"""The package without torch: NumPy in and out."""

from __future__ import annotations

from typing import Any

from elsewhere import python

PROGRAM = """
import sys
for name in ("torch", "tensordict", "ray"):
    sys.modules[name] = None
import numpy as np
import transferq

transferq.init()
client = transferq.get_client()
fields = {
    "dense": np.arange(6, dtype=np.float32).reshape(3, 2),
    "scalar": np.array([1, 2, 3]),
    "ragged": [np.arange(n, dtype=np.int16) for n in (2, 0, 3)],
    "text": ["a", {"b": np.float64(2)}, None],
    "view": np.arange(12).reshape(3, 4)[:, ::2],
}
meta = client.put(fields, partition_id="p")
claimed = client.get_meta(list(fields), 3, "p", task_name="t")
data = client.get_data(claimed)
assert type(data) is dict
for name in ("dense", "scalar", "view"):
    assert data[name].dtype == fields[name].dtype
    assert (data[name] == fields[name]).all()
    data[name][...] = 0
assert [row.tolist() for row in data["ragged"]] == [[0, 1], [], [0, 1, 2]]
assert data["text"] == ["a", {"b": 2.0}, None]
assert claimed.get_dtypes("dense") == [np.dtype("float32")] * 3
assert claimed.get_shapes("ragged") == [(2,), (0,), (3,)]
indexes, consumed = client.get_consumption_status("t", "p")
assert consumed.tolist() == [1, 1, 1]
assert client.check_consumption_status("t", "p")
transferq.kv_put("k", "kv", fields={"x": np.arange(3), "s": "text"})
got = transferq.kv_batch_get("k", "kv")
assert got["x"].tolist() == [[0, 1, 2]] and got["s"] == ["text"]
assert client.get_data(transferq.BatchMeta()) == {}
print(transferq.kv_batch_get("k", "shared") if len(sys.argv) > 1 else "fine")
transferq.close()
"""


def test_numpy_in_and_out(tq: Any) -> None:
    done = python(PROGRAM, TQ_SYSTEM="numpy-only")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine\n"


def test_torch_and_numpy_processes_share_data(tq: Any) -> None:
    import pytest

    torch = pytest.importorskip("torch")
    tq.kv_put(
        "k",
        "shared",
        fields={"x": torch.tensor([1.0, 2.0]), "half": torch.ones(1, dtype=torch.bfloat16)},
    )
    done = python(PROGRAM, "shared")
    assert done.returncode == 0, done.stderr
    assert "'x': array([[1., 2.]], dtype=float32)" in done.stdout
    assert "'half': array([[16256]], dtype=uint16)" in done.stdout
    data = tq.get_client().get_data(tq.get_client().get_meta(["ragged"], 3, "p", task_name="u"))
    assert [row.tolist() for row in data["ragged"].unbind()] == [[0, 1], [], [0, 1, 2]]
    for partition in ("p", "kv", "shared"):
        tq.get_client().clear_partition(partition)
