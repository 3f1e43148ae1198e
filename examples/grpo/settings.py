"""Everything that can be chosen about a run, and the names that all processes agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Configuration of each storage backend. auto_init starts its servers with the queue.
BACKENDS: dict[str, dict[str, Any]] = {
    "simple": {"storage_backend": "SimpleStorage"},
    "redis": {"storage_backend": "Redis", "Redis": {"auto_init": True}},
    "mooncake": {"storage_backend": "MooncakeStore", "MooncakeStore": {"auto_init": True}},
    "ray": {"storage_backend": "RayStore", "RayStore": {"auto_init": True}},
}


@dataclass(frozen=True)
class Settings:
    """One run of the training loop."""

    queue: str = "transferq"
    """Package that provides the queue: ``transferq`` or ``transfer_queue``."""
    backend: str = "simple"
    """Where the samples are stored, a name of `BACKENDS`."""
    lockstep: bool = False
    """Ask for the next prompts only after the last ones have been trained on."""
    address: str = ""
    """How the demo's processes find its system, if not through the environment."""
    prefix: str = ""
    """Prefix of every partition's name, so that two runs can share one system."""
    seed: int = 0

    updates: int = 200
    """Optimizer steps, which is also the last weight version."""
    until_reward: float | None = None
    """Stop as soon as the held-out reward reaches this."""
    seconds: float = 55.0
    """Stop at the latest after this time."""

    group: int = 8
    """Answers per prompt (n of GRPO)."""
    chunk: int = 16
    """Prompts that a rollout worker takes at a time."""
    batch: int = 32
    """Prompts per optimizer step."""
    ahead: int = 2
    """Batches asked for ahead of the one being trained on; none in lock-step."""
    max_staleness: int = 8
    """Samples generated more versions ago than this are dropped."""

    learning_rate: float = 8e-3
    kl_weight: float = 0.1
    clip: float = 0.2

    rollout_workers: int = 2
    kill_at: float | None = 0.3
    """Share of the run after which one rollout worker is killed; None for never."""
    join_at: float = 0.4
    """Share of the run after which another worker joins."""

    def partition(self, name: str) -> str:
        """Full name of one of this run's partitions."""
        return self.prefix + name

    @property
    def window(self) -> int:
        """Prompts that may be in flight at once."""
        return self.batch if self.lockstep else self.batch * (1 + self.ahead)


# Partitions: the tables of the queue.
PROMPTS = "prompts"  # trainer -> rollout workers
TRAIN = "train"  # rollout -> reward, reference -> trainer
WEIGHTS = "weights"  # trainer -> rollout, reference workers
EVAL = "eval"  # held-out answers, for anyone to judge again
RECORDS = "records"  # each process's own record
