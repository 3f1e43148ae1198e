"""The stub of the extension describes the extension: the same names, and the same entries of its named tuples."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import transferq
from transferq import _core
from transferq._impl.column import Column, Layout

STUB = ast.parse((Path(transferq.__file__).parent / "_core.pyi").read_text())
CLASSES = {node.name: node for node in STUB.body if isinstance(node, ast.ClassDef)}
TUPLES = ["DataColumn", "MetaField"]


def names_in(body: list[ast.stmt]) -> set[str]:
    found: set[str] = set()
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return {name for name in found if not name.startswith("_")}


def test_the_module_has_the_names_of_the_stub() -> None:
    public = {name for name in vars(_core) if not name.startswith("_")}
    assert public == names_in(STUB.body)


@pytest.mark.parametrize("name", ["Buffer", "Client", "Data", "Left", "Meta", "Op", "Queue"])
def test_classes_have_the_members_of_the_stub(name: str) -> None:
    public = {member for member in vars(getattr(_core, name)) if not member.startswith("_")}
    assert public == names_in(CLASSES[name].body)


@pytest.mark.parametrize("name", TUPLES)
def test_named_tuples_have_the_entries_of_the_stub_in_its_order(name: str) -> None:
    entries = [
        node.target.id
        for node in CLASSES[name].body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    made = getattr(_core, name)(range(len(entries)))
    assert [getattr(made, entry) for entry in entries] == list(range(len(entries)))
    assert made.n_fields == len(entries)
    assert all(getattr(getattr(made.__class__, entry), "__doc__", "") for entry in entries)


def test_reads_and_metadata_are_described_by_name(client: Any) -> None:
    np = pytest.importorskip("numpy")
    meta = client.put({"x": np.arange(6, dtype=np.int32).reshape(2, 3)}, partition_id="p")
    (field,) = meta._pieces[0].fields
    assert (field.name, field.kind, field.bits, field.shape) == ("x", _core.TENSOR, 32, (3,))
    assert bytes(field.ready) == b"\1\1"
    (column,) = client._core.get(meta._pieces[0], ["x"]).result().columns
    assert (column.name, column.bits, column.ragged, column.notes) == ("x", 32, False, None)
    assert memoryview(column.offsets).tolist() == [0, 12, 24]
    assert bytes(column.data) == np.arange(6, dtype=np.int32).tobytes()


def test_columns_and_layouts_to_pass_are_tuples_for_the_extension(client: Any) -> None:
    data = bytes(range(4))
    column = Column("x", _core.TENSOR, 1, 8, 2, (2,), None, None, [data])
    meta = client._core.put(partition="p", n=2, columns=[column]).result()
    layout = Layout("x", True, 3, 1, 1, 8, b"\7", 0, 0)
    (read,) = client._core.get(meta, ["x"], [layout]).result().columns
    assert read.length == 3
    assert bytes(read.data)[:6] == bytes([0, 1, 7, 2, 3, 7])
    with pytest.raises(TypeError, match="a column is"):
        client._core.put(partition="p", n=2, columns=[column[:5]])
