"""Check what the built binaries export, that every public function is there, and where time comes from.

- libtq.so and libtqd.so export every function marked TQ_API in the headers of include/tq that are theirs, under the
  version of their soname, and nothing else. libtq.so needs none of the libraries that only libtqd.so needs.
- The extensions transferq._core and transferq._host export their module init function and nothing else.
- Only base/clock.c asks the system for the time and for randomness: what replaces them there replaces them everywhere.

Usage: check_symbols.py BUILD_DIR
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)
PUBLIC = re.compile(r"\bTQ_API\b[^;{(]*?\b(\w+)\s*\(")


# Headers of libtqd, and the functions in them that are in libtq: samplers written in Python use them there.
DAEMON_HEADERS = {"daemon.h", "sampler.h"}
IN_LIBTQ = {"tq_balance"}

# What a program that is only a client must not load.
ONLY_DAEMON = ("libroaring.", "libyaml-", "libmicrohttpd.")

# Asks the system for the time or for randomness.
SYSTEM = re.compile(
    r"(clock_gettime|gettimeofday|time|timespec_get|getrandom|getentropy|arc4random\w*"
    r"|s?rand(om)?(_r)?|[dlm]rand48|RAND_\w+|uv_hrtime|uv_random|uv_gettimeofday)"
)
CLOCK = "base_clock.c.o"


def output_of(*words: str | Path) -> str:
    """Return what a command prints."""
    done = subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)
    return done.stdout


def exported(binary: Path) -> dict[str, str]:
    """Return the names that a shared object defines for others, with the version of each ("" for none)."""
    lines = output_of(
        *("nm", "-D", "--defined-only", "--with-symbol-versions", "--format=posix"), binary
    ).splitlines()
    pairs = [line.split()[0].partition("@") for line in lines if line.strip()]
    # A node of versions is itself a name.
    return {name: version.lstrip("@") for name, _, version in pairs if not name.startswith("TQ")}


def declared() -> dict[str, str]:
    """Return the functions marked TQ_API, with the header of each."""
    names = {}
    for header in sorted((ROOT / "include" / "tq").glob("*.h")):
        text = DIRECTIVE.sub("", COMMENT.sub(" ", header.read_text(encoding="utf-8")))
        for match in PUBLIC.finditer(text):
            names[match.group(1)] = header.name
    return names


def check_library(binary: Path, public: dict[str, str]) -> list[str]:
    """Return a line for everything wrong with the names and needs of a shared library."""
    names = exported(binary)
    dynamic = output_of("readelf", "-d", binary)
    soname = re.search(r"SONAME.*\[(\w+)\.so\.([\d.]+)\]", dynamic)
    if soname is None:
        return [f"{binary.name}: has no versioned soname"]
    version = f"{soname[1].removeprefix('lib').upper()}_{soname[2]}"
    problems = [
        f"{binary.name}: {name}, declared in tq/{public[name]}, is missing"
        for name in sorted(public.keys() - names.keys())
    ]
    problems += [
        f"{binary.name}: exports {name}, which none of its headers declares"
        for name in sorted(names.keys() - public.keys())
    ]
    problems += [
        f"{binary.name}: {name} has the version {found or 'none'}, expected {version}"
        for name, found in sorted(names.items())
        if found != version
    ]
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    if binary.name.startswith("libtq."):
        problems += [
            f"{binary.name}: needs {name}" for name in needed if name.startswith(ONLY_DAEMON)
        ]
    return problems


def check_extension(binary: Path) -> list[str]:
    """Return a line for every name that the extension exports besides its init function."""
    names = exported(binary)
    init = f"PyInit_{binary.name.split('.')[0]}"
    problems = [f"{binary.name}: exports {name}" for name in sorted(names.keys() - {init})]
    if init not in names:
        problems.append(f"{binary.name}: has no {init}")
    return problems


def check_time(archive: Path) -> list[str]:
    """Return a line for every object but the clock that asks the system for the time or for randomness."""
    problems = []
    for line in output_of("nm", "-A", "--undefined-only", archive).splitlines():
        where, _, name = line.rpartition(" U ")
        member = where.rstrip(": ").rpartition(":")[2]
        if SYSTEM.fullmatch(name) and not member.endswith(CLOCK):
            problems.append(f"{archive.name}: {member} calls {name}, which is for base/clock.c")
    return problems


def main() -> int:
    """Check the binaries of a build; 1 if anything is wrong."""
    build = Path(sys.argv[1])
    extensions = [
        binary
        for module in ("_core", "_host")
        for binary in (build / "python").rglob(f"{module}.*.so")
    ]
    public = declared()
    of_daemon = {
        name for name, header in public.items() if header in DAEMON_HEADERS and name not in IN_LIBTQ
    }
    problems = []
    for name, functions in (("libtq", public.keys() - of_daemon), ("libtqd", of_daemon)):
        library = build / "install" / f"{name}.so"
        if library.exists():
            own = {function: public[function] for function in functions}
            problems += check_library(library.resolve(), own)
        else:
            problems.append(f"{library} is not built")
    if len(extensions) < 2:
        problems.append("the extensions transferq._core and transferq._host are not built")
    for extension in extensions:
        problems += check_extension(extension)
    for archive in ("libtq.a", "libtqd.a"):
        problems += check_time(build / archive)
    for problem in problems:
        print(problem)
    print(f"check_symbols: {2 + len(extensions)} binaries, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
