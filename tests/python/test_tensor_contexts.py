"""Tensors that were read, in various contexts: compilers, loaders, other processes, files, and whole TensorDicts."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tensordict import TensorDict, lazy_stack, pad_sequence

from support.tensor_forms import FORMS, Batch
from support.tensor_outcomes import TALLY, difference, outcome

BY_NAME = {form.name: form for form in FORMS}
JAGGED = BY_NAME["jagged"]
USED = ["jagged", "jagged, ragged dim 2", "jagged, zero-copy", "dense", "padded"]


@pytest.fixture(params=USED)
def form(request: pytest.FixtureRequest) -> Any:
    """Each of the forms that are different for a TensorDict."""
    return BY_NAME[request.param]


@pytest.fixture
def read(tq: Any, pid: str, form: Any) -> Callable[[], Batch]:
    """Reads the batch of a form again."""
    keys = form.put(tq, "many rows", pid)
    return lambda: form.get(tq, keys, pid)


TENSORDICTS: dict[str, Callable[[Any], Any]] = {
    "td[0]": lambda td: td[0],
    "td[-1]": lambda td: td[-1],
    "td[1:3]": lambda td: td[1:3],
    "td[[0, 2]]": lambda td: td[[0, 2]],
    "td[mask]": lambda td: td[td["one"] > 2],
    "td[tensor]": lambda td: td[torch.tensor([2, 0])],
    "td[...]": lambda td: td[...],
    "td['x', ]": lambda td: td[("x",)],
    "unbind": lambda td: td.unbind(0),
    "split": lambda td: td.split(2),
    "chunk": lambda td: td.chunk(2),
    "cat": lambda td: torch.cat([td, td]),
    "stack": lambda td: torch.stack([td, td]),
    "lazy_stack": lambda td: lazy_stack([td, td.clone()]),
    "gather": lambda td: td.gather(0, torch.tensor([1, 0])),
    "index_select": lambda td: td.index_select(0, torch.tensor([1, 0])),
    "to(float64)": lambda td: td.to(torch.float64),
    "to(cpu)": lambda td: td.to("cpu"),
    "to(meta)": lambda td: td.to("meta"),
    "cpu": lambda td: td.cpu(),
    "clone": lambda td: td.clone(),
    "clone, shallow": lambda td: td.clone(recurse=False),
    "contiguous": lambda td: td.contiguous(),
    "detach": lambda td: td.detach(),
    "apply": lambda td: td.apply(lambda each: each * 2),
    "apply in place": lambda td: td.apply_(lambda each: each.zero_()),
    "td + 1": lambda td: td.select("x", "f") + 1,
    "td * td": lambda td: td.select("x", "f") * td.select("x", "f"),
    "select": lambda td: td.select("x", "one"),
    "exclude": lambda td: td.exclude("x"),
    "rename_key_": lambda td: td.rename_key_("x", "z"),
    "set": lambda td: td.set("z", td["x"] + 1),
    "update": lambda td: td.update({"x": td["y"]}),
    "pop": lambda td: (td.pop("x"), td),
    "empty": lambda td: td.empty(),
    "to_dict": lambda td: td.to_dict(),
    "keys, items": lambda td: sorted(td.keys()) and [td.get(name) for name in sorted(td.keys())],
    "flatten_keys": lambda td: TensorDict({"a": td}, batch_size=td.batch_size).flatten_keys("."),
    "lock_": lambda td: td.lock_().is_locked,
    "view": lambda td: td.view(-1),
    "reshape": lambda td: td.reshape(-1),
    "unsqueeze": lambda td: td.unsqueeze(0),
    "expand": lambda td: td.expand(2, *td.batch_size),
    "permute": lambda td: td.permute(0),
    "masked_select": lambda td: td.masked_select(td["one"] > 2),
    "names": lambda td: (td.names, td.device, td.batch_size, td.requires_grad, td.is_memmap(), td.is_shared()),
    "share_memory_": lambda td: td.share_memory_().is_shared(),
    "pin_memory": lambda td: td.pin_memory(),
    "consolidate": lambda td: td.consolidate(),
    "pickle": lambda td: pickle.loads(pickle.dumps(td)),
    "state_dict": lambda td: sorted(td.state_dict()),
    "save": lambda td: _saved(td),  # noqa: PLW0108  defined below
    "zero_": lambda td: td.zero_(),
    "td == td": lambda td: td.select("x") == td.select("x"),
    "isfinite": lambda td: td.select("x").isfinite(),
    "bytes": lambda td: td.bytes(),
    "numel": lambda td: (td.numel(), len(td), td.ndim, td.shape),
    "pad_sequence": lambda td: pad_sequence([TensorDict({"x": row}) for row in td["x"].unbind()]),
    "iteration": lambda td: list(td.select("one", "x")),
    "repr": lambda td: len(repr(td.select("one"))),
}  # fmt: skip


def _saved(td: Any) -> Any:
    file = io.BytesIO()
    torch.save(td, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.filterwarnings("ignore")
def test_tensordicts(form: Any, tq: Any, pid: str) -> None:
    """The whole batch, as the TensorDict of a read, and as one made of torch's own tensors."""
    keys = form.put(tq, "many rows", pid)
    found: dict[str, str | None] = {}
    for name, operation in TENSORDICTS.items():
        expected = outcome(operation, form.make("many rows").td)
        actual = outcome(operation, form.read(tq, keys, pid))
        found[f"TensorDict: {name}"] = difference(expected, actual)
    TALLY.add(form.name, found)
    differing = [f"{name}: {why}" for name, why in found.items() if why is not None]
    assert not differing, "\n".join(differing)


