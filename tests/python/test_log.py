"""What the C library logs reaches Python's logging, and stderr where Python's logging has no handler."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Any

import pytest
from elsewhere import python

import transferq
from support.waiting import wait_until
from transferq._impl import log

START = """
import logging, os, sys, threading
import transferq
transferq.init({"backend": {"SimpleStorage": {"num_data_storage_units": 1, "total_storage_size": "16MiB"}},
                "client": {"wait_notice": 0.05}})
def notice(task="t"):
    try:
        transferq.get_client().get_meta(["x"], 1, "p", task_name=task, timeout=0.3)
    except transferq.TimedOutError:
        pass
"""
"""A program in which `notice()` makes the library log a warning."""


def lines_of(records: list[logging.LogRecord]) -> list[logging.LogRecord]:
    return [record for record in records if "has waited" in record.getMessage()]


def notice(client: transferq.TransferQueueClient, task: str = "t") -> None:
    """Let the library log a warning: a claim waits longer than `wait_notice`."""
    with pytest.raises(transferq.TimedOutError):
        client.get_meta(["x"], 1, "log", task_name=task, timeout=0.3)


@pytest.fixture
def noticed(client: transferq.TransferQueueClient) -> Any:
    made = transferq.TransferQueueClient(
        "noticed", client._info, config={"client": {"wait_notice": 0.05}}
    )
    yield made
    made.close()


def test_a_line_becomes_a_record_of_its_part(
    noticed: transferq.TransferQueueClient, caplog: pytest.LogCaptureFixture
) -> None:
    before = time.time()
    notice(noticed)
    (record,) = wait_until("a record", lambda: lines_of(caplog.records))
    assert (record.name, record.levelno) == ("transferq.client", logging.WARNING)
    assert before <= record.created <= time.time()
    assert record.threadName == "transferq-log"


def test_levels_of_python_hold(
    noticed: transferq.TransferQueueClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "transferq.client")
    notice(noticed, "quiet")
    caplog.set_level(logging.WARNING, "transferq.client")
    notice(noticed, "loud")
    (record,) = wait_until("a record", lambda: lines_of(caplog.records))
    assert "loud" in record.getMessage()


def test_a_handler_that_blocks_does_not_stall_calls(
    noticed: transferq.TransferQueueClient,
) -> None:
    entered, release = threading.Event(), threading.Event()

    class Blocking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            entered.set()
            release.wait(60)

    handler = Blocking()
    logger = logging.getLogger("transferq.client")
    logger.addHandler(handler)
    try:
        notice(noticed)
        assert entered.wait(20)
        # Further lines, and calls of the same client on the same loop, go on.
        notice(noticed)
        meta = noticed.put({"x": [1]}, partition_id="log")
        assert list(noticed.get_data(meta)["x"]) == [1]
    finally:
        release.set()
        logger.removeHandler(handler)


def test_lines_beyond_the_bound_are_counted(
    noticed: transferq.TransferQueueClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[logging.LogRecord] = []
    monkeypatch.setattr(log, "log_wait", iter([([], 7), None]).__next__)
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", given.append)
    logger = logging.getLogger("transferq.log")
    logger.addHandler(handler)
    try:
        log._run(deque())
    finally:
        logger.removeHandler(handler)
    assert "7 lines were dropped" in given[0].getMessage()


def test_without_handlers_lines_go_to_stderr_as_before() -> None:
    done = python(
        START + "notice()\nassert not any('log' in t.name for t in threading.enumerate())"
    )
    (line,) = [line for line in done.stderr.splitlines() if "has waited" in line]
    assert done.returncode == 0
    assert line[10] == "T" and "Z warn client: a claim" in line


def test_handlers_that_are_added_later_get_the_lines_that_follow() -> None:
    done = python(
        START + "notice('early')\n"
        "logging.basicConfig(format='%(name)s-%(levelname)s %(message)s', stream=sys.stdout)\n"
        "notice('late')"
    )
    assert done.returncode == 0, done.stderr
    assert "early" in done.stderr and "late" not in done.stderr
    assert done.stdout.startswith("transferq.client-WARNING a claim")
    assert "late" in done.stdout


def test_lines_at_the_exit_are_not_lost() -> None:
    done = python(
        "import logging, sys\nlogging.basicConfig(stream=sys.stdout)\n" + START + "notice()\n"
    )
    assert (done.returncode, done.stdout.count("has waited")) == (0, 1), done.stderr
    assert "Exception" not in done.stderr


@pytest.mark.slow
def test_exit_is_clean_while_a_handler_blocks() -> None:
    """It blocks before it takes its lock: for that lock the exit would wait by itself, in logging.shutdown."""
    start = time.monotonic()
    done = python(
        "import logging, threading\n"
        "class Blocking(logging.Handler):\n"
        "    def filter(self, record):\n"
        "        threading.Event().wait()\n"
        + START
        + "logging.getLogger().addHandler(Blocking())\n"
        "notice('first'); notice('second')\n"
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < 30
    # The line that waited behind the blocked one.
    assert "second" in done.stderr and "Z warn client: " in done.stderr


@pytest.mark.slow
def test_lines_taken_together_with_one_that_blocks_go_to_stderr() -> None:
    done = python(
        START + "full, stuck = threading.Event(), threading.Event()\n"
        "class Blocking(logging.Handler):\n"
        "    def filter(self, record):\n"
        "        if 'first' in record.getMessage():\n"
        "            full.wait()\n"
        "        else:\n"
        "            stuck.set(); threading.Event().wait()\n"
        "logging.getLogger().addHandler(Blocking())\n"
        "notice('first'); notice('second'); notice('third')\n"
        "full.set(); stuck.wait()\n"
    )
    assert done.returncode == 0, done.stderr
    assert "third" in done.stderr


def test_lines_after_an_exit_that_a_handler_raises_are_handed_on() -> None:
    """SystemExit is no Exception, and a thread that raises it ends in silence."""
    done = python(
        START + "class Raising(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        if 'first' in record.getMessage():\n"
        "            sys.exit(3)\n"
        "        print(record.getMessage())\n"
        "logging.getLogger().addHandler(Raising())\n"
        "notice('first'); notice('second')\n"
    )
    assert done.returncode == 0, done.stderr
    assert "first" in done.stderr and "second" in done.stdout


def test_a_closed_stderr_stops_no_lines() -> None:
    done = python(
        START + "class Raising(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        if 'first' in record.getMessage():\n"
        "            raise ValueError\n"
        "        print(record.getMessage(), flush=True)\n"
        "logging.getLogger().addHandler(Raising())\n"
        "os.close(2)\n"
        "notice('first'); notice('second')\n"
    )
    assert "second" in done.stdout


def test_a_client_made_at_the_exit_logs_to_stderr() -> None:
    done = python(
        "import atexit\n"
        "def late():\n"
        "    made = transferq.TransferQueueClient('c', info, config={'client': {'wait_notice': 0.05}})\n"
        "    assert not log._forwarder.is_on\n"
        "atexit.register(late)\n" + START + "from transferq._impl import log\n"
        "info = transferq.get_client()._info\n"
        "logging.basicConfig()\n"
        "notice()\n"
    )
    assert "Error" not in done.stderr, done.stderr


@pytest.mark.slow
def test_a_python_thread_reads_stderr_while_handlers_are_added() -> None:
    """The library waits for it with a lock of its log held, and handing lines on needs that lock."""
    done = python(
        START + "import fcntl, select\n"
        "reader, writer = os.pipe()\n"
        "room = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)\n"
        "os.write(writer, bytes(room))\n"
        "os.dup2(writer, 2)\n"
        "go, found = threading.Event(), []\n"
        "def read():\n"
        "    go.wait()\n"
        "    while b'waited' not in b''.join(found):\n"
        "        found.append(os.read(reader, 65536))\n"
        "reading, claim = threading.Thread(target=read), threading.Thread(target=notice)\n"
        "reading.start(); claim.start()\n"
        "claim.join(2)\n"
        "assert claim.is_alive()\n"
        "logging.basicConfig(stream=sys.stdout)\n"
        "sys.setswitchinterval(60)\n"
        "go.set()\n"
        "transferq.get_client()\n"
        "sys.setswitchinterval(0.005)\n"
        "claim.join(); reading.join()\n"
        "print('done')\n"
    )
    assert "done" in done.stdout


def test_a_forked_child_writes_to_stderr_until_it_makes_a_client() -> None:
    done = python(
        "import logging, sys\nlogging.basicConfig(stream=sys.stdout)\n"
        + START
        + "notice('parent')\n"
        "info = transferq.get_client()._info\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    made = transferq.TransferQueueClient('c', info, config={'client': {'wait_notice': 0.05}})\n"
        "    try:\n"
        "        made.get_meta(['x'], 1, 'p', task_name='child', timeout=0.3)\n"
        "    except transferq.TimedOutError:\n"
        "        pass\n"
        "    made.close()\n"
        "    from transferq._impl import log\n"
        "    log.stop()\n"
        "    sys.stdout.flush()\n"
        "    os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
    )
    assert done.returncode == 0, done.stderr
    assert [done.stdout.count(task) for task in ("'parent'", "'child'")] == [1, 1], done.stdout


def test_a_fork_while_lines_are_handed_on() -> None:
    done = python(
        "import logging, sys\nlogging.basicConfig(stream=sys.stdout)\n" + START + "notice()\n"
        "for _ in range(20):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        from transferq._impl import log\n"
        "        os._exit(log._forwarder.is_on)\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
        "notice('again')\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("has waited") == 2
