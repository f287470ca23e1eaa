"""How the command line ends. Documented in docs/operations.md; scripts rely on it."""

from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    """All rows are there and good."""
    FAILED = 1
    USAGE = 2
    """The command, the job file or the input is wrong; nothing was started."""
    ROW_ERRORS = 3
    """Finished, with more error rows than the job allows."""
    LIMIT = 4
    """Stopped by the deadline or the budget; what is done is saved. Run again to go on."""
    INTERRUPTED = 75
    """Stopped by a signal or a cancellation; what is done is saved. Run again to go on."""
