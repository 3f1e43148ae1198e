"""Faults that users met in the programs tq and tqd: text, option letters, missing partitions."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import transferq
from support.daemons import Daemon, System, executable
from support.waiting import wait_event
from transferq._impl.calls import run

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = os.environ["TQ_TEST_BUILD"]

UTF8 = {"LC_ALL": "C.UTF-8"}
PLAIN = {"LC_ALL": "C"}
UNNAMED = {"LC_ALL": "", "LC_CTYPE": "", "LANG": ""}


def on_terminal(system: System, args: Sequence[str], columns: int = 80) -> list[str]:
    """The lines that tq prints on a terminal with this many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [executable("tq"), *args],
        env={**system.environment(), **UTF8},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.STDOUT,
    )
    os.close(theirs)
    printed = b""
    try:
        while chunk := os.read(ours, 65536):
            printed += chunk
    except OSError:  # a terminal whose other side is closed
        pass
    os.close(ours)
    assert process.wait(30) == 0, printed
    return printed.decode().splitlines()


def piped(system: System, args: Sequence[str], env: dict[str, str]) -> str:
    """The output of tq into a pipe."""
    done = subprocess.run(
        [executable("tq"), *args],
        env={**system.environment(), **env},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


KEYS = ["é", "日本語", "k" * 1024, "plain", "c1"]


@pytest.fixture
def filled(running: System) -> System:
    """A system with keys, tags and values that are not plain ASCII, and one key of 1,024 characters."""
    client = running.client("schreiber-é")
    for key in KEYS:
        tag = {"note": "grün", "bell": "\x07", "es\x1b[31mc": 1, "c1\x9bx": 2}
        fields = {"text": f"{key[:9]}: " + "日" * 100, "n": np.arange(2)}
        run(client._kv_put(key, "pé", fields, tag, None, group=None))
    return running


def test_text_is_shown_as_text(filled: System) -> None:
    for env in (UTF8, UNNAMED):
        listed = piped(filled, ["ls", "pé"], env)
        assert re.search(r"^é +\d", listed, re.MULTILINE), listed
        assert "日本語" in listed
        assert '"note":"grün"' in listed
    assert "schreiber-é" in piped(filled, ["status"], UTF8)
    assert "pé" in piped(filled, ["status"], UTF8)
    assert re.search(r" schreiber-é +pé ", piped(filled, ["events"], UTF8))
    assert piped(filled, ["ls"], UTF8) == "pé\n"
    assert "é: 日日" in piped(filled, ["get", "pé"], UTF8)
    # A locale without these characters gets their raw bytes.
    assert r"\xc3\xa9" in piped(filled, ["ls", "pé"], PLAIN)


def test_control_characters_are_escaped(filled: System) -> None:
    for args in (["ls", "pé"], ["get", "pé"], ["status"], ["events"], ["ls"]):
        printed = piped(filled, args, UTF8)
        assert not [c for c in printed if c != "\n" and not c.isprintable()], printed
    listed = piped(filled, ["ls", "pé"], UTF8)
    assert r"es\u001B[31mc" in listed
    assert r"c1\xc2\x9bx" in listed
    wrong = filled.tq("ls", "no\x1b[31m", status=1)
    assert "\x1b" not in wrong
    assert r"no\x1b[31m" in wrong


def test_columns_line_up_by_what_is_seen(filled: System) -> None:
    """A wide character takes two cells, and the next column is aligned with the other lines."""
    lines = piped(filled, ["ls", "pé"], UTF8).splitlines()
    places = set()
    for line in lines:
        found = re.match(r"(é|日本語) +\d+", line)
        if found:
            wide = sum(ord(c) > 0x2E80 for c in found[0])
            places.add(len(found[0]) + wide)
    assert len(places) == 1, lines


def test_one_long_key_does_not_widen_every_line(filled: System) -> None:
    lines = piped(filled, ["ls", "pé"], UTF8).splitlines()
    assert sorted(len(line) > 1024 for line in lines) == [False] * 5 + [True]
    assert max(len(line) for line in lines if "k" * 99 not in line) < 100
    assert any("k" * 1024 in line for line in lines)  # a pipe gets all of it


def test_a_terminal_gets_lines_that_fit(filled: System) -> None:
    for args in (["ls", "pé"], ["get", "pé"]):
        for columns in (60, 120):
            lines = on_terminal(filled, args, columns)
            assert len(lines) > 5
            for line in lines:
                assert len(line) + sum(ord(c) > 0x2E80 for c in line) <= columns, line
    assert any(re.match(r"k+…", line) for line in on_terminal(filled, ["ls", "pé"]))


def test_json_has_the_whole_text(filled: System) -> None:
    listed = json.loads(piped(filled, ["ls", "pé", "--json"], UTF8))
    assert [one["key"] for one in listed] == KEYS


def test_names_that_are_no_utf8_are_refused_and_tags_are_escaped(running: System) -> None:
    """Latin-1 names put by a C program: JSON shows those of tags, escaped, and drops nothing."""
    done = subprocess.run(
        [str(Path(BUILD) / "tests" / "field" / "field_c_api"), "latin"],
        env=running.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    for line, (what, name, place) in zip(
        lines,
        [
            ("key", r"cl\xe9", 2),
            ("partition", r"caf\xe9", 3),
            ("field", r"\xe9t\xe9", 0),
            ("task", r"t\xe2che", 1),
        ],
        strict=True,
    ):
        assert line.startswith(
            f"{what}: TQ_ENAME {what} name '{name}' has what is not UTF-8 at byte {place} "
        )
    assert json.loads(running.tq("status", "--json"))["partitions"][0]["name"] == "v"
    (row,) = json.loads(running.tq("ls", "v", "--json"))
    assert row["key"] == "key"
    assert row["tags"] == {r"caf\xe9": 7}


def test_events_are_followed_over_a_restart_from_the_start_of_the_new_run(system: System) -> None:
    """Even if the previous run had more events than the new one has."""
    token = system.folder / "secret"
    token.write_text("0123456789abcdef")
    arguments = (f"--token-file={token}",)
    system.start(*arguments, role="controller")
    system.token_file = str(token)
    reader = system.client("reader")
    for number in range(20):
        system.client(f"first-{number}").close()
    followed = subprocess.Popen(
        [executable("tq"), "events", "--follow", "--json"],
        env=system.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    with followed:
        assert followed.stdout is not None
        lines = map(json.loads, followed.stdout)
        before = next(event for event in lines if event["session"] == "first-19")
        last = wait_event(reader, lambda event: event["session"] == "first-19")["seq"]
        assert before["seq"] == last > 20
        system.daemons[0].process.send_signal(signal.SIGUSR1)
        assert system.daemons[0].process.wait(30) == 0
        system.start(*arguments, role="controller")
        system.client("second").close()
        seen = []
        for event in lines:
            if event["seq"] <= before["seq"] and event["session"] in ("second", "reader"):
                seen.append(event["session"])
            if "second" in seen:
                break
        assert reader.get_events(since=last)[0]["seq"] == 1
        newest = reader.get_events()[-1]["seq"]
        # In the current run, a number beyond the last event waits for the next event.
        assert reader.get_events(since=newest + 100, wait=True, timeout=0.05) == []
        followed.terminate()


def test_events_begin_with_the_last_ones(running: System) -> None:
    """--last N applies to the events that are shown; the default is 20 with --follow, and all without."""
    client = running.client("writer")
    for number in range(30):
        client.put({"n": np.arange(2)}, partition_id=f"p{number}")
    written = [f"p{number}" for number in range(30)]

    def puts(text: str) -> list[str]:
        return [line.split()[3] for line in text.splitlines() if " put " in line]

    assert puts(running.tq("events")) == written
    assert puts(running.tq("events", "--last", "3")) == written[-3:]
    assert puts(running.tq("events", "--last", "0")) == []
    assert "--last" in running.tq("events", "--last", "few", status=2)
    with subprocess.Popen(
        [executable("tq"), "events", "--follow"],
        env=running.environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as followed:
        assert followed.stdout is not None
        followed.stdout.readline()  # the header
        first = [followed.stdout.readline() for _ in range(20)]
        client.put({"n": np.arange(2)}, partition_id="after")
        assert puts("".join(first)) == written[-20:]
        assert puts(followed.stdout.readline()) == ["after"]
        followed.terminate()


def test_columns_that_are_left_out_are_named(running: System) -> None:
    client = running.client()
    batch = client.put({"x": np.arange(3)}, partition_id="p")
    client.put({"y": np.arange(2), "z": np.arange(2)}, metadata=batch[:2])

    def said(*args: str) -> str:
        done = subprocess.run(
            [executable("tq"), "get", "p", *args],
            env=running.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stderr

    assert said() == (
        "tq: not all of these samples have 'y', 'z': they are left out; name samples that have them\n"
    )
    assert said("@0", "@1") == ""
    assert said("--field", "x") == ""


def test_a_sample_that_never_was_is_not_called_cleared(running: System) -> None:
    client = running.client()
    batch = client.put({"x": np.arange(3)}, partition_id="p")
    assert "sample 99 was never put: `tq ls PARTITION`" in running.tq("get", "p", "@99", status=1)
    said = running.tq("get", "p", "k", status=1)
    assert "no key 'k' in partition 'p', which has no keys: `tq get` and `tq clear`" in said
    client.clear_samples(batch[:1])
    assert "sample 0 was cleared from partition 'p'" in running.tq("get", "p", "@0", status=1)


def test_the_default_configuration_serves_as_it_is(system: System) -> None:
    """Including the keys that only init() reads, which tqd does not keep."""
    config = Path(transferq.__file__).parent / "config.yaml"
    system.start(
        "--config", str(config), settings=["backend.SimpleStorage.total_storage_size=64MiB"]
    )
    assert "address" not in system.client().system_config


def test_a_storage_daemon_reads_the_token_file_of_the_environment(
    running: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQ_TOKEN_FILE", running.token_file)
    command = ("--join", running.address, "--runtime-dir", str(running.folder / "unit"))
    daemon = Daemon("storage", *command, log=running.folder / "unit.log")
    try:
        assert daemon.answer == "ready"
    finally:
        daemon.stop()


def test_a_second_system_of_a_name_is_told_how_to_get_another(system: System) -> None:
    system.start(settings=["backend.SimpleStorage.total_storage_size=64MiB"])
    second = Daemon(
        "all-in-one", "--runtime-dir", str(system.runtime), log=system.folder / "second.log"
    )
    assert second.process.wait(30) == 1
    assert "--name NAME, or TQ_SYSTEM" in second.answer


def test_clearing_an_unknown_partition_says_so(running: System) -> None:
    for args in (["--all"], ["key"], ["@0"]):
        assert "there is no partition 'nope'" in running.tq("clear", "nope", *args, status=1)
        # For scripts that clear something that may not exist.
        told = running.tq("clear", "nope", *args, "--if-exists")
        assert told == "cleared 0 samples\n"
    running.client().put({"x": np.arange(3)}, partition_id="p")
    assert running.tq("clear", "p", "--all") == "cleared 3 samples\n"
    assert "there is no partition 'p'" in running.tq("clear", "p", "--all", status=1)


# --- options --------------------------------------------------------------------------------------


def options_of(*command: str) -> dict[str, str]:
    """The option letters of a program with their long options, from its --help."""
    done = subprocess.run(
        [*command, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **PLAIN},
    )
    return dict(re.findall(r"^ +-(\w), --([\w-]+)", done.stdout, re.MULTILINE))


def test_the_commands_come_before_the_options() -> None:
    done = subprocess.run(
        [executable("tq"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **PLAIN},
    )
    assert 0 < done.stdout.index("\nCommands:\n") < done.stdout.index("--address")
    # Each on one line of a terminal.
    listed = done.stdout.partition("\nCommands:\n")[2].partition("\n\n")[0].splitlines()
    assert [line[:3] for line in listed if not re.match(r"  [a-z]", line)] == []
    page = (Path(__file__).resolve().parents[2] / "man" / "tq.1").read_text("utf-8")
    assert page.index(".SH COMMANDS") < page.index(".SH OPTIONS") < page.index("Options of bench")


def test_one_letter_means_one_thing() -> None:
    ours, theirs = options_of(executable("tq")), options_of(executable("tqd"))
    assert ours["s"] == "system"
    assert theirs["o"] == "set"
    for letter in ours.keys() & theirs.keys():
        assert ours[letter] == theirs[letter], letter
    # It passes its options on.
    assert options_of(executable("tq"), "serve") == theirs


@pytest.mark.parametrize("command", [["tqd", "all-in-one"], ["tq", "serve"]])
def test_the_former_letter_does_nothing_else(command: list[str]) -> None:
    done = subprocess.run(
        [executable(command[0]), *command[1:], "-s", "controller.events=7"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert "-o controller.events=7" in done.stderr
    assert "--name" in done.stderr


def test_the_new_letter_sets_a_value(system: System) -> None:
    system.start(
        "-o", "storage.name=mine", settings=["backend.SimpleStorage.num_data_storage_units=1"]
    )
    assert [one["name"] for one in system.status()["storage"]] == ["mine-0"]


@pytest.mark.parametrize("program", ["tq", "tqd"])
def test_both_programs_name_their_version(program: str) -> None:
    done = subprocess.run(
        [executable(program), "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{program} {transferq.__version__}\n"), (
        done.stderr
    )
