"""The lint that compares docs/tour.md with the code: which steps it accepts and which it rejects."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Of the lint, not of the queue: left out of make test-quick.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent

TOUR = """# A tour

## A put
1. `python/transferq/client.py` `Client._put`: the columns go to the library, see `src/client/put/put.c`.
2. `src/client/put/put.c` `tq_put` (slot put): the C API.
3. `src/client/put/put.c` `put_begin`: a table of the task names it.
4. `src/unit/unit.c` `unit_store` (request STORE): it takes what was sent.
5. `src/client/put/put.c` `put_ended` (event: the answer comes): it is
   over, says `tqi_send`.
"""

FILES = {
    "docs/tour.md": TOUR,
    "python/transferq/client.py": """
class Client:
    def _put(self):
        return self._core.put()
""",
    "src/core/calls.c": """
static PyObject *call_put(PyObject *self)
{
    return started(tq_put(self));
}

static PyMethodDef methods[] = {
    {"put", (PyCFunction)(void (*)(void))call_put, METH_NOARGS, NULL},
};
""",
    "src/client/put/put.c": """
static void put_ended(void *arg)
{
    (void)arg;
}

/* Calls put_commented(). */
static void put_begin(tqi_task *task)
{
    tqi_send(TQI_STORE, put_ended, "put_quoted()");
}

static const tqi_client_task_type put_type = {
    .begin = put_begin,
};

int tq_put(PyObject *self)
{
    return tqi_start(&put_type);
}
""",
    "src/client/put/put.h": "int tq_put(PyObject *self);\nint put_declared(void);\nvoid tqi_send(int kind);\n",
    "src/unit/unit.c": """
static void unit_store(const Tq__Store *message)
{
}

static void unit_other(const Tq__Other *message)
{
}
""",
    "src/wire/methods.h": "#define METHODS(X) \\\n  X(1, STORE, store, Store, \\\n empty, Empty, KEEP)\n",
}

Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Runs it on a small tree with one text replaced."""

    def run(file: str = "docs/tour.md", old: str = "", new: str = "") -> tuple[int, str]:
        for name, text in FILES.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name == file:
                assert old in text
                text = text.replace(old, new, 1)
            path.write_text(text)
        return lint(tmp_path)

    return run


def lint(root: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/check_tour.py"), str(root)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_tour_matches_the_code() -> None:
    code, told = lint(ROOT)
    assert code == 0, told


def test_steps_that_follow_the_code_pass(check: Check) -> None:
    code, told = check()
    assert code == 0, told
    assert "5 steps, 0 problems" in told


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("docs/tour.md", "client/put/put.c` `tq_put`", "client/put/out.c` `tq_put`", "there is no such file"),
        ("docs/tour.md", "put.c` `put_begin`", "put.h` `put_declared`", "does not define it"),
        ("docs/tour.md", "`put_begin`", "`put_commented`", "does not define it"),
        ("docs/tour.md", "`put_begin`", "`put_quoted`", "does not define it"),
        ("docs/tour.md", "`Client._put`", "`_put`", "does not define it"),
        ("docs/tour.md", " (slot put)", "", "no step before it leads to it"),
        ("docs/tour.md", "(slot put)", "(slot get)", "no step before it calls a member get"),
        ("docs/tour.md", "(request STORE)", "(request FETCH)", "has no request FETCH"),
        ("docs/tour.md", "`unit_store`", "`unit_other`", "does not take a Tq__Store"),
        ("docs/tour.md", "5. ", "6. ", "step 6 is the 5."),
        ("docs/tour.md", "`: a table", "` a table", "not of the form of steps"),
        ("docs/tour.md", "see `src/client/put/put.c`", "see `src/client/out.c`", "no file src/client/out.c"),
        ("docs/tour.md", "says `tqi_send`", "says `tqi_sent`", "nothing is called tqi_sent"),
        ("docs/tour.md", TOUR, "# A tour\n", "there are no steps"),
        ("src/client/put/put.c", ".begin = put_begin", ".begin = NULL", "put_begin: no step before it leads"),
        ("src/client/put/put.c", "TQI_STORE", "TQI_OTHER", "no step before it sends TQI_STORE"),
        ("src/client/put/put.c", ", put_ended", "", "put_ended: nothing names it"),
        ("src/core/calls.c", "(void))call_put", "(void))call_get", "nothing that a member put is set to"),
    ],
)  # fmt: skip
def test_a_step_that_does_not_match_the_code_is_refused(
    check: Check, file: str, old: str, new: str, told: str
) -> None:
    code, text = check(file, old, new)
    assert code == 1, text
    assert told in text
    assert "Traceback" not in text
