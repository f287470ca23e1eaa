"""What is said of a run's nodes, by the provider's queue and by the nodes themselves, as news."""

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from shunt.aws.errors import AwsError
from shunt.aws.nodes.event_queue import EventQueue
from shunt.fleet.notice import Notice, NoticeBoard, NoticeKind, NoticeSource
from shunt.fleet.worker_exit import WorkerExit
from shunt.run.node_status import NodeState, NodeStatus

QUEUE_AGAIN_S = 60.0
"""After a queue failed: each try holds up a look for as long as its retries take."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class NodeWatch:
    """Says each thing once, whichever of its sources told it and however often.

    Silence is judged on the watcher's own monotonic clock: a heartbeat that does not change.
    """

    silent_s: float
    boot_limit_s: float
    monotonic: Callable[[], float]
    now: Callable[[], datetime]
    queue: EventQueue | None = None
    queue_fault: str = ""
    """Why the queue could not be read at the last look; empty where it could."""
    _queue_again_s: float = 0.0
    _board: NoticeBoard = field(default_factory=NoticeBoard)
    _heard: dict[str, tuple[datetime | None, float]] = field(
        default_factory=dict[str, tuple[datetime | None, float]]
    )

    def news(
        self,
        holding: Collection[str],
        statuses: Mapping[str, NodeStatus],
        *,
        fresh: bool = True,
    ) -> Iterator[Notice]:
        """What is new about the nodes that hold a slot. A queue that fails costs its news alone:
        nodes see their own notices, and whoever looks has a budget to keep.

        Statuses that are not `fresh`, because the store does not answer, are no silence: the time
        that each node has for its next word begins again.
        """
        if not fresh:
            now_s = self.monotonic()
            self._heard = {node: (heard, now_s) for node, (heard, _) in self._heard.items()}
        told = self._queued()
        queued = [n for n in told if n.kind is not NoticeKind.LOST]  # the listing says so as well
        said = [self._said(node_id, statuses.get(node_id)) for node_id in holding]
        for notice in [*queued, *filter(None, said)]:
            if notice.node_id in holding and self._board.news(notice):
                yield notice

    def _queued(self) -> list[Notice]:
        if self.queue is None or self.monotonic() < self._queue_again_s:
            return []
        try:
            told = list(self.queue.notices())
        except AwsError as error:
            if not self.queue_fault:
                log.warning("notice queue not read: %s", error)
            self.queue_fault = str(error)
            self._queue_again_s = self.monotonic() + QUEUE_AGAIN_S
            return []
        self.queue_fault = ""
        return told

    def _said(self, node_id: str, status: NodeStatus | None) -> Notice | None:
        if status is not None and _is_leaving(status):
            return self._notice(NoticeKind.INTERRUPTION, node_id)
        if status is not None and status.exit_code == WorkerExit.DONE:
            return None
        now_s, heard = self.monotonic(), None if status is None else status.updated_at
        before = self._heard.get(node_id)
        if before is None or before[0] != heard:
            self._heard[node_id] = (heard, now_s)
            return None
        starting = status is None or status.state is NodeState.STARTING
        if now_s - before[1] <= (self.boot_limit_s if starting else self.silent_s):
            return None
        return self._notice(NoticeKind.LOST, node_id)

    def _notice(self, kind: NoticeKind, node_id: str) -> Notice:
        return Notice(kind, NoticeSource.HEARTBEAT, node_id, self.now())


def _is_leaving(status: NodeStatus) -> bool:
    """A worker that was not told to go by us was told by the provider."""
    return status.state is NodeState.DRAINING or status.exit_code == WorkerExit.DRAINED
