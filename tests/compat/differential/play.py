"""Run the script in this environment: play.py SCRATCH OUTPUT SEQUENCES [CASE...]

Writes one JSON object with the answers of all names, cases and sequences.  Both sides import the package
`transfer_queue`; the environment determines which implementation that is.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

import ray
import transfer_queue as tq

from differential import names as all_names
from differential import (  # noqa: F401 - they register their cases
    points_checkpoint,
    points_inputs,
    points_kv,
    points_meta,
    points_samplers,
    points_values,
)
from differential.answers import of_error
from differential.cases import CASES, SETUPS, Case, Script
from differential.sequences import run_sequence

SOAK = 64
"""Indexes reserved at a time until only unused ones are left."""


def make_config(setup: str) -> dict[str, Any]:
    """The configuration for a kind of system, with a sampler instance."""
    config = json.loads(json.dumps(SETUPS[setup]))
    given = config.get("controller", {}).get("sampler")
    if given is not None:
        name, arguments = given
        config["controller"]["sampler"] = getattr(tq, name)(*arguments)
    # Starting upstream's units is slow.
    units = 2 if setup == "polling" else 1
    config["backend"] = {"SimpleStorage": {"num_data_storage_units": units}}
    return config


class Base:
    """The first index never used: freed indexes are used up before a case begins."""

    def __init__(self) -> None:
        self.highest = -1
        self.round = 0

    def next(self) -> int:
        """Use up the freed indexes, and return the next one."""
        self.round += 1
        while True:
            meta = tq.get_client().get_meta(
                data_fields=["soak"],
                batch_size=SOAK,
                partition_id=f"soak-{self.round}",
                mode="insert",
                task_name="soak",
            )
            lowest, highest = min(meta.global_indexes), max(meta.global_indexes)
            fresh = lowest > self.highest
            self.highest = max(self.highest, highest)
            if fresh and highest - lowest == SOAK - 1:
                return highest + 1


def started(setup: str, cases: list[Case], told: dict[str, Any]) -> Any:
    """Start a system; returns its configuration, or None if it fails: the error is then the answer of all its cases."""
    from omegaconf import OmegaConf

    try:
        return tq.init(OmegaConf.create(make_config(setup), flags={"allow_objects": True}))
    except Exception as error:
        logging.getLogger("play").exception("setup %s", setup)
        for case in cases:
            told["cases"][case.name] = [{"answer": of_error(error), "listed": None}]
        return None


def play(scratch: Path, sequences: int, wanted: list[str]) -> dict[str, Any]:
    """Run everything, or the selected cases."""
    told: dict[str, Any] = {"cases": {}, "sequences": {}, "names": {}, "seconds": {}}
    if not wanted:
        told["names"] = {name.path: all_names.look(name) for name in all_names.NAMES}
    for setup in SETUPS:
        cases = [
            case for case in CASES if case.setup == setup and (not wanted or case.name in wanted)
        ]
        # After some unusual inputs the upstream package can no longer list its keys, so they come last.
        cases.sort(key=lambda case: case.run.__module__ == points_inputs.__name__)
        seeds = range(sequences) if setup == "polling" else range(0)
        if not cases and not seeds:
            continue
        start = time.monotonic()
        config = None
        if setup != "none":
            config = started(setup, cases, told)
            if config is None:
                continue
        base = Base()
        for case in cases:
            began = time.monotonic()
            first = base.next() if setup != "none" else 0
            folder = Path(tempfile.mkdtemp(dir=scratch))
            script = Script(tq, case.name, folder, config, first)
            try:
                case.run(script)
            except Exception as error:
                logging.getLogger("play").exception("case %s", case.name)
                script.note(error)
            told["cases"][case.name] = script.answers
            told["seconds"][case.name] = round(time.monotonic() - began, 3)
        for seed in seeds:
            script = Script(tq, f"seed-{seed}", scratch, config, base.next())
            try:
                run_sequence(script, random.Random(seed))
            except Exception as error:
                logging.getLogger("play").exception("sequence %s", seed)
                script.note(error)
            told["sequences"][str(seed)] = script.answers
        if setup != "none":
            tq.close()
        told["seconds"][f"setup {setup}"] = round(time.monotonic() - start, 3)
    return told


def main() -> None:
    """Run, and write the answers."""
    scratch, output, sequences, *wanted = sys.argv[1:]
    ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, logging_level="error")
    told = play(Path(scratch), int(sequences), wanted)
    told["package"] = str(Path(importlib.import_module("transfer_queue").__file__ or "").parent)
    Path(output).write_text(json.dumps(told), encoding="utf-8")
    ray.shutdown()


if __name__ == "__main__":
    main()
