"""How a plan looks on a terminal."""

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table

from placement.answer.explanation import offering_reasons, runners_up, stage_reasons
from placement.answer.plan_builder import Answer
from shunt.plan.plan import Range

_GB = 1e9
_WIDTH = 112
_BAR = 8


def plan_console() -> Console:
    """A console at least as wide as the tables, also where the output is a pipe."""
    console = Console()
    return Console(width=max(_WIDTH, console.width))


def show_plan(answer: Answer, console: Console) -> None:
    """Pipelines with their stages, then speed, money and the certificate."""
    plan = answer.plan
    console.print(f"[bold]{plan.model}[/bold] on {plan.engine}, plan {plan.version}")
    for p, pipeline in enumerate(answer.pipelines):
        durable = plan.pipelines[p]
        table = Table(
            title=f"{durable.name}: {durable.predicted_requests_per_s:.3f} requests/s, "
            f"{durable.max_num_seqs} in flight",
            title_justify="left",
        )
        for name in ("stage", "node", "GPUs (TP)", "layers", "memory used", "weights + KV, GB"):
            table.add_column(name, no_wrap=True)
        table.add_column("most time goes to")
        for s, (stage, record) in enumerate(zip(pipeline.stages, durable.stages, strict=True)):
            node = plan.node(record.slot)
            table.add_row(
                f"{s}{' head' if s == 0 else ''}",
                f"{record.slot} {node.market}",
                f"{record.tp}x {node.gpu}",
                f"{record.first_layer}-{record.end_layer - 1} ({record.num_layers})",
                f"{_bar(stage.memory_share)} {stage.memory_share:.0%}",
                f"{stage.weight_bytes / _GB:.1f} + {stage.kv_bytes / _GB:.1f} "
                f"of {stage.memory_bytes / _GB:.1f}",
                record.limited_by,
            )
        console.print(table)
    console.print(_figures(answer))


def _bar(share: float) -> str:
    full = round(min(share, 1.0) * _BAR)
    return "█" * full + "░" * (_BAR - full)


def _figures(answer: Answer) -> Panel:
    plan, predicted = answer.plan, answer.plan.predicted
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column()
    prompts = answer.question.workload.num_prompts
    grid.add_row("throughput", f"{_span(predicted.requests_per_s, '{:.3g}')} requests/s")
    grid.add_row(
        "tokens",
        f"{predicted.input_tokens_per_s:,.0f} in + {predicted.output_tokens_per_s:,.0f} out per s",
    )
    grid.add_row(
        "price",
        f"{predicted.usd_per_hour:.2f} USD/h, {predicted.usd_per_million_tokens:.3f} USD per 1M "
        "tokens",
    )
    hours = Range(**{k: v / 3600 for k, v in predicted.duration_s.model_dump().items()})
    grid.add_row(
        "time",
        f"{_span(hours, '{:.2f}')} h for {prompts:,} prompts (start-up "
        f"{answer.question.startup_s:.0f} s, drain {answer.forecast.drain_s:.0f} s)",
    )
    grid.add_row("cost", f"{_span(predicted.cost_usd, '{:.2f}')} USD")
    certificate = plan.certificate
    grid.add_row(
        "certificate",
        f"{certificate.objective}: {certificate.value:.4g}; no plan within the limits is better "
        f"than {certificate.bound:.4g} (gap {certificate.gap:.2%})",
    )
    for note in plan.notes:
        grid.add_row("note", note)
    return Panel(grid, title="P10 / P50 / P90 under the calibrated estimator", title_align="left")


def _span(span: Range, form: str) -> str:
    return " / ".join(form.format(v) for v in (span.p10, span.p50, span.p90))


def show_explanation(answer: Answer, console: Console) -> None:
    """Where stage time goes, why each offering, and what came next."""
    stages = Table(title="where the time of a request goes, by stage", title_justify="left")
    for name in ("pipeline", "stage", "s/request", "of slowest", "compute", "bandwidth", "link"):
        stages.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    stages.add_column("host", justify="right")
    stages.add_column("limit")
    for r in stage_reasons(answer):
        stages.add_row(
            str(r.pipeline),
            r.where,
            f"{r.seconds_per_request:.3f}",
            f"{r.bottleneck_share:.0%}",
            f"{r.compute:.0%}",
            f"{r.bandwidth:.0%}",
            f"{r.link:.0%}",
            f"{r.host:.0%}",
            r.limit,
        )
    offers = Table(title="offerings", title_justify="left")
    for name in ("offering", "USD/h", "used", "of", "why"):
        offers.add_column(name)
    for o in offering_reasons(answer):
        offers.add_row(
            o.offering.name,
            f"{o.offering.usd_per_hour:g}",
            str(o.used),
            str(o.offering.max_nodes),
            o.reason,
        )
    others = Table(title="pipelines that came next", title_justify="left")
    for name in ("stages", "requests/s", "USD/h (share of nodes)"):
        others.add_column(name)
    for runner in runners_up(answer):
        others.add_row(runner.stages, f"{runner.requests_per_s:.3f}", f"{runner.usd_per_hour:.2f}")
    console.print(Group(stages, offers, others))
