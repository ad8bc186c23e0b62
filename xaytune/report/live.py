"""The live view of a sweep: a picture that is kept up to date on a terminal or in a notebook, else plain lines.

Whoever watches decides nothing: a view writes what can be written, and never ends the sweep.
"""

from __future__ import annotations

import io
import math
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, Protocol, cast

from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.text import Text

from xaytune.records.journal import Event
from xaytune.records.state import SweepState
from xaytune.records.trial_record import Restart
from xaytune.report.printing import Lenient, one_line, printable
from xaytune.report.progress_view import best_so_far, picture, progress_text
from xaytune.report.terms import Terms, configuration
from xaytune.report.text import cheaper_means, ending, finished, path_text, planned, restarted, summary

# Outside a terminal, at most ten lines on ended trials are printed in five seconds, and a pause only after five
# quiet ones.
_AT_ONCE, _QUIET_S = 10, 5.0
# Seconds between two updates of a notebook.
_NOTEBOOK_S = 1.0
# Trials that ended and are kept in view in a notebook.
_ENDINGS = 5
_RESTARTED = "yellow"
# Failures of many trials at once: a note tells of the first kind, and a line of all of them of the other.
_TOLD_TOGETHER = ("shared", "lost_with_others")
_STYLES = {"completed": "green", "stopped": "yellow", "failed": "red"}
# Lines on what ended that are kept, to be shown again in a terminal that was resized.
_KEPT = 100


class LiveView:
    """Shows a sweep while it runs, and its summary in the end. A context manager, and a listener.

    Args:
        console: Where to show it; by default the terminal, the notebook or the file that output goes to.
        resume: What follows ``xaytune resume`` to continue the sweep; by default its name, or its folder.
    """

    def __init__(self, console: Console | None = None, resume: str | None = None) -> None:
        console = console or Console()
        if not console.is_jupyter:
            console.file = cast("IO[str]", Lenient(console.file))
        self._resume = resume
        self._begun = time.monotonic()
        self._sweep: SweepState | None = None
        self._terms: Terms | None = None
        # Failures of trials that have lost one process together, not yet told, and where these are restarted.
        self._lost: list[tuple[Event, Restart]] = []
        self._shown: _Shown
        if console.is_jupyter:
            self._shown = _InNotebook(console.width)
        elif console.is_terminal:
            self._shown = _OnTerminal(console, self._draw)
        else:
            self._shown = _Lines(console)

    def __enter__(self) -> LiveView:
        """Starts to show."""
        self._shown.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the summary behind."""
        self._tell_lost()
        sweep = self._sweep if error is None and self._sweep is not None and self._sweep.spec else None
        self._shown.end(self._ending(sweep) if sweep is not None else None)

    def __call__(self, sweep: SweepState, event: Event) -> None:
        """Takes in an event of the sweep."""
        self._sweep = sweep
        if event["event"] == "sweep" or self._terms is None:
            self._terms = Terms(sweep)
        if event["event"] == "failure" and event["kind"] == "lost_with_others":
            self._lost.append((event, sweep.trials[event["trial"]].restart))
        else:
            self._tell_lost()
        self._shown.take(sweep, self._terms, event, _line_on(sweep, self._terms, event))

    def _tell_lost(self) -> None:
        """Tells of trials that have lost one process together in one line, once all of them are known."""
        if self._lost and self._sweep is not None and self._terms is not None:
            failures, restarts = zip(*self._lost, strict=True)
            line = Text(restarted(failures, restarts), style=_RESTARTED)
            self._shown.take(self._sweep, self._terms, failures[0], line)
            self._lost = []

    def _ending(self, sweep: SweepState) -> str:
        """The summary, and where to find what trials printed and saved."""
        folder = path_text(sweep.root)
        files = f"files: {folder} (what trials printed is in output, checkpoints are in checkpoints)"
        return f"{summary(sweep, self._resume)}\n{printable(files)}"

    def _draw(self, console: Console) -> RenderableType:
        if self._sweep is None or self._terms is None:
            return Text(f"starting ... {time.monotonic() - self._begun:.0f} s", style="dim")
        return picture(self._sweep, self._terms, console)


class _Shown(Protocol):
    """Where a sweep is shown."""

    def begin(self) -> None: ...

    def take(self, sweep: SweepState, terms: Terms, event: Event, line: Text | None) -> None: ...

    def end(self, summary: str | None) -> None: ...


class _OnTerminal:
    """A picture that is drawn over itself; lines on what ended go above it."""

    def __init__(self, console: Console, draw: Callable[[Console], RenderableType]) -> None:
        self._console, self._draw = console, draw
        self._width = console.width
        self._lines: deque[Text] = deque(maxlen=_KEPT)  # those above the picture
        self._live = Live(console=console, get_renderable=self._drawn, refresh_per_second=4, transient=True)

    def begin(self) -> None:
        self._live.start()

    def take(self, sweep: SweepState, terms: Terms, event: Event, line: Text | None) -> None:
        if line is not None:
            self._lines.append(line)
            self._console.print(line, soft_wrap=True)

    def _drawn(self) -> RenderableType:
        if self._console.width != self._width:
            self._width = self._console.width
            self._begin_anew()
        return self._draw(self._console)

    def _begin_anew(self) -> None:
        """Clears a terminal that was resized: it has broken the lines of the last picture anew."""
        self._console.control(Control.clear(), Control.home())
        for line in list(self._lines)[-self._console.height // 2 :]:
            self._console.file.write(f"{line.plain}\n")
        self._live._live_render._shape = None

    def end(self, summary: str | None) -> None:
        self._live.stop()
        _print(self._console, summary)


class _Lines:
    """Lines, few enough to read; failures and the last always."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown_at: deque[float] = deque([-math.inf] * _AT_ONCE, maxlen=_AT_ONCE)
        self._held_back: Callable[[], None] | None = None  # prints the last one, if it was
        self._best = ""  # as it was told last

    def begin(self) -> None:
        """There is nothing to prepare."""

    def take(self, sweep: SweepState, terms: Terms, event: Event, line: Text | None) -> None:
        if event["event"] == "sweep" and event["state"] == "running":
            ended = f", {finished(sweep)} of them finished" if sweep.trials else ""
            _print(self._console, f"{sweep.name}: {planned(sweep)}{ended}")
            _print(self._console, line.plain if line is not None else None)
        elif line is not None:
            if event["event"] == "note":
                _print(self._console, line.plain)
                return
            failed = event["event"] == "failure" or event.get("status") == "failed"
            paused = event["event"] == "pause"
            told = f"[{progress_text(sweep)}] {line.plain}"  # as it is now, also where it is printed later
            now = time.monotonic()
            if failed or now >= self._shown_at[-1 if paused else 0] + _QUIET_S:
                self._shown_at.append(now)
                self._print(sweep, terms, told)
            elif not paused:
                self._held_back = lambda: self._print(sweep, terms, told)

    def end(self, summary: str | None) -> None:
        if self._held_back is not None:
            self._held_back()
        _print(self._console, summary)

    def _print(self, sweep: SweepState, terms: Terms, told: str) -> None:
        best = best_so_far(sweep, terms)
        news = f"; {best}" if best != self._best else ""
        self._held_back, self._best = None, best
        _print(self._console, f"{told}{news}")


