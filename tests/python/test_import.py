"""The cost of importing the package, and what it imports."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from elsewhere import python

import transferq
from transferq import _core, errors


def test_import_is_fast_and_brings_no_heavy_modules() -> None:
    program = (
        # Processor time, so that a busy machine does not matter.
        "import sys, time; start = time.process_time(); import transferq; "
        "print(time.process_time() - start); print(*sys.modules)"
    )
    runs = [python(program) for _ in range(3)]
    assert [run.returncode for run in runs] == [0, 0, 0], runs[0].stderr
    seconds = min(float(run.stdout.splitlines()[0]) for run in runs)
    modules = set(runs[0].stdout.splitlines()[1].split())
    assert seconds < 0.15
    assert not modules & {"torch", "ray", "tensordict", "numpy", "yaml"}


def imports_at_the_top(path: Path, module: str, known: set[str]) -> set[str]:
    """The package's modules that a module imports when it is imported; imports for type checkers are left out."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            parts = module.split(".")
            parts = parts[: len(parts) - node.level + (path.name == "__init__.py")]
            base = ".".join([*parts, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= names & known
            if names - known and base != "transferq":  # its extensions, not itself
                found.add(base)
    return found & known


def test_modules_import_each_other_in_one_direction() -> None:
    root = Path(transferq.__file__).parent
    modules = {
        ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): path
        for path in root.rglob("*.py")
    }
    graph = {name: imports_at_the_top(path, name, set(modules)) for name, path in modules.items()}
    assert graph["transferq._impl.api"] > {"transferq.client", "transferq._impl.system"}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        (transferq.BatchMeta, "transferq.metadata"),
        (transferq.KVBatchMeta, "transferq.metadata"),
        (transferq.Config, "transferq.config"),
        (transferq.ControllerInfo, "transferq"),
        (transferq.SequentialSampler, "transferq.samplers"),
        (errors.StorageFullError, "transferq.errors"),
    ],
)
def test_pickles_name_public_modules(kind: type, where: str) -> None:
    """What one process pickles has to load in a process of another version, whose inner modules may differ."""
    assert f"c{where}\n{kind.__name__}\n".encode() in pickle.dumps(kind, 0)


def test_version_is_that_of_the_distribution() -> None:
    assert transferq.__version__ == _core.version
    assert tuple(int(part) for part in transferq.__version__.split(".")[:3]) >= (0, 1, 11)


def test_every_public_name_exists() -> None:
    assert [name for name in transferq.__all__ if not hasattr(transferq, name)] == []
    assert [name for name in errors.__all__ if not hasattr(errors, name)] == []


def test_error_classes_come_from_the_table() -> None:
    codes = {
        value.code: name
        for name, value in vars(_core).items()
        if isinstance(value, type) and issubclass(value, Exception) and value.code
    }
    assert sorted(codes) == list(range(-len(codes), 0))
    assert set(codes.values()) <= set(errors.__all__)
    assert issubclass(errors.StorageFullError, errors.TransferQueueError)
    assert issubclass(errors.StorageFullError, RuntimeError)
    assert issubclass(errors.TimedOutError, TimeoutError)
    assert issubclass(errors.ClearedError, transferq.StorageKeyNotFoundError)
    assert issubclass(transferq.StorageKeyNotFoundError, KeyError)
    assert str(errors.ClearedError("sample 0 was 'cleared'")) == "sample 0 was 'cleared'"


def test_exiting_without_close_is_clean() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "dev",
            "-c",
            "import transferq; transferq.close(); transferq.close()",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
