"""The other nodes of a pipeline, as its head sees them: there, leaving, or silent.

Heads and nodes never compare clocks: a node lives as long as its heartbeat object changes, on the
head's own monotonic clock.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from shunt.plan.launch import PipelineLaunch, announce
from shunt.plan.plan import Pipeline
from shunt.plan.seat import Seat, read_seats
from shunt.run.node_status import HEARTBEAT_S, SILENT_S, NodeState, NodeStatus, read_status
from shunt.store.patience import AWAY
from shunt.store.protocol import Store

POLL_S = 1.0
_BLAMELESS_WITHIN_S = 4 * HEARTBEAT_S
"""After an engine's death: time for every living node to send another heartbeat, also on a busy
machine."""
_GONE = (NodeState.DRAINING, NodeState.ENDED)

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Heard:
    status: NodeStatus
    at_s: float
    changes: int = 0
    """A dead node's last heartbeat is still there: only one that changes tells of life."""


@dataclass(slots=True)
class Partners:
    """Of one worker, which heads `pipeline`. Store calls run in threads; one task may wait."""

    store: Store
    run_id: str
    worker_id: str
    pipeline: Pipeline
    own: Seat
    monotonic: Callable[[], float]
    _seats: dict[str, Seat] = field(default_factory=dict[str, Seat])
    _heard: dict[str, _Heard] = field(default_factory=dict[str, _Heard])
    _looked_s: float | None = None
    _launched: tuple[Seat, ...] = ()

    async def gather(self) -> Mapping[str, str]:
        """Wait until every slot of the pipeline has a living node; their addresses by slot."""
        self._launched = ()
        told: set[str] = set()
        while True:
            there = await asyncio.to_thread(self._look)
            missing = set(self.pipeline.slots) - there.keys()
            if not missing:
                self._launched = tuple(there[slot] for slot in self.pipeline.slots)
                return {seat.slot: seat.address for seat in self._launched}
            if missing != told:
                log.info("pipeline %s waits for %s", self.pipeline.name, ", ".join(sorted(missing)))
                told = missing
            await asyncio.sleep(POLL_S)

    async def announce(self, link_number: int) -> None:
        """Tell the gathered nodes to join."""
        launch = PipelineLaunch(
            place=self.pipeline.place,
            number=0,
            worker_id=self.worker_id,
            pipeline=self.pipeline,
            seats=self._launched,
            link_number=link_number,
        )
        launch = await asyncio.to_thread(announce, self.store, self.run_id, launch)
        log.info("pipeline %s: launch %d is announced", self.pipeline.name, launch.number)

    async def until_one_is_lost(self) -> str:
        """Wait until a node of the launch leaves or is silent; which one, and why."""
        while True:
            there = await asyncio.to_thread(self._look)
            for seat in self._launched:
                if there.get(seat.slot) != seat:
                    return f"node {seat.node_id} of the pipeline is leaving or silent"
            await asyncio.sleep(POLL_S)

    async def all_live(self) -> bool:
        """After the engine's death: whether every node of the launch lives on, and so is not its
        reason. Asks for a heartbeat that is younger than this call."""
        before = {s.node_id: await asyncio.to_thread(self._status, s) for s in self._launched[1:]}
        until_s = self.monotonic() + _BLAMELESS_WITHIN_S
        waiting = set(before)
        while waiting and self.monotonic() < until_s:
            await asyncio.sleep(POLL_S)
            for seat in self._launched[1:]:
                now, then = await asyncio.to_thread(self._status, seat), before[seat.node_id]
                if now is not None and now.state in _GONE:
                    return False
                if now is not None and (then is None or now.updated_at != then.updated_at):
                    waiting.discard(seat.node_id)
        return not waiting

    def _look(self) -> dict[str, Seat]:
        """The living nodes by slot; where a slot has several, the one of the launch, if it is one
        of them. What the store does not tell is as it was."""
        there = {self.own.slot: self.own}
        others = self.pipeline.slots[1:]
        try:
            for slot in others:
                read_seats(self.store, self.run_id, slot, into=self._seats)
            seats = [seat for seat in self._seats.values() if seat.slot in others]
            statuses = {seat.node_id: self._read(seat) for seat in seats}
        except AWAY as error:
            log.warning("store not reached, nothing known of the other nodes: %s", error)
            self._looked_s = None
            return {seat.slot: seat for seat in self._launched} or there
        now_s = self.monotonic()
        fresh_eyes = self._looked_s is None  # nobody was silent while we did not look
        self._looked_s = now_s
        for seat in seats:
            status = statuses[seat.node_id]
            if status is None or not self._lives(status, now_s, fresh_eyes=fresh_eyes):
                continue
            if there.get(seat.slot) not in self._launched:
                there[seat.slot] = seat
        return there

    def _lives(self, status: NodeStatus, now_s: float, *, fresh_eyes: bool) -> bool:
        heard = self._heard.get(status.node_id)
        if heard is None:
            self._heard[status.node_id] = _Heard(status, now_s)
            return False
        if heard.status.updated_at != status.updated_at:
            heard.changes += 1
            heard.status, heard.at_s = status, now_s
        elif fresh_eyes:
            heard.at_s = now_s
        if status.state in _GONE or not heard.changes:
            return False
        return now_s - heard.at_s <= SILENT_S

    def _read(self, seat: Seat) -> NodeStatus | None:
        """Its status. One that has ended stays so, and is not read again."""
        heard = self._heard.get(seat.node_id)
        if heard is not None and heard.status.state is NodeState.ENDED:
            return heard.status
        return read_status(self.store, self.run_id, seat.node_id)

    def _status(self, seat: Seat) -> NodeStatus | None:
        try:
            return self._read(seat)
        except AWAY:
            return None
