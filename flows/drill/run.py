"""A real drill: the job on this machine's workers, under a trace that runs faster than the clock.

Three runs, each with a store of its own: as shunt does it, with nothing saved between shards and
no word before a node goes, and on nodes that nobody takes.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from flows.drill.market import DrillMarket
from flows.drive.drive import Watcher, drive
from flows.exit_code import ExitCode
from flows.screen.view import event_line
from flows.surroundings import Surroundings
from shunt.dataset.preflight import PreflightReport
from shunt.drill.report import DrillArm, cost_of
from shunt.drill.simulation import Handling
from shunt.drill.trace import Trace
from shunt.drill.traced_fleet import TracedFleet, Usage
from shunt.errors import RunError
from shunt.fleet.protocol import Fleet
from shunt.job.job import Fleet as FleetSettings
from shunt.job.job import Job, Limits
from shunt.results.summary import ResultSummary
from shunt.run.event import Event
from shunt.run.manifest import Manifest
from shunt.run.node_status import NodeState, read_statuses
from shunt.run.outlook import Outlook
from shunt.run.status import RunStatus
from shunt.store.config import StoreConfig, open_configured_store
from shunt.store.protocol import Store

NOTHING_SAVED = {"checkpoint_interval_s": 1e9, "checkpoint_tokens": 2**31}
"""A shard is saved when it is finished, and no sooner."""


@dataclass(frozen=True, slots=True)
class RealDrill:
    """What the runs of one drill share."""

    job: Job
    market: DrillMarket
    directory: Path
    speedup: float
    """Seconds of the trace in a second of the wall clock."""

    def run(self, handling: Handling, around: Surroundings, watcher: Watcher) -> DrillArm:
        """One run to its end. Raises `RunError` where it was stopped before."""
        job, market = self.job_of(handling), self.market
        clock, usage = _Clock(time.monotonic, self.speedup), Usage()
        store = open_configured_store(job.store, environment=around.environment)

        def over(fleet: Fleet) -> Fleet:
            clock.start()
            return TracedFleet(
                fleet=fleet,
                trace=self._trace(handling),
                now_s=clock.since_start_s,
                notice_s=market.notice_s / self.speedup,
                unnoticed=1.0 if handling is Handling.NONE else market.unnoticed,
                rng=random.Random(market.seed),
                usage=usage,
            )

        traced = replace(around, over=over, monotonic=clock.now_s)
        ending = drive(job, store, traced, watcher)
        if ending.summary is None or ending.code not in (ExitCode.OK, ExitCode.ROW_ERRORS):
            raise RunError(ending.run_id, f"the drill was stopped: {ending.reason}")
        prices, on_demand = market.prices, handling is Handling.ON_DEMAND
        price = prices.on_demand_usd_per_hour if on_demand else prices.spot_usd_per_hour
        return DrillArm(
            handling=handling,
            finish_s=usage.seen_s,
            cost_usd=cost_of(usage.node_s, price),
            tokens=ending.summary.num_output_tokens,
            tokens_again=tokens_again(store, ending.run_id, ending.summary.num_output_tokens),
            interruptions=usage.interruptions,
            node_hours=usage.node_s / 3600.0,
        )

    def _trace(self, handling: Handling) -> Trace:
        workers = self.job.fleet.workers
        return Trace((0.0,), (workers,)) if handling is Handling.ON_DEMAND else self.market.trace

    def job_of(self, handling: Handling) -> Job:
        """The job on local workers, whatever its fleet, away from its own store and results."""
        place = self.directory / handling.value
        fleet = self.job.fleet
        changes = {
            "store": StoreConfig(uri=str(place / "store")),
            "output": self.job.output.model_copy(update={"path": str(place / "results")}),
            "fleet": FleetSettings(
                workers=fleet.workers,
                max_crashes=fleet.max_crashes,
                worker_python=fleet.worker_python,
            ),
            "limits": Limits(),
        }
        return self.job.model_copy(
            update=changes | (NOTHING_SAVED if handling is Handling.NONE else {})
        )


@dataclass(frozen=True, slots=True)
class EventView:
    """A watcher that tells what happens to workers; the drill's own numbers come in the end."""

    console: Console

    def preflighted(self, report: PreflightReport) -> None:
        del report

    def prepared(self, manifest: Manifest) -> None:
        del manifest

    def seen(self, status: RunStatus, outlook: Outlook) -> None:
        del status, outlook

    def happened(self, event: Event) -> None:
        self.console.print(event_line(event), highlight=False, soft_wrap=True)

    def collected(self, summary: ResultSummary) -> None:
        self.console.print(f"collected {summary.num_rows} rows", highlight=False)


def tokens_again(store: Store, run_id: str, in_results: int) -> int:
    """Tokens that were generated more than once: saved twice, or unsaved by a node that was killed.

    A killed node's last word is up to two seconds old, so this is a lower bound.
    """
    statuses = list(read_statuses(store, run_id))
    saved_twice = sum(status.output_tokens for status in statuses) - in_results
    lost = sum(s.unsaved_tokens for s in statuses if s.state is not NodeState.ENDED)
    return max(0, saved_twice) + lost


@dataclass(slots=True)
class _Clock:
    """The trace's clock: the wall's, so many times faster."""

    wall_s: Callable[[], float]
    speedup: float
    _started_s: float | None = None

    def start(self) -> None:
        """At the first fleet; later ones of the same drill go on."""
        if self._started_s is None:
            self._started_s = self.now_s()

    def now_s(self) -> float:
        return self.wall_s() * self.speedup

    def since_start_s(self) -> float:
        return 0.0 if self._started_s is None else self.now_s() - self._started_s
