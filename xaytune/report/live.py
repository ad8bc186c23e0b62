"""The live view of a sweep: a picture that is kept up to date on a terminal or in a notebook, else plain lines."""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from xaytune.records.journal import Event
from xaytune.records.state import SweepState, TrialRecord
from xaytune.report.text import configuration, duration, ending, number, retried, summary, tally, trials

__all__ = ["LiveView"]

# Elsewhere than on a terminal so many seconds pass at least between two lines of progress.
_QUIET_S = 5.0
# A notebook is brought up to date so often.
_NOTEBOOK_S = 1.0
# So many trials that ended are kept in view in a notebook.
_ENDINGS = 5
_ENDED = ("completed", "stopped", "failed")
_STYLES = {"completed": "green", "stopped": "yellow", "failed": "red"}
# So many lines on what ended are kept, to be shown again in a terminal that was resized.
_KEPT = 100
# Trials that must have ended before it is told how long the others may take.
_ENOUGH = 3


class LiveView:
    """Shows a sweep while it runs, and its summary in the end. A context manager, and a listener.

    Args:
        console: Where to show it; by default the terminal, the notebook or the file that output goes to.
        resume: What follows ``xaytune resume`` to go on with the sweep; by default its name, or its folder.
    """

    def __init__(self, console: Console | None = None, resume: str | None = None) -> None:
        console = console or Console()
        self._sweep: SweepState | None = None
        self._shown: _Shown
        if console.is_jupyter:
            self._shown = _InNotebook(console, resume)
        elif console.is_terminal:
            self._shown = _OnTerminal(console, resume, self._render)
        else:
            self._shown = _Lines(console, resume)

    def __enter__(self) -> LiveView:
        """Starts to show."""
        self._shown.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the summary behind."""
        self._shown.end(self._sweep if error is None else None)

    def __call__(self, sweep: SweepState, event: Event) -> None:
        """Takes in an event of the sweep."""
        self._sweep = sweep
        self._shown.take(sweep, event)

    def _render(self, console: Console) -> RenderableType:
        sweep = self._sweep
        return picture(sweep, console) if sweep is not None else Text("starting ...", style="dim")


class _Shown(Protocol):
    """Where a sweep is shown."""

    def begin(self) -> None: ...

    def take(self, sweep: SweepState, event: Event) -> None: ...

    def end(self, sweep: SweepState | None) -> None: ...


class _OnTerminal:
    """A picture that is drawn over itself; lines on what ended go above it."""

    def __init__(self, console: Console, resume: str | None, render: Callable[[Console], RenderableType]) -> None:
        self._console, self._resume, self._render = console, resume, render
        self._width = console.width
        self._lines: deque[Text] = deque(maxlen=_KEPT)  # those above the picture
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=4, transient=True)

    def begin(self) -> None:
        self._live.start()

    def take(self, sweep: SweepState, event: Event) -> None:
        line = _line_on(sweep, event)
        if line is not None:
            self._lines.append(line)
            self._console.print(line, soft_wrap=True)

    def _draw(self) -> RenderableType:
        if self._console.width != self._width:
            self._width = self._console.width
            self._begin_anew()
        return self._render(self._console)

    def _begin_anew(self) -> None:
        """Clears a terminal that was resized: it has broken the lines of the last picture anew."""
        self._console.control(Control.clear(), Control.home())
        for line in list(self._lines)[-self._console.height // 2 :]:
            self._console.file.write(f"{line.plain}\n")
        self._live._live_render._shape = None

    def end(self, sweep: SweepState | None) -> None:
        self._live.stop()
        _leave(self._console, sweep, self._resume)


class _Lines:
    """Lines, few enough to read; failures always."""

    def __init__(self, console: Console, resume: str | None) -> None:
        self._console, self._resume = console, resume
        self._quiet_until = 0.0

    def begin(self) -> None:
        """There is nothing to prepare."""

    def take(self, sweep: SweepState, event: Event) -> None:
        if event["event"] == "sweep" and event["state"] == "running":
            ended = f", of which {_finished(sweep)} have ended" if sweep.trials else ""
            self._print(f"{sweep.name}: {trials(sweep.num_trials)}{ended}")
            return
        line = _line_on(sweep, event)
        if line is None:
            return
        failed = event["event"] == "failure" or event.get("status") == "failed"
        if failed or time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + _QUIET_S
            progress = ", ".join(filter(None, (f"{_finished(sweep)}/{sweep.num_trials}", _left(sweep))))
            self._print(f"[{progress}] {line.plain}; {_best(sweep)}")

    def end(self, sweep: SweepState | None) -> None:
        _leave(self._console, sweep, self._resume)

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


class _InNotebook:
    """A picture in the output of a cell, with what ended last below it."""

    def __init__(self, console: Console, resume: str | None) -> None:
        self._width, self._resume = console.width, resume
        self._endings: deque[Text] = deque(maxlen=_ENDINGS)
        self._quiet_until = 0.0
        self._handle: Any = None

    def begin(self) -> None:
        from IPython.display import HTML, display

        self._handle = display(HTML("starting ..."), display_id=True)

    def take(self, sweep: SweepState, event: Event) -> None:
        line = _line_on(sweep, event)
        if line is not None:
            self._endings.append(line)
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + _NOTEBOOK_S
            self._show(lambda console: Group(picture(sweep, console), *self._endings))

    def end(self, sweep: SweepState | None) -> None:
        if sweep is not None:
            self._show(lambda console: Group(Text(summary(sweep, self._resume)), Text(), *self._endings))

    def _show(self, render: Any) -> None:
        from IPython.display import HTML

        console = Console(file=io.StringIO(), record=True, width=self._width, height=40, force_jupyter=False)
        console.print(render(console))
        styled = "<pre style='line-height: 1.3; overflow-x: auto'>{code}</pre>"
        self._handle.update(HTML(console.export_html(inline_styles=True, code_format=styled)))


def picture(sweep: SweepState, console: Console) -> RenderableType:
    """Draws how far a sweep is, to fit a window."""
    finished = _finished(sweep)
    heading = Table.grid(padding=(0, 1))
    heading.add_row(
        Text(sweep.name, style="bold", no_wrap=True, overflow="ellipsis"),
        ProgressBar(total=sweep.num_trials, completed=finished, width=max(8, min(30, console.width // 4))),
        f"{finished}/{sweep.num_trials}",
        Text(", ".join(filter(None, (duration(_ran_s(sweep)), _left(sweep)))), style="dim"),
    )
    running = [trial for trial in list(sweep.trials.values()) if trial.status == "running"]
    room = max(1, console.height - 8)
    hidden = [Text(f"and {len(running) - room} more", style="dim")] if len(running) > room else []
    return Group(
        heading,
        Text(tally(sweep), no_wrap=True, overflow="ellipsis"),
        Text(_best(sweep), style="bold green", overflow="fold"),
        _running_table(running[:room], sweep, console.width),
        *hidden,
    )


def _running_table(trials: list[TrialRecord], sweep: SweepState, width: int) -> Table:
    metric, scheduler = sweep.spec["metric"], sweep.spec["scheduler"]
    table = Table(box=None, padding=(0, 1), show_edge=False, expand=True)
    steps, loss = width >= 60, width >= 72 and metric != "loss"
    for name in ("trial", "epoch", *(["step"] if steps else []), metric, *(["loss"] if loss else [])):
        table.add_column(Text(name), justify="right", no_wrap=True, header_style="dim")
    table.add_column("configuration", no_wrap=True, overflow="ellipsis", header_style="dim", ratio=1)
    for trial in trials:
        table.add_row(
            str(trial.number),
            _of_all(trial.epoch, "epoch", scheduler),
            *([_of_all(trial.global_step, "global_step", scheduler)] if steps else []),
            number(trial.metrics.get(metric)),
            *([number(trial.metrics.get("loss"))] if loss else []),
            Text(configuration(trial.config)),  # as it is: it may look like markup
        )
    return table


def _of_all(done: int, time_attr: str, scheduler: dict[str, Any]) -> str:
    """How much of its training a trial has done, where it is known how much there is."""
    in_all = scheduler.get("max_t") if scheduler.get("time_attr", "epoch") == time_attr else None
    return str(done) if in_all is None else f"{done}/{in_all}"


def _line_on(sweep: SweepState, event: Event) -> Text | None:
    """A line on an event that is worth one: a trial ended, or was begun again."""
    if event["event"] == "failure" and event["retried"]:
        return Text(retried(sweep.trials[event["trial"]]), style="yellow")
    if event["event"] == "end" or (event["event"] == "pause" and "epoch" in event):
        trial = sweep.trials[event["trial"]]
        return Text(ending(trial, sweep.spec["metric"]), style=_STYLES.get(trial.status, ""))
    return None


def _leave(console: Console, sweep: SweepState | None, resume: str | None) -> None:
    if sweep is not None:
        console.print(summary(sweep, resume), highlight=False, markup=False, soft_wrap=True)


def _finished(sweep: SweepState) -> int:
    counts = sweep.counts()
    return sum(counts[status] for status in _ENDED)


def _ran_s(sweep: SweepState) -> float:
    return sweep.running_s(sweep.ended or time.time())


def _left(sweep: SweepState) -> str:
    """How long the sweep may still take, by how long it took so far; empty where that is too early to say."""
    finished = _finished(sweep)
    if finished < _ENOUGH or sweep.state != "running":
        return ""
    ran = _ran_s(sweep)
    first = min(trial.started for trial in list(sweep.trials.values()) if trial.started)
    training = max(0.0, time.time() - max(first, time.time() - ran))  # processes are started once
    left = training / finished * (sweep.num_trials - finished)
    budget = (sweep.spec.get("budget") or {}).get("time")
    return f"about {duration(left if budget is None else max(0.0, min(left, budget - ran)))} left"


def _best(sweep: SweepState) -> str:
    best = sweep.best
    if best is None and not any(trial.started for trial in list(sweep.trials.values())):
        return "processes are being started"
    if best is None:
        return "no value yet"
    return f"best {sweep.spec['metric']} {number(best.value)} (trial {best.number}: {configuration(best.config)})"
