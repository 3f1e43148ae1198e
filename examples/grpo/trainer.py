"""The loop that learns: claims judged groups, improves the policy, publishes its weights.

The trainer also decides which prompts are asked.  It keeps a number of prompts in flight: one batch in
lock-step, several batches otherwise.  That number bounds how old the samples it gets can be.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from .policy import Policy
from .queues import Queue, connection, dense, rows
from .records import Record
from .settings import EVAL, PROMPTS, TRAIN, WEIGHTS, Settings
from .tasks import load_digits, reward

FIELDS = ["prompt", "image", "answer", "logprob", "reward", "ref_logprob"]
"""Fields that a sample must have before it can be trained on."""
EVALUATE_EVERY = 10
"""Updates between two evaluations of the held-out reward."""
ANSWERS_PER_IMAGE = 4
"""Held-out answers per image, before and after."""


def train(settings: Settings, name: str) -> None:
    """The whole life of the trainer's process."""
    torch.set_num_threads(1)
    queue = connection(settings)
    queue.attach(name)
    queue.stop_on_signal()
    trainer = Trainer(settings, queue)
    record = Record(queue, name)
    trainer.examine("before")
    trainer.run(record)
    trainer.examine("after")
    record.put(
        {
            "curve": [torch.tensor(trainer.curve, dtype=torch.float64).flatten()],
            "ages": [trainer.ages],
        },
        train_seconds=trainer.seconds,
        consumed=trainer.consumed,
        dropped=trainer.dropped,
        **{f"produced by {worker}": count for worker, count in trainer.produced.items()},
    )
    queue.close()


@dataclass
class Batch:
    """Samples to train on: whole groups, one row per answer."""

    prompts: Tensor
    images: Tensor
    answers: list[Tensor]
    logprobs: Tensor
    ref_logprobs: Tensor
    advantages: Tensor

    @classmethod
    def of(cls, data: TensorDict, chosen: list[int], group: int) -> Batch:
        """Takes the chosen rows of claimed data; rewards become advantages within their group."""
        at = torch.tensor(chosen)
        prompts = data["prompt"][at].view(-1, group)
        if (prompts != prompts[:, :1]).any():
            raise RuntimeError(f"a group holds answers to different prompts: {prompts.tolist()}")
        rewards = data["reward"][at].view(-1, group)
        spread = rewards.std(dim=1, keepdim=True) + 1e-4
        ragged = {name: rows(data[name]) for name in ("answer", "logprob", "ref_logprob")}
        return cls(
            prompts=prompts,
            images=dense(data["image"])[at],
            answers=[ragged["answer"][row] for row in chosen],
            logprobs=torch.cat([ragged["logprob"][row] for row in chosen]),
            ref_logprobs=torch.cat([ragged["ref_logprob"][row] for row in chosen]),
            advantages=((rewards - rewards.mean(dim=1, keepdim=True)) / spread).flatten(),
        )


