"""Pages of HTML that need nothing else: styles, scripts and plotly itself are in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from xaytune.report.figures import COLORS, Plot

__all__ = ["render"]


def render(template: str, plots: Sequence[Plot], **values: Any) -> str:
    """Returns a page.

    Args:
        template: Name of its template.
        plots: The plots in it.
        values: What else the template asks for.
    """
    loader = PackageLoader("xaytune.report", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    figures = {plot.name: json.loads(plot.figure.to_json()) for plot in plots}
    return environment.get_template(template).render(
        plots=plots, figures=figures, colors=COLORS, plotly_js=get_plotlyjs(), **values
    )
