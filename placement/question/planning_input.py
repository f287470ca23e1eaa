"""The `plan:` section of a job file, and how it becomes a `Question`."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from placement.catalogue.constants import ENGINE, load_constants
from placement.catalogue.hardware import SHIPPED, Catalogue, load_catalogue, positive, rows_of
from placement.catalogue.known_model import known_models, known_shape
from placement.catalogue.model_config import read_model_shape
from placement.catalogue.model_shape import ModelShape
from placement.catalogue.offering import Offering, make_offering
from placement.errors import BadInput
from placement.question.interruption import DEFAULT_REPLACE_S, DEFAULT_SPOT_RATE, InterruptionCost
from placement.question.objective import Constraints, Kind, Objective, RiskAversion
from placement.question.question import DEFAULT_GAP, Question
from placement.question.workload import LengthPair, Workload, read_lengths, workload_of


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class WorkloadInput(_Section):
    """How long prompts and outputs are, and how many there are."""

    num_prompts: int
    lengths_file: Path | None = None
    """CSV with `input_tokens` and `output_tokens` (optional `count`), one row per prompt."""
    input_tokens: float | None = None
    """Mean prompt length, where no file is given."""
    output_tokens: float | None = None
    """Output length; goes before the file's column."""
    max_input_tokens: float | None = None
    """Longer prompts are left out, as preflight does."""
    max_context: float | None = Field(default=None, gt=0)
    """Longest prompt with output; default: the longest of the lengths."""

    @model_validator(mode="after")
    def _lengths_are_given(self) -> Self:
        if self.lengths_file is None and (self.input_tokens is None or self.output_tokens is None):
            raise ValueError("give lengths_file, or input_tokens and output_tokens")
        return self


class OfferingInput(_Section):
    """One spot pool, or on-demand nodes of one type."""

    instance_type: str
    market: str = "spot"
    zone: str = ""
    usd_per_hour: float | None = None
    """Default: the catalogue's on-demand price, or the snapshot's spot price."""
    max_nodes: int
    interruptions_per_hour: float | None = None
    """Per node; default 0.05 for spot, 0 for on-demand."""


class ObjectiveInput(_Section):
    """What is wanted: see docs/planning.md."""

    kind: Kind = Kind.THROUGHPUT
    deadline_hours: float | None = None
    usd_per_hour: float | None = None
    confidence: float | None = None
    """With a deadline: how sure it is to be kept, start-up and drain counted."""


class ConstraintsInput(_Section):
    """Limits on pipelines and purchases."""

    max_stages: int = 8
    uniform_tp: bool = False
    whole_nodes: bool = False
    min_replicas: int = 1
    max_nodes: int | None = None
    max_sequences: int = 1024
    allowed_tp: tuple[int, ...] | None = None
    spread: bool = True


class RiskInput(_Section):
    """With `scenarios_file`: how much the worst windows count against the mean."""

    weight: float = 0.5
    tail: float = 0.2
    """Share of the windows that are the worst."""


class CatalogueInput(_Section):
    """The user's own hardware, added to the shipped catalogue."""

    gpus: tuple[Path, ...] = ()
    instances: tuple[Path, ...] = ()
    constants: Path | None = None


class PlanningInput(_Section):
    """Everything the planner is told, except the model."""

    workload: WorkloadInput
    offerings: tuple[OfferingInput, ...] = ()
    offerings_file: Path | None = None
    """CSV with the fields of an offering; `snapshot` prices come from the shipped list."""
    objective: ObjectiveInput = ObjectiveInput()
    constraints: ConstraintsInput = ConstraintsInput()
    catalogue: CatalogueInput = CatalogueInput()
    engine: str = ENGINE
    kv_cache_dtype: str = "auto"
    weight_dtype: str = ""
    """For models named rather than given as a path: fp8, int4..."""
    startup_s: float = Field(default=200.0, ge=0)
    replace_s: float = Field(default=DEFAULT_REPLACE_S, ge=0)
    """From an interruption to the replaced node's first token."""
    scenarios_file: Path | None = None
    """CSV of `scenario,instance_type,nodes`: recorded availability to choose for."""
    risk: RiskInput = RiskInput()
    gap: float = Field(default=DEFAULT_GAP, gt=0, lt=1)
    """How close to the bound the search goes before it stops."""


