"""The cost of importing the package, and what it imports."""

from __future__ import annotations

import subprocess
import sys

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
