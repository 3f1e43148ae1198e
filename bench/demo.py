"""The async demo (examples/async_demo.py), the same script on both sides: time per step, and the queue's share of it."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench.subjects import ROOT, SubjectError


def run(environment: str, package: str, updates: int) -> dict[str, Any]:
    """One run: seconds per optimizer step, and the share of its processes' time spent in the queue's calls."""
    with tempfile.TemporaryDirectory(prefix="tq-bench-") as folder:
        done = subprocess.run(
            [
                str(ROOT / environment / "bin" / "python"),
                str(ROOT / "examples" / "async_demo.py"),
                "--no-compare",
                f"--queue={package}",
                f"--updates={updates}",
                "--seconds=600",
                f"--out={folder}",
            ],
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("TQ_")},
                "XDG_RUNTIME_DIR": folder,
                "PATH": f"{ROOT / environment / 'bin'}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        saved = Path(folder) / "async_demo.json"
        # A short run exits with 1, because it has not learned enough; here it only matters that it completed.
        if not saved.exists():
            raise SubjectError(f"the demo on {package} ended with {done.returncode}: {done.stderr}")
        outcome = json.loads(saved.read_text())
    settings = outcome["settings"]
    steps = outcome["consumed"] / (settings["batch"] * settings["group"])
    return {
        "step": outcome["seconds"] / steps,
        "share": outcome["busy_share"],
        "waiting": outcome["waiting_share"],
    }