class _InNotebook:
    """A picture in the output of a cell, with all notes and what ended last below it."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._notes: list[Text] = []
        self._endings: deque[Text] = deque(maxlen=_ENDINGS)
        self._quiet_until = 0.0
        self._handle: Any = None

    def begin(self) -> None:
        from IPython.display import HTML, display

        self._handle = display(HTML("starting ..."), display_id=True)

    def take(self, sweep: SweepState, terms: Terms, event: Event, line: Text | None) -> None:
        if line is not None:
            (self._endings if "trial" in event else self._notes).append(line)
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + _NOTEBOOK_S
            self._show(lambda console: Group(picture(sweep, terms, console), *self._notes, *self._endings))

    def end(self, summary: str | None) -> None:
        if summary is not None:
            self._show(lambda console: Group(Text(summary), Text(), *self._notes, *self._endings))
        else:  # an error has ended it, which is shown below: nothing runs any more
            self._show(lambda console: Group(*self._notes, *self._endings))

    def _show(self, render: Callable[[Console], RenderableType]) -> None:
        from IPython.display import HTML

        console = Console(file=io.StringIO(), record=True, width=self._width, height=40, force_jupyter=False)
        console.print(render(console))
        styled = "<pre style='font-family: monospace; line-height: 1.3; overflow-x: auto'>{code}</pre>"
        self._handle.update(HTML(console.export_html(inline_styles=True, code_format=styled)))


def _print(console: Console, text: str | None) -> None:
    if text is not None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def _line_on(sweep: SweepState, terms: Terms, event: Event) -> Text | None:
    """A line on an event that is worth one: a trial ended, or is restarted; or what is the same in all trials."""
    if event["event"] == "sweep" and event["state"] == "running" and terms.constants:
        return Text(f"in all trials: {configuration(terms.constants)}", style="dim")
    if event["event"] == "failure" and event["retried"] and event["kind"] not in _TOLD_TOGETHER:
        return Text(restarted([event], [sweep.trials[event["trial"]].restart]), style=_RESTARTED)
    if event["event"] == "note":
        return Text(one_line(event["text"]), style="yellow")
    if event["event"] == "fall_back":
        return Text(cheaper_means(event["reason"]), style="yellow")
    if event["event"] == "end" or (event["event"] == "pause" and "epoch" in event):
        trial = sweep.trials[event["trial"]]
        return Text(ending(trial, terms), style=_STYLES.get(trial.status, ""))
    return None
