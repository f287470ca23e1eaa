"""The live picture of a run: progress, money, a line per worker."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.screen.words import duration
from shunt import keys
from shunt.run.node_status import NodeState, NodeStatus
from shunt.run.outlook import Outlook
from shunt.run.spend import Spend
from shunt.run.status import RunStatus

_BAR = 60
_MOST_WORKERS = 16
_STYLES = {NodeState.RUNNING: "green", NodeState.STARTING: "yellow", NodeState.IDLE: "dim",
           NodeState.DRAINING: "magenta"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """All that one look at a run shows."""

    status: RunStatus
    outlook: Outlook
    pools: Mapping[str, str] = field(default_factory=dict[str, str])
    """Node -> where it was bought. Empty for a fleet that costs nothing."""


def picture(look: Look, line: str) -> RenderableType:
    """`line`: the run in one line."""
    status = look.status
    bar = ProgressBar(total=max(1, status.rows_total), completed=status.rows_ended, width=_BAR)
    parts: list[RenderableType] = [bar, Text.from_markup(line)]
    if status.spend is not None and status.spend.max_cost_usd is not None:
        parts.append(_money(status.spend))
    if status.living:
        parts.append(_workers(look))
    return Group(*parts)


def eta_line(eta_s: tuple[float, float] | None) -> str:
    """`0:12:00`, or `0:12:00 to 0:18:30` where the last minutes went unevenly."""
    if eta_s is None:
        return "-"
    soonest, latest = (duration(seconds) for seconds in eta_s)
    near = eta_s[1] <= 1.1 * eta_s[0] + 1
    return latest if near else f"{soonest} to {latest}"


def _money(spend: Spend) -> RenderableType:
    assert spend.max_cost_usd is not None
    table = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=spend.max_cost_usd, completed=float(spend.usd), width=_BAR // 2,
                      complete_style="yellow", finished_style="red")  # fmt: skip
    table.add_row(bar, f"{spend.usd:.2f} of {spend.max_cost_usd:.2f} USD")
    return table


def _workers(look: Look) -> Table:
    """The fastest first; a fleet of hundreds would push everything else off the screen."""
    rates = look.outlook.by_worker
    ordered = sorted(look.status.living, key=lambda n: (-rates.get(n.node_id, 0.0), n.node_id))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("worker", no_wrap=True)
    if look.pools:
        table.add_column("bought as", no_wrap=True)
    table.add_column("state")
    for name in ("tok/s", "in flight", "shards", "rows", "tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    for node in ordered[:_MOST_WORKERS]:
        table.add_row(*_cells(node, look))
    if len(ordered) > _MOST_WORKERS:
        table.add_row(f"and {len(ordered) - _MOST_WORKERS} more", style="dim")
    return table


def _cells(node: NodeStatus, look: Look) -> list[RenderableType]:
    style = _STYLES.get(node.state, "")
    state = Text(node.detail or node.state.value, style=style)
    pool = [look.pools.get(keys.machine_of(node.node_id), "")] if look.pools else []
    rate = look.outlook.by_worker.get(node.node_id, 0.0)
    counts = (node.running, len(node.shards), node.rows_finished, node.tokens_made)
    return [node.node_id, *pool, state, f"{rate:,.0f}", *(f"{count:,}" for count in counts)]