# --- compilers ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["jagged", "dense"], indirect=True)
def test_compiled_functions(read: Callable[[], Batch], form: Any) -> None:
    """Traced like torch's own: further batches need no new graph."""

    def loss(x: Any, y: Any) -> Any:
        return (x.sin() * y).sum(-1) * 2

    def traced(make: Callable[[], Batch]) -> tuple[int, list[Any]]:
        graphs: list[Any] = []

        def backend(graph: Any, inputs: Any) -> Any:
            graphs.append(graph)
            return graph.forward

        torch._dynamo.reset()
        compiled = torch.compile(loss, backend=backend, fullgraph=True)
        made = [outcome(lambda b: compiled(b.x, b.y), make()) for _ in range(3)]
        torch._dynamo.reset()
        return len(graphs), made

    graphs, expected = traced(lambda: form.make("many rows"))
    assert graphs == 1
    again, actual = traced(read)
    assert again == 1
    assert not any(map(difference, expected, actual))


# --- memory, files and processes ------------------------------------------------------------------


def test_memory_is_aligned_and_each_columns_own(read: Callable[[], Batch]) -> None:
    batch = read()
    columns = [each._values if each.is_nested else each for each in batch]
    for column in columns:
        assert column.data_ptr() % 64 == 0 or column.data_ptr() % column.element_size() == 0
        assert column.untyped_storage().nbytes() == column.nbytes
        assert column.storage_offset() == 0
    places = [(each.data_ptr(), each.nbytes) for each in columns if each.nbytes]
    ends = sorted((start, start + size) for start, size in places)
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))


def test_files_hold_no_more_than_the_tensor(read: Callable[[], Batch], form: Any) -> None:
    batch, own = read(), form.make("many rows")
    for name in Batch._fields:
        sizes = []
        for column in (getattr(batch, name), getattr(own, name)):
            file = io.BytesIO()
            torch.save(column, file)
            sizes.append((len(pickle.dumps(column)), file.tell()))
        (pickled, saved), (own_pickled, own_saved) = sizes
        assert abs(pickled - own_pickled) < 256, name
        assert abs(saved - own_saved) < 1024, name


@pytest.mark.parametrize("form", ["dense"], indirect=True)
def test_memory_that_torch_did_not_allocate_cannot_grow(read: Callable[[], Batch]) -> None:
    """The only remaining difference: it behaves like a tensor over a NumPy array."""
    one = read().one
    with pytest.raises(RuntimeError, match="not resizable"):
        one.resize_(100)
    assert one.resize_(2).tolist() == [1, 2]


def _double(queue: Any, back: Any) -> None:
    for tensor in iter(queue.get, None):
        back.put(tensor * 2)


@pytest.mark.slow
def test_tensors_go_to_other_processes(tq: Any, pid: str) -> None:
    """A spawned child computes with them."""
    keys = JAGGED.put(tq, "many rows", pid)
    batch = JAGGED.get(tq, keys, pid)
    context = torch.multiprocessing.get_context("spawn")
    queue, back = context.Queue(), context.Queue()
    child = context.Process(target=_double, args=(queue, back), daemon=True)
    child.start()
    try:
        for tensor in (batch.one, batch.x.values().clone(), batch.ids.offsets()):
            queue.put(tensor)
            assert torch.equal(back.get(timeout=100), tensor * 2)
    finally:
        queue.put(None)
        child.join(60)
    assert child.exitcode == 0


class Rows(torch.utils.data.Dataset[Any]):
    """Rows of a batch that was read, one item each."""

    def __init__(self, batch: Batch) -> None:
        self.rows = [dict(zip(("x", "ids"), each, strict=True))
                     for each in zip(batch.x.unbind(), batch.ids.unbind(), strict=True)]  # fmt: skip

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Any:
        return self.rows[place]


def as_jagged(rows: list[Any]) -> Any:
    return {name: torch.nested.nested_tensor([row[name] for row in rows], layout=torch.jagged)
            for name in rows[0]}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_loaders(tq: Any, pid: str, workers: int) -> None:
    """Rows of a read, collated in this process and in workers of a data loader."""
    keys = JAGGED.put(tq, "many rows", pid)

    def load(batch: Batch) -> Iterator[Any]:
        loader = torch.utils.data.DataLoader(
            Rows(batch), batch_size=3, num_workers=workers, timeout=100 if workers else 0,
            collate_fn=as_jagged if not workers else list,
        )  # fmt: skip
        yield from loader

    expected = [
        outcome(lambda _, part=part: part, _Nothing()) for part in load(JAGGED.make("many rows"))
    ]
    actual = [
        outcome(lambda _, part=part: part, _Nothing()) for part in load(JAGGED.get(tq, keys, pid))
    ]
    assert len(expected) == len(actual) == 2
    for one, other in zip(expected, actual, strict=True):
        assert difference(one, other) is None


class _Nothing:
    x = None


def test_memory_mapped_tensordicts(tq: Any, pid: str, tmp_path: Path) -> None:
    form = BY_NAME["dense"]
    keys = form.put(tq, "many rows", pid)
    form.read(tq, keys, pid).memmap(tmp_path / "td")
    loaded = TensorDict.load_memmap(tmp_path / "td")
    own = form.make("many rows")
    assert all(torch.equal(loaded[name], getattr(own, name)) for name in Batch._fields)
