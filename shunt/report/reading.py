"""Making the report of a run, from the store alone: a status, the plan, the summary, bad rows."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from shunt.checkpoint.done import ShardDone, read_done
from shunt.plan.kept_plan import newest_version, read_plan
from shunt.report.bad_rows import read_bad_rows
from shunt.report.lanes import (
    began_at,
    interruptions_of,
    lanes_of,
    resumptions_of,
    startups_of,
)
from shunt.report.report import BadRow, Money, RunReport, Score
from shunt.report.speed import curve_of, rows_of, tail_of
from shunt.results.summary import ResultSummary, read_summary
from shunt.run.event import EventKind
from shunt.run.manifest import read_manifest
from shunt.run.spend import Spend
from shunt.run.status import RunState, RunStatus, StatusReader
from shunt.store.protocol import Store


def read_report(store: Store, run_id: str, *, now: datetime) -> RunReport:
    """The report as of now. Raises `RunMissing`, and `CorruptSegment` of a bad row's shard."""
    manifest = read_manifest(store, run_id)
    status = StatusReader(store, run_id).read()
    summary = read_summary(store, run_id)
    done: dict[str, ShardDone] = {}
    read_done(store, run_id, into=done)
    bad_rows = read_bad_rows(store, manifest, done)
    began = began_at(status, manifest.created_at)
    duration_s = max(0.0, (_last_instant(status, now) - began).total_seconds())
    workers = [node for node in status.nodes if not node.slot]
    lanes = lanes_of(status, began)
    total = manifest.num_rows
    rows = rows_of(
        workers,
        began,
        refused=manifest.num_error_rows,
        total=total,
        all_ended=status.rows_left == 0,
    )
    return RunReport(
        run_id=run_id,
        state=status.state,
        model=manifest.job.model.path,
        made_at=now,
        began_at=began,
        duration_s=duration_s,
        num_rows=total,
        num_ended=status.rows_terminal,
        num_errors=status.rows_failed if summary is None else summary.num_errors,
        output_tokens=status.output_tokens if summary is None else summary.num_output_tokens,
        prompt_tokens=sum(node.prompt_tokens for node in workers),
        cached_tokens=sum(node.cached_tokens for node in workers),
        taken_over_tokens=sum(life.taken_over_tokens for lane in lanes for life in lane.lives),
        lost_tokens=sum(life.lost_tokens for lane in lanes for life in lane.lives),
        num_restarted_rows=0 if summary is None else summary.num_restarted_rows,
        lanes=lanes,
        interruptions=interruptions_of(lanes),
        resumptions=resumptions_of(status, began),
        speed=curve_of(workers, lanes, began, duration_s=duration_s),
        rows=rows,
        tail=tail_of(rows, total=total),
        startups=startups_of(lanes),
        money=None if status.spend is None else _money(status.spend),
        scores=_scores(store, run_id, status, duration_s),
        errors=_errors(summary, bad_rows),
        bad_rows=bad_rows,
        results="" if summary is None else summary.directory,
    )


def _last_instant(status: RunStatus, now: datetime) -> datetime:
    """When the story ends: with the results, or with the last that was heard."""
    collected = [e.at for e in status.events if e.kind is EventKind.COLLECTED]
    if status.state is RunState.COLLECTED and collected:
        return collected[0]
    if status.living:
        return now
    heard = [node.updated_at for node in status.nodes] + [event.at for event in status.events]
    return max(heard, default=now)


def _errors(summary: ResultSummary | None, bad_rows: Sequence[BadRow]) -> dict[str, int]:
    """Before the results are collected, of the first bad rows only."""
    if summary is not None:
        return dict(summary.errors)
    return dict(Counter(row.code for row in bad_rows))


def _money(spend: Spend) -> Money:
    prices = [pool.on_demand_usd for pool in spend.pools]
    known = bool(prices) and None not in prices
    return Money(
        usd=float(spend.usd),
        on_demand_usd=sum(float(price or 0) for price in prices) if known else None,
        max_cost_usd=spend.max_cost_usd,
        pools=spend.pools,
    )


def _scores(store: Store, run_id: str, status: RunStatus, duration_s: float) -> tuple[Score, ...]:
    """The first plan's forecast: what was promised before anything was bought."""
    if status.state is not RunState.COLLECTED or newest_version(store, run_id) == 0:
        return ()
    predicted = read_plan(store, run_id, 1).predicted
    scores = [Score(what="duration_s", forecast=predicted.duration_s, happened=duration_s)]
    if status.spend is not None:
        usd = float(status.spend.usd)
        scores.append(Score(what="cost_usd", forecast=predicted.cost_usd, happened=usd))
    return tuple(scores)
