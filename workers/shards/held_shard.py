"""A shard that this worker holds: what is left to do of it, and what is not yet saved."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from shunt.checkpoint.done import ShardDone
from shunt.checkpoint.generation import Finish, Generation, Resumption, tail
from shunt.checkpoint.log import CheckpointLog
from shunt.checkpoint.request import Request, digest_of
from shunt.checkpoint.segment import Gain
from shunt.dataset.row_error import RowError
from workers.shards.cadence import Cadence

Peek = Callable[[Mapping[str, int]], Mapping[str, Generation]]
"""`Engine.progress` of the named requests, each from the given token position on."""

CountNew = Callable[[Mapping[str, int]], int]
"""`Engine.num_new`: how many tokens that would be."""


@dataclass(frozen=True, slots=True)
class ShardCounts:
    """What the shard holds beside the requests that are still open."""

    num_rows: int
    num_error_rows: int
    num_output_tokens: int


@dataclass(slots=True)
class HeldShard:
    """One shard under this worker's lease.

    Lives on the event loop; only the store calls of the log run in threads, one at a time.
    """

    log: CheckpointLog
    cadence: Cadence
    open: dict[str, Request]
    """Requests without a terminal row yet, by request id, in the order of admission."""
    counts: ShardCounts
    _saved: dict[str, int] = field(default_factory=dict[str, int])
    _open_choices: dict[str, int] = field(default_factory=dict[str, int])
    """Prompt index -> requests of it that are still open."""
    _finished: dict[str, Generation] = field(default_factory=dict[str, Generation])
    _ours: set[str] = field(default_factory=set[str])
    """Requests whose log begins anew under this lease: what is saved of them is this engine's."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        for request_id, request in self.open.items():
            self._saved[request_id] = len(request.saved.token_ids) if request.saved else 0
            row = request_id.split(".")[0]
            self._open_choices[row] = self._open_choices.get(row, 0) + 1

    @property
    def shard_id(self) -> str:
        return self.log.lease.shard_id

    @property
    def complete(self) -> bool:
        """Every prompt is terminal in the log."""
        return not self.open

    @property
    def refused(self) -> frozenset[str]:
        """Requests that ended before they reached an engine."""
        return frozenset(self._finished)

    @property
    def num_terminal(self) -> int:
        return self.counts.num_rows - len(self._open_choices)

    @property
    def num_unfinished(self) -> int:
        return len(self.open) - len(self._finished)

    @property
    def unsaved_rows(self) -> int:
        """Rows that have ended and are in no segment yet."""
        ended = Counter(request_id.split(".")[0] for request_id in self._finished)
        return sum(count == self._open_choices[row] for row, count in ended.items())

    def replace(self, request: Request) -> None:
        """The request goes on in another engine, with what it has now."""
        self.open[request.request_id] = request
        self._ours.discard(request.request_id)

    def finish(self, request_id: str, generation: Generation) -> None:
        """Take a finished generation; it is open until it is saved."""
        assert generation.finish is not None
        if request_id in self.open:
            self._finished[request_id] = generation

    def fail(self, request_id: str, error: RowError) -> None:
        """End a request as an error row, keeping the tokens that were saved of it."""
        saved = self.open[request_id].saved or Generation()
        self.finish(request_id, replace(saved, finish=Finish("error", None, "", error)))

    def unsaved_tokens(self, count_new: CountNew) -> int:
        """New tokens that no segment holds, by count: nothing of them is read."""
        ended = sum(
            max(0, len(generation.token_ids) - self._saved[request_id])
            for request_id, generation in self._finished.items()
        )
        return ended + count_new(self._saved)

    async def flush(self, peek: Peek, now_s: float) -> int:
        """Append what is new; returns the number of tokens made durable.

        Raises `Fenced`, and `StoreError` when the store is not to be reached: then the gains are
        kept, and the next flush first settles them.
        """
        async with self._lock:
            if self.log.in_doubt:
                await asyncio.to_thread(self.log.settle)
            gains = self._gains(peek)
            if not gains:
                return 0
            self._mark_saved(gains)
            self.cadence.flushed(now_s)
            await asyncio.to_thread(self.log.append, gains)
            return sum(len(gain.generation.token_ids) for gain in gains)

    async def settle(self) -> None:
        """Make sure that nothing handed to the log is in doubt."""
        async with self._lock:
            await asyncio.to_thread(self.log.settle)

    def done(self) -> ShardDone:
        return ShardDone(
            shard_id=self.shard_id,
            epoch=self.log.lease.epoch,
            num_rows=self.counts.num_rows,
            num_error_rows=self.counts.num_error_rows,
            num_output_tokens=self.counts.num_output_tokens,
            num_segments=self.log.num_segments + self.log.progress.num_segments,
        )

    def _gains(self, peek: Peek) -> list[Gain]:
        """What ended and what lives: requests that wait cost nothing."""
        gains = [self._gain(name, finished) for name, finished in self._finished.items()]
        for request_id, live in peek(self._saved).items():
            if request_id in self._finished:
                continue
            if live.resumption is Resumption.RESTARTED:
                gains.append(self._gain(request_id, live))
            elif live.token_ids:
                gains.append(self._added(request_id, self._saved[request_id], live))
        return [gain for gain in gains if gain is not None]

    def _gain(self, request_id: str, whole: Generation) -> Gain | None:
        """What a finished or restarted generation, known from its first token, adds to the log."""
        saved = self._saved[request_id]
        continues = request_id in self._ours or self._continues(request_id, whole, saved)
        base = saved if continues else 0
        if base == len(whole.token_ids) and whole.finish is None:
            return None
        if base > len(whole.token_ids):
            return None  # a restarted request that has not yet come as far as what is saved
        return self._added(request_id, base, tail(whole, base))

    def _added(self, request_id: str, base: int, added: Generation) -> Gain:
        prompt = self.open[request_id].prompt_token_ids
        if base == 0 and prompt:
            added = replace(added, prompt_digest=digest_of(prompt))
        index, choice = request_id.split(".")
        return Gain(int(index), int(choice), base, added)

    def _continues(self, request_id: str, generation: Generation, saved: int) -> bool:
        """Whether the saved tokens are a prefix of the generation: always, unless restarted."""
        request = self.open[request_id]
        if request.saved is None or generation.resumption is not Resumption.RESTARTED:
            return True
        if request.has_other_prompt:
            return False  # equal tokens would still be answers to another prompt
        if len(generation.token_ids) < saved:
            return generation.finish is None
        ours = request.saved.token_ids[:saved]
        return generation.token_ids[: len(ours)] == ours

    def _mark_saved(self, gains: Sequence[Gain]) -> None:
        for gain in gains:
            request_id = f"{gain.index}.{gain.choice}"
            length = gain.base + len(gain.generation.token_ids)
            self._saved[request_id] = length
            if gain.base == 0:
                self._ours.add(request_id)
            if gain.generation.finish is None:
                continue
            del self.open[request_id]
            del self._finished[request_id], self._saved[request_id]
            self._close_choice(str(gain.index))
            self._ours.discard(request_id)
            failed = gain.generation.finish.error is not None
            self.counts = ShardCounts(
                num_rows=self.counts.num_rows,
                num_error_rows=self.counts.num_error_rows + failed,
                num_output_tokens=self.counts.num_output_tokens + length,
            )

    def _close_choice(self, row: str) -> None:
        self._open_choices[row] -= 1
        if self._open_choices[row] == 0:
            del self._open_choices[row]
