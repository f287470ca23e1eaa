"""Which request goes to the engine next, and how a prompt that kills engines is found.

Ordinary requests wait in one queue over all held shards, so the engine never drains between shards.
When an engine dies, those in flight are suspects. They run again (from their tokens, so nothing is
generated twice) with nobody else in the engine, at most half as many at once as had died together;
each further death halves that again. A request is convicted when it was alone at an engine's death
and `max_deaths` engines in a row died with it at the same token: what kills at random (a node, an
operator) strikes at different tokens. A request that gets a little further each time is convicted
after `ALONE_DEATHS` times as many. One that ends is cleared.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from shunt.checkpoint.request import Request
from workers.shards.ordering import in_serving_order, share_prefixes

ALONE_DEATHS = 4
"""Deaths of engines with one request alone in them, in units of `max_deaths`, that convict it
whatever progress it made: chance would have had to find it alone every time."""


@dataclass(slots=True)
class Admission:
    """The waiting requests. Lives on the event loop."""

    max_deaths: int
    _queue: deque[Request] = field(default_factory=deque[Request])
    _suspects: deque[Request] = field(default_factory=deque[Request])
    _deaths: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """Request id -> (tokens it had at its last death, deaths in a row at that token)."""
    _alone: dict[str, int] = field(default_factory=dict[str, int])
    """Request id -> deaths that it saw alone in the engine."""
    _on_trial: set[str] = field(default_factory=set[str])
    _group_limit: int = 0
    shares_prefixes: bool = False
    """Many requests had a prefix in common with another when some were added last."""

    @property
    def num_waiting(self) -> int:
        return len(self._queue) + len(self._suspects)

    @property
    def trying(self) -> bool:
        """Whether suspects of an engine's death are being run apart from the others."""
        return bool(self._suspects or self._on_trial)

    def add(self, requests: Iterable[Request]) -> None:
        """Queue them, in the serving order of all that wait, of whatever shard."""
        waiting = [*self._queue, *requests]
        self.shares_prefixes = share_prefixes(waiting)
        self._queue = deque(in_serving_order(waiting))

    def suspect(self, request: Request, deaths: int) -> None:
        """Put a request on trial: other owners died with it in flight. As after a death that this
        worker saw, half of the suspects at once."""
        self._deaths[request.request_id] = (_num_tokens(request), deaths)
        self._suspects.append(request)
        self._group_limit = max(1, len(self._suspects) // 2)

    def next(self, running: int) -> Request | None:
        """The request to admit now, if any, given how many are in the engine."""
        if self._suspects or self._on_trial:
            clean = running - len(self._on_trial)
            if not self._suspects or clean > 0 or len(self._on_trial) >= self._group_limit:
                return None
            request = self._suspects.popleft()
            self._on_trial.add(request.request_id)
            return request
        return self._queue.popleft() if self._queue else None

    def cleared(self, request_id: str) -> None:
        """The request ended, one way or another, and the engine lives."""
        self._on_trial.discard(request_id)
        self._deaths.pop(request_id, None)
        self._alone.pop(request_id, None)

    def engine_died(self, in_flight: list[Request]) -> list[Request]:
        """Take back what was in flight; returns those that are convicted of the death.

        Each request's `saved` must hold the tokens that it had when the engine died.
        """
        self._on_trial.clear()
        for request in in_flight:
            at, deaths = self._deaths.get(request.request_id, (-1, 0))
            tokens = _num_tokens(request)
            self._deaths[request.request_id] = (tokens, deaths + 1 if at == tokens else 1)
        if len(in_flight) == 1 and self._convicted(in_flight[0].request_id):
            self.cleared(in_flight[0].request_id)
            return in_flight
        self._group_limit = max(1, len(in_flight) // 2)
        self._suspects.extendleft(reversed(in_flight))
        return []

    def _convicted(self, request_id: str) -> bool:
        self._alone[request_id] = alone = self._alone.get(request_id, 0) + 1
        in_a_row = self._deaths[request_id][1]
        return in_a_row >= self.max_deaths or alone >= ALONE_DEATHS * self.max_deaths

    def forget(self, request_ids: set[str]) -> None:
        """Drop the waiting requests of a shard that was lost to another owner."""
        self._queue = deque(r for r in self._queue if r.request_id not in request_ids)
        self._suspects = deque(r for r in self._suspects if r.request_id not in request_ids)
        for request_id in request_ids:
            self.cleared(request_id)


def _num_tokens(request: Request) -> int:
    return len(request.saved.token_ids) if request.saved else 0
