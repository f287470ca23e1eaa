"""What ends a worker is told in the store: `shunt status` says it without a login."""

import pytest

from shunt.fleet.worker_exit import WorkerExit
from shunt.model.errors import ModelDamaged, ModelUnavailable
from shunt.run.node_status import NodeState, read_status
from shunt.store.errors import StoreUnavailable
from shunt.testing.memory_store import MemoryStore
from workers.ending import ending_told
from workers.node.fitness import NodeUnfit


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NodeUnfit("the disk is read-only"), WorkerExit.UNFIT),
        (ModelDamaged("s3://b/m", "a.safetensors is torn"), WorkerExit.UNFIT),
        (ModelUnavailable("team/m", "the hub answers 503"), WorkerExit.BUG),
        (ZeroDivisionError("division\nby zero"), WorkerExit.BUG),
    ],
)
def test_an_error_is_told_with_its_exit_code(error: Exception, code: WorkerExit) -> None:
    store = MemoryStore()
    with ending_told(store, "r", "i-1") as ending:
        raise error
    status = read_status(store, "r", "i-1")
    assert status is not None
    assert (ending.code, status.exit_code, status.state) == (code, code, NodeState.ENDED)
    assert " ".join(str(error).split()) in status.failure
    assert "\n" not in status.failure


def test_a_store_that_is_away_keeps_the_exit_code() -> None:
    class Away(MemoryStore):
        def put(self, key: str, data: bytes) -> None:
            raise StoreUnavailable(f"{key} of {len(data)} bytes")

    with ending_told(Away(), "r", "i-1") as ending:
        raise NodeUnfit("no driver")
    assert ending.code is WorkerExit.UNFIT
