"""Users' samplers in Python: in the controller of a system started by init()."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from elsewhere import python
from own_samplers import Newest, Ranked
from tensordict import TensorDict
from test_system import wait_for_end

import transferq
from transferq import config, errors

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG: dict[str, Any] = {
    "backend": {"SimpleStorage": {"total_storage_size": "64MiB"}},
    "client": {"timeout": 10},
}
NAME = "own_samplers:Newest"


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty runtime directory; checks that no system is left in it."""
    with tempfile.TemporaryDirectory(prefix="tq-") as path:
        for name in ("TQ_ADDRESS", "TQ_TOKEN_FILE", "TQ_SYSTEM"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("XDG_RUNTIME_DIR", path)
        yield Path(path) / "ctq"
        transferq.close()
        assert list(Path(path).iterdir()) == []


def start(sampler: Any, polling: bool = False) -> Any:
    """A system with this sampler; returns its client."""
    transferq.init({**CONFIG, "controller": {"sampler": sampler, "polling_mode": polling}})
    return transferq.get_client()


def put(n: int, pid: str = "p", first: int = 0) -> None:
    transferq.kv_batch_put(
        keys=[f"k{place}" for place in range(first, first + n)],
        partition_id=pid,
        fields=TensorDict({"x": torch.arange(first, first + n)}, batch_size=n),
        tags=[{"length": abs(place - 2), "word": "w"} for place in range(first, first + n)],
    )


def claim(client: Any, n: int, pid: str = "p", timeout: float = 10, **config: Any) -> list[int]:
    meta = client.get_meta(["x"], n, pid, "fetch", "train", config, timeout=timeout)
    values: list[int] = client.get_data(meta)["x"].tolist() if meta.size else []
    return values


def ready(client: Any) -> int:
    """Number of samples that the task has not consumed."""
    _, consumed = client.get_consumption_status("train", "p")
    return list(consumed).count(0)


def test_it_sees_groups(base: Path) -> None:
    """Per sample the name of its group, and its position in joining order; nothing about samples that are not ready."""
    client = start(Newest)
    transferq.kv_batch_put(
        keys=["a", "b", "c", "d"],
        partition_id="p",
        fields=TensorDict({"x": torch.arange(4)}, batch_size=4),
        groups=["odd", "even", "odd", "even"],
    )
    assert claim(client, 3, mode="by group") == [1, 3, 0]


def test_it_picks(base: Path) -> None:
    client = start(Newest)
    assert client.config["controller"]["sampler"] == NAME
    put(6)
    assert claim(client, 2) == [5, 4]
    assert claim(client, 2, mode="longest") == [0, 1]
    assert claim(client, 1, mode="arguments") == [3]
    assert claim(client, 1, mode="keeps") == [2]
    assert claim(client, 1) == [2]
    # A waiting claim is retried when samples arrive.
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(claim, client, 3)
        put(3, first=6)
        assert waiting.result() == [8, 7, 6]
    put(3, first=9)
    assert claim(client, 2, mode="drops") == [11]
    assert ready(client) == 0
    # A claim can still request a different sampler; but a client cannot name a Python one.
    put(1, first=12)
    assert claim(client, 1, sampler="SequentialSampler") == [12]
    with pytest.raises(errors.UnknownSamplerError, match="os:system"):
        claim(client, 1, sampler="os:system")


BAD: list[tuple[str, type[Exception], str]] = [
    ("raises", errors.SamplerError, "raised KeyError: 'boom'"),
    ("refuses", errors.InvalidArgumentError, "raised ValueError: no such size"),
    ("exits", errors.SamplerError, "raised SystemExit: 3"),
    ("raises what cannot be sent", ValueError, r"half a pair: .ud800"),
    ("raises secrets", errors.SamplerError, "raised Secret"),
    ("returns secrets", errors.SamplerError, "returned a Secret that cannot be printed"),
    ("not ready", errors.SamplerError, "returned sample 4711, which is not ready"),
    ("negative", errors.SamplerError, "returned sample -1, which is not ready"),
    ("twice", errors.SamplerError, r"returned sample \d+ twice"),
    ("no pair", errors.SamplerError, r"returned \d+, not the indexes that it sampled and those"),
    ("no list", errors.SamplerError, "returned 'ab' as sampled, not a list of indexes"),
    ("no index", errors.SamplerError, r"returned \[1\.5\] as sampled, not a list of indexes"),
    ("consumes others", errors.SamplerError, "consumed sample 4711, which is not ready"),
]


def test_a_bad_answer_fails_the_claim_alone(base: Path) -> None:
    client = start(Newest())
    put(4)
    for mode, error, message in BAD:
        with pytest.raises(error, match=message) as caught:
            claim(client, 2, mode=mode)
        assert f"sampler '{NAME}'" in str(caught.value), mode
        assert ready(client) == 4, mode
    # So does the error of a waiting claim.
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(claim, client, 5, mode="raises")
        put(1, first=4)
        with pytest.raises(errors.SamplerError, match="boom"):
            waiting.result()
    assert claim(client, 5) == [4, 3, 2, 1, 0]


def test_nothing_is_too_little(base: Path) -> None:
    client = start(Newest())
    put(2)
    with pytest.raises(TimeoutError):
        claim(client, 2, mode="nothing", timeout=0.2)
    assert claim(client, 2) == [1, 0]


@pytest.mark.parametrize("polling", [False, True])
def test_answers_that_it_keeps(base: Path, polling: bool) -> None:
    """A step is answered again even though too few samples are ready, until the partition is cleared."""
    client = start(Ranked("mark"), polling)
    put(5)
    step: dict[str, Any] = {"dp_rank": 0, "batch_index": 0}
    assert claim(client, 3, **step) == [2, 3, 4]
    assert claim(client, 3, **step) == [2, 3, 4]
    assert ready(client) == 2
    if polling:
        assert claim(client, 3, dp_rank=1, batch_index=0) == []
    else:
        with pytest.raises(TimeoutError):
            claim(client, 3, timeout=0.1, dp_rank=1, batch_index=0)
    with pytest.raises(errors.SamplerError, match=r"raised TypeError: .*unexpected.*colour"):
        claim(client, 1, dp_rank=1, batch_index=0, colour="blue")
    client.clear_partition("p")
    put(3, first=7)
    assert sorted(claim(client, 3, **step)) == [7, 8, 9]


def test_many_threads(base: Path) -> None:
    client = start(Newest())
    put(64)
    with ThreadPoolExecutor(8) as pool:
        claims = [pool.submit(claim, client, 4) for _ in range(32)]
        put(64, first=64)
        taken = [value for done in claims for value in done.result()]
    assert sorted(taken) == list(range(128))


def test_by_name_and_from_a_guest(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "import transferq\n"
        "class Last(transferq.BaseSampler):\n"
        "    def sample(self, ready_indexes, batch_size):\n"
        "        return ready_indexes[-batch_size:], ready_indexes[-batch_size:]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    client = start("mine:Last")
    put(3)
    assert claim(client, 1) == [2]
    guest = transferq.TransferQueueClient("guest", client._info)
    assert claim(guest, 1) == [1]
    guest.close()
    other = config.read({"controller": {"sampler": Newest}})
    guest = transferq.TransferQueueClient("other", client._info, config=other)
    with pytest.raises(errors.UnknownSamplerError, match="Newest"):
        claim(guest, 1)
    guest.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere:Sampler", "'nowhere:Sampler' cannot be imported: ModuleNotFoundError"),
        ("json:Sampler", "'json:Sampler' cannot be imported: AttributeError"),
        ("json:dumps", "'json:dumps' is no transferq.BaseSampler"),
        ("own_samplers:Ranked", "cannot be made: TypeError: .*mark"),
    ],
)
def test_a_name_that_leads_nowhere(base: Path, name: str, message: str) -> None:
    with pytest.raises(errors.ConfigError, match=f"controller.sampler: .*{message}"):
        start(name)
    assert not base.exists()


