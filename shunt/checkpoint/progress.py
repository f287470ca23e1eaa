"""Replay: from the checkpoint log of a shard to what has been generated of it so far.

The rules, which `docs/resume.md` argues for:

1. The newest epoch that has a segment of sequence 0 decides. That segment's `seals` name, for every
   older epoch, the last segment that counts; whatever an older owner wrote after it is litter.
2. Of the deciding epoch itself the contiguous segments from 0 on count.
3. Segments apply in the order (epoch, sequence). A gain continues its generation at `base`;
   `base` 0 over existing tokens restarts the generation; a gap is corruption, never skipped.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from shunt import keys
from shunt.checkpoint.generation import Generation, TokenLogprobs
from shunt.checkpoint.segment import Gain, SegmentHeader, decode_segment
from shunt.errors import CorruptSegment
from shunt.keys import Position
from shunt.store.protocol import Store

NO_SEGMENT = -1
"""The seal of an epoch of which nothing counts."""

_FETCH_THREADS = 8
_MIXED = "mixed"


@dataclass(slots=True)
class _Draft:
    """A generation under replay: grows in place, is frozen once at the end."""

    last: Generation
    token_ids: list[int] = field(default_factory=list[int])
    logprobs: list[TokenLogprobs] | None = None


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """What the log says. `cut` maps each epoch to its last segment that counts."""

    generations: Mapping[tuple[int, int], Generation]
    """By (prompt index, choice)."""
    cut: Mapping[int, int]
    num_segments: int = 0

    def finished(self, index: int, num_choices: int) -> bool:
        """Whether the prompt is terminal: every choice finished, or one of them failed.

        Choices that answer two prompts are not: some of them are about to be restarted.
        """
        generations = [
            generation
            for choice in range(num_choices)
            if (generation := self.generations.get((index, choice))) is not None
        ]
        finishes = [generation.finish for generation in generations]
        if any(finish is not None and finish.error is not None for finish in finishes):
            return True
        if len(finishes) < num_choices or any(finish is None for finish in finishes):
            return False
        return len({g.prompt_digest for g in generations if g.prompt_digest}) <= 1


def replay(
    store: Store, run_id: str, shard_id: str, *, cut: Mapping[int, int] | None = None
) -> ShardProgress:
    """Read the shard's log and apply what counts of it.

    With `cut`, exactly these segments are applied: the same answer for ever, as segments never
    change. Raises `CorruptSegment` where the log contradicts itself.
    """
    if cut is None:
        cut = _cut_now(store, run_id, shard_id)
    segments = read_log(store, run_id, shard_id, cut)
    generations = apply_gains(_gains(segments, run_id, shard_id))
    return ShardProgress(generations, dict(cut), sum(last + 1 for last in cut.values()))


def read_log(
    store: Store, run_id: str, shard_id: str, cut: Mapping[int, int] | None = None
) -> Iterator[tuple[SegmentHeader, list[Gain]]]:
    """The segments of the shard that count, in order; with `cut`, exactly these. Raises
    `CorruptSegment` for one that cannot be read."""
    if cut is None:
        cut = _cut_now(store, run_id, shard_id)
    counted = [
        Position(epoch, sequence)
        for epoch, last in sorted(cut.items())
        for sequence in range(last + 1)
    ]
    with ThreadPoolExecutor(_FETCH_THREADS) as pool:
        yield from pool.map(_reader(store, run_id, shard_id), counted)


def _cut_now(store: Store, run_id: str, shard_id: str) -> dict[int, int]:
    positions = sorted(
        keys.segment_position(key) for key in store.list(keys.segment_prefix(run_id, shard_id))
    )
    read = _reader(store, run_id, shard_id)
    return find_cut(positions, lambda position: read(position)[0])


def find_cut(
    positions: Iterable[Position], header_of: Callable[[Position], SegmentHeader]
) -> dict[int, int]:
    """The segments that count among `positions`: epoch -> last sequence."""
    present = set(positions)
    deciding = max((p.epoch for p in present if p.sequence == 0), default=None)
    if deciding is None:
        return {}
    cut = dict(header_of(Position(deciding, 0)).seals)
    last = 0
    while Position(deciding, last + 1) in present:
        last += 1
    cut[deciding] = last
    return {epoch: last for epoch, last in sorted(cut.items()) if last != NO_SEGMENT}


def apply_gains(gains: Iterable[tuple[str, Gain]]) -> dict[tuple[int, int], Generation]:
    """Fold (object key, gain) pairs, in log order, into generations."""
    drafts: dict[tuple[int, int], _Draft] = {}
    for key, gain in gains:
        name = (gain.index, gain.choice)
        draft = drafts.get(name)
        if draft is None or gain.base == 0:
            drafts[name] = draft = _Draft(gain.generation)
        if gain.base != len(draft.token_ids):
            raise CorruptSegment(
                key,
                f"continues prompt {gain.index} choice {gain.choice} at token {gain.base}, "
                f"but the log before it holds {len(draft.token_ids)}",
            )
        _grow(draft, gain.generation)
    return {name: _freeze(draft) for name, draft in drafts.items()}


def _grow(draft: _Draft, tail: Generation) -> None:
    draft.token_ids.extend(tail.token_ids)
    if tail.logprobs is not None:
        draft.logprobs = [*(draft.logprobs or ()), *tail.logprobs]
    fingerprint = tail.fingerprint or draft.last.fingerprint
    if draft.last.fingerprint not in ("", fingerprint):
        fingerprint = _MIXED
    draft.last = replace(
        tail,
        fingerprint=fingerprint,
        prompt_logprobs=tail.prompt_logprobs or draft.last.prompt_logprobs,
        prompt_digest=tail.prompt_digest or draft.last.prompt_digest,
    )


def _freeze(draft: _Draft) -> Generation:
    logprobs = None if draft.logprobs is None else tuple(draft.logprobs)
    return replace(draft.last, token_ids=tuple(draft.token_ids), logprobs=logprobs)


def _reader(
    store: Store, run_id: str, shard_id: str
) -> Callable[[Position], tuple[SegmentHeader, list[Gain]]]:
    def read(position: Position) -> tuple[SegmentHeader, list[Gain]]:
        key = keys.segment(run_id, shard_id, position)
        header, gains = decode_segment(key, store.get(key))
        if (header.run_id, header.shard_id, header.position) != (run_id, shard_id, position):
            raise CorruptSegment(key, "was written for another place in the log")
        return header, gains

    return read


def _gains(
    segments: Iterable[tuple[SegmentHeader, list[Gain]]], run_id: str, shard_id: str
) -> Iterator[tuple[str, Gain]]:
    for header, gains in segments:
        key = keys.segment(run_id, shard_id, header.position)
        for gain in gains:
            yield key, gain
