"""Runs a program in a sandbox whose kernel refuses some system calls: `refuse.py CALL=ERRNO... -- PROGRAM ARGUMENT...`

CALL is a name in `CALLS`, or madvise:ADVICE or getsockopt:OPTION for just these; ERRNO a name such as ENOSYS. The
filter is a real seccomp filter: it applies to the program and everything that it starts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

CALLS = {
    "x86_64": {
        "memfd_create": 319,
        "pidfd_open": 434,
        "madvise": 28,
        "fallocate": 285,
        "getsockopt": 55,
    },
    "aarch64": {
        "memfd_create": 279,
        "pidfd_open": 434,
        "madvise": 233,
        "fallocate": 47,
        "getsockopt": 209,
    },
}
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

ADVICE = 2  # the argument of madvise and of getsockopt to check
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF: load a word of the call's description, jump, return
ALLOW, REFUSE = 0x7FFF0000, 0x00050000


def _instruction(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def _rule(word: str) -> bytes:
    """Instructions that refuse one call and let all others through."""
    what, _, number = word.partition("=")
    name, _, argument = what.partition(":")
    refuse = _instruction(RETURN, REFUSE | getattr(errno, number))
    call = CALLS[platform.machine()][name]
    if not argument:
        return _instruction(LOAD, 0) + _instruction(EQUAL, call, 0, 1) + refuse
    low = 16 + 8 * ADVICE
    return (
        _instruction(LOAD, 0)
        + _instruction(EQUAL, call, 0, 3)
        + _instruction(LOAD, low)
        + _instruction(EQUAL, int(argument), 0, 1)
        + refuse
    )


def install(words: list[str]) -> None:
    """Refuse the calls to this process and everything that it starts."""
    program = (
        _instruction(LOAD, 4)
        + _instruction(EQUAL, ARCHITECTURES[platform.machine()], 1, 0)
        + _instruction(RETURN, ALLOW)
        + b"".join(map(_rule, words))
        + _instruction(RETURN, ALLOW)
    )
    code = ctypes.create_string_buffer(program, len(program))
    filters = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(filters), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "no seccomp filter")


if __name__ == "__main__":
    split = sys.argv.index("--")
    install(sys.argv[1:split])
    os.execvp(sys.argv[split + 1], sys.argv[split + 1 :])
