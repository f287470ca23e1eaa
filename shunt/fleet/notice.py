"""An interruption in one form, whoever told of it; and the one decision that follows."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class NoticeKind(StrEnum):
    INTERRUPTION = "interruption"
    """The node will be taken at `at`."""
    REBALANCE = "rebalance"
    """The node is likelier than before to be taken; nothing is certain."""
    LOST = "lost"
    """The node is gone, or has not been heard of for a lease term."""


class NoticeSource(StrEnum):
    IMDS = "imds"
    SQS = "sqs"
    HEARTBEAT = "heartbeat"


@dataclass(frozen=True, slots=True)
class Notice:
    """One word about one node. `at` is the provider's instant: display only, as clocks differ."""

    kind: NoticeKind
    source: NoticeSource
    node_id: str
    """Empty where a node reads about itself."""
    at: datetime


@dataclass(slots=True)
class NoticeBoard:
    """Takes notices from every source and says each thing once.

    A notice that comes twice, or from two sources, is news once. A notice that is withdrawn does
    not undo a drain: what was drained is safe, and the replacement is on its way. A stronger word
    (recommendation, then interruption, then loss) about the same node is news again.
    """

    _strongest: dict[str, int] = field(default_factory=dict[str, int])

    def news(self, notice: Notice) -> bool:
        """Whether nothing so strong was said of the node before."""
        strength = _STRENGTH[notice.kind]
        if self._strongest.get(notice.node_id, -1) >= strength:
            return False
        self._strongest[notice.node_id] = strength
        return True


_STRENGTH = {NoticeKind.REBALANCE: 0, NoticeKind.INTERRUPTION: 1, NoticeKind.LOST: 2}
