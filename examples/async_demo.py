"""GRPO without barriers: rollout, reward, reference and training stream through a transfer queue.

A policy learns to name handwritten digits.  Every stage is a separate process; they meet only in
the queue.  While it trains, one rollout worker is killed and another joins.

    python examples/async_demo.py                         # on this project's queue
    python examples/async_demo.py --backend redis         # with the samples in Redis
    python examples/async_demo.py --queue transfer_queue  # the same on the Python package

With TQ_ADDRESS set it runs on a system of your own, and leaves the held-out answers and their labels
there in partition `eval`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

from grpo import launch, report
from grpo.command import finish, parser, perform
from grpo.settings import Settings
from grpo.trainer import level


def main() -> int:
    """Trains without barriers, then in lock-step up to the same reward, and compares."""
    started = time.monotonic()
    options = parser(__doc__.splitlines()[0])
    options.add_argument(
        "--no-compare",
        dest="compare",
        action="store_false",
        help="leave out the second run, in lock-step",
    )
    chosen = options.parse_args()
    launch.prepare()
    settings, queue = launch.start_queue(
        Settings(
            queue=chosen.queue,
            backend=chosen.backend,
            seed=chosen.seed,
            updates=chosen.updates,
            seconds=chosen.seconds,
        )
    )
    try:
        streamed = perform(settings, queue, "async")
        lockstep = None
        if chosen.compare:
            goal = 0.98 * level(streamed.curve)
            lockstep = perform(
                replace(
                    settings, lockstep=True, prefix="lockstep/", kill_at=None, until_reward=goal
                ),
                queue,
                "lock-step",
            )
            print("--- both")
            print(report.compare(streamed, lockstep))
    finally:
        queue.close()
    report.save(streamed, chosen.out / "async_demo.json")
    report.draw(streamed, chosen.out / "async_demo.png", lockstep)
    print(f"picture: {chosen.out / 'async_demo.png'}")
    return finish(streamed, started, *([lockstep] if lockstep else []))


if __name__ == "__main__":
    sys.exit(main())
