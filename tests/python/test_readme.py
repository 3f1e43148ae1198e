"""The example of the README runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

from elsewhere import python

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_example_runs(runtime_dir: Path) -> None:
    examples = re.findall(
        r"^```python\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert examples
    for example in examples:
        done = python(example)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    assert list(runtime_dir.iterdir()) == []
