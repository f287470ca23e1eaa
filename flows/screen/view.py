"""What a person sees of a run: a live view on a terminal, plain lines elsewhere."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from flows.drive.drive import Ending, join_command
from flows.screen.picture import Look, eta_line, picture
from flows.screen.words import counted, size
from shunt.dataset.preflight import PreflightReport
from shunt.job.job import Fleet
from shunt.results.summary import ResultFile, ResultSummary
from shunt.run.event import Event, EventKind
from shunt.run.manifest import Manifest
from shunt.run.node_status import NodeState
from shunt.run.outlook import Outlook
from shunt.run.partial import PartialSummary
from shunt.run.spend import Spend
from shunt.run.status import RunState, RunStatus

LINE_INTERVAL_S = 5.0
LONGEST_INTERVAL_S = 60.0
"""Between two lines of a run that goes on for hours."""
_TOLD = {EventKind.INTERRUPTED, EventKind.SHARD_RESUMED, EventKind.ENGINE_DIED,
         EventKind.PROMPT_ISOLATED, EventKind.FENCED, EventKind.NOT_LAUNCHED, EventKind.MARKET,
         EventKind.REBALANCE, EventKind.FLEET_ENDED, EventKind.STORE_AWAY,
         EventKind.SHARD_CORRUPT}  # fmt: skip


class PlainView:
    """One line when something happens, and one every few seconds while something moves.

    The lines grow rarer, to one a minute: a log of a long run should be readable.
    """

    def __init__(self, console: Console, *, interval_s: float = LINE_INTERVAL_S) -> None:
        self._console = console
        self._interval_s = interval_s
        self._last_s: float | None = None
        self._last_line = ""
        self._said = ""
        self._join = ""
        self._shown: set[str] = set()
        self.pools: Mapping[str, str] = {}
        """Where nodes were bought, for who knows: shown beside them."""

    def __enter__(self) -> "PlainView":
        return self

    def __exit__(self, *exc: object) -> None: ...

    def preflighted(self, report: PreflightReport) -> None:
        show_preflight(self._console, report, brief=True)

    def prepared(self, manifest: Manifest) -> None:
        self._console.print(opening_line(manifest), highlight=False)
        self._join = join_command(manifest)

    def happened(self, event: Event) -> None: ...

    def seen(self, status: RunStatus, outlook: Outlook) -> None:
        for event in status.events:
            name = event.model_dump_json()
            if event.kind in _TOLD and name not in self._shown:
                self._shown.add(name)
                self._console.print(event_line(event), highlight=False)
        now_s, line = status.read_at.timestamp(), status_line(status, outlook)
        due = self._last_s is None or now_s - self._last_s >= self._interval_s
        if due and line != self._last_line:
            if self._last_s is not None:
                self._interval_s = min(1.1 * self._interval_s, LONGEST_INTERVAL_S)
            self._last_s, self._last_line = now_s, line
            self._console.print(line, highlight=False)
        self._ask_to_join(status)

    def _ask_to_join(self, status: RunStatus) -> None:
        """Of a run that others join: whenever nobody does."""
        if not self._join or status.state is not RunState.OPEN:
            return
        if status.living:
            self._said = ""
        else:
            self.say(nobody_line(self._join))

    def collected(self, summary: ResultSummary) -> None: ...

    def say(self, sentence: str) -> None:
        """Once, however often it is said on end."""
        if sentence != self._said:
            self._said = sentence
            self._console.print(sentence, style="yellow", highlight=False, soft_wrap=True)


class LiveView(PlainView):
    """A picture that is drawn anew with every look; what happened scrolls by above it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, interval_s=float("inf"))
        self._last_s = 0.0
        self._live = Live(console=console, refresh_per_second=4, transient=False)

    def __enter__(self) -> "LiveView":
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.__exit__(None, None, None)

    def seen(self, status: RunStatus, outlook: Outlook) -> None:
        super().seen(status, outlook)
        self._live.update(picture(Look(status, outlook, self.pools), status_line(status, outlook)))


def opening_line(manifest: Manifest) -> str:
    bad = f", {manifest.num_error_rows} refused by preflight" if manifest.num_error_rows else ""
    reused = f", {manifest.num_reused_rows:,} reused" if manifest.num_reused_rows else ""
    return (
        f"run [bold]{manifest.run_id}[/]: {counted(manifest.num_rows, 'row')}{bad}{reused}, "
        f"{counted(len(manifest.shards), 'shard')}, {_workers_of(manifest.job.fleet)}"
    )


def nobody_line(join: str) -> str:
    return f"nobody works on this run now; join it with: {join}"


def _workers_of(fleet: Fleet) -> str:
    if fleet.kind == "joined":
        return "for whoever joins"
    if fleet.kind == "local" or fleet.ec2 is None:
        return counted(fleet.workers, "worker")
    nodes = counted(fleet.workers, "node") if fleet.ec2.instance_types else "nodes by plan"
    return f"{nodes} on EC2 in {fleet.ec2.region}"


