"""Keeping the solver off stdout, which belongs to whoever asked for the plan."""

import ctypes
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress


@contextmanager
def stdout_is_ours() -> Generator[None]:
    """What C code prints meanwhile goes to stderr.

    HiGHS writes a line of its own with `printf` when it solves a sub-problem, whatever its options
    say, so that only the file descriptor helps. C buffers are emptied at both ends.
    """
    try:
        saved = os.dup(1)
    except OSError:  # nobody listens
        yield
        return
    try:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        _flush_c()
        with suppress(OSError):
            os.dup2(2, 1)
        yield
        _flush_c()
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _flush_c() -> None:
    """Empty the buffers of the C library."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)
