"""Driving a run to its end: prepare, reconcile, collect, always tear down. Knows no Prefect.

The command line and the Prefect flow both call `drive`; they differ in who watches.
"""

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from flows.drive.ec2_nodes import ec2_of, require_whole_nodes
from flows.drive.known_model import known_model
from flows.drive.nodes import HeldNodes, hold_nodes
from flows.exit_code import ExitCode
from flows.surroundings import Surroundings
from shunt.dataset.files import input_files
from shunt.dataset.preflight import PreflightReport
from shunt.dataset.rendering import require_model
from shunt.errors import RunError
from shunt.job.job import ErrorPolicy, Job
from shunt.results.place import reach_of
from shunt.results.publishing import check_writable
from shunt.results.summary import ResultSummary, read_summary
from shunt.run.cancellation import carry_on, is_cancelled, newest_order
from shunt.run.collect import ShardsOpen, collect, output_directory
from shunt.run.driver import DriveGivenUp
from shunt.run.effort import Effort, answer_tokens
from shunt.run.event import Event, EventKind, record
from shunt.run.fetched_model import is_used_as_it_is
from shunt.run.manifest import Manifest
from shunt.run.model_identity import require_same_model
from shunt.run.outlook import Outlook, outlook_of
from shunt.run.prepare import prepare, prepare_retry
from shunt.run.retry import Where
from shunt.run.spend import Spend, read_spend
from shunt.run.status import RunState, RunStatus, StatusReader
from shunt.run.timeline import Timeline
from shunt.store.patience import Patience
from shunt.store.protocol import Store
from shunt.store.reaching import require_exclusive, require_reachable

_RECHECKS = 3
AGAIN_S = 1.0
"""Between two tries to reach a store that was away when the last node left."""
CANCELLED = "cancelled"
"""Reason of a drive that `shunt cancel` ended."""


