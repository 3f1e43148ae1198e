"""tools/check_symbols.py names what is wrong with the exports of a shared library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from check_symbols import check_library, check_time, declared  # noqa: E402

PUBLIC = {"tq_one": "tq.h", "tq_two": "tq.h"}
ALL = "TQ_0.2 { global: tq_*; local: *; };"


def built(folder: Path, code: str, versions: str, *options: str, name: str = "libtq") -> list[str]:
    """What the check says about a library of this code, exported as the version script says."""
    (folder / "code.c").write_text(code, "utf-8")
    (folder / "map").write_text(versions, "utf-8")
    library = folder / f"{name}.so.0.2.0"
    command = ["cc", "-shared", "-fPIC", "-o", library, folder / "code.c", *options]
    command += [f"-Wl,--version-script={folder / 'map'}", f"-Wl,-soname={name}.so.0.2"]
    subprocess.run(command, check=True)
    return check_library(library, PUBLIC)


@pytest.mark.parametrize(
    ("code", "versions", "problems"),
    [
        ("int tq_one, tq_two, tqi_inside;", ALL, []),
        ("int tq_one;", ALL, ["libtq.so.0.2.0: tq_two, declared in tq/tq.h, is missing"]),
        (
            "int tq_one, tq_two, tqi_inside;",
            "TQ_0.2 { global: tq*; local: *; };",
            ["libtq.so.0.2.0: exports tqi_inside, which none of its headers declares"],
        ),
        (
            "int tq_one, tq_two;",
            "TQ_0.1 { global: tq_one; };" + ALL,
            ["libtq.so.0.2.0: tq_one has the version TQ_0.1, expected TQ_0.2"],
        ),
    ],
    ids=["right", "missing", "too many", "another version"],
)
def test_exports(code: str, versions: str, problems: list[str], tmp_path: Path) -> None:
    assert built(tmp_path, code, versions) == problems


def test_a_client_that_needs_a_library_of_the_daemon(tmp_path: Path) -> None:
    needs = ("-Wl,--no-as-needed", "-lmicrohttpd")
    code = "int tq_one, tq_two;"
    assert built(tmp_path, code, ALL, *needs) == ["libtq.so.0.2.0: needs libmicrohttpd.so.12"]
    daemon = ALL.replace("TQ_", "TQD_")
    assert built(tmp_path, code, daemon, *needs, name="libtqd") == []


def test_only_the_clock_asks_for_the_time(tmp_path: Path) -> None:
    code = (
        "long time(long *at); long fn(void) { return time(0); } int time_left(void) { return 1; }"
    )
    (tmp_path / "code.c").write_text(code, "utf-8")
    archive = tmp_path / "libtq.a"
    for name in ("src_base_clock.c.o", "src_net_call.c.o"):
        subprocess.run(["cc", "-c", tmp_path / "code.c", "-o", tmp_path / name], check=True)
        subprocess.run(["ar", "rcs", archive, tmp_path / name], check=True)
    calls = "libtq.a: src_net_call.c.o calls time, which is for base/clock.c"
    assert check_time(archive) == [calls]


def test_each_function_belongs_to_a_header() -> None:
    found = declared()
    assert found["tq_put"] == "tq.h"
    assert found["tq_daemon_run"] == "daemon.h"
    assert found["tq_balance"] == "sampler.h"
