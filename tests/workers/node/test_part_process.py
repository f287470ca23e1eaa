"""What a node thinks of its worker, in virtual time."""

from datetime import UTC, datetime, timedelta

import pytest

from shunt.job.job import Input, Job, Model
from shunt.plan.seat import Seat
from shunt.run.node_status import NodeState, NodeStatus, write_status
from shunt.store.errors import StoreUnavailable
from shunt.testing.faulty_store import Call, Fault, FaultyStore, When
from shunt.testing.memory_store import MemoryStore
from tests.workers.node.test_nodes import pipeline
from workers.node.part_process import HeadProcess, NodeSetting
from workers.node.parts import Part

START = datetime(2026, 1, 1, tzinfo=UTC)


class Watched:
    """A head whose worker says what the test wants, every two seconds."""

    def __init__(self) -> None:
        self.now_s, self.cut = 1000.0, False
        self.memory = MemoryStore()
        model = Model(path="none", engine_kind="fake")
        setting = NodeSetting(
            store=FaultyStore(self.memory, self._fault),
            run_id="run",
            job=Job(name="hangs", model=model, input=Input(path="none")),
            own=Seat(slot="a", node_id="i-a", address="127.0.0.1"),
            worker_options=[],
            environment={},
            cores=1,
            monotonic=lambda: self.now_s,
        )
        self.head = HeadProcess(Part(pipeline("p", ("a", 0)), "a"), setting)
        self.head._name = "worker"

    def _fault(self, call: Call) -> Fault | None:
        del call
        return Fault(When.BEFORE) if self.cut else None

    def hangs_after(self, seconds: float, *, says: NodeState | None) -> bool:
        """Whether it was called hanging within so long."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += 2.0
            if says is not None and not self.cut:
                at = START + timedelta(seconds=self.now_s)
                status = NodeStatus(
                    node_id="worker", pid=1, state=says, started_at=START, updated_at=at
                )
                write_status(self.memory, "run", status)
            try:
                if self.head._hangs():
                    return True
            except StoreUnavailable:
                assert self.cut
        return False


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_worker_that_speaks_or_starts_does_not_hang(watched: Watched) -> None:
    assert not watched.hangs_after(600, says=None)  # not a word yet: it imports
    assert not watched.hangs_after(10, says=NodeState.STARTING)
    assert not watched.hangs_after(600, says=None)
    assert not watched.hangs_after(600, says=NodeState.IDLE)


def test_a_worker_that_fell_silent_hangs(watched: Watched) -> None:
    watched.hangs_after(10, says=NodeState.RUNNING)
    assert not watched.hangs_after(170, says=None)
    assert watched.hangs_after(20, says=None)


def test_a_store_out_of_reach_is_not_the_worker_s_silence(watched: Watched) -> None:
    watched.hangs_after(10, says=NodeState.RUNNING)
    watched.cut = True
    assert not watched.hangs_after(600, says=NodeState.RUNNING)
    watched.cut = False
    assert not watched.hangs_after(100, says=None)  # it has not come to speak again
    assert not watched.hangs_after(100, says=NodeState.RUNNING)
