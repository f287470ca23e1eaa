"""The charts of a report. Each is one picture that answers one question."""

# matplotlib ships partial types.
# pyright: reportUnknownMemberType=false

from collections import defaultdict
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from flows.report.canvas import (
    LEFT_IN,
    RIGHT_IN,
    SERIES,
    TEXT_PT,
    WIDTH_IN,
    Canvas,
    Ink,
    TimeScale,
    quiet_frame,
)
from flows.report.sentences import span_of
from flows.screen.words import counted
from shunt.report.report import Activity, Interruption, Lane, Life, Money, RunReport, Score, StartUp
from shunt.run.status import RunState

INKS: dict[Activity, Ink] = {
    "booting": Ink.BOOTING,
    "starting": Ink.STARTING,
    "running": Ink.RUNNING,
    "idle": Ink.IDLE,
    "draining": Ink.DRAINING,
}
_LANE_IN, _THIN_LANE_IN = 0.3, 0.07
_MOST_NAMED_LANES = 40
_MOST_STARTUPS = 12
_MOST_TOLD = 400
"""Lives or losses that say something when they are pointed at. More of them are drawn together, as
each mark of its own takes its time to draw and its place in the page."""
_BAR = 0.62
"""Of a lane's height."""
_MARK = 0.42
"""Above and below the middle of a lane."""


def lanes_chart(report: RunReport) -> str:
    """Who worked when, and where a worker was taken away."""
    lanes = report.lanes
    named = len(lanes) <= _MOST_NAMED_LANES
    canvas = Canvas("lanes", max(1.4, 0.75 + len(lanes) * (_LANE_IN if named else _THIN_LANE_IN)))
    axes = canvas.axes()
    scale = _time_axis(axes, report)
    placed = [(row, life) for row, lane in enumerate(lanes) for life in lane.lives]
    lost = [(row, life) for row, life in placed if life.ending == "interrupted"]
    if len(placed) > _MOST_TOLD:
        _draw_together(axes, scale, placed, lost)
    else:
        for row, life in placed:
            _draw_life(canvas, axes, scale, row, life)
        for row, life in lost:
            _draw_loss(canvas, axes, scale, row, life, named=named)
    _draw_collection(axes, scale, report)
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    if named:
        axes.set_yticks(range(len(lanes)), [_short(lane.slot) for lane in lanes])
    else:
        axes.yaxis.set_major_locator(MaxNLocator(10, integer=True))
        axes.set_ylabel("place of a worker", color=Ink.SOFT, fontsize=TEXT_PT)
    return canvas.svg("Bars over time: what each worker was doing, and where one was lost")


def _draw_life(canvas: Canvas, axes: Axes, scale: TimeScale, row: int, life: Life) -> None:
    for span in life.spans:
        (bar,) = axes.barh(
            row,
            scale(span.to_s - span.from_s),
            left=scale(span.from_s),
            height=_BAR,
            color=INKS[span.activity],
            linewidth=0,
        )
        canvas.tell(bar, f"{life.node_id}: {span.activity} for {span_of(span.to_s - span.from_s)}")


def _draw_loss(
    canvas: Canvas, axes: Axes, scale: TimeScale, row: int, life: Life, *, named: bool
) -> None:
    at = scale(life.ended_s)
    (line,) = axes.plot([at, at], [row - _MARK, row + _MARK], color=Ink.LOST, linewidth=1.8)
    lost = f", about {counted(life.lost_tokens, 'token')} to do again" if life.lost_tokens else ""
    canvas.tell(line, f"{life.node_id}: {life.reason}{lost}")
    if named:
        axes.plot(at, row - _MARK, marker="v", markersize=4.5, color=Ink.LOST, markeredgewidth=0)


def _draw_together(
    axes: Axes,
    scale: TimeScale,
    placed: Sequence[tuple[int, Life]],
    lost: Sequence[tuple[int, Life]],
) -> None:
    """The same bars and marks, one drawing for each place and activity."""
    bars: dict[tuple[int, Activity], list[tuple[float, float]]] = defaultdict(list)
    for row, life in placed:
        for span in life.spans:
            bar = (scale(span.from_s), scale(span.to_s - span.from_s))
            bars[row, span.activity].append(bar)
    for (row, activity), ranges in bars.items():
        axes.broken_barh(ranges, (row - _BAR / 2, _BAR), color=INKS[activity], linewidth=0)
    rows = [row for row, _ in lost]
    axes.vlines(
        [scale(life.ended_s) for _, life in lost],
        [row - _MARK for row in rows],
        [row + _MARK for row in rows],
        color=Ink.LOST,
        linewidth=1.0,
    )