def test_one_that_cannot_travel(base: Path) -> None:
    sampler = Newest()
    sampler.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(errors.ConfigError, match=rf"{NAME}' cannot be pickled: TypeError.*lock"):
        start(sampler)
    assert not base.exists()
    with pytest.raises(errors.ConfigError, match=r"mark.*; hand over an instance"):
        start(Ranked)


MAIN = """
import sys
if "plain" in sys.argv:
    sys.modules["cloudpickle"] = None
import transferq, json
class Odd(transferq.BaseSampler):
    def sample(self, ready_indexes, batch_size, **kwargs):
        odd = ready_indexes[1::2][:batch_size]
        return odd, odd
transferq.init({"controller": {"sampler": Odd}, "backend": {"SimpleStorage": {"total_storage_size": "64MiB"}}})
transferq.kv_batch_put(["a", "b", "c", "d"], "p", {"x": ["a", "b", "c", "d"]})
client = transferq.get_client()
meta = client.get_meta(["x"], 2, "p", "fetch", "train")
print(json.dumps([meta.global_indexes, transferq._impl.system.find("default").pid]), flush=True)
if "wait" in sys.argv:
    sys.stdin.read()
"""


@pytest.mark.slow
def test_of_the_main_program(base: Path, tmp_path: Path) -> None:
    """Its class is sent by value; without cloudpickle it cannot be, and the error says so."""
    program = tmp_path / "main.py"
    program.write_text(MAIN)
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    indexes, pid = json.loads(done.stdout)
    assert indexes == [1, 3]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    done = subprocess.run(
        [sys.executable, str(program), "plain"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "ConfigError: controller.sampler: '__main__:Odd' is defined in the main" in done.stderr


def test_nothing_is_left_after_the_starter_was_killed(base: Path, tmp_path: Path) -> None:
    program = tmp_path / "main.py"
    program.write_text(MAIN)
    with subprocess.Popen(
        [sys.executable, str(program), "wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        _, pid = json.loads(starter.stdout.readline())
        host = os.pidfd_open(pid)
        starter.send_signal(signal.SIGKILL)
    wait_for_end(host)
    assert not base.exists()


def test_tqd_says_who_can(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *("tqd", "all-in-one", f"--runtime-dir={tmp_path}/x"),
            "--set=controller.sampler=my.module:Mine",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert "python -m transferq.host in the place of tqd" in done.stderr
    done = python("import transferq.host, sys; sys.exit(transferq.host.main(['--version']))")
    assert done.stdout.startswith("tqd ")
