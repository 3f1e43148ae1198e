"""Runs programs in other Python processes."""

from __future__ import annotations

import os
import subprocess
import sys


def python(code: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program in another Python process."""
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
