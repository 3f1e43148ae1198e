"""Write docs/errors.md: each error of include/tq/errors.h with its causes, remedies and an example.

A new code needs an entry in ADVICE below, where {TQ_NAME_MAX} and the like stand for the limits of types.h; its example stands in docs/error_examples.toml. The lint
runs this with --check: the page must equal the output of this program.

Usage: error_page.py [--check]
"""

import re
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
LIMIT = re.compile(r"^#define (TQ_\w+_MAX) (\d+)$", re.MULTILINE)
ROW = re.compile(r'\bX\((TQ_E\w+), (-\d+), (\w+), (\w+),\s*"([^"]*)"\)')

HEAD = """\
# Errors

Every call of the C library returns `TQ_OK` or one of these codes, and fills a `tq_error` whose message names the thing at
fault. In Python each code is a class, `transferq.NAME`, which derives from `transferq.TransferQueueError`, so from `RuntimeError`, and from
the built-in class named beside it; its `code` is the number below. A call that fails leaves the state unchanged.

This page is written by `tools/error_page.py` from `include/tq/errors.h`.
"""

ADVICE: dict[str, tuple[str, str]] = {
    "TQ_EINVAL": (
        "An argument is missing (NULL), contradicts another one, or is out of its range.",
        "Correct the call; the message names the argument.",
    ),
    "TQ_ENOMEM": (
        "The process could not get memory.",
        "Read or put less at a time, or give the process more memory.",
    ),
    "TQ_EROWS": (
        "The columns of a put have different numbers of rows, their bytes do not fit their shapes, or memory to read into is too small.",
        "Give every column as many rows as there are samples; the message says how many were expected.",
    ),
    "TQ_EDTYPE": (
        "The library does not know the dtype; or `controller.strict_schema` is on, and the rows are of another dtype or kind than the field.",
        "Convert the rows, use another field, or clear the field's samples first; without `controller.strict_schema` a field may mix dtypes.",
    ),
    "TQ_EKEY": (
        "A key names no sample of the partition.",
        "Check the key and the partition with `tq ls PARTITION`; calls with `lenient` leave unknown keys out.",
    ),
    "TQ_EPARTITION": (
        "No partition has this name: nothing was put into it yet, or it was cleared.",
        "Check the name with `tq ls`; claims wait for partitions that are created later, other calls do not.",
    ),
    "TQ_EFIELD": (
        "The metadata, or the partition, has no field of this name.",
        "Check the name; ask for the field when the samples are claimed or resolved.",
    ),
    "TQ_ENOTREADY": (
        "Some of the samples to read do not have all of the fields yet.",
        "Claim them, which waits until the fields are there, or read only what `tq status` shows as produced.",
    ),
    "TQ_EMANAGER": (
        "The configuration names a storage manager that this process does not have.",
        "Choose one of those that the message lists, load its library, or register it before the first call.",
    ),
    "TQ_ESAMPLER": (
        "A claim or the configuration names a sampler that the controller does not have.",
        "Choose one of those that the message lists, or register yours where the controller runs.",
    ),
    "TQ_ENAME": (
        "A name is empty or too long: {TQ_NAME_MAX} bytes for partitions, fields, tasks, groups and tags, {TQ_KEY_MAX} for keys.",
        "Use a shorter name, such as a hash of the long one.",
    ),
    "TQ_ESIZE": ("A claim asks for less than one sample.", "Give a batch size of at least 1."),
    "TQ_EFULL": (
        "The storage has no room, and the put may not wait for any, or waited until its deadline.",
        "Clear samples that are no longer needed, delete tensors that were read with `zero_copy`, or give the system more storage.",
    ),
    "TQ_ETIMEDOUT": (
        "The deadline passed: too few samples became ready, no room became free, or a server did not answer.",
        "The message says what the call waited for. Check names of fields and tasks with `tq status`, or wait longer.",
    ),
    "TQ_ECANCELED": (
        "The operation was cancelled.",
        "None needed: a cancelled claim has given its samples back.",
    ),
    "TQ_EPROTO": (
        "The bytes that were received are not a message of the protocol, or packed metadata was altered.",
        "Check that the address is that of a transfer queue; otherwise this is a bug to report.",
    ),
    "TQ_EAUTH": (
        "The token differs from the server's, or its file belongs to another user.",
        "Use the token file of the running system; a restarted system has a new token.",
    ),
    "TQ_EVERSION": (
        "Client and server, or a plug-in and the library, have different versions.",
        "The message names both and the older one: install the same release everywhere.",
    ),
    "TQ_EUNREACHABLE": (
        "No connection: nobody listens there, or the system was not found where the message says.",
        "Check that the system runs (`tq status`), its address, and firewalls between the machines.",
    ),
    "TQ_ESTALE": (
        "The metadata, or the session, belongs to an earlier run of the controller or of a unit.",
        "Claim or resolve the samples again; the data of an earlier run is gone.",
    ),
    "TQ_ECLEARED": (
        "The samples were cleared, or replaced by a checkpoint, after the metadata was made.",
        "Claim other samples; do not keep metadata of samples that others clear.",
    ),
    "TQ_ELOST": (
        "The storage that held the data has been gone for longer than `controller.owner_timeout`, or has evicted it.",
        "Put the cells again, or load a checkpoint; `tq status` counts lost cells; `tq status --json` and `tq events` name the samples.",
    ),
    "TQ_EEXIST": (
        "Something else has this name already: a sampler, a storage manager, or a directory that is not a checkpoint.",
        "Use another name or path.",
    ),
    "TQ_EAGAIN": (
        "A polling claim found too few ready samples.",
        "Try again later, or claim without polling, which waits.",
    ),
    "TQ_ECONFIG": (
        "A value of the configuration is unknown, of the wrong type or out of its range.",
        "Correct it; the message names the key, `tqd --help-config` lists all of them.",
    ),
    "TQ_ECLOSED": (
        "The client, or the module, was closed.",
        "Open a client, or call `init()`, before the call.",
    ),
    "TQ_EUNSUPPORTED": (
        "The server, or the storage, does not know this request.",
        "Use a newer server, or a storage that can do it; the message names what is missing.",
    ),
    "TQ_EIO": (
        "A system call failed: a file, a socket or shared memory.",
        "The message names the file and the system's reason.",
    ),
    "TQ_EINTERNAL": (
        "Something that should not happen, or an error of a plug-in that has no code of its own.",
        "Report it with the message and the log, unless the message names a plug-in.",
    ),
    "TQ_ECHECKPOINT": (
        "Files of a checkpoint are missing, cut off, or were altered.",
        "Load another checkpoint; the message names the file.",
    ),
    "TQ_EPICK": (
        "The sampler failed, or picked samples that it was not offered.",
        "Correct the sampler; the message contains its error.",
    ),
    "TQ_EENDED": (
        "The client's system was shut down cleanly, or another one now runs at its address.",
        "Call `init()` again, or open a new client, to attach to the running system. The data of the old one is gone.",
    ),
}