def _draw_collection(axes: Axes, scale: TimeScale, report: RunReport) -> None:
    """What comes after the last worker has left, where it is long enough to be asked about."""
    left_s = max((life.ended_s for lane in report.lanes for life in lane.lives), default=0.0)
    if report.state is RunState.COLLECTED and report.duration_s - left_s > 0.1 * report.duration_s:
        axes.axvspan(scale(left_s), scale(report.duration_s), color=Ink.LINE, alpha=0.5, lw=0)
        middle = scale((left_s + report.duration_s) / 2)
        axes.text(
            middle, (len(report.lanes) - 1) / 2, "results are\nwritten", ha="center", va="center",
            fontsize=TEXT_PT, color=Ink.SOFT,
        )  # fmt: skip


def speed_chart(report: RunReport) -> str:
    """Tokens per second over time, with the interruptions above."""
    canvas, curve = Canvas("speed", 2.7), report.speed
    axes = canvas.axes(top_in=0.3)
    scale = _time_axis(axes, report)
    edges = [scale(number * curve.step_s) for number in range(len(curve.tokens_per_s) + 1)]
    floor = [0.0] * len(curve.tokens_per_s)
    parts = curve.by_slot or {"all workers": curve.tokens_per_s}
    for ink, (slot, rates) in zip(SERIES, parts.items(), strict=False):
        top = [low + rate for low, rate in zip(floor, rates, strict=True)]
        filled = axes.fill_between(
            edges, [*floor, floor[-1]], [*top, top[-1]], step="post", color=ink, linewidth=0,
            label=_short(slot),
        )  # fmt: skip
        canvas.tell(filled, f"{slot}: {sum(rates) * curve.step_s:,.0f} tokens in all")
        floor = top
    highest = max(curve.tokens_per_s, default=0.0) or 1.0
    axes.set_ylim(0, 1.06 * highest)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel("tokens per second", color=Ink.SOFT, fontsize=TEXT_PT, labelpad=8)
    _mark_interruptions(canvas, axes, scale, report.interruptions)
    return canvas.svg("Tokens per second over time, by worker")


def _mark_interruptions(
    canvas: Canvas, axes: Axes, scale: TimeScale, interruptions: Sequence[Interruption]
) -> None:
    """Above the chart: each says what it was, unless they are very many."""
    apart = len(interruptions) <= _MOST_TOLD
    for together in [[each] for each in interruptions] if apart else [interruptions]:
        at = [scale(each.at_s) for each in together]
        (mark,) = axes.plot(
            at, [1.05] * len(at), marker="v", markersize=5, color=Ink.LOST, linestyle="none",
            markeredgewidth=0, transform=axes.get_xaxis_transform(), clip_on=False,
        )  # fmt: skip
        if apart:
            canvas.tell(mark, f"{together[0].node_id}: {together[0].reason}")


def rows_chart(report: RunReport) -> str:
    """Rows that had ended, over time; the last ones are marked."""
    canvas, total = Canvas("rows", 2.4), max(1, report.num_rows)
    axes = canvas.axes()
    scale = _time_axis(axes, report)
    at = [scale(done.at_s) for done in report.rows]
    share = [done.rows / total for done in report.rows]
    axes.fill_between(at, share, step="post", color=Ink.RUNNING, alpha=0.18, linewidth=0)
    axes.step(at, share, where="post", color=Ink.RUNNING, linewidth=1.8)
    axes.set_ylim(0, 1.08)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0])
    axes.set_ylabel("rows ended", color=Ink.SOFT, fontsize=TEXT_PT, labelpad=8)
    if (tail := report.tail) is not None:
        axes.axvspan(scale(tail.p95_s), scale(tail.last_s), color=Ink.STARTING, alpha=0.22, lw=0)
        for name, share_done, at_s, above_pt in (
            ("half", 0.5, tail.half_s, 3),
            ("95 %", 0.95, tail.p95_s, -15),
            ("all", 1.0, tail.last_s, 3),
        ):
            (dot,) = axes.plot(
                scale(at_s), share_done, marker="o", markersize=6, color=Ink.RUNNING,
                markeredgecolor=Ink.PAGE, markeredgewidth=1.5,
            )  # fmt: skip
            canvas.tell(dot, f"{name} of the rows after {span_of(at_s)}")
            axes.annotate(
                f"{name}: {span_of(at_s)}", (scale(at_s), share_done), xytext=(-7, above_pt),
                textcoords="offset points", ha="right", fontsize=TEXT_PT, color=Ink.TEXT,
            )  # fmt: skip
    return canvas.svg("Share of the rows that had ended, over time")


def money_chart(money: Money) -> str:
    """What each pool cost, against the on-demand price of the same hours."""
    pools = money.pools
    canvas = Canvas("money", 0.75 + 0.36 * len(pools))
    axes = canvas.axes(left_in=2.2)
    for row, pool in enumerate(pools):
        if pool.on_demand_usd is not None:
            (full,) = axes.barh(row, float(pool.on_demand_usd), height=_BAR, color=Ink.LINE)
            canvas.tell(full, f"on demand: {pool.on_demand_usd:,.2f} USD")
        (paid,) = axes.barh(row, float(pool.usd), height=_BAR, color=Ink.RUNNING)
        canvas.tell(paid, f"paid: {pool.usd:,.2f} USD for {pool.node_hours:,.1f} node hours")
        axes.annotate(
            f"{pool.usd:,.2f}", (float(pool.usd), row), xytext=(5, 0), textcoords="offset points",
            va="center", fontsize=TEXT_PT, color=Ink.TEXT,
        )  # fmt: skip
    names = [f"{pool.instance_type}  {pool.zone}\n{pool.market}" for pool in pools]
    axes.set_yticks(range(len(pools)), names)
    axes.set_ylim(len(pools) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)
    axes.set_xlabel("USD", color=Ink.SOFT, fontsize=TEXT_PT)
    return canvas.svg("Cost of each pool, and its on-demand price")


