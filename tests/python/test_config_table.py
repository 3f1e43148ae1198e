"""config/keys.toml, the single table of the configuration, and the files generated from it."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.daemons import executable
from transferq import config
from transferq._impl.config_keys import TABLE, Key, quantity
from transferq.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
KEYS = ROOT / "config" / "keys.toml"

LIMIT = """
[[section.key]]
name = "max_connections"
kind = "count"
unit = "connections"
default = 1000
min = 1
max = 65536
since = "9.9.9"
help = "Connections that are served at the same time."
"""
"""Entries that a limit needs in the table."""

PRINT_KEYS = """
#include "daemon/config.h"
#include <stdio.h>
int main(void)
{
    for (size_t i = 0; i < tqd_n_keys; i++) {
        const tqd_key *key = &tqd_keys[i];
        printf("%s %d %s %g %g %s\\n", key->path, key->type == TQD_INT, key->value, key->min, key->max, key->range);
    }
    puts(tqd_config_help);
    return 0;
}
"""


def generate(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the generator."""
    command = [sys.executable, ROOT / "config" / "generate.py", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def with_key(folder: Path, entry: str) -> Path:
    """A copy of the table with an additional key in the section net."""
    text = KEYS.read_text("utf-8")
    at = text.index('[[section]]\nname = "limits"')
    path = folder / "keys.toml"
    path.write_text(f"{text[:at]}{entry}\n{text[at:]}", "utf-8")
    return path


def rows_of(module: Path) -> dict[str, Key]:
    """The keys in a generated module."""
    return {row["path"]: Key(**row) for row in runpy.run_path(str(module))["KEYS"]}


def test_a_key_of_the_table_is_in_every_output(tmp_path: Path) -> None:
    table = with_key(tmp_path, LIMIT)
    for words in (("--built", tmp_path), ("--root", tmp_path)):
        done = generate("--table", table, *words)
        assert done.returncode == 0, done.stderr

    # The table of tqd, and the output of --help-config.
    (tmp_path / "main.c").write_text(PRINT_KEYS)
    program = tmp_path / "main"
    command = [
        "cc",
        "-Wall",
        "-Werror",
        f"-I{ROOT / 'src'}",
        f"-I{ROOT / 'include'}",
        "-o",
        program,
    ]
    subprocess.run([*command, "main.c", "config_table.c"], check=True, cwd=tmp_path)
    said = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    assert "net.max_connections 1 1000 1 65536 1 to 65536 connections\n" in said
    assert re.search(
        r"^net\.max_connections +number +1000 +Connections that .* \(1 to 65536 connections\)$",
        said,
        re.MULTILINE,
    )

    # The constants in libtq.
    assert "#define TQI_CONFIG_NET_MAX_CONNECTIONS_MAX 65536\n" in (
        tmp_path / "config_keys.h"
    ).read_text("utf-8")

    # The check in transferq.
    key = rows_of(tmp_path / "config_table.py")["net.max_connections"]
    assert [value for value in (0, 1, 65536, 65537, "9", None) if key.accepts(value)] == [1, 65536]
    assert key.expects == "a number from 1 to 65536"

    # The files kept in git.
    text = (tmp_path / "python/transferq/config.yaml").read_text("utf-8")
    assert yaml.safe_load(text)["net"]["max_connections"] == 1000
    assert "  # Connections that are served at the same time.\n  max_connections: 1000\n" in text
    page = (tmp_path / "docs/configuration.md").read_text("utf-8")
    assert (
        "### `net.max_connections`\n\ncount, 1 to 65536 connections; default: `1000`; read by: controller, storage; "
        "fixed with the system; since 9.9.9.\n\nConnections that are served at the same time.\n"
        in page
    )


def test_the_files_in_git_and_the_programs_are_those_of_the_table(tmp_path: Path) -> None:
    done = generate("--check")
    assert done.returncode == 0, done.stdout
    assert generate("--built", tmp_path).returncode == 0
    assert rows_of(tmp_path / "config_table.py") == TABLE
    help_config = subprocess.run(
        [executable("tqd"), "--help-config"], check=True, capture_output=True, text=True
    ).stdout
    table = (tmp_path / "config_table.c").read_text("utf-8")
    made = re.findall(r'^ +(".*\\n");?$', table, re.MULTILINE)
    assert help_config == "".join(map(json.loads, made))


@pytest.mark.parametrize("command", [("tqd",), ("tq", "serve")])
def test_both_programs_have_the_help(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        [executable(command[0]), *command[1:], "--help-config"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert re.search(r"^client\.timeout +time +60 ", done.stdout, re.MULTILINE)


def test_a_file_out_of_step_is_found(tmp_path: Path) -> None:
    assert generate("--root", tmp_path).returncode == 0
    done = generate("--check", "--root", tmp_path, "--table", with_key(tmp_path, LIMIT))
    assert done.returncode == 1
    assert "python/transferq/config.yaml is out of step with config/keys.toml" in done.stdout
    assert "docs/configuration.md is out of step" in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("default = 1000", "default = 0", "net.max_connections: the default 0 is not 1 to 65536"),
        ('kind = "count"', 'kind = "counter"', "kind 'counter' is none of"),
        ("min = 1\n", "least = 1\n", "has unknown ['least']"),
        ("min = 1\n", "", "min is needed"),
        ('unit = "connections"\n', "", "unit with kind count"),
        ('name = "max_connections"', 'name = "bind"', "twice in the table: net.bind"),
        ("max = 65536", 'max = "64 apples"', "'64 apples' is no quantity of kind count"),
        ('since = "9.9.9"', 'scope = "moon"', "scope says what is not explained"),
        ('help = "Connections that are served at the same time."', "", "lacks ['help']"),
    ],
)
def test_a_mistake_in_the_table_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in LIMIT
    done = generate("--table", with_key(tmp_path, LIMIT.replace(old, new)), "--built", tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# --- the same values are accepted in C and in Python ----------------------------------------------


def nested(path: str, value: Any) -> dict[str, Any]:
    """A configuration with one key."""
    for name in reversed(path.split(".")):
        value = {name: value}
    assert isinstance(value, dict)
    return value


def said_in_c(path: str, value: object) -> str:
    """The error of tqd for a value; empty if it is accepted."""
    command = [executable("tqd"), "all-in-one", "--set", f"{path}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    # Otherwise it would need a runtime directory.
    return "" if "--token-file is needed" in done.stderr else done.stderr


def said_in_python(path: str, value: object) -> str:
    """The error of the package for a value."""
    try:
        config.read(nested(path, value))
    except ConfigError as error:
        return str(error)
    return ""


def bounds() -> list[Any]:
    """Every key with a range, with values at and beyond its limits."""
    found = []
    for key in TABLE.values():
        step = 0.0005 if key.kind == "seconds" else 1
        ends = [(key.minimum, -step), (key.maximum, step)]
        for end, beyond in ((end, beyond) for end, beyond in ends if end is not None):
            for number, is_in in ((end, True), (end + beyond, False)):
                # A plain number of total_storage_size may be a count of samples.
                value = f"{number}B" if key.kind == "bytes" else number
                found.append(pytest.param(key.path, value, is_in, id=f"{key.path}={value}"))
    return found


@pytest.mark.parametrize(("path", "value", "is_in"), bounds())
def test_ranges_are_checked_alike(path: str, value: Any, is_in: bool) -> None:
    in_c, in_python = said_in_c(path, value), said_in_python(path, value)
    if is_in:
        assert (in_c, in_python) == ("", "")
    else:
        # Key, value and range.
        assert re.search(rf"{path}: {re.escape(str(value))} is out of range \(.*\d.*\)", in_c)
        assert in_python == f"{path}: expected {TABLE[path].expects}, got {value!r}"
        assert re.search(r"from \d\S* to \d|at least \d", in_python)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (key.path, value)
        for key in TABLE.values()
        if key.kind in ("seconds", "bytes") and key.read_by
        for value in ("much", "12 apples", "s", "-1")
    ],
)
def test_what_is_no_quantity_is_refused_alike(path: str, value: str) -> None:
    assert path in said_in_c(path, value)
    assert path in said_in_python(path, value)


@pytest.mark.parametrize("value", ["5s", "5000ms", "0.1 min", "1H", "5", "1e1", "5.s"])
def test_times_are_read_alike(value: str) -> None:
    path = "backend.SimpleStorage.keep_warm"
    assert said_in_c(path, value) == said_in_python(path, value) == ""


@pytest.mark.parametrize("value", ["2MiB", "2 mib", "3MB", "1GiB", "4194304", "50%", "100 %"])
def test_sizes_are_read_alike(value: str) -> None:
    path = "backend.Redis.memory"
    assert said_in_c(path, value) == said_in_python(path, value) == ""
    assert quantity("bytes", "2 mib") == 2 << 20


def test_more_than_the_memory_of_the_machine_is_refused_alike() -> None:
    path = "backend.Redis.memory"
    assert "101%" in said_in_c(path, "101%")
    assert "101%" in said_in_python(path, "101%")


@pytest.mark.parametrize("path", [key.path for key in TABLE.values() if key.kind == "choice"])
def test_choices_are_checked(path: str) -> None:
    key = TABLE[path]
    for choice in key.choices:
        assert said_in_c(path, choice) == said_in_python(path, choice) == ""
    assert said_in_python(path, "pigeon") == f"{path}: expected {key.expects}, got 'pigeon'"
    if set(key.read_by) & {"controller", "storage", "client"}:
        assert f"{path}: expected {key.expects}, got 'pigeon'" in said_in_c(path, "pigeon")


# --- readers of the table -------------------------------------------------------------------------


def test_what_the_daemon_reads_is_in_the_table_with_that_type() -> None:
    kinds = {
        "string": {"text", "choice"},
        "bool": {"bool"},
        "int": {"number"},
        "count": {"count"},
        "seconds": {"seconds"},
        "bytes": {"bytes"},
        "strings": {"texts"},
    }
    read = re.compile(r'tqd_config_(\w+)\(\s*[\w>.-]+,\s*"([\w.]+)"')
    found = [
        match
        for source in (ROOT / "src" / "daemon").glob("*.c")
        for match in read.findall(source.read_text("utf-8"))
        if match[0] in kinds
    ]
    assert len(found) > 20
    for getter, path in found:
        assert path in TABLE, path
        assert TABLE[path].kind in kinds[getter], (path, getter)


def test_clients_get_numbers_of_seconds() -> None:
    read = config.read({"client": {"timeout": "250ms", "wait_notice": "1min"}})
    assert read == {"client": {"timeout": 0.25, "wait_notice": 60}}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"Redis": {"urk": "x"}}, "unknown key 'backend.Redis.urk', did you mean 'url'?"),
        ({"Redis": {"cluster": "often"}}, "backend.Redis.cluster: expected true or false, got"),
        ({"MooncakeStore": {"protocol": "pigeon"}}, "expected tcp or rdma, got 'pigeon'"),
        ({"RayStore": 5}, "backend.RayStore: expected a map, got 5"),
    ],
)
def test_sections_of_backends_are_checked(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        config.read({"backend": section})


def test_empty_and_missing_values_of_a_backend_are_taken() -> None:
    config.read({"backend": {"MooncakeStore": {"metadata_server": "", "local_hostname": None}}})


def test_configurations_in_the_documentation_are_right() -> None:
    read = 0
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
            config.read(yaml.safe_load(block))
            read += 1
    assert read >= 4
