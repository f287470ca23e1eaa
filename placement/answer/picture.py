"""A picture of the plan: pipelines as rows, stages as boxes wide as their layers.

Inside each box its memory is filled from below: weights, cache, the rest.
"""

# matplotlib ships partial types, which strict mode reports at every call.
# pyright: reportUnknownMemberType=false

from dataclasses import dataclass
from html import escape
from pathlib import Path

from placement.answer.layout import PlacedStage
from placement.answer.plan_builder import Answer

_COLOURS = {"weights": "#4C72B0", "KV cache": "#DD8452", "context": "#BBBBBB", "free": "#F4F4F4"}
_WIDTH, _HEIGHT, _LEFT, _GAP, _TOP = 960.0, 96.0, 130.0, 64.0, 62.0


@dataclass(frozen=True, slots=True)
class Box:
    """One stage in drawing units, with its label lines and memory shares from the bottom."""

    x: float
    y: float
    width: float
    lines: tuple[str, ...]
    shares: tuple[tuple[str, float], ...]
    bottleneck: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    title: str
    boxes: tuple[Box, ...]
    rows: tuple[tuple[float, str], ...]
    height: float


def lay_out(answer: Answer) -> Drawing:
    """Boxes to scale: width by layers, filling by memory."""
    boxes: list[Box] = []
    rows: list[tuple[float, str]] = []
    for p, (pipeline, record) in enumerate(
        zip(answer.pipelines, answer.plan.pipelines, strict=True)
    ):
        y = _TOP + p * (_HEIGHT + _GAP)
        rows.append(
            (
                y,
                f"{record.name}: {record.predicted_requests_per_s:.2f} req/s, "
                f"{record.max_num_seqs} in flight",
            )
        )
        scale = _WIDTH / answer.plan.num_layers
        slowest = max(stage.seconds.total for stage in pipeline.stages)
        for stage, durable in zip(pipeline.stages, record.stages, strict=True):
            node = answer.plan.node(durable.slot)
            boxes.append(
                Box(
                    x=_LEFT + durable.first_layer * scale,
                    y=y,
                    width=durable.num_layers * scale,
                    lines=(
                        durable.slot,
                        f"{durable.tp}x {node.gpu}",
                        f"layers {durable.first_layer}-{durable.end_layer - 1}",
                    ),
                    shares=_shares(stage),
                    bottleneck=stage.seconds.total > 0.999 * slowest,
                )
            )
    p = answer.plan.predicted
    title = (
        f"{answer.plan.model}: {p.requests_per_s.p50:.2f} req/s, {p.usd_per_hour:.2f} USD/h, "
        f"gap to bound {answer.plan.certificate.gap:.1%}"
    )
    return Drawing(title, tuple(boxes), tuple(rows), _TOP + len(rows) * (_HEIGHT + _GAP))


def _shares(stage: PlacedStage) -> tuple[tuple[str, float], ...]:
    weights = stage.weight_bytes / stage.memory_bytes
    cache = stage.kv_bytes / stage.memory_bytes
    other = stage.other_bytes / stage.memory_bytes
    free = max(0.0, 1.0 - weights - cache - other)
    return (("weights", weights), ("KV cache", cache), ("context", other), ("free", free))


def draw_html(answer: Answer, path: Path) -> None:
    """Write one HTML page with an SVG picture; it needs nothing else."""
    drawing = lay_out(answer)
    parts: list[str] = []
    for y, text in drawing.rows:
        parts.append(f'<text x="{_LEFT}" y="{y - 8}" class="row">{escape(text)}</text>')
    for box in drawing.boxes:
        parts += _svg_box(box)
    for i, (name, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + i * 110
        parts.append(f'<rect x="{x}" y="8" width="12" height="12" fill="{colour}" stroke="#999"/>')
        parts.append(f'<text x="{x + 17}" y="18">{name}</text>')
    width = _LEFT + _WIDTH + 20
    page = (
        '<!doctype html><meta charset="utf-8"><title>' + escape(drawing.title) + "</title>"
        "<style>body{font:14px system-ui,sans-serif;margin:2em}text{font:11px system-ui,sans-serif}"
        ".row{font-weight:600;font-size:12px}</style>"
        f"<h1>{escape(drawing.title)}</h1>"
        f'<svg viewBox="0 0 {width} {drawing.height}" width="100%" role="img">'
        + "".join(parts)
        + "</svg><p>Widths are layers, fillings are GPU memory; a red frame is the slowest stage "
        "of its pipeline.</p>"
    )
    path.write_text(page, encoding="utf-8")


def _svg_box(box: Box) -> list[str]:
    parts: list[str] = []
    top = box.y + _HEIGHT
    for name, share in box.shares:
        height = _HEIGHT * min(share, 1.0)
        top -= height
        parts.append(
            f'<rect x="{box.x:.1f}" y="{top:.1f}" width="{box.width - 2:.1f}" '
            f'height="{height:.1f}" fill="{_COLOURS[name]}"/>'
        )
    frame = "#C00000" if box.bottleneck else "#333333"
    parts.append(
        f'<rect x="{box.x:.1f}" y="{box.y}" width="{box.width - 2:.1f}" height="{_HEIGHT}" '
        f'fill="none" stroke="{frame}" stroke-width="2"/>'
    )
    if _fits(box, 6.2):
        for i, line in enumerate(box.lines):
            parts.append(
                f'<text x="{box.x + 5:.1f}" y="{box.y + 16 + 14 * i}">{escape(line)}</text>'
            )
    return [f"<g><title>{escape(', '.join(box.lines))}</title>", *parts, "</g>"]


def _fits(box: Box, per_letter: float) -> bool:
    """Whether the longest line stands inside the box; else it is left to the tooltip."""
    return max(len(line) for line in box.lines) * per_letter + 8 <= box.width


def draw_png(answer: Answer, path: Path) -> None:
    """Write the same picture as a bitmap."""
    # matplotlib takes most of a second to import, and only this function draws with it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle

    drawing = lay_out(answer)
    width = _LEFT + _WIDTH + 20
    figure = Figure(figsize=(width / 90, max(drawing.height, 200.0) / 90))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 0.93))
    axes.set_xlim(0, width)
    axes.set_ylim(drawing.height, 0)
    axes.set_axis_off()
    for y, text in drawing.rows:
        axes.text(_LEFT, y - 8, text, fontsize=9, weight="bold")
    for box in drawing.boxes:
        top = box.y + _HEIGHT
        for name, share in box.shares:
            height = _HEIGHT * min(share, 1.0)
            top -= height
            axes.add_patch(Rectangle((box.x, top), box.width - 2, height, color=_COLOURS[name]))
        edge = "#C00000" if box.bottleneck else "#333333"
        axes.add_patch(
            Rectangle((box.x, box.y), box.width - 2, _HEIGHT, fill=False, edgecolor=edge, lw=1.5)
        )
        if _fits(box, 5.6):
            axes.text(box.x + 4, box.y + 5, "\n".join(box.lines), fontsize=7, va="top")
    figure.suptitle(drawing.title, fontsize=11)
    axes.legend(
        handles=[Patch(facecolor=c, edgecolor="#999999", label=n) for n, c in _COLOURS.items()],
        loc="upper left",
        ncols=4,
        fontsize=8,
        frameon=False,
    )
    figure.savefig(path, dpi=130)
