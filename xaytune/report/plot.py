"""A plot of the report, and how all of them look."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from xaytune.report.printing import shortened

# Okabe and Ito's colours (2008), which people who are colour-blind tell apart, on white and on black.
COLORS = {
    "completed": "#009e73",
    "stopped": "#e69f00",
    "failed": "#d55e00",
    "running": "#56b4e9",
    "paused": "#cc79a7",
    "pending": "#8a8f98",
    "cut off": "#8a8f98",
}
# From weak to strong on a light page; a dark one turns it around.
SCALE = "Cividis_r"
_FONT = {"family": "system-ui, sans-serif", "size": 13}
# Values whose largest is so many times their smallest are drawn by powers of ten.
_WIDE = 200


@dataclass(frozen=True)
class Plot:
    """A plot of the report.

    Attributes:
        name: For files and links.
        title: Its heading.
        caption: What it shows.
        figure: The plot.
        min_width: Pixels below which it cannot be read: in a narrower window it is scrolled.
    """

    name: str
    title: str
    caption: str
    figure: go.Figure
    min_width: int = 280


def label(text: str) -> str:
    """Returns a text as plotly takes it: shortened, and what looks like HTML is drawn as it is."""
    return html.escape(shortened(text, 40))


def with_values(figure: go.Figure, metric: str, values: Sequence[float | None]) -> go.Figure:
    """Draws the metric upwards: by powers of ten where its values are of very different size."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    wide = bool(known) and min(known) > 0 and max(known) > _WIDE * min(known)
    return figure.update_yaxes(title=label(metric), type="log" if wide else "linear")


def dressed(figure: go.Figure, height: int = 380) -> go.Figure:
    """Gives a figure the look that all have."""
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(exponentformat="power")  # not "10µ" for a learning rate
    return figure.update_layout(
        template="plotly_white",
        title=None,
        font=_FONT,
        width=None,
        height=height,
        margin={"l": 56, "r": 16, "t": 24, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)"},  # it lies over titles
    )
