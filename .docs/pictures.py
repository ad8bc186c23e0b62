"""Draws the pictures of the README: ``python .docs/pictures.py``, at the top of the project.

A real sweep of ``sweeps/digits.yaml`` is run in a terminal, which is drawn as an SVG while it runs; when it has
ended, parts of its report are drawn as a PNG. It needs tmux and Chromium.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

PAGES = Path(__file__).parent / "pages"
WIDTH, HEIGHT = 112, 22
# The picture is taken when so many trials have ended.
ENDED = 20
# The report's picture has some of its sections, and the first rows of the leaderboard.
SHORTENED = """
document.querySelectorAll('#best, #time').forEach(section => section.remove());
document.querySelectorAll('tr[data-trial]').forEach((row, index) => index < 6 || row.remove());
"""
FRAME = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>.t {{ font: 20px ui-monospace, monospace; white-space: pre }} {styles}</style>
<rect width="{width}" height="{height}" rx="8" fill="#1b2028"/>
<g class="t" transform="translate(12, 12)">{lines}</g></svg>
"""


def main() -> None:
    """Draws both pictures."""
    with tempfile.TemporaryDirectory(prefix="xaytune-pictures-") as scratch:
        screen = run_in_terminal(Path(scratch))
        (PAGES / "live.svg").write_text(drawn(screen))
        command = [sys.executable, "-m", "xaytune", "report", f"{scratch}/digits", "--output", f"{scratch}/r.html"]
        subprocess.run(command, check=True)
        photograph(Path(scratch, "r.html"), PAGES / "report.png")


def run_in_terminal(storage: Path) -> str:
    """Runs the sweep to its end in a window of tmux; returns what the window showed in the middle of it."""
    tmux = ["tmux", "-L", f"xaytune-{storage.name}"]
    command = f"{sys.executable} -m xaytune run sweeps/digits.yaml --storage {storage}; echo ended; sleep 600"
    start = [*tmux, "new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), f"env -u COLUMNS -u LINES {command}"]
    subprocess.run(start, check=True)
    shot = ""
    try:
        while "\nended" not in (screen := captured(tmux)):
            ended = re.search(r"^digits .* (\d+)/\d+", screen, re.MULTILINE)
            if not shot and ended is not None and int(ended[1]) >= ENDED:
                shot = captured(tmux, "-e")
            time.sleep(0.2)
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
    return shot


def captured(tmux: list[str], *options: str) -> str:
    """What the window shows; with ``-e``, in its colours."""
    done = subprocess.run([*tmux, "capture-pane", "-p", *options], check=True, capture_output=True, text=True)
    return done.stdout


def drawn(screen: str) -> str:
    """A terminal's screen as an SVG that loads no fonts."""
    console = Console(file=io.StringIO(), record=True, width=WIDTH, color_system="truecolor")
    console.print(Text.from_ansi(screen.rstrip()))
    code = "{width}|{terminal_width}|{terminal_height}|{styles}|{matrix}|{backgrounds}"
    svg = console.export_svg(title="", code_format=code, font_aspect_ratio=0.6)
    _, width, height, styles, matrix, backgrounds = svg.split("|", 5)
    return FRAME.format(
        width=float(width) + 24, height=float(height) + 24, styles=styles, lines=backgrounds + matrix
    )


def photograph(page: Path, picture: Path) -> None:
    """The top of a report as a PNG."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        window = browser.new_page(viewport={"width": 1000, "height": 1400})
        window.goto(page.as_uri())
        window.evaluate(SHORTENED)
        window.wait_for_timeout(2000)
        window.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()
