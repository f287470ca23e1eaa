"""The Prefect flow: prepare, keep workers at it, collect.

Prefect shows and schedules; it owns nothing. A task run stands for a step or for the place of one
worker, never for a prompt or a shard, and its state is display: leases in the store decide.
"""

import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows.drive.drive import CANCELLED, Ending, Watcher, prepare_run, results_of, resume
from flows.drive.nodes import slots_of
from flows.exit_code import ExitCode
from flows.prefect.flow_view import SERVER_ERRORS, FlowView, recorded
from flows.prefect.on_record import OnRecord, name_flow_run
from flows.prefect.run_events import RunEvents
from flows.prefect.settling import settle
from flows.report.page import render_page
from flows.surroundings import Surroundings, surroundings
from shunt import keys
from shunt.dataset.preflight import PreflightReport
from shunt.errors import InputError, JobError, ShuntError
from shunt.job.job import Job
from shunt.report.reading import read_report
from shunt.results.summary import ResultSummary
from shunt.run.effort import answer_tokens
from shunt.run.event import Event
from shunt.run.manifest import Manifest
from shunt.run.outlook import Outlook, outlook_of
from shunt.run.status import RunStatus, StatusReader
from shunt.store.config import open_configured_store
from shunt.store.errors import StoreError
from shunt.store.protocol import Store

log = logging.getLogger(__name__)


class Headless:
    """A watcher that shows nothing: a scheduled run has only Prefect's page."""

    def preflighted(self, report: PreflightReport) -> None: ...

    def prepared(self, manifest: Manifest) -> None: ...

    def seen(self, status: RunStatus, outlook: Outlook) -> None: ...

    def happened(self, event: Event) -> None: ...

    def collected(self, summary: ResultSummary) -> None: ...


@dataclass(frozen=True, slots=True)
class Session:
    """What the command line adds to a flow run: somebody who watches, and a way to stop."""

    watcher: Watcher = field(default_factory=Headless)
    stop: threading.Event = field(default_factory=threading.Event)
    checked: bool = False
    """The job was checked and its store reached before the flow run began."""
    keep_handlers: Callable[[], None] = lambda: None
    """Called inside the flow: Prefect has put its own SIGTERM handler in place by then."""


_SESSION: ContextVar[Session | None] = ContextVar("shunt_session", default=None)
_ENDINGS: ContextVar[list[Ending] | None] = ContextVar("shunt_endings", default=None)
_FAILURES: ContextVar[list[ShuntError] | None] = ContextVar("shunt_failures", default=None)


def generate_in(session: Session, job: Job, *, sample: int | None = None) -> Ending:
    """Run the flow in this process and give back how it ended. Raises what the flow raised.

    A server that is lost on the way changes nothing about the ending.
    """
    endings: list[Ending] = []
    failures: list[ShuntError] = []
    tokens = _SESSION.set(session), _ENDINGS.set(endings), _FAILURES.set(failures)
    try:
        state = generate(job, sample=sample, return_state=True)
        if failures:
            raise failures[0]
        if not endings:
            state.result()  # raises
    except SERVER_ERRORS as error:
        if failures:
            raise failures[0] from error
        if not endings:
            raise
        log.warning("prefect did not record how the flow run ended: %s", error)
    finally:
        _SESSION.reset(tokens[0])
        _ENDINGS.reset(tokens[1])
        _FAILURES.reset(tokens[2])
    return endings[0]


@flow(name="generate", flow_run_name=lambda: f"{flow_run.parameters['job'].name}")
def generate(job: Job, sample: int | None = None) -> State[None]:
    """Generate every row of a job; started again, it goes on where it stopped."""
    return run_job(job, sample)


def run_job(job: Job, sample: int | None) -> State[None]:
    """The body of the flow: prepare, drive, show the end. What we foresaw is a state with one
    sentence, not an exception with a traceback."""
    session = _SESSION.get() or Session()
    session.keep_handlers()
    try:
        around = surroundings(job, session.stop)
        store = open_configured_store(job.store, environment=around.environment)
        show = FlowView(session.watcher, around.monotonic)
        refused: list[ShuntError] = []
        prepared = _prepare(
            job, store, around, show, sample, refused, session.checked, return_state=True
        )
        if refused:
            raise refused[0]
        manifest = prepared.result()
        assert isinstance(manifest, Manifest)  # a failed state is a refusal
        return _driven(manifest, store, around, show)
    except ShuntError as error:
        if (failures := _FAILURES.get()) is not None:
            failures.append(error)
        log.error("%s", error)
        return failed_state(error)