class Trainer:
    """The state of a training run."""

    def __init__(self, settings: Settings, queue: Queue) -> None:
        torch.manual_seed(settings.seed)
        self.settings = settings
        self.queue = queue
        self.rng = torch.Generator().manual_seed(settings.seed)
        self.prompts, self.held_out = load_digits()
        self.order = self.prompts.shuffled(settings.seed)
        self.policy = Policy()
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=settings.learning_rate)
        self.version = 0
        self.asked = 0
        self.unanswered: dict[int, int] = {}
        """Prompts in flight, each with the version at which it was asked."""
        self.consumed = 0
        self.dropped = 0
        self.produced: dict[str, int] = {}
        """Per rollout worker, the serial number after the highest one seen."""
        self.ages = torch.zeros(settings.max_staleness + 1, dtype=torch.int64)
        """How many trained samples were generated this many versions ago."""
        self.age = 0.0
        """Mean age of the last batch."""
        self.seconds = 0.0
        """Training time so far."""
        self.rewards: deque[float] = deque(maxlen=EVALUATE_EVERY)
        self.curve: list[tuple[float, float, float]] = []
        """(seconds, version, held-out reward) of each evaluation."""

    def run(self, record: Record) -> None:
        """Trains until the last update, the time limit or the requested reward."""
        settings, started = self.settings, time.monotonic()
        self.publish("reference")
        self.evaluate()
        self.publish("policy")
        self.ask()
        count = settings.batch * settings.group
        for samples, data in self.queue.stream(TRAIN, FIELDS, count, task="train"):
            with record.work():
                self.seconds = time.monotonic() - started
                chosen = self.fresh(samples.custom_meta)
                self.answered(data["prompt"])
                self.queue.clear(samples)
                if chosen:
                    self.rewards.append(float(data["reward"][torch.tensor(chosen)].mean()))
                    self.update(Batch.of(data, chosen, settings.group))
                    if self.version % EVALUATE_EVERY == 0:
                        self.evaluate()
                self.publish("policy")
                self.ask()
            record.put_now_and_then()
            if self.finished():
                break

    def finished(self) -> bool:
        """Whether to stop now."""
        settings = self.settings
        goal = settings.until_reward
        reached = goal is not None and level(self.curve) >= goal
        return reached or self.version >= settings.updates or self.seconds > settings.seconds

    def ask(self) -> None:
        """Tops up the prompts in flight.

        A prompt that has had no answers for too long was lost with its worker, and is replaced.
        """
        settings = self.settings
        oldest = self.version - settings.max_staleness
        self.unanswered = {p: at for p, at in self.unanswered.items() if at >= oldest}
        missing = settings.window - len(self.unanswered)
        missing -= missing % settings.chunk
        if missing <= 0:
            return
        numbers = range(self.asked, self.asked + missing)
        chosen = torch.tensor([next(self.order) for _ in numbers])
        self.queue.put(
            PROMPTS,
            keys=[f"prompt-{number}" for number in numbers],
            fields={
                "prompt": torch.tensor(numbers),
                "image": self.prompts.images[chosen],
                "label": self.prompts.labels[chosen],
            },
            tags=[{"version": self.version} for _ in numbers],
        )
        self.unanswered.update(dict.fromkeys(numbers, self.version))
        self.asked += missing

    def answered(self, prompts: Tensor) -> None:
        """Takes prompts off the list of those in flight."""
        for prompt in prompts.unique().tolist():
            self.unanswered.pop(prompt, None)

    def fresh(self, tags: list[dict[str, Any]]) -> list[int]:
        """Counts claimed samples by their tags; returns the rows that are not too old."""
        chosen, ages = [], []
        for row, tag in enumerate(tags):
            age = self.version - int(tag["version"])
            worker, serial = str(tag["worker"]), int(tag["serial"])
            self.produced[worker] = max(self.produced.get(worker, 0), serial + 1)
            if age <= self.settings.max_staleness:
                chosen.append(row)
                ages.append(age)
        self.ages += torch.bincount(torch.tensor(ages, dtype=torch.int64), minlength=len(self.ages))
        self.age = sum(ages) / max(1, len(ages))
        self.consumed += len(chosen)
        self.dropped += len(tags) - len(chosen)
        return chosen

    def update(self, batch: Batch) -> None:
        """One step of GRPO: clipped policy gradient, held near the reference policy."""
        settings = self.settings
        lengths = torch.tensor([len(answer) for answer in batch.answers])
        advantages = batch.advantages.repeat_interleave(lengths)
        logprobs = self.policy.logprobs(batch.images, batch.answers)
        ratio = (logprobs - batch.logprobs).exp()
        clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
        gain = torch.minimum(ratio * advantages, clipped * advantages)
        away = batch.ref_logprobs - logprobs
        kl = away.exp() - away - 1
        loss = (settings.kl_weight * kl - gain).sum() / len(lengths)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()
        self.version += 1

    def publish(self, key: str) -> None:
        """Puts the weights into the queue; tags give the version and the state of the training."""
        state = {
            "version": self.version,
            "reward": sum(self.rewards) / max(1, len(self.rewards)),
            "held_out": level(self.curve),
            "age": self.age,
            "seconds": self.seconds,
            "consumed": self.consumed,
            "dropped": self.dropped,
        }
        version = torch.tensor([self.version])
        fields = {"parameters": [self.policy.flat()], "version": version}
        self.queue.put(WEIGHTS, keys=[key], fields=fields, tags=[state])

    def evaluate(self) -> None:
        """Adds the reward of one answer per held-out image to the learning curve."""
        answers, _ = self.policy.generate(self.held_out.images, self.rng)
        right = [
            reward(answer, label)
            for answer, label in zip(answers, self.held_out.labels.tolist(), strict=True)
        ]
        self.curve.append((self.seconds, float(self.version), sum(right) / len(right)))

    def examine(self, when: str) -> None:
        """Puts held-out answers of the current policy with their labels into partition `eval`."""
        images = self.held_out.images.repeat(ANSWERS_PER_IMAGE, 1)
        labels = self.held_out.labels.repeat(ANSWERS_PER_IMAGE)
        answers, _ = self.policy.generate(images, self.rng)
        tags = [
            {"version": self.version, "reward": reward(answer, label)}
            for answer, label in zip(answers, labels.tolist(), strict=True)
        ]
        keys = [f"{when}-{row}" for row in range(len(labels))]
        self.queue.put(EVAL, keys, {"image": images, "label": labels, "answer": answers}, tags)


def level(curve: list[tuple[float, float, float]]) -> float:
    """The held-out reward reached by a curve: the mean of its last three evaluations."""
    last = [held_out for _, _, held_out in curve[-3:]]
    return sum(last) / max(1, len(last))
