"""Figures of matplotlib as SVG that lives in a page: its colours are the page's, its marks speak.

A colour of `Ink` is written by matplotlib as it stands here and then replaced by the page's CSS
variable of that name, so that one drawing serves the dark and the light page.
"""

# matplotlib ships partial types.
# pyright: reportUnknownMemberType=false

import re
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape
from io import StringIO

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

WIDTH_IN = 10.0
_POINTS = 72.0
LEFT_IN, RIGHT_IN = 1.15, 0.25
"""Margins that all charts over time share, so that an instant is at one place on the page."""
_BOTTOM_IN = 0.5
TEXT_PT = 8.5


class Ink(StrEnum):
    """Colours by what they mean. The page's style sheet has each of them twice."""

    TEXT = "#010101"
    SOFT = "#020202"
    LINE = "#030303"
    PAGE = "#040404"
    RUNNING = "#050505"
    STARTING = "#060606"
    BOOTING = "#070707"
    IDLE = "#080808"
    DRAINING = "#090909"
    LOST = "#0a0a0a"
    FIRST = "#0b0b0b"
    SECOND = "#0c0c0c"
    THIRD = "#0d0d0d"
    FOURTH = "#0e0e0e"
    FIFTH = "#0f0f0f"
    SIXTH = "#101010"


SERIES = (Ink.FIRST, Ink.SECOND, Ink.THIRD, Ink.FOURTH, Ink.FIFTH, Ink.SIXTH)


@dataclass(slots=True)
class Canvas:
    """One chart: a figure, and what its marks say when they are pointed at."""

    name: str
    height_in: float
    figure: Figure = field(init=False)
    _told: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        self.figure = Figure(figsize=(WIDTH_IN, self.height_in))
        FigureCanvasSVG(self.figure)

    def axes(self, *, left_in: float = LEFT_IN, top_in: float = 0.12) -> Axes:
        """The chart's only axes: a quiet frame, a grid behind the marks."""
        width = WIDTH_IN - left_in - RIGHT_IN
        height = self.height_in - top_in - _BOTTOM_IN
        box = (left_in / WIDTH_IN, _BOTTOM_IN / self.height_in)
        axes = self.figure.add_axes((*box, width / WIDTH_IN, height / self.height_in))
        quiet_frame(axes, pad=5)
        axes.grid(visible=True, axis="both", color=Ink.LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        return axes

    def tell(self, mark: Artist, text: str) -> None:
        """Have the mark say this when it is pointed at."""
        gid = f"told-{len(self._told)}"
        mark.set_gid(gid)
        self._told[gid] = text

    def svg(self, label: str) -> str:
        """The picture, to be put into a page. `label` says what it shows to who cannot see it."""
        text = StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.name}):
            self.figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        drawn = text.getvalue()
        drawn = drawn[drawn.index("<svg") :]
        drawn = re.sub(
            r'<g id="(told-\d+)">',
            lambda mark: f"{mark[0]}<title>{escape(self._told[mark[1]])}</title>",
            drawn,
        )
        drawn = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{self.name}-", drawn)
        for ink in Ink:
            drawn = drawn.replace(ink.value, f"var(--{ink.name.lower()})")
        size = f"0 0 {WIDTH_IN * _POINTS:g} {self.height_in * _POINTS:g}"
        opening = f'<svg viewBox="{size}" role="img" aria-label="{escape(label)}">'
        return re.sub(r"<svg[^>]*>", lambda _: opening, drawn, count=1)


def quiet_frame(axes: Axes, *, pad: float) -> None:
    """A line below and soft words, `pad` points from it."""
    axes.set_facecolor("none")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(Ink.LINE)
    axes.tick_params(length=0, labelsize=TEXT_PT, labelcolor=Ink.SOFT, pad=pad)


@dataclass(frozen=True, slots=True)
class TimeScale:
    """The unit in which a run of this length is told."""

    unit_s: float
    name: str

    @classmethod
    def of(cls, duration_s: float) -> "TimeScale":
        for limit_s, unit_s, name in ((180.0, 1.0, "seconds"), (3 * 3600.0, 60.0, "minutes"),
                                      (4 * 86400.0, 3600.0, "hours")):  # fmt: skip
            if duration_s <= limit_s:
                return cls(unit_s, name)
        return cls(86400.0, "days")

    def __call__(self, seconds: float) -> float:
        return seconds / self.unit_s