def make_question(
    plan: PlanningInput,
    model: str,
    *,
    folder: Path,
    offerings: tuple[Offering, ...] | None = None,
) -> Question:
    """The question that a job file asks. Relative paths are taken from `folder`.

    `model` is a path, or the name of a shipped shape; `offerings` go before those of the job file.
    Raises `BadInput` or `Infeasible`.
    """
    own = plan.catalogue.constants
    wanted = plan.objective
    if wanted.deadline_hours is not None and wanted.deadline_hours <= 0:
        raise BadInput(f"objective: deadline_hours {wanted.deadline_hours:g} must be above zero")
    if offerings is None:
        offerings = _offerings(plan, catalogue_of(plan, folder), folder)
    if wanted.kind is Kind.VALUE and any(o.usd_per_hour == 0 for o in offerings):
        raise BadInput(
            "objective value: prompts per USD have no limit where an offering costs nothing; ask "
            "for throughput instead"
        )
    shape = _shape(plan, model, folder)
    workload = _workload(plan.workload, folder)
    if workload.max_context > shape.max_position:
        raise BadInput(
            f"workload: {workload.max_context:.0f} tokens of context, and {shape.name} has "
            f"{shape.max_position} positions; shorten the prompts or set workload.max_context"
        )
    return Question(
        shape=shape,
        workload=workload,
        offerings=offerings,
        objective=Objective(
            wanted.kind,
            wanted.deadline_hours * 3600.0 if wanted.deadline_hours else None,
            wanted.usd_per_hour,
            wanted.confidence,
        ),
        constants=load_constants(folder / own if own else None),
        engine=plan.engine,
        constraints=Constraints(
            max_stages=plan.constraints.max_stages,
            uniform_tp=plan.constraints.uniform_tp,
            whole_nodes=plan.constraints.whole_nodes,
            min_replicas=plan.constraints.min_replicas,
            max_nodes=plan.constraints.max_nodes,
            max_sequences=plan.constraints.max_sequences,
            allowed_tp=plan.constraints.allowed_tp,
            spread=plan.constraints.spread,
        ),
        interruption=InterruptionCost(replace_s=plan.replace_s),
        startup_s=plan.startup_s,
        gap=plan.gap,
        scenarios_file=folder / plan.scenarios_file if plan.scenarios_file else None,
        risk=RiskAversion(plan.risk.weight, plan.risk.tail),
    )


def catalogue_of(plan: PlanningInput, folder: Path) -> Catalogue:
    """The shipped catalogue with the user's own hardware."""
    return load_catalogue(
        [folder / file for file in plan.catalogue.gpus],
        [folder / file for file in plan.catalogue.instances],
    )


def offering_rows(plan: PlanningInput, folder: Path) -> list[OfferingInput]:
    """The offerings of the job file and of its offerings file, as they are written."""
    given = list(plan.offerings)
    if plan.offerings_file is not None:
        given += [_offering_row(where, row) for where, row in rows_of(folder / plan.offerings_file)]
    return given


def _shape(plan: PlanningInput, model: str, folder: Path) -> ModelShape:
    path = folder / model
    if path.exists():
        return read_model_shape(path, kv_cache_dtype=plan.kv_cache_dtype)
    if model.split("/")[-1].lower() in {name.lower() for name in known_models()}:
        return known_shape(model, plan.weight_dtype)
    raise BadInput(
        f"model {model!r}: there is no such file, and no shipped shape of that name; give the "
        f"path of a config.json, or one of {', '.join(known_models())}"
    )


def _workload(given: WorkloadInput, folder: Path) -> Workload:
    if given.lengths_file is not None:
        pairs = read_lengths(
            folder / given.lengths_file,
            output_tokens=given.output_tokens,
            max_input=given.max_input_tokens,
        )
    else:
        assert given.input_tokens is not None  # checked by the model
        assert given.output_tokens is not None
        pairs = [LengthPair(given.input_tokens, given.output_tokens)]
    return workload_of(pairs, num_prompts=given.num_prompts, max_context=given.max_context)


def _offerings(plan: PlanningInput, catalogue: Catalogue, folder: Path) -> tuple[Offering, ...]:
    given = offering_rows(plan, folder)
    if not given:
        raise BadInput(
            "plan: no offerings; give plan.offerings or plan.offerings_file, or --offers"
        )
    snapshot = spot_snapshot()
    return tuple(
        make_offering(
            catalogue,
            instance_type=o.instance_type,
            market=o.market,
            zone=o.zone,
            usd_per_hour=o.usd_per_hour
            if o.usd_per_hour is not None or o.market != "spot"
            else snapshot.get((o.instance_type, o.zone), snapshot.get((o.instance_type, ""))),
            max_nodes=o.max_nodes,
            interruptions_per_hour=o.interruptions_per_hour,
            default_spot_rate=DEFAULT_SPOT_RATE,
        )
        for o in given
    )


def _offering_row(where: str, row: dict[str, str]) -> OfferingInput:
    rate = row.get("interruptions_per_hour", "")
    price = row.get("usd_per_hour", "")
    try:
        return OfferingInput(
            instance_type=row.get("instance_type", ""),
            market=row.get("market") or "spot",
            zone=row.get("zone", ""),
            usd_per_hour=float(price) if price else None,
            max_nodes=int(positive(where, row, "max_nodes", optional=True)),
            interruptions_per_hour=float(rate) if rate else None,
        )
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from error


def spot_snapshot() -> dict[tuple[str, str], float]:
    """The newest shipped spot price per type and zone; under zone `` the mean over zones."""
    file = SHIPPED / "spot_prices.csv"
    prices: dict[tuple[str, str], float] = {}
    by_type: dict[str, list[float]] = {}
    for where, row in rows_of(file):
        price = positive(where, row, "usd_per_hour")
        prices[row["instance_type"], row["zone"]] = price
        by_type.setdefault(row["instance_type"], []).append(price)
    means = {(name, ""): sum(found) / len(found) for name, found in by_type.items()}
    return {**prices, **means}
