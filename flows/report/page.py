"""The report as one HTML file: dark and light, printable, with no script and no request."""

from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flows.report import charts, sentences
from flows.report.canvas import SERIES
from flows.screen.words import counted
from shunt.report.report import RunReport

_TEMPLATE = "page.html.jinja"
_MOST_INTERRUPTIONS = 40
_MOST_BAD_ROWS = 50


@dataclass(frozen=True, slots=True)
class Tile:
    """One number, what it is, and what to think of it."""

    value: str
    name: str
    note: str = ""


def render_page(report: RunReport) -> str:
    """The whole file."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["span_of"] = sentences.span_of
    environment.filters["counted"] = counted
    money = report.money
    return environment.get_template(_TEMPLATE).render(
        report=report,
        say=sentences,
        tiles=_tiles(report),
        facts=_facts(report),
        lanes=Markup(charts.lanes_chart(report)) if report.lanes else "",
        legend=charts.legend_of(report.lanes),
        speed=Markup(charts.speed_chart(report)),
        series=list(zip((ink.name.lower() for ink in SERIES), report.speed.by_slot, strict=False)),
        rows=Markup(charts.rows_chart(report)),
        money=Markup(charts.money_chart(money)) if money is not None and money.pools else "",
        startups=Markup(charts.startups_chart(report.startups)) if report.startups else "",
        scores=Markup(charts.scores_chart(report.scores)) if report.scores else "",
        shown_interruptions=report.interruptions[:_MOST_INTERRUPTIONS],
        shown_bad_rows=report.bad_rows[:_MOST_BAD_ROWS],
    )


def _tiles(report: RunReport) -> list[Tile]:
    again = sentences.share_of(report.lost_tokens, report.output_tokens)
    tiles = [
        Tile(f"{report.num_good:,}", "rows with an answer", f"of {report.num_rows:,}"),
        Tile(sentences.span_of(report.duration_s), "from start to end"),
        Tile(f"{report.mean_tokens_per_s:,.0f}", "tokens per second",
             f"{report.output_tokens:,} in all"),
        Tile(f"{len(report.interruptions):,}", "interruptions survived",
             f"{report.taken_over_tokens:,} saved tokens taken over"),
        Tile(again if report.lost_tokens else "0", "of the tokens generated twice",
             f"{report.lost_tokens:,} tokens at most"),
    ]  # fmt: skip
    if (money := report.money) is not None:
        share = money.saved_share
        saved = "" if share is None else f"{sentences.share_of(share, 1)} under on-demand"
        tiles.append(Tile(f"${money.usd:,.2f}", "spent on machines", saved))
    return tiles


def _facts(report: RunReport) -> list[tuple[str, str]]:
    facts = [
        ("run", report.run_id),
        ("state", report.state.value),
        ("model", report.model),
        ("began", f"{report.began_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("report made", f"{report.made_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("tokens generated", f"{report.output_tokens:,}"),
        ("tokens in prompts", f"{report.prompt_tokens:,}"),
    ]
    if report.prompt_tokens:
        share = sentences.share_of(report.cached_tokens, report.prompt_tokens)
        facts.append(("of these read from the prefix cache", f"{report.cached_tokens:,} ({share})"))
    facts.append(("rows begun again from their prompt", f"{report.num_restarted_rows:,}"))
    if report.results:
        facts.append(("results", report.results))
    return facts
