"""Tags are read by anyone who lists samples: none of them is a pickle, and a forged one is never loaded."""

from __future__ import annotations

import pickle
from array import array
from pathlib import Path
from typing import Any

import msgpack
import pytest
import torch

from transferq._impl.encoding import CLOUDPICKLE, OUT_OF_BAND, PICKLE
from transferq.errors import SerializationError


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        """Leaves nothing yet."""
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def put_raw(client: Any, key: str, pid: str, value: bytes) -> None:
    """Put a tag as a client that speaks the protocol itself would."""
    tags = [("evil", value, array("I", [len(value)]))]
    client._core.put(partition=pid, keys=[key], tags=tags).result()


def pickles(mark: Path) -> dict[str, bytes]:
    """A trap in every form of value that unpickles."""
    trap = pickle.dumps(Trap(mark), protocol=5)
    packed = {
        "pickle": msgpack.ExtType(PICKLE, trap),
        "cloudpickle": msgpack.ExtType(CLOUDPICKLE, trap),
        "with buffers": msgpack.ExtType(OUT_OF_BAND, msgpack.packb([trap, []])),
        "in a map": {"a": [msgpack.ExtType(PICKLE, trap)]},
    }
    return {name: msgpack.packb(value) for name, value in packed.items()}


def refused(look: Any, *args: Any) -> None:
    """Reading tags that cannot be decoded is an error that says why."""
    with pytest.raises(SerializationError, match="tags are never unpickled"):
        look(*args)


@pytest.mark.parametrize("form", ["pickle", "cloudpickle", "with buffers", "in a map"])
def test_a_pickle_in_a_tag_is_never_loaded(
    tq: Any, client: Any, pid: str, tmp_path: Path, form: str
) -> None:
    """Neither listed, nor claimed, nor read without a claim, nor after loading a checkpoint."""
    mark = tmp_path / "mark"
    tq.kv_put("good", pid, {"x": torch.arange(3)}, {"v": 1})
    tq.kv_put("bad", pid, {"x": torch.arange(3)})
    put_raw(client, "bad", pid, pickles(mark)[form])
    tq.save_checkpoint(tmp_path / "saved", partition_id=pid)
    tq.load_checkpoint(tmp_path / "saved")
    refused(tq.kv_list, pid)
    refused(lambda: client.get_meta(["x"], 2, pid, mode="force_fetch").custom_meta)
    claimed = client.get_meta(["x"], 2, pid, task_name="t")
    refused(lambda: claimed.custom_meta)
    # Data can still be read, and without that sample the rest can be listed.
    assert client.get_data(claimed, layout="dense")["x"].tolist() == [[0, 1, 2]] * 2
    tq.kv_clear(["bad"], pid)
    assert tq.kv_list(pid) == {pid: {"good": {"v": 1}}}
    assert not mark.exists()


def test_an_object_in_a_tag_is_refused_where_it_is_put(
    tq: Any, client: Any, pid: str, tmp_path: Path
) -> None:
    """In every call that takes tags; nothing is stored, not even in another partition."""
    trap = Trap(tmp_path / "mark")
    says = "tag odd.*a value of type .*Trap can only be stored by pickling it, which tags never are"
    tq.kv_batch_put(["a", "b"], pid, {"x": torch.arange(2)}, [{"v": 1}, {"v": 2}])
    before = tq.kv_list(pid)

    def put_with(meta: Any) -> None:
        meta.update_custom_meta([{}, {"odd": trap}])
        client.put({"y": torch.arange(2)}, metadata=meta)

    def set_with(meta: Any) -> None:
        meta.update_custom_meta([{}, {"odd": [trap]}])
        client.set_custom_meta(meta)

    def look() -> Any:
        return client.get_meta(["x"], 2, pid, mode="force_fetch")

    for call, args in (
        (tq.kv_put, ("c", pid, {"x": torch.tensor(1)}, {"odd": trap})),
        (tq.kv_put, ("c", pid, None, {"odd": trap})),
        (tq.kv_batch_put, (["c", "d"], pid, None, [{"v": 1}, {"odd": {"deep": [trap]}}])),
        (put_with, (look(),)),
        (set_with, (look(),)),
    ):
        with pytest.raises(SerializationError, match=says):
            call(*args)
    assert tq.kv_list(pid) == before
    assert look().field_names == ["x"]
