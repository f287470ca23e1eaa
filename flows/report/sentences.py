"""What a report says in words: for a reader who has never seen the project."""

from statistics import median

from flows.screen.words import counted
from shunt.report.report import Interruption, Money, RunReport, Score, StartUp
from shunt.run.status import RunState

_PERCENT = 100.0


def span_of(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 05 s`, `2 h 07 min`, `3 d 4 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours < 72 else f"{hours // 24} d {hours % 24} h"


def share_of(part: float, whole: float) -> str:
    """A percentage with the digits that it deserves."""
    percent = _PERCENT * part / whole if whole else 0.0
    if percent == 0 or percent >= 10:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent >= 0.1 else "under 0.1 %"


def headline(report: RunReport) -> str:
    """The run in two sentences."""
    return f"{_rows(report)} {_losses(report)}"


def _rows(report: RunReport) -> str:
    total = counted(report.num_rows, "row")
    if report.state is RunState.COLLECTED:
        good = report.num_rows - report.num_errors
        bad = f", {good:,} with an answer and {report.num_errors:,} without"
        return f"All {total} have ended{bad if report.num_errors else ' with an answer'}."
    words = {
        RunState.OPEN: "The run is not finished",
        RunState.GENERATED: "Everything is generated, and the results are not collected yet",
        RunState.CANCELLED: "The run was cancelled",
    }
    return f"{words[report.state]}: {report.num_ended:,} of {total} have ended."


def _losses(report: RunReport) -> str:
    lost = len(report.interruptions)
    if not lost:
        return "No worker was lost on the way."
    were = "One worker was" if lost == 1 else f"{lost:,} workers were"
    if not report.lost_tokens:
        return f"{were} lost on the way, and not one token had to be generated again."
    return (
        f"{were} lost on the way; of everything that was generated, at most "
        f"{share_of(report.lost_tokens, report.output_tokens)} had to be generated again."
    )


def speed_sentence(report: RunReport) -> str:
    peak = max(report.speed.tokens_per_s, default=0.0)
    return f"On average {report.mean_tokens_per_s:,.0f} tokens per second, at the best {peak:,.0f}."


def tail_sentence(report: RunReport) -> str:
    tail = report.tail
    if tail is None:
        return "How the last rows come in is seen when all have ended."
    last_s = tail.last_s - tail.p95_s
    return (
        f"Half of the rows had ended after {span_of(tail.half_s)}. The last 5 % took "
        f"{span_of(last_s)}, {share_of(last_s, report.duration_s)} of the run: a short tail means "
        "that the workers stayed busy until the end."
    )


def money_sentence(money: Money) -> str:
    spent = f"The machines cost {money.usd:,.2f} USD"
    if money.max_cost_usd is not None:
        spent += f" of at most {money.max_cost_usd:,.2f}"
    saved = money.saved_share
    if saved is None:
        return f"{spent}."
    return (
        f"{spent}. The same hours on demand would have cost {money.on_demand_usd:,.2f} USD: "
        f"{share_of(saved, 1)} was saved by buying machines that can be taken away."
    )


def startup_sentence(startups: tuple[StartUp, ...]) -> str:
    seconds = [(s.boot_s or 0.0) + s.load_s for s in startups if s.load_s is not None]
    if not seconds:
        return "No worker has served a request yet."
    return (
        f"From its launch to its first request a worker took {span_of(median(seconds))} (the "
        f"median of {len(seconds)}), the slowest {span_of(max(seconds))}."
    )


def score_sentence(scores: tuple[Score, ...]) -> str:
    inside = sum(score.inside for score in scores)
    return (
        f"The plan promised ranges in which eight of ten runs end; {inside} of {len(scores)} "
        "came true. The bar is the range, the line its middle, the dot what happened."
    )


def replaced(interruption: Interruption) -> str:
    """How long the place was without a worker that generates."""
    after_s = interruption.replaced_after_s
    return "not needed any more" if after_s is None else span_of(after_s)
