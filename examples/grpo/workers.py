"""The stages between a prompt and a sample that is ready to train on.

Each function here is the whole life of one process.  None knows of the others: they claim samples
that have the fields they need, write fields or samples of their own, and run until they are told to stop.
"""

from __future__ import annotations

import torch

from .policy import Policy
from .queues import Queue, connection, dense, rows
from .records import Record
from .settings import PROMPTS, TRAIN, WEIGHTS, Settings
from .tasks import reward


def rollout(settings: Settings, name: str, seed: int) -> None:
    """Writes answers with the newest weights: `group` answers per prompt, tagged with the version."""
    queue = _enter(settings, name)
    record = Record(queue, name)
    policy, version, written = Policy(), -1, 0
    rng = torch.Generator().manual_seed(seed)
    fields = ["prompt", "image", "label"]
    for samples, data in queue.stream(PROMPTS, fields, settings.chunk, task="rollout"):
        with record.work():
            queue.clear(samples)
            version = _newest_weights(queue, policy, version)
            # The answers to one prompt are a group: they are neighbours, and put in one step.
            asked = {
                field: dense(data[field]).repeat_interleave(settings.group, dim=0)
                for field in fields
            }
            answers, logprobs = policy.generate(asked["image"], rng)
            serials = range(written, written + len(answers))
            queue.put(
                TRAIN,
                keys=[f"{name}-{serial}" for serial in serials],
                fields={**asked, "answer": answers, "logprob": logprobs},
                tags=[{"version": version, "worker": name, "serial": serial} for serial in serials],
            )
            written += len(answers)
        record.put_now_and_then(produced=written)
    record.put(produced=written)
    queue.close()


def judge(settings: Settings, name: str) -> None:
    """Rewards answers: reads them and the labels, adds the field `reward`."""
    queue = _enter(settings, name)
    record = Record(queue, name)
    count = settings.chunk * settings.group
    for samples, data in queue.stream(TRAIN, ["answer", "label"], count, task="reward"):
        with record.work():
            judged = zip(rows(data["answer"]), data["label"].tolist(), strict=True)
            rewards = torch.tensor([reward(answer, label) for answer, label in judged])
            queue.add_fields(samples, {"reward": rewards})
        record.put_now_and_then()
    record.put()
    queue.close()


def reference(settings: Settings, name: str) -> None:
    """Computes how likely the untrained policy finds the answers: adds the field `ref_logprob`."""
    queue = _enter(settings, name)
    record = Record(queue, name)
    policy: Policy | None = None
    count = settings.chunk * settings.group
    for samples, data in queue.stream(TRAIN, ["image", "answer"], count, task="reference"):
        with record.work():
            if policy is None:
                policy = Policy()
                policy.load_flat(
                    rows(queue.read(WEIGHTS, ["reference"], ["parameters"])["parameters"])[0]
                )
            answers = rows(data["answer"])
            with torch.no_grad():
                logprobs = policy.logprobs(dense(data["image"]), answers)
            lengths = [len(answer) for answer in answers]
            queue.add_fields(samples, {"ref_logprob": list(logprobs.split(lengths))})
        record.put_now_and_then()
    record.put()
    queue.close()


def _enter(settings: Settings, name: str) -> Queue:
    """Connects a new worker process."""
    torch.set_num_threads(1)
    queue = connection(settings)
    queue.attach(name)
    queue.stop_on_signal()
    return queue


def _newest_weights(queue: Queue, policy: Policy, version: int) -> int:
    """Loads the trainer's weights if they are newer than `version`; returns their version."""
    if queue.tags(WEIGHTS)["policy"]["version"] == version:
        return version
    newest = queue.read(WEIGHTS, ["policy"], ["parameters", "version"])
    policy.load_flat(rows(newest["parameters"])[0])
    return int(newest["version"][0])
