"""The plots of a sweep as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xaytune.errors import PicturesError
from xaytune.report.figures import titled
from xaytune.report.plot import Plot


def write_pictures(plots: Sequence[Plot], folder: Path) -> list[Path]:
    """Draws plots with kaleido, which takes a Chrome or Chromium.

    Args:
        plots: The plots.
        folder: Where to write a file for each, by its name; made if missing.

    Returns:
        The files.

    Raises:
        PicturesError: Kaleido, or a browser for it, is not installed.
    """
    try:
        import kaleido
        from choreographer.errors import BrowserFailedError, ChromeNotFoundError
    except ImportError:
        raise PicturesError("pictures need the package kaleido: pip install 'xaytune[png]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{plot.name}.png" for plot in plots]
    try:
        kaleido.start_sync_server(silence_warnings=True)  # one browser for all
        for plot, file in zip(plots, files, strict=True):
            figure = titled(plot)
            size = {"width": 1100, "height": figure.layout.height, "scale": 2}
            kaleido.write_fig_sync(figure, file, opts={"format": "png", **size})
    except (BrowserFailedError, ChromeNotFoundError):
        message = "pictures need Chrome or Chromium: install one, or run plotly_get_chrome"
        raise PicturesError(message) from None
    finally:
        kaleido.stop_sync_server(silence_warnings=True)
    return files
