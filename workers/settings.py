"""What one worker process is told: everything that argv, environment and manifest say, resolved."""

from dataclasses import dataclass

from shunt.run.node_status import HEARTBEAT_S
from shunt.store.patience import STORE_PATIENCE_S


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """The knobs of the worker loop. Durations in seconds."""

    run_id: str
    node_id: str
    checkpoint_interval_s: float
    checkpoint_tokens: int
    lease_term_s: float
    max_deaths: int
    """Engine deaths at one token of a prompt that is alone in the engine, before it is isolated."""
    num_workers: int | None = None
    """Workers of the run, as far as the job says: none of them takes others' share ahead of time.
    None: unknown; nothing is taken ahead."""
    flush_tick_s: float = 0.25
    status_interval_s: float = HEARTBEAT_S
    idle_poll_s: float = 1.0
    store_patience_s: float = STORE_PATIENCE_S
    """Give up when nothing could be stored for so long."""
    pause_limit_s: float = 10.0
    """Of a drain that waits for its engine to stop; one that hangs is left."""
    max_engine_starts: int = 3
    """Failed starts in a row before the worker gives up."""

    @property
    def renew_interval_s(self) -> float:
        """Two renewals may fail before the lease lapses."""
        return self.lease_term_s / 3
