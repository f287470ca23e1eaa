"""What ends a worker is told in the store: `shunt status` says it without a login."""

import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from shunt.fleet.worker_exit import WorkerExit
from shunt.job.job import Input, Job, Model
from shunt.model.errors import ModelDamaged, ModelUnavailable
from shunt.model.fetching import Interrupted
from shunt.model.listing import ModelListing
from shunt.run.manifest import Manifest
from shunt.run.node_status import NodeState, read_status
from shunt.store.config import StoreConfig
from shunt.store.errors import StoreUnavailable
from shunt.testing.memory_store import MemoryStore
from tests.workers.bench import RUN
from workers.ending import ending_told
from workers.model_fetch import ModelFetch, bring_watched
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


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Whatever is set for them meanwhile."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Slow(ModelFetch):
    """A model that takes for ever."""

    def bring(self, manifest: Manifest) -> Manifest:
        assert manifest.run_id == self.run_id
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert self.stop.wait(30.0), "the signal does not reach the fetch"
        raise Interrupted("org/model", "told to leave while the model was fetched")


@pytest.mark.usefixtures("own_signals")
def test_a_process_that_is_told_to_leave_while_it_fetches_has_drained() -> None:
    """Whether it is a worker or a node of several: it is no failure, and the machine is sound."""
    store = MemoryStore()
    job = Job(name="a", model=Model(path="org/model"), input=Input(path="none"))
    manifest = Manifest(
        run_id=RUN, created_at=datetime.now(UTC), job=job, input_format="jsonl", files=(),
        shards=(), model=ModelListing(kind="hub", place="org/model", commit="c" * 40, files=()),
    )  # fmt: skip
    bringing = Slow(store, StoreConfig(uri="runs"), RUN, "i-1", {})
    with ending_told(store, RUN, "i-1") as ending:
        bring_watched(bringing, manifest, watch_parent=False, imds_url=None)
    status = read_status(store, RUN, "i-1")
    assert status is not None
    assert (ending.code, status.exit_code) == (WorkerExit.DRAINED, WorkerExit.DRAINED)
    assert status.failure == ""