def _driven(manifest: Manifest, store: Store, around: Surroundings, show: FlowView) -> State[None]:
    began = around.now()
    recorded("flow runs left behind", lambda: settle(store, manifest.run_id, now=began))
    recorded("the flow run's name", lambda: name_flow_run(manifest))
    record = OnRecord(store, manifest.run_id, around.now, RunEvents(manifest.run_id, began))
    record.beat()
    show.on_record = record
    slots = slots_of(manifest, store)
    lanes = [_lane.with_options(task_run_name=slot).submit(show, slot) for slot in slots]
    try:
        ending = resume(manifest, store, around, show)
        if not show.shown:  # finished before: this flow run's page tells of it all the same
            status = StatusReader(store, manifest.run_id).read()
            show.seen(status, outlook_of(status, answer_tokens(manifest.settled_job)))
    except ShuntError as error:
        record.events.ended(_FAILED, str(error), around.now())
        record.beat(ended=True)
        raise
    finally:
        show.close(slots)
        for lane in lanes:
            lane.wait()
    if (endings := _ENDINGS.get()) is not None:
        endings.append(ending)
    state = final_state(ending, manifest)
    _show_end(ending, manifest, store, around, show)
    if ending.code is ExitCode.LIMIT:
        record.events.limit_reached(ending.reason, around.now())
    record.events.ended(state.name or "", ending.reason, around.now())
    record.beat(ended=True)
    return state


def _show_end(
    ending: Ending, manifest: Manifest, store: Store, around: Surroundings, show: FlowView
) -> None:
    """The report into the store, and what the page says of it. That it cannot be made now says
    nothing of the run."""
    try:
        report = read_report(store, manifest.run_id, now=around.now())
        store.put(keys.report(manifest.run_id), render_page(report).encode())
    except ShuntError as error:
        log.warning("the report is not written: %s", error)
        return
    report_at = f"{store.uri.rstrip('/')}/{keys.report(manifest.run_id)}"
    show.show_end(ending, manifest, report, report_at=report_at)


_FAILED = "Failed"


def failed_state(error: ShuntError) -> State[None]:
    """`Refused`: nothing was started; `StoreFailed`: it may be run again when the store answers."""
    if isinstance(error, JobError | InputError):
        return Failed(name="Refused", message=str(error))
    name = "StoreFailed" if isinstance(error, StoreError) else _FAILED
    return Failed(name=name, message=str(error))


def final_state(ending: Ending, manifest: Manifest) -> State[None]:
    """Each way to end has a state of its own, and one sentence with what to do next."""
    go_on = f"{ending.reason}; everything generated is saved. Go on with: {ending.go_on}"
    match ending.code:
        case ExitCode.OK:
            return Completed(message=f"{manifest.num_rows} rows in {results_of(manifest)}")
        case ExitCode.ROW_ERRORS:
            told = (
                f"{ending.reason}; all rows, bad ones with their codes, in {results_of(manifest)}"
            )
            return Failed(name="TooManyErrorRows", message=told)
        case ExitCode.LIMIT:
            return Failed(name="LimitReached", message=go_on)
        case ExitCode.INTERRUPTED:
            name = "Cancelled" if ending.reason == CANCELLED else "Interrupted"
            return Cancelled(name=name, message=go_on)
        case _:
            return Failed(message=ending.reason)


@task(name="prepare", task_run_name="prepare", cache_policy=NO_CACHE)
def _prepare(
    job: Job,
    store: Store,
    around: Surroundings,
    show: FlowView,
    sample: int | None,
    refused: list[ShuntError],
    checked: bool,
) -> Manifest | State[None]:
    try:
        return prepare_run(job, store, around, show, sample=sample, checked=checked)
    except ShuntError as error:
        refused.append(error)
        return failed_state(error)


@task(name="worker", cache_policy=NO_CACHE)
def _lane(show: FlowView, slot: str) -> str:
    """Stands for one worker's place while the run goes on; its log tells who filled it."""
    logger = get_run_logger()
    last = "no worker was needed"
    for event in show.events_of(slot):
        last = f"{event.node_id} {event.kind.value.replace('_', ' ')}: {event.detail}"
        logger.info(last)
    return last
