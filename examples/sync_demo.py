"""GRPO in lock-step: the loop of async_demo.py, but each stage waits for the one before.

The next prompts are asked for after the last batch has been trained on, so all weights are fresh,
and every stage waits for the longest answer.

    python examples/sync_demo.py                         # on this project's queue
    python examples/sync_demo.py --queue transfer_queue  # the same on the Python package
"""

from __future__ import annotations

import sys
import time

from grpo import launch, report
from grpo.command import finish, parser, perform
from grpo.settings import Settings


def main() -> int:
    """Trains in lock-step."""
    started = time.monotonic()
    chosen = parser(__doc__.splitlines()[0]).parse_args()
    launch.prepare()
    settings, queue = launch.start_queue(
        Settings(
            queue=chosen.queue,
            backend=chosen.backend,
            seed=chosen.seed,
            updates=chosen.updates,
            seconds=chosen.seconds,
            lockstep=True,
            kill_at=None,
        )
    )
    try:
        outcome = perform(settings, queue, "lock-step")
    finally:
        queue.close()
    report.save(outcome, chosen.out / "sync_demo.json")
    report.draw(outcome, chosen.out / "sync_demo.png")
    print(f"picture: {chosen.out / 'sync_demo.png'}")
    return finish(outcome, started)


if __name__ == "__main__":
    sys.exit(main())
