"""Tests that need the environment of the compat package (.venv-compat); they are not collected in any other."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

collect_ignore_glob = [] if importlib.util.find_spec("transfer_queue") else ["test_*.py"]
