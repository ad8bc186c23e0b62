"""The live view of a running sweep: a table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from xaytune.records.journal import Event
from xaytune.records.state import SweepState, TrialRecord
from xaytune.report.text import configuration, duration, ending, number, retried, summary, tally

__all__ = ["LiveView"]

# Elsewhere than on a terminal so many seconds pass at least between two lines of progress.
_QUIET_S = 5.0
_ENDED = ("completed", "stopped", "failed")
_STYLES = {"completed": "green", "stopped": "yellow", "failed": "red"}


class LiveView:
    """Shows a sweep while it runs, and its summary in the end. A context manager, and a listener.

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._sweep: SweepState | None = None
        self._live: Live | None = None
        self._quiet_until = 0.0

    def __enter__(self) -> LiveView:
        """Starts to show."""
        if self._console.is_terminal:
            self._live = Live(
                console=self._console, get_renderable=self._render, refresh_per_second=4, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the summary behind."""
        if self._live is not None:
            self._live.stop()
        if self._sweep is not None and error is None:
            self._console.print(summary(self._sweep), highlight=False, markup=False, soft_wrap=True)

    def __call__(self, sweep: SweepState, event: Event) -> None:
        """Takes in an event of the sweep."""
        self._sweep = sweep
        if event["event"] == "sweep" and event["state"] == "running" and self._live is None:
            ended = f", of which {_finished(sweep)} have ended" if sweep.trials else ""
            self._line(f"{sweep.name}: {sweep.num_trials} trials{ended}")
        elif event["event"] == "failure" and event["retried"]:
            self._console.print(Text(retried(sweep.trials[event["trial"]]), style="yellow"), soft_wrap=True)
        elif event["event"] in ("end", "pause"):
            self._ended(sweep, sweep.trials[event["trial"]])

    def _ended(self, sweep: SweepState, trial: TrialRecord) -> None:
        line = ending(trial, sweep.spec["metric"])
        if self._live is not None:
            self._console.print(Text(line, style=_STYLES.get(trial.status, "")), no_wrap=True, overflow="ellipsis")
        elif trial.status == "failed" or time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + _QUIET_S
            self._line(f"[{_finished(sweep)}/{sweep.num_trials}] {line}; {_best(sweep)}")

    def _line(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _render(self) -> RenderableType:
        sweep = self._sweep
        if sweep is None or sweep.started is None:
            return Text("starting Ray ...", style="dim")
        trials = list(sweep.trials.values())
        finished = _finished(sweep)
        heading = Table.grid(padding=(0, 1))
        heading.add_row(
            Text(sweep.name, style="bold"),
            ProgressBar(total=sweep.num_trials, completed=finished, width=min(30, self._console.width // 3)),
            f"{finished}/{sweep.num_trials}",
            Text(duration(sweep.running_s(time.time())), style="dim"),
        )
        running = [trial for trial in trials if trial.status == "running"]
        return Group(
            heading,
            Text(tally(sweep), no_wrap=True, overflow="ellipsis"),
            Text(_best(sweep), style="bold green", no_wrap=True, overflow="ellipsis"),
            _running_table(running[: max(1, self._console.height - 8)], sweep.spec["metric"]),
        )


def _running_table(trials: list[TrialRecord], metric: str) -> Table:
    table = Table(box=None, padding=(0, 1), show_edge=False)
    for name in ("trial", "epoch", "step", metric, "loss"):
        table.add_column(name, justify="right", no_wrap=True, header_style="dim")
    table.add_column("configuration", no_wrap=True, overflow="ellipsis", header_style="dim")
    for trial in trials:
        table.add_row(
            str(trial.number),
            str(trial.epoch),
            str(trial.global_step),
            number(trial.metrics.get(metric)),
            number(trial.metrics.get("loss")),
            configuration(trial.config),
        )
    return table


def _finished(sweep: SweepState) -> int:
    counts = sweep.counts()
    return sum(counts[status] for status in _ENDED)


def _best(sweep: SweepState) -> str:
    best = sweep.best
    if best is None:
        return "no value yet"
    return f"best {sweep.spec['metric']} {number(best.value)} (trial {best.number}: {configuration(best.config)})"
