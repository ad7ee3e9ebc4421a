"""Become a program that dies with the process that started it: ``tether.py PARENT_PID PROGRAM...``.

Linux sends the chosen signal to a process when its parent ends, however it ends
(``PR_SET_PDEATHSIG``, prctl(2)); the setting survives ``exec``, so the program keeps this
process's id and needs no supervisor. A ``preexec_fn`` would do the same between fork and exec,
where Python code may deadlock if the parent has threads, and librdkafka has many.

"Parent" means the *thread* that started the process: start servers from a thread that stays.
Runs as a script, without the package and its imports, to cost 20 ms and no more.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[str]) -> list[str]:
    """Return the command that runs ``command`` and, on Linux, ends it when this process ends."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), *command]


def main() -> None:
    """Tie this process to its parent, then become the program."""
    parent_pid = int(sys.argv[1])
    program = sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    # The parent may have ended before the line above took effect; nobody would ever tell us.
    if os.getppid() != parent_pid:
        sys.exit("the process that started this one has ended")
    # Python ignores SIGPIPE, and what is ignored stays ignored across exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execvp(program[0], program)  # noqa: S606  becoming another program is the purpose


if __name__ == "__main__":
    main()
