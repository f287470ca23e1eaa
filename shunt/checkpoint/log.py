"""The owner's side of a checkpoint log: append segments, each created if absent."""

from collections.abc import Sequence
from dataclasses import dataclass

from shunt import keys
from shunt.checkpoint.lease import Lease, newest_epoch
from shunt.checkpoint.progress import NO_SEGMENT, ShardProgress
from shunt.checkpoint.segment import Gain, SegmentHeader, encode_segment
from shunt.errors import Fenced
from shunt.keys import Position


@dataclass(slots=True)
class CheckpointLog:
    """Appends to one shard's log under one lease. One thread at a time may use it.

    `progress` is the replay that the owner started from: the first segment seals every older epoch
    at what that replay saw.
    """

    lease: Lease
    progress: ShardProgress
    _sequence: int = 0
    _unsaved: tuple[str, bytes] | None = None
    bytes_written: int = 0

    @property
    def in_doubt(self) -> bool:
        """Whether it is not known if the last segment was written."""
        return self._unsaved is not None

    @property
    def num_segments(self) -> int:
        """Segments of this epoch so far."""
        return self._sequence

    def append(self, gains: Sequence[Gain]) -> None:
        """Make the gains durable as the next segment; nothing may be unsettled.

        Takes the gains over in any case. Raises `Fenced` when another owner wrote there, and a
        `StoreError` when it is not known whether the segment was written: then call `settle` until
        it returns, and only then append again.
        """
        assert self._unsaved is None, "settle() first"
        position = Position(self.lease.epoch, self._sequence)
        header = SegmentHeader(
            run_id=self.lease.run_id,
            shard_id=self.lease.shard_id,
            position=position,
            owner=self.lease.owner,
            seals=self._seals() if self._sequence == 0 else {},
        )
        key = keys.segment(self.lease.run_id, self.lease.shard_id, position)
        self._unsaved = (key, encode_segment(header, gains))
        self.settle()

    def settle(self) -> None:
        """Put the segment whose fate is unknown, if there is one: same key, same bytes."""
        if self._unsaved is None:
            return
        key, data = self._unsaved
        if not self.lease.store.put_if_absent(key, data):
            lease = self.lease
            newer = newest_epoch(lease.store, lease.run_id, lease.shard_id)
            raise Fenced(lease.shard_id, epoch=lease.epoch, newer_epoch=newer)
        self._unsaved = None
        self._sequence += 1
        self.bytes_written += len(data)

    def _seals(self) -> dict[int, int]:
        cut = self.progress.cut
        return {epoch: cut.get(epoch, NO_SEGMENT) for epoch in range(1, self.lease.epoch)}
