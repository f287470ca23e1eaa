"""The controller's side of the timeline: what it has to tell while the store is away is kept."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from shunt.run.event import Event, record
from shunt.store.patience import AWAY
from shunt.store.protocol import Store

_MOST_KEPT = 1000
"""Events that wait for the store; older ones are given up for newer ones."""


@dataclass(slots=True)
class Timeline:
    """Tells who watches at once, and the store as soon as it answers. For one thread.

    An event is never a reason for the step that tells it to fail.
    """

    store: Store
    run_id: str
    watch: Callable[[Event], None]
    _waiting: deque[Event] = field(default_factory=lambda: deque[Event](maxlen=_MOST_KEPT))

    def tell(self, event: Event) -> None:
        """Add it; behind those that wait, so that a store that is away is not asked for each."""
        self.watch(event)
        self._waiting.append(event)
        if len(self._waiting) == 1:
            self.settle()

    def settle(self) -> None:
        """Record what waits, as far as the store takes it."""
        while self._waiting:
            try:
                record(self.store, self.run_id, self._waiting[0])
            except AWAY:
                return
            self._waiting.popleft()
