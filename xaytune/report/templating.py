"""Pages of HTML that need no network: styles and scripts are in them, plotly's too, or beside them in a folder."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import plotly.io
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from xaytune.report.plot import COLORS, Plot

# A page in one file is as large as plotly's bundle, 4.5 MB; in a folder the bundle lies beside it.
_BUNDLE = "plotly.min.js"
Page = Callable[[bool], str]


def render(template: str, plots: Sequence[Plot], *, whole: bool, **values: Any) -> str:
    """Returns a page.

    Args:
        template: Name of its template.
        plots: The plots in it.
        whole: Whether plotly's bundle is in the page, instead of beside it.
        values: What else the template asks for.
    """
    loader = PackageLoader("xaytune.report", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(
        plots=plots,
        figures={plot.name: _plain(plot) for plot in plots},
        looks={name: plotly.io.templates[f"plotly_{name}"].to_plotly_json() for name in ("white", "dark")},
        colors=COLORS,
        bundle=None if whole else _BUNDLE,
        plotly_js=get_plotlyjs() if whole else "",
        **values,
    )


def write_page(page: Page, output: Path) -> Path:
    """Writes a page into a file; where a folder is named, into it, with plotly's bundle beside it.

    Args:
        page: Gives the page, told whether it is to be whole.
        output: A file, which ends in ``.html``, or a folder.

    Returns:
        The page's file.

    Raises:
        OSError: It cannot be written.
    """
    whole = output.suffix in (".html", ".htm")
    folder, file = (output.parent, output) if whole else (output, output / "index.html")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(page(whole), encoding="utf-8", errors="backslashreplace")  # a file's name may be no Unicode
    if not whole:
        (folder / _BUNDLE).write_text(get_plotlyjs(), encoding="utf-8")
    return file


def _plain(plot: Plot) -> dict[str, Any]:
    """A figure as data, without the look that the page gives it, by day or by night."""
    figure = copy.deepcopy(plot.figure)
    figure.layout.template = None
    data: dict[str, Any] = json.loads(figure.to_json())
    return data