class Watcher(Protocol):
    """Who is told how the run gets on. All calls come from the thread that drives."""

    def preflighted(self, report: PreflightReport) -> None: ...

    def prepared(self, manifest: Manifest) -> None: ...

    def seen(self, status: RunStatus, outlook: Outlook) -> None: ...

    def happened(self, event: Event) -> None: ...

    def collected(self, summary: ResultSummary) -> None: ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How a drive ended."""

    code: ExitCode
    run_id: str
    reason: str = ""
    summary: ResultSummary | None = None
    num_lost: int = 0
    """Workers that were lost, or drained, before their work was done."""
    go_on: str = ""
    """The command that goes on with a run that was stopped early."""
    partial: str = ""
    """The command that writes what such a run has finished."""
    look_at_errors: str = ""
    """The command that lists rows without an answer, where there are any."""
    spend: Spend | None = None
    """None where no node cost money."""


def drive(
    job: Job,
    store: Store,
    around: Surroundings,
    watcher: Watcher,
    *,
    sample: int | None = None,
    checked: bool = False,
) -> Ending:
    """Prepare the run (or find it) and take it to its end. `checked` as for `prepare_run`.

    Raises `JobError` and `InputError` before anything is started, `RunError` when every worker
    failed, and `StoreError`.
    """
    manifest = prepare_run(job, store, around, watcher, sample=sample, checked=checked)
    return resume(manifest, store, around, watcher)


def check_job(job: Job) -> None:
    """What is cheap to know before anything is started: the input and the model are there, the
    output is writable.

    Raises `JobError` and `InputError`.
    """
    input_files(job.input)
    check_writable(job.output.path, reach_of(job, os.environ))
    if job.fleet.kind == "ec2":
        require_whole_nodes(job, ec2_of(job))
    local_model = job.fleet.kind == "local" and job.model.engine_kind == "vllm"
    if local_model and is_used_as_it_is(job, os.environ):
        require_model(job.model.path, job.model.revision)


def prepare_run(
    job: Job,
    store: Store,
    around: Surroundings,
    watcher: Watcher,
    *,
    sample: int | None = None,
    checked: bool = False,
) -> Manifest:
    """The run's manifest, carrying what this invocation says of fleet, cadence and output.

    `checked`: the caller has done `check_job` and reached the store a moment ago.
    """
    if not checked:
        check_job(job)
        require_reachable(store)
    now = around.now()
    with known_model(job, around.environment, clock=now) as model:
        manifest = prepare(
            job,
            store,
            model.renderer,
            now=now,
            sample=sample,
            model=model.listing,
            card=model.card,
            compiler=model.compiler,
            saw=watcher.preflighted,
        )
    require_exclusive(store)
    manifest = manifest.model_copy(update={"job": job})
    watcher.prepared(manifest)
    return manifest


def retry(
    origin: Manifest,
    job: Job,
    where: Where,
    store: Store,
    around: Surroundings,
    watcher: Watcher,
) -> Ending:
    """Generate rows of a finished run again, under this job. Raises as `drive` does."""
    check_job(job)
    now = around.now()
    with known_model(job, around.environment, clock=now) as model:
        manifest = prepare_retry(
            job,
            store,
            model.renderer,
            origin=origin,
            where=where,
            now=now,
            model=model.listing,
            card=model.card,
            compiler=model.compiler,
            saw=watcher.preflighted,
        )
    require_exclusive(store)
    manifest = manifest.model_copy(update={"job": job})
    watcher.prepared(manifest)
    return resume(manifest, store, around, watcher)


def resume(manifest: Manifest, store: Store, around: Surroundings, watcher: Watcher) -> Ending:
    """Take a prepared run to its end: whatever is missing is generated, then collected."""
    run_id, reach = manifest.run_id, reach_of(manifest.job, around.environment)
    if read_summary(store, run_id) is not None:
        # What is asked for may not be there.
        summary = collect(store, manifest, now=around.now(), reach=reach)
        watcher.collected(summary)
        return replace(_ended(manifest, summary, 0), spend=read_spend(store, run_id))
    require_same_model(manifest)
    lost = 0
    for attempt in range(_RECHECKS):
        try:
            stopped = _generate(manifest, store, around, watcher, recheck=attempt > 0)
        except DriveGivenUp:
            stopped = Ending(ExitCode.INTERRUPTED, run_id, "interrupted")
        lost += stopped.num_lost
        if stopped.code is not ExitCode.OK:
            if stopped.reason != CANCELLED:  # the order to cancel is in the timeline already
                told = Event(at=around.now(), kind=EventKind.STOPPED, detail=stopped.reason)
                record(store, run_id, told)
            spend = read_spend(store, run_id)
            return replace(
                stopped,
                num_lost=lost,
                go_on=go_on_command(manifest),
                partial=partial_command(manifest),
                spend=spend,
            )
        try:
            summary = collect(store, manifest, now=around.now(), reach=reach)
        except ShardsOpen:
            continue  # a done marker promised too much: look into every shard
        record(store, run_id, Event(at=around.now(), kind=EventKind.COLLECTED))
        watcher.collected(summary)
        return replace(_ended(manifest, summary, lost), spend=read_spend(store, run_id))
    raise RunError(run_id, f"is still not finished after {_RECHECKS} passes over all shards")


def _generate(
    manifest: Manifest, store: Store, around: Surroundings, watcher: Watcher, *, recheck: bool
) -> Ending:
    """Hold the fleet as wanted until every worker has left because nothing is left to do.

    A store that goes away is waited for as long as workers wait for it: their tokens are safe with
    them, and a fleet that is ended meanwhile loses them.
    """
    run_id = manifest.run_id
    reader, max_tokens = StatusReader(store, run_id), answer_tokens(manifest.settled_job)
    effort = Effort(max_tokens)
    status, order = reader.read(), newest_order(store, run_id)
    timeline = Timeline(store, run_id, watcher.happened)
    if status.state is RunState.GENERATED and not recheck:
        carry_on(store, run_id, order)
        if manifest.job.fleet.kind == "ec2":
            with hold_nodes(manifest, store, around, timeline.tell, recheck=False):
                pass  # what an earlier controller bought is ended and paid for
        return Ending(ExitCode.OK, run_id)
    patience = _patience(around, timeline)
    ending = Ending(ExitCode.OK, run_id)
    show = partial(_show, watcher, max_tokens)
    with hold_nodes(manifest, store, around, timeline.tell, recheck=recheck) as nodes:
        if not recheck:  # not before we have the run: a driver that is refused lifts no order
            carry_on(store, run_id, order)
        while not nodes.reconciler.done:
            stepped = cancelled = False
            with patience.waiting():
                nodes.step(status, effort.left_s(status, nodes.num_workers))
                stepped = True
            with patience.waiting():
                status, cancelled = reader.read(), is_cancelled(store, run_id)
                if stepped:  # a store that can be read and not written is away all the same
                    patience.reached()
                timeline.settle()
            if status.state is RunState.GENERATED and not recheck:
                break
            if not patience.away:
                effort.saw(around.monotonic(), status)
                show(status)
            if nodes.reconciler.failed:
                raise RunError(run_id, _why_none_works(manifest, around, nodes, status))
            if (early := _stopped_early(run_id, around, nodes.limit, cancelled)) is not None:
                ending = early
                break
            around.stop.wait(nodes.poll_s)
        ending = replace(ending, num_lost=nodes.reconciler.num_lost)
    _last_look(reader, timeline, patience, show, around)
    return ending


def _show(watcher: Watcher, max_tokens: int, status: RunStatus) -> None:
    watcher.seen(status, outlook_of(status, max_tokens))


def _last_look(
    reader: StatusReader,
    timeline: Timeline,
    patience: Patience,
    show: Callable[[RunStatus], None],
    around: Surroundings,
) -> None:
    """What stands in the store now that the nodes have left. They may have left while it was away,
    so it is waited for: the results are still to be collected from it.
    """
    while True:
        with patience.waiting():
            status = reader.read()
            patience.reached()
            timeline.settle()
            return show(status)
        if around.stop.wait(AGAIN_S):
            return


def _patience(around: Surroundings, timeline: Timeline) -> Patience:
    def told(detail: str) -> None:
        timeline.tell(Event(at=around.now(), kind=EventKind.STORE_AWAY, detail=detail))

    return Patience(around.monotonic, around.now, told, limit_s=around.store_patience_s)


def _why_none_works(
    manifest: Manifest, around: Surroundings, nodes: HeldNodes, status: RunStatus
) -> str:
    """The reason that the provider or the workers themselves gave, else where to look."""
    if nodes.reconciler.fault:
        return f"two nodes in a row ended by the same fault: {nodes.reconciler.fault}"
    told = f": {status.failed[-1].failure}" if status.failed else ""
    if manifest.job.fleet.kind == "ec2":
        where = "`shunt status` has how, the nodes' journals have why"
    else:
        where = f"their logs are in {around.log_directory}"
    return f"every worker failed{told}; {where}"


def _stopped_early(run_id: str, around: Surroundings, limit: str, cancelled: bool) -> Ending | None:
    if around.stop.is_set():
        return Ending(ExitCode.INTERRUPTED, run_id, "interrupted")
    if cancelled:
        return Ending(ExitCode.INTERRUPTED, run_id, CANCELLED)
    return Ending(ExitCode.LIMIT, run_id, limit) if limit else None


def _ended(manifest: Manifest, summary: ResultSummary, num_lost: int) -> Ending:
    policy = manifest.job.errors
    allowed = policy.max_error_rows
    if allowed is None:
        allowed = int(policy.max_error_fraction * summary.num_rows)
    cut = _cut_rows_that_count(policy, summary)
    look = run_command("errors", manifest) if summary.num_errors else ""
    ending = Ending(
        ExitCode.OK, manifest.run_id, "", summary, num_lost=num_lost, look_at_errors=look
    )
    if summary.num_errors + cut <= allowed:
        return ending
    cut_too = f" and {cut} cut ones" if cut else ""
    reason = f"{summary.num_errors} error rows{cut_too}, {allowed} allowed"
    return replace(ending, code=ExitCode.ROW_ERRORS, reason=reason)


def _cut_rows_that_count(policy: ErrorPolicy, summary: ResultSummary) -> int:
    """Cut answers that the policy takes for errors."""
    if policy.count_cut == "all":
        return summary.num_cut_rows or 0
    return summary.num_cut_structured_rows or 0 if policy.count_cut == "structured" else 0


def go_on_command(manifest: Manifest) -> str:
    """What a person types to go on with a run that was stopped."""
    return run_command("resume", manifest)


def partial_command(manifest: Manifest) -> str:
    """What a person types to have the rows that are finished."""
    return run_command("collect", manifest, "--partial")


def join_command(manifest: Manifest) -> str:
    """What a person types on a machine that is to join; empty where the run starts its own."""
    return run_command("worker", manifest) if manifest.job.fleet.kind == "joined" else ""


def run_command(name: str, manifest: Manifest, *options: str) -> str:
    """A command about this run, as a person types it anywhere."""
    store = manifest.job.store
    endpoint = [] if store.endpoint_url is None else ["--endpoint-url", store.endpoint_url]
    words = ["shunt", name, manifest.run_id, *options, "--store", store.uri, *endpoint]
    return shlex.join(words)


def results_of(manifest: Manifest) -> str:
    """Where the results are, or will be."""
    return output_directory(manifest.job, manifest.run_id)
