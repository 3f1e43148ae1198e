"""`import ctq`, the package's former name, gives the same objects as `import transferq`."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from elsewhere import python

import transferq

with pytest.warns(DeprecationWarning, match="import transferq"):
    # Only the first import in a process warns; another test module may have had it.
    sys.modules.pop("ctq", None)
    import ctq

MODULES = [
    *("client", "config", "errors", "metadata", "samplers", "storage", "streaming", "host", "ray"),
    *("_core", "storage.kv", "storage.manager", "storage.mooncake"),
]
MOVED = {
    "system": "_impl.system",
    "tensors": "_impl.tensors",
    "_calls": "_impl.calls",
    "by_key": "client.by_key",
    "ray_actor": "ray.actor",
    "ray_cluster": "ray.cluster",
    "storage.ray_records": "storage.ray.records",
}
"""Modules that had another place when the package had its former name."""


def test_the_package_is_the_same() -> None:
    assert ctq is transferq
    assert ctq.__version__ == transferq.__version__


@pytest.mark.parametrize("name", [*MODULES, *MOVED])
def test_modules_are_the_same(name: str) -> None:
    if name == "streaming":
        pytest.importorskip("torch")
    new = MOVED.get(name, name)
    done = python(
        f"import ctq.{name}, transferq.{new}; from ctq.{name} import __doc__\n"
        f"assert ctq.{name} is transferq.{new}\n"
        f"assert ctq.{name}.__name__ == ctq.{name}.__spec__.name == 'transferq.{new}'\n"
    )
    assert done.returncode == 0, done.stderr


def test_whichever_name_comes_first_makes_the_module() -> None:
    done = python(
        "from ctq.storage.kv import memory; from ctq.errors import StorageFullError as former\n"
        "import transferq.storage.kv, transferq.errors\n"
        "assert transferq.storage.kv.memory is memory\n"
        "assert transferq.errors.StorageFullError is transferq.StorageFullError is former\n"
    )
    assert done.returncode == 0, done.stderr


def test_unknown_modules_are_named_as_they_were_imported() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'ctq\.nothing'"):
        import ctq.nothing  # noqa: F401


def test_it_imports_no_more_than_the_package() -> None:
    done = python("import sys, ctq; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & {"torch", "ray", "tensordict", "numpy", "yaml"}


def test_one_warning_that_names_the_importing_file(tmp_path: Path) -> None:
    user = tmp_path / "user.py"
    user.write_text("import ctq\nimport ctq.errors\nfrom ctq import metadata\n")
    done = subprocess.run(
        [sys.executable, "-W", "always", user], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("DeprecationWarning") == 1
    assert f"{user}:1: DeprecationWarning" in done.stderr
    assert "write `import transferq`" in done.stderr


def test_reloading() -> None:
    done = python(
        "import importlib, ctq, ctq.config\n"
        "assert importlib.reload(ctq.config) is ctq.config\n"
        "assert importlib.reload(ctq) is ctq\n"
        "import transferq, transferq.config\n"
        "assert ctq is transferq and ctq.config is transferq.config\n"
        "assert ctq.errors.TimedOutError is transferq.TimedOutError\n"
    )
    assert done.returncode == 0, done.stderr


# As pickle wrote them under the former name: class BatchMeta and KVBatchMeta, and an object of each.
CLASSES = {
    b"cctq.metadata\nBatchMeta\n.": transferq.BatchMeta,
    b"cctq.kv_metadata\nKVBatchMeta\n.": transferq.KVBatchMeta,
    b"cctq.config\nConfig\n.": transferq.Config,
    b"cctq.samplers\nSequentialSampler\n.": transferq.SequentialSampler,
    b"cctq.system\nControllerInfo\n.": transferq.ControllerInfo,
    b"cctq._core\nStorageFullError\n.": transferq.StorageFullError,
}


@pytest.mark.parametrize("payload", CLASSES, ids=lambda payload: payload.split(b"\n")[1].decode())
def test_pickled_classes_load(payload: bytes) -> None:
    assert pickle.loads(payload) is CLASSES[payload]


@pytest.mark.parametrize(
    "value",
    [
        transferq.BatchMeta.empty(),
        transferq.KVBatchMeta(["a"], [{"n": 1}], "train"),
        transferq.ControllerInfo("127.0.0.1:1", None),
        transferq.Config({"a": {"b": 1}}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pickled_objects_load(value: object) -> None:
    # Protocol 2 writes the names of classes as text, without lengths.
    payload = pickle.dumps(value, 2).replace(b"ctransferq", b"cctq")
    assert b"transferq" not in payload
    loaded = pickle.loads(payload)
    assert type(loaded) is type(value)
    assert pickle.dumps(loaded) == pickle.dumps(value)


def test_pickles_load_where_nothing_was_imported() -> None:
    payload = pickle.dumps(transferq.Config({"a": 1}), 2).replace(b"ctransferq", b"cctq")
    done = python(f"import pickle; print(type(pickle.loads({payload!r})))")
    assert done.stdout == "<class 'transferq.config.Config'>\n", done.stderr


def test_spawned_processes(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import multiprocessing\n"
        "import ctq\n"
        "from ctq.errors import TimedOutError\n"
        "def child(config):\n"
        "    import transferq\n"
        "    assert ctq is transferq and isinstance(config, ctq.Config)\n"
        "    raise TimedOutError('from the child')\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        try:\n"
        "            pool.apply(child, [ctq.Config({'a': 1})])\n"
        "        except TimedOutError as error:\n"
        "            print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "from the child\n", done.stderr


def test_run_as_a_module() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-m", f"{name}.host", "--help"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        for name in ("transferq", "ctq")
    ]
    assert runs[0].stdout
    assert (runs[0].returncode, runs[0].stdout) == (runs[1].returncode, runs[1].stdout)


@pytest.mark.skipif(
    type(transferq.__loader__).__module__ == "_transferq_editable_loader",
    reason="an editable installation (make dev) is looked at before the path",
)
def test_another_package_of_that_name_wins_if_it_comes_first(tmp_path: Path) -> None:
    (tmp_path / "ctq").mkdir()
    (tmp_path / "ctq" / "__init__.py").write_text("whose = 'another'\n")
    done = python(
        "import ctq, transferq; print(ctq.whose)\nimport ctq.errors", PYTHONPATH=str(tmp_path)
    )
    assert done.stdout == "another\n", done.stderr
    assert "No module named 'ctq.errors'" in done.stderr


def test_a_function_sent_to_ray() -> None:
    cloudpickle = pytest.importorskip("ray.cloudpickle")

    def task() -> bool:
        import transferq as new

        return ctq is new and ctq.errors.TimedOutError is new.errors.TimedOutError

    payload = cloudpickle.dumps(task)
    done = python(f"import pickle; print(pickle.loads({payload!r})())")
    assert done.stdout == "True\n", done.stderr


def test_threads_that_import_it_at_the_same_time_find_everything() -> None:
    done = python(
        "import threading\n"
        "start, found = threading.Barrier(8), []\n"
        "def work():\n"
        "    start.wait()\n"
        "    import ctq\n"
        "    from ctq import KVBatchMeta\n"
        "    found.append(ctq.KVBatchMeta is KVBatchMeta)\n"
        "threads = [threading.Thread(target=work) for _ in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "assert found == [True] * 8, found\n"
    )
    assert done.returncode == 0, done.stderr
