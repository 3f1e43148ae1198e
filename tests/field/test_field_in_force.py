"""Which requested settings are in force in a running system, and which are not."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

import transferq
from support.runtime import own_runtime
from transferq._impl import system
from transferq.errors import ConfigError, TimedOutError

Starter = Callable[[dict[str, Any]], AbstractContextManager[None]]

CODE = """
import json, sys, transferq
transferq.init(json.loads(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""
SMALL = {"SimpleStorage": {"total_storage_size": "64MiB", "num_data_storage_units": 1}}


@pytest.fixture(autouse=True)
def base() -> Iterator[Path]:
    """Only the test's own systems are found."""
    with own_runtime() as path:
        yield path
        transferq.close()


@contextmanager
def running(conf: dict[str, Any]) -> Iterator[None]:
    """A system started by another process."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, json.dumps({"backend": SMALL, **conf})],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            transferq.close()
            process.communicate(timeout=30)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of transferq."""
    return [record.getMessage() for record in caplog.records if record.name == "transferq"]


def waited_ms() -> int:
    """How long the controller let an impossible claim wait: in the error, however late the answer is read."""
    with pytest.raises(TimedOutError) as caught:
        transferq.get_client().get_meta(["x"], 1, "p", task_name="t")
    found = re.search(r"0 ready after (\d+) ms", str(caught.value))
    assert found, caught.value
    return int(found[1])


def test_who_attaches_waits_as_long_as_the_system_says() -> None:
    """The system's `client.timeout` applies to every process that sets none itself."""
    with running({"client": {"timeout": 0.5}}):
        assert transferq.init().client.timeout == 0.5
        assert 400 < waited_ms() <= 500
        transferq.close()
        assert transferq.init({"client": {"timeout": 0.1}}).client.timeout == 0.1
        assert waited_ms() <= 100


def test_init_returns_what_is_in_force_and_names_the_wishes_that_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning, with the key, the requested value and the system's."""
    with running({}):
        config = transferq.init(
            {
                "metrics": {"enabled": True},
                "backend": {"SimpleStorage": {"total_storage_size": "1GiB"}},
                "client": {"timeout": 7},
            },
            attach=True,
        )
        assert config.metrics.enabled is False
        assert transferq.get_metrics_endpoint() is None
        assert config.backend.SimpleStorage.total_storage_size == 64 << 20
        assert config.client.timeout == 7
        (said,) = warnings(caplog)
        assert "metrics.enabled: true was asked for, false is in force" in said
        assert "total_storage_size: 1GiB was asked for, 67108864 is in force" in said
        assert "2 keys have no effect" in said
        assert "the system 'default' at unix:" in said
        assert "timeout" not in said


def test_a_second_init_says_what_it_does_not_change_and_checks_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Differing keys are named; a value that no system accepts is an error."""
    first = transferq.init({"backend": SMALL})
    assert transferq.init({"backend": SMALL}) is first
    assert transferq.init() is first
    assert warnings(caplog) == []
    assert transferq.init(
        {"controller": {"sampler": "RankAwareSampler"}, "metrics": {"enabled": True}}
    )
    (said,) = warnings(caplog)
    assert "this process has called init() before" in said
    assert "sampler: RankAwareSampler was asked for, SequentialSampler is in force" in said
    assert "metrics.enabled: true was asked for, false is in force" in said
    for wrong, key in (
        (
            {"controller": {"sampler": "GRPOSampler"}},
            "controller.sampler: no sampler 'GRPOSampler'",
        ),
        ({"backend": {"SimpleStorage": {"total_storage_size": "8 gigs"}}}, "total_storage_size"),
    ):
        with pytest.raises(ConfigError, match=key):
            transferq.init(wrong)
    assert transferq.init() is first


def test_a_claim_that_times_out_says_which_system_was_asked() -> None:
    """With its address and start time, because there may be two with the same name."""
    transferq.init({"backend": SMALL})
    handle = system.find("default")
    assert handle is not None
    with pytest.raises(
        TimedOutError, match=r"asked the system 'default' at unix:.*started . s ago"
    ):
        transferq.get_client().get_meta(["x"], 1, "p", task_name="t", timeout=0.05)


@pytest.mark.parametrize("own", [True, False])
def test_a_system_that_others_may_not_find_is_started_with_a_warning(
    own: bool, base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If it is found only through the process's TMPDIR, because other processes may have a different one."""
    if own:
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        monkeypatch.setenv("TMPDIR", str(base))
    transferq.init({"backend": SMALL})
    if not own:
        assert warnings(caplog) == []
        return
    (said,) = warnings(caplog)
    assert f"below {base}/ctq-{os.geteuid()}, for TMPDIR says so" in said
    assert caplog.records[0].levelno == logging.WARNING
