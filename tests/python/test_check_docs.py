"""tools/check_docs.py: tables in pages."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from check_docs import broken_tables  # noqa: E402

GOOD = """# A page

  | one | two |
  | --- | :-: |
  | a | b |

```
| --- | on one line | in code
```
"""


def test_a_table_that_ran_together_is_found(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(GOOD)
    assert broken_tables(tmp_path) == []
    (tmp_path / "README.md").write_text(GOOD + "\n| one | two | | --- | --- | | a | b |\n")
    assert broken_tables(tmp_path) == ["README.md:11: the rows of a table on one line"]


def test_the_command_fails_for_it(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("| one | | --- | | a |\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "check_docs.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "README.md:1: the rows of a table on one line" in done.stdout
