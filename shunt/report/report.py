"""The report of a run as data: the JSON that programs read, and all that the page shows.

Instants within the run are seconds since its first worker was started (`RunReport.began_at`).
"""

from typing import Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict

from shunt.plan.plan import Range
from shunt.run.spend import PoolSpend
from shunt.run.status import RunState

FORMAT_VERSION = 1


Activity = Literal["booting", "starting", "running", "idle", "draining"]
"""`booting`: up to the worker's first word; `starting`: its engine loads; `idle`: others hold what
is left."""
Ending = Literal["done", "interrupted", "stopped", "living"]
"""`stopped`: it left with the whole run, at Ctrl-C or at a limit."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Span(NamedTuple):
    """What a node was at, and from when to when, in seconds of the run."""

    activity: Activity
    from_s: float
    to_s: float


class Life(_Record):
    """One node, or process, from its launch to its end."""

    node_id: str
    began_s: float
    ended_s: float
    ending: Ending
    reason: str = ""
    """Why it was interrupted, in words."""
    spans: tuple[Span, ...] = ()
    rows: int = 0
    tokens: int = 0
    """Generated here and saved."""
    taken_over_tokens: int = 0
    """Saved by others before, and gone on with here."""
    lost_tokens: int = 0
    """Generated here and not saved before it was lost: what others had to generate again."""


class Lane(_Record):
    """One place of the fleet: the nodes that filled it, one after the other."""

    slot: str
    lives: tuple[Life, ...]


class Interruption(_Record):
    """A node that was taken or lost before the work was done, and what it cost."""

    at_s: float
    slot: str
    node_id: str
    reason: str
    lost_tokens: int
    replaced_after_s: float | None
    """Until the next node of the place generated; None where none did."""


class Resumption(NamedTuple):
    """A shard that changed hands."""

    at_s: float
    node_id: str
    shard_id: str
    tokens: int
    """Taken over instead of being generated again."""


class Curve(_Record):
    """Means over equal steps of time. `by_slot` sums to the whole."""

    step_s: float
    tokens_per_s: tuple[float, ...]
    by_slot: dict[str, tuple[float, ...]] = {}
    """Empty for a run with too many places to tell apart in a picture."""


class RowsDone(NamedTuple):
    """How many rows had ended at an instant."""

    at_s: float
    rows: int


class Tail(_Record):
    """When so many percent of the rows had ended."""

    half_s: float
    p90_s: float
    p95_s: float
    p99_s: float
    last_s: float


class StartUp(_Record):
    """What a node did before it generated. None: not known."""

    slot: str
    node_id: str
    boot_s: float | None
    """From the launch to the worker's first word: machine, environment, model fetched."""
    load_s: float | None
    """Weights, compilation, warm-up: until the engine served."""


class Money(_Record):
    """What the nodes cost, and would have cost on demand."""

    usd: float
    on_demand_usd: float | None
    """The same node hours at the catalogue's on-demand prices; None where one is not known."""
    max_cost_usd: float | None
    pools: tuple[PoolSpend, ...]

    @property
    def saved_share(self) -> float | None:
        """Of the on-demand price; None where that is not known."""
        return 1 - self.usd / self.on_demand_usd if self.on_demand_usd else None


class Score(_Record):
    """A forecast beside what happened."""

    what: Literal["duration_s", "cost_usd"]
    forecast: Range
    happened: float

    @property
    def inside(self) -> bool:
        """Whether it fell between P10 and P90, as eight of ten should."""
        return self.forecast.p10 <= self.happened <= self.forecast.p90


class BadRow(_Record):
    """A row without an answer."""

    row_id: str
    code: str
    message: str
    """With file and line, where preflight found it."""
    file: str | None = None
    line: int | None = None
    """Where the row came from; None in runs of earlier versions."""


class RunReport(_Record):
    """The whole story. Written for a run at any time; of an open run it ends at `made_at`."""

    format_version: Literal[1] = FORMAT_VERSION
    run_id: str
    state: RunState
    model: str
    made_at: AwareDatetime
    began_at: AwareDatetime
    duration_s: float
    """To the collection of the results, or to the last word of a run that is not collected."""
    num_rows: int
    num_ended: int
    num_errors: int
    output_tokens: int
    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that prefix caches had already."""
    taken_over_tokens: int
    lost_tokens: int
    """Generated a second time at most: what lost nodes had made and not saved."""
    num_restarted_rows: int
    lanes: tuple[Lane, ...]
    interruptions: tuple[Interruption, ...]
    resumptions: tuple[Resumption, ...]
    speed: Curve
    rows: tuple[RowsDone, ...]
    tail: Tail | None
    """None before the last row has ended."""
    startups: tuple[StartUp, ...]
    money: Money | None
    """None where no node cost money."""
    scores: tuple[Score, ...]
    """Empty without a plan, or before the end."""
    errors: dict[str, int]
    """Rows without an answer, by code."""
    bad_rows: tuple[BadRow, ...]
    """The first of them."""
    results: str
    """Where the result files are; empty before they are collected."""

    @property
    def num_good(self) -> int:
        """Rows with an answer."""
        return self.num_ended - self.num_errors

    @property
    def mean_tokens_per_s(self) -> float:
        return self.output_tokens / self.duration_s if self.duration_s else 0.0
