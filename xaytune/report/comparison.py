"""Two sweeps or more side by side: their best values over time, and over the training that they spent."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from xaytune.errors import JournalError
from xaytune.records.results import Results
from xaytune.report.curves import BestSoFar, progress, trained
from xaytune.report.figures import comparison_plots
from xaytune.report.templating import render
from xaytune.report.terms import Terms, number
from xaytune.report.text import clock
from xaytune.sweep.time_axis import STEPS

# Times that the tables show.
_ROWS = 8


@dataclass(frozen=True)
class _Row:
    name: str
    texts: list[str]


class Comparison:
    """Sweeps side by side.

    Args:
        compared: The sweeps.

    Raises:
        JournalError: They cannot be compared: they optimise different metrics, or have reached no value.
    """

    def __init__(self, compared: Sequence[Results]) -> None:
        self._sweeps = [results.sweep for results in compared]
        first, *others = self._sweeps
        for other in others:
            goals = [(sweep.spec["mode"], sweep.spec["metric"]) for sweep in (first, other)]
            if goals[0] != goals[1]:
                told = " and ".join(f"{mode} {metric}" for mode, metric in goals)
                raise JournalError(f"{first.name} and {other.name} cannot be compared: they optimise {told}")
        names = [sweep.name for sweep in self._sweeps]
        self._names = names if len(set(names)) == len(names) else [str(results.path) for results in compared]
        axes = {Terms(sweep).told_in for sweep in self._sweeps}
        self._axis = axes.pop() if len(axes) == 1 else STEPS  # that all of them count
        self._grown = [progress(results.sweep, results.events(), self._axis) for results in compared]
        for name, grown in zip(self._names, self._grown, strict=True):
            if not grown.best:
                raise JournalError(f"{name}: no trial has reported a finite {first.spec['metric']!r}")

    def tables(self) -> list[Table]:
        """Returns what to print: a summary, and the best values over time and over training."""
        summary = self._table("", [(row.name, row.texts) for row in self._summary()])
        seconds = [grown.seconds for grown in self._grown]
        training = [grown.trained for grown in self._grown]
        over_time = [(clock(at), self._best_at(at, seconds)) for at in _rows_of(seconds)]
        counted = sorted({*map(round, _rows_of(training))} - {0})  # in a short training, rows fall together
        over_training = [(str(at), self._best_at(at, training)) for at in counted]
        units = f"best after {self._axis.unit}s"
        return [summary, self._table("best after", over_time), self._table(units, over_training)]

    def page(self, whole: bool) -> str:
        """Returns a page with the same, drawn; whole, or with plotly's bundle beside it."""
        plots = comparison_plots(dict(zip(self._names, self._grown, strict=True)), self._sweeps[0].spec["metric"])
        title = " and ".join(self._names)
        return render("comparison.html", plots, whole=whole, title=title, names=self._names, rows=self._summary())

    def _summary(self) -> list[_Row]:
        metric = self._sweeps[0].spec["metric"]
        reached = [grown.seconds[grown.best.index(grown.best[-1])] for grown in self._grown]
        return [
            _Row("state", [sweep.state for sweep in self._sweeps]),
            _Row("trials", [str(len(sweep.trials)) for sweep in self._sweeps]),
            _Row(f"best {metric}", [number(grown.best[-1]) for grown in self._grown]),
            _Row("reached after", [clock(at) for at in reached]),
            _Row("ran", [clock(grown.seconds[-1]) for grown in self._grown]),
            _Row(f"{self._axis.unit}s of all trials", [str(trained(sweep, self._axis)) for sweep in self._sweeps]),
        ]

    def _table(self, heading: str, rows: Sequence[tuple[str, Sequence[str]]]) -> Table:
        table = Table(box=None, padding=(0, 2), header_style="bold")
        table.add_column(Text(heading), no_wrap=True)
        for at, name in enumerate(self._names):
            # A number that is broken in two is another number.
            widest = max(len(texts[at]) for _, texts in rows)
            table.add_column(Text(name), justify="right", overflow="fold", min_width=widest)
        for name, texts in rows:
            table.add_row(*map(Text, (name, *texts)))
        return table

    def _best_at(self, time: float, times: Sequence[Sequence[float]]) -> list[str]:
        pairs = zip(self._grown, times, strict=True)
        return [number(_value_at(grown, its_times, time)) for grown, its_times in pairs]


def _rows_of(times: Sequence[Sequence[float]]) -> list[float]:
    """The times that a table has rows of, until the last of all sweeps."""
    last = max(its_times[-1] for its_times in times)
    return [last * part / _ROWS for part in range(1, _ROWS + 1)]


def _value_at(grown: BestSoFar, times: Sequence[float], time: float) -> float | None:
    """The best value at a time; None before there was any."""
    index = bisect_right(times, time)
    return grown.best[index - 1] if index else None
