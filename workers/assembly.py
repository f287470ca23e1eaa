"""How a worker's parts are put together."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from shunt.checkpoint.generation import Generation
from shunt.checkpoint.lease import Lease
from shunt.checkpoint.request import Request
from shunt.dataset.row_error import RowError
from shunt.store.protocol import Store
from workers.admission import Admission
from workers.engine.protocol import Engine
from workers.engine_room import EngineRoom
from workers.settings import WorkerSettings
from workers.shards.cadence import Cadence
from workers.shards.desk import ShardDesk
from workers.shards.opening import OpenedShard
from workers.shards.supply import ShardSupply
from workers.shards.tally import Tally
from workers.worker import Worker


def assemble(
    settings: WorkerSettings,
    store: Store,
    *,
    supply: ShardSupply,
    open_shard: Callable[[Lease, Cadence], OpenedShard],
    start_engine: Callable[[], Awaitable[Engine]],
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    pid: int,
) -> Worker:
    """One worker: what ends in the engine goes to its shard, what is lost leaves the engine."""
    tally = Tally()
    admission = Admission(settings.max_deaths)

    def finished(request_id: str, generation: Generation) -> None:
        admission.cleared(request_id)
        desk.finish(request_id, generation)

    def refused(request_id: str, error: RowError) -> None:
        admission.cleared(request_id)
        desk.fail(request_id, error)

    def again(request: Request) -> None:
        desk.update(request)

    def lost(request_ids: set[str]) -> None:
        admission.forget(request_ids)
        room.abort(request_ids)

    room = EngineRoom(start_engine, settings.max_engine_starts, finished, refused, again)
    desk = ShardDesk(settings, store, supply, open_shard, now, monotonic, tally, on_lost=lost)
    return Worker(settings, store, room, desk, admission, tally, now, pid)
