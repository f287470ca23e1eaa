"""How a worker's process ends: what it says to whoever started it."""

from enum import IntEnum

DRAIN_LIMIT_S = 90.0
"""A worker that was told to leave has left by then: a drain that takes longer has hung, and two
minutes are what a spot notice gives."""


class WorkerExit(IntEnum):
    """Fleets, the unit file of a node and the reconciler read these and nothing else.

    deployments/aws/shunt-worker.service repeats the numbers; a test compares them.
    """

    DONE = 0
    """No shard of the run is left to do."""
    BUG = 1
    DRAINED = 75
    """Told to go; everything generated is saved. Run again (EX_TEMPFAIL)."""
    UNFIT = 78
    """The machine cannot do the work, whoever starts it again (EX_CONFIG)."""


EXPECTED_EXITS = (WorkerExit.DONE, WorkerExit.DRAINED)
"""Nothing went wrong on the node; anything else is a failure of its worker."""
FINAL_EXITS = (*EXPECTED_EXITS, WorkerExit.UNFIT)
"""Starting the worker again on the same machine is of no use."""
