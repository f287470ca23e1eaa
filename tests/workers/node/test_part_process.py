"""What a node thinks of its worker, in virtual time."""

import io
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from shunt.fleet.worker_exit import WorkerExit
from shunt.job.job import Input, Job, Model
from shunt.plan.seat import Seat
from shunt.run.node_status import NodeState, NodeStatus, read_status, write_status
from shunt.store.errors import StoreUnavailable
from shunt.testing.faulty_store import Call, Fault, FaultyStore, When
from shunt.testing.memory_store import MemoryStore
from tests.workers.node.test_nodes import pipeline
from workers.node import part_process
from workers.node.part_process import HeadProcess, NodeSetting
from workers.node.parts import Part
from workers.node.replicas import Replica, replicas_of

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


@pytest.mark.parametrize("says", [None, NodeState.STARTING, NodeState.ENDED])
def test_a_start_that_froze_is_ended_in_the_end(watched: Watched, says: NodeState | None) -> None:
    """Nobody else sees it: on a node of several workers the others keep the node alive."""
    assert not watched.hangs_after(10, says=says)
    assert not watched.hangs_after(1700, says=None)
    assert watched.hangs_after(200, says=None)


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


class Ending:
    """A process that has ended."""

    def __init__(self, code: int) -> None:
        self.code = code
        self.stdin = io.BytesIO()

    def poll(self) -> int:
        return self.code


@dataclass
class Crashing:
    """A part whose processes end as soon as they start, with these codes."""

    part: Part | Replica
    codes: list[int]
    saves: bool = False
    """Whether each of them has saved something before."""
    now_s: float = 0.0
    started_at_s: list[float] = field(default_factory=list[float])
    store: MemoryStore = field(default_factory=MemoryStore)

    def ends(self, monkeypatch: pytest.MonkeyPatch) -> int:
        """The code with which the part is given up; 0 where it ended in order."""
        monkeypatch.setattr(part_process, "_spawn", self._spawn)
        job = Job(name="c", model=Model(path="none", engine_kind="fake"), input=Input(path="none"))
        own = Seat(slot="a", node_id="i-a", address="127.0.0.1")
        setting = NodeSetting(self.store, "run", job, own, [], {}, 8, lambda: self.now_s)
        head = HeadProcess(self.part, setting)
        while not (head.done or head.crash):
            head.step()
            assert head.lives or head.done or head.crash, "the node would end with work left"
            self.now_s += 1.0
        assert not head.lives
        return head.crash

    def _spawn(self, arguments: list[str], environment: Mapping[str, str]) -> Ending:
        del environment
        self.started_at_s.append(self.now_s)
        at = START + timedelta(seconds=self.now_s)
        name = arguments[arguments.index("--node") + 1]
        status = NodeStatus(
            node_id=name,
            pid=1,
            state=NodeState.RUNNING,
            segments=int(self.saves),
            started_at=START,
            updated_at=at,
        )
        write_status(self.store, "run", status)
        return Ending(self.codes.pop(0))


REPLICA = replicas_of(2, 1, {})[0]


def test_a_replica_that_crashes_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker that dies is no reason to power off a node whose other GPUs work."""
    crashing = Crashing(REPLICA, [1, -9, 1, 0])
    assert crashing.ends(monkeypatch) == 0
    pauses = [b - a for a, b in pairwise(crashing.started_at_s)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= 2


def test_a_replica_that_keeps_crashing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = Crashing(REPLICA, [1] * 9)
    assert crashing.ends(monkeypatch) == 1
    assert len(crashing.started_at_s) == 4, "the first start, and max_crashes more"


def test_crashes_between_which_something_is_saved_are_not_in_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Crashing(REPLICA, [*([1] * 9), 0], saves=True).ends(monkeypatch) == 0


@pytest.mark.parametrize(("part", "code"), [(REPLICA, 78), (Part(pipeline("p", ("a", 0)), "a"), 1)])
def test_what_another_start_cannot_mend_is_given_up_at_once(
    part: Part | Replica, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = Crashing(part, [code] * 3)
    assert crashing.ends(monkeypatch) == code
    assert len(crashing.started_at_s) == 1


def test_a_worker_that_is_ended_for_its_silence_is_told_of(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot say so itself, and its log is on a machine that may be gone."""

    def spawn(arguments: list[str], environment: object) -> "subprocess.Popen[bytes]":
        del environment
        names.append(arguments[arguments.index("--node") + 1])
        waits = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        return subprocess.Popen(waits, stdin=subprocess.PIPE)

    names: list[str] = []
    monkeypatch.setattr(part_process, "_spawn", spawn)
    head = HeadProcess(watched.head.part, replace(watched.head.setting, silent_start_s=30.0))
    try:
        for _ in range(60):
            watched.now_s += 1.0
            head.step()
            if head._process is not None and watched.now_s > 1040.0:
                head._process.wait(30)
        assert head.crash == WorkerExit.BUG
    finally:
        head.kill()
    told = read_status(watched.memory, "run", names[0])
    assert told is not None
    assert told.state is NodeState.ENDED
    assert "not heard of for" in told.failure