def startups_chart(startups: Sequence[StartUp]) -> str:
    """Where the time went before the first token; the slowest nodes."""
    shown = sorted(startups, key=_startup_s, reverse=True)[:_MOST_STARTUPS]
    canvas = Canvas("startups", 0.75 + 0.24 * len(shown))
    axes = canvas.axes(left_in=2.2)
    scale = TimeScale.of(max((_startup_s(startup) for startup in shown), default=0.0))
    for row, startup in enumerate(shown):
        left = 0.0
        parts = (
            ("booting", startup.boot_s, Ink.BOOTING),
            ("loading", startup.load_s, Ink.STARTING),
        )
        for name, seconds, ink in parts:
            width = scale(seconds or 0.0)
            (bar,) = axes.barh(row, width, left=left, height=_BAR, color=ink)
            canvas.tell(bar, f"{startup.node_id}: {name} for {span_of(seconds or 0.0)}")
            left += width
    axes.set_yticks(range(len(shown)), [_short(startup.node_id) for startup in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(scale.name, color=Ink.SOFT, fontsize=TEXT_PT)
    return canvas.svg("Seconds from the launch of a worker to its first request, by phase")


def scores_chart(scores: Sequence[Score]) -> str:
    """The range that was forecast, and the point that came true."""
    canvas = Canvas("scores", 0.35 + 0.75 * len(scores))
    width = (WIDTH_IN - LEFT_IN - RIGHT_IN) / WIDTH_IN
    for number, score in enumerate(scores):
        height = 0.3 / canvas.height_in
        bottom = 1 - (number + 1) * 0.75 / canvas.height_in + 0.1
        axes = canvas.figure.add_axes((LEFT_IN / WIDTH_IN, bottom, width, height))
        _draw_score(canvas, axes, score)
    return canvas.svg("Forecast ranges, and what happened")


def _draw_score(canvas: Canvas, axes: Axes, score: Score) -> None:
    forecast = score.forecast
    in_time = score.what == "duration_s"
    longest = max(forecast.p90, score.happened)
    scale = TimeScale.of(longest) if in_time else TimeScale(1.0, "USD")
    quiet_frame(axes, pad=4)
    (bar,) = axes.barh(
        0, scale(forecast.p90 - forecast.p10), left=scale(forecast.p10), height=0.5, color=Ink.IDLE
    )
    canvas.tell(bar, "eight of ten runs like this one should end inside")
    axes.plot([scale(forecast.p50)] * 2, [-0.25, 0.25], color=Ink.RUNNING, linewidth=2)
    (dot,) = axes.plot(
        scale(score.happened), 0, marker="o", markersize=8, color=Ink.TEXT if score.inside else
        Ink.LOST, markeredgecolor=Ink.PAGE, markeredgewidth=1.5, clip_on=False,
    )  # fmt: skip
    canvas.tell(dot, f"what happened: {scale(score.happened):,.4g} {scale.name}")
    axes.set_xlim(0, 1.1 * scale(longest))
    axes.set_ylim(-0.6, 0.6)
    axes.set_yticks([0], [f"{'time' if in_time else 'cost'}, {scale.name}"])


def _time_axis(axes: Axes, report: RunReport) -> TimeScale:
    """Seconds, minutes or hours since the first worker was started: one scale for the page."""
    scale = TimeScale.of(report.duration_s)
    axes.set_xlim(0, scale(max(report.duration_s, 1.0)))
    axes.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 3, 5, 6, 10]))
    axes.set_xlabel(f"{scale.name} since the start", color=Ink.SOFT, fontsize=TEXT_PT)
    return scale


def _startup_s(startup: StartUp) -> float:
    return (startup.boot_s or 0.0) + (startup.load_s or 0.0)


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:12]}…{name[-12:]}"


def legend_of(lanes: Sequence[Lane]) -> list[tuple[str, str]]:
    """(CSS variable, words) of the activities that these lanes show."""
    words: dict[Activity, str] = {
        "booting": "process or machine starts",
        "starting": "engine loads the model",
        "running": "generates",
        "idle": "waits for work that others hold",
        "draining": "saves and leaves",
    }
    seen = {span.activity for lane in lanes for life in lane.lives for span in life.spans}
    return [(INKS[kind].name.lower(), text) for kind, text in words.items() if kind in seen]