def status_line(status: RunStatus, outlook: Outlook) -> str:
    """Rows, what is in flight, rates and workers; before the first token, what is waited for."""
    running = sum(node.running for node in status.living)
    parts = [f"{status.rows_ended:,}/{status.rows_total:,} rows"]
    if status.tokens_made == 0 and running == 0 and status.rows_left:
        parts.append(_waited_for(status))
    else:
        parts += [
            f"{running} in flight",
            counted(status.tokens_made, "token"),
            f"{outlook.tokens_per_s:,.0f} tok/s",
            f"ETA {eta_line(outlook.eta_s)}",
            counted(len(status.living), "worker"),
        ]
    if fetching := [node.detail for node in status.living if node.detail]:
        parts.append(fetching[0])
    if status.rows_failed:
        parts.append(f"[yellow]{counted(status.rows_failed, 'error row')}[/]")
    if status.spend is not None:
        parts.append(spend_line(status.spend))
    if status.num_interruptions:
        parts.append(f"{counted(status.num_interruptions, 'interruption')} survived")
    return "  ".join(parts)


def _waited_for(status: RunStatus) -> str:
    starting = sum(node.state is NodeState.STARTING for node in status.living)
    if starting:
        return f"{counted(starting, 'worker')} loading the model"
    return "workers take their first prompts" if status.living else "waiting for workers to start"


def spend_line(spend: Spend) -> str:
    """Money so far, of how much, and how fast it goes."""
    limit = "" if spend.max_cost_usd is None else f" of {spend.max_cost_usd:.2f}"
    return f"{spend.usd:.2f}{limit} USD ({spend.usd_per_hour:.2f}/h)"


def event_line(event: Event) -> str:
    what = event.kind.value.replace("_", " ")
    shard = f" shard {event.shard_id}" if event.shard_id else ""
    return f"[cyan]{event.at:%H:%M:%S}[/] {what}{shard} [dim]{event.node_id}[/] {event.detail}"


def show_preflight(console: Console, report: PreflightReport, *, brief: bool = False) -> None:
    """Counts, and the first mistakes with file and line."""
    console.print(
        f"preflight: {counted(report.num_rows, 'row')} in {counted(len(report.files), 'file')} "
        f"({size(report.num_bytes)}, {report.input_format}), {report.num_good_rows:,} good, "
        f"{report.num_error_rows:,} bad",
        highlight=False,
    )
    for code, count in sorted(report.errors.items()):
        console.print(f"  [yellow]{code.value}[/]: {count}", highlight=False)
    for error in report.examples[: 3 if brief else None]:
        console.print(Text(f"    {error.message}", style="dim"))
    if report.grammar_backend:
        console.print(f"  structured outputs: by {report.grammar_backend}", highlight=False)
    for note in report.notes:
        console.print(f"  [yellow]note[/]: {note}", highlight=False, soft_wrap=True)


def show_ending(console: Console, ending: Ending) -> None:
    """The last words of a run."""
    summary = ending.summary
    if ending.spend is not None:
        console.print(
            f"spent: {ending.spend.usd:.2f} USD on {counted(ending.spend.num_launched, 'node')}",
            highlight=False,
        )
    if summary is None:
        console.print(f"[bold yellow]{ending.reason}[/]: everything generated so far is saved.")
        console.print(f"Go on with: {ending.go_on}", highlight=False, soft_wrap=True)
        console.print(f"What is finished: {ending.partial}", highlight=False, soft_wrap=True)
        return
    moved = (
        f"; {counted(summary.num_resumed_rows, 'row')} carried over between workers, "
        f"{summary.num_restarted_rows} of them begun again"
    )
    console.print(
        f"[bold green]done[/]: {counted(summary.num_ok, 'row')}, "
        f"{counted(summary.num_errors, 'error row')}, {summary.num_output_tokens:,} tokens"
        f"{moved if summary.num_resumed_rows else ''}",
        highlight=False,
        soft_wrap=True,
    )
    if summary.num_reused_rows:
        reused = counted(summary.num_reused_rows, "row")
        console.print(f"  reused: {reused} took the answer of another row", highlight=False)
    _show_codes(console, summary.errors)
    if ending.look_at_errors:
        console.print(f"  which and why: {ending.look_at_errors}", highlight=False, soft_wrap=True)
    if summary.num_cut_rows:
        console.print(f"  {_cut_line(summary)}", highlight=False)
    if ending.reason:
        console.print(f"[bold yellow]{ending.reason}[/]", highlight=False)
    _show_files(console, "results", summary.directory, summary.files)


def show_partial(console: Console, part: PartialSummary) -> None:
    """What was written of a run that is not finished."""
    console.print(
        f"[bold yellow]partial[/]: {part.num_rows - part.num_open:,} of "
        f"{counted(part.num_rows, 'row')} finished, {counted(part.num_errors, 'error row')} among "
        f"them; {part.num_open:,} open",
        highlight=False,
    )
    _show_codes(console, part.errors)
    for shard_id, why in part.unreadable_shards.items():
        console.print(f"  [red]shard {shard_id} cannot be read[/]: {escape(why)}", highlight=False)
    _show_files(console, "finished rows", part.directory, part.files)


def _show_codes(console: Console, errors: Mapping[str, int]) -> None:
    for code, count in sorted(errors.items()):
        console.print(f"  [yellow]{code}[/]: {count}", highlight=False)


def _cut_line(summary: ResultSummary) -> str:
    structured = ""
    if summary.num_cut_structured_rows:
        structured = f", {summary.num_cut_structured_rows:,} of them structured"
    cut = counted(summary.num_cut_rows or 0, "answer")
    return f"[yellow]cut[/]: {cut} ended for want of room (max_tokens or context){structured}"


def _show_files(console: Console, what: str, where: str, files: Sequence[ResultFile]) -> None:
    console.print(f"{what}: {where}", highlight=False, soft_wrap=True)
    for file in files:
        console.print(f"  {file.name}  {size(file.num_bytes)}", highlight=False)
