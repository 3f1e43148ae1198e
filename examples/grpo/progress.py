"""The live progress line: updated in place on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

PLAIN_EVERY = 5.0
"""Seconds between two plain lines."""


class Progress:
    """Shows the progress of a run."""

    def __init__(self, name: str, updates: int) -> None:
        self.name = name
        self.updates = updates
        self.live = sys.stderr.isatty()
        self._shown = time.monotonic()
        self._bar = tqdm(
            total=updates,
            desc=name,
            unit="update",
            disable=not self.live,
            leave=False,
            dynamic_ncols=True,
        )

    def show(self, state: dict[str, Any], rollout_workers: int) -> None:
        """Takes over the state with which the trainer tags its weights."""
        text = (
            f"reward {state['reward']:.2f}, held-out {state['held_out']:.2f},"
            f" {state['age']:.1f} versions behind, {rollout_workers} rollout workers,"
            f" {state['consumed']} samples"
        )
        if self.live:
            self._bar.n = state["version"]
            self._bar.set_postfix_str(text)
        elif time.monotonic() - self._shown >= PLAIN_EVERY:
            self._shown = time.monotonic()
            print(f"{self.name}: update {state['version']}/{self.updates}, {text}", flush=True)

    def close(self) -> None:
        """Ends the line."""
        self._bar.close()