def page() -> str:
    """Return the page; fail if a code lacks an entry."""
    header = (ROOT / "include/tq/errors.h").read_text(encoding="utf-8").replace("\\\n", " ")
    rows = ROW.findall(header)
    codes = [row[0] for row in rows]
    missing = [code for code in codes if code not in ADVICE]
    left = [code for code in ADVICE if code not in codes]
    if not rows or missing or left:
        raise SystemExit(
            f"error_page: ADVICE in tools/error_page.py lacks {missing or 'nothing'}, "
            f"and has {left or 'nothing'} that is not in errors.h"
        )
    types = (ROOT / "include/tq/types.h").read_text(encoding="utf-8")
    limits = {name: f"{int(value):,}" for name, value in LIMIT.findall(types)}
    examples = tomllib.loads((ROOT / "docs/error_examples.toml").read_text(encoding="utf-8"))
    if set(examples) != set(codes):
        raise SystemExit(f"error_page: docs/error_examples.toml: {set(examples) ^ set(codes)}")
    parts = [HEAD]
    for code, number, name, base, text in rows:
        cause, remedy = (each.format(**limits) for each in ADVICE[code])
        parts.append(
            f"## {code}\n\n{number}, `transferq.{name}` (a `{base}`): {text}.\n\n"
            f"- **Cause.** {cause}\n- **Remedy.** {remedy}\n{example(**examples[code])}"
        )
    return "\n".join(parts)


def example(call: str, says: str, **_: str) -> str:
    """Return the example of an error: what provokes it, and what it says."""
    if not says:
        return f"- **Example.** {call}\n"
    shown = f"`{call}`" if "(" in call else call
    return f"- **Example.** {shown}\n\n  ```text\n  {says.strip()}\n  ```\n"


def main() -> int:
    """Write the page, or check it; 1 if it is outdated."""
    place = ROOT / "docs" / "errors.md"
    text = page()
    if "--check" not in sys.argv:
        place.write_text(text, encoding="utf-8")
        return 0
    if not place.exists() or place.read_text(encoding="utf-8") != text:
        print("docs/errors.md is out of step with include/tq/errors.h: run tools/error_page.py")
        return 1
    print(f"error_page: {text.count('## TQ_')} errors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
