"""Run a program that the kernel ends when its parent ends, however that comes about, kill -9 included.

    python -I -S die_with_parent.py <signal number> <parent's pid> <niceness> <program> [argument…]

A program of its own, executed between fork and exec, because Python code in a fork of a process with threads
(subprocess's `preexec_fn`) can deadlock. It imports almost nothing and replaces itself: the pid stays.
Linux only; elsewhere it just runs the program.
"""

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    number, parent, niceness, *program = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    # The parent may have died before the kernel knew what we want.
    if os.getppid() != parent:
        sys.exit(128 + number)
    os.nice(niceness)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.exit(f"cannot run {program[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
