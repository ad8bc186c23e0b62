"""How far a sweep is, drawn to fit a window: a bar, a table of the trials that run, and the best so far."""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from xaytune.records.state import SweepState
from xaytune.records.trial_record import TrialRecord
from xaytune.report.printing import printable, shortened
from xaytune.report.terms import Terms, number
from xaytune.report.text import duration, finished, share_of, tally

# Trials that must have ended before it is shown how long the others may take.
_ENOUGH = 3


def picture(sweep: SweepState, terms: Terms, console: Console) -> RenderableType:
    """Draws how far a sweep is.

    Args:
        sweep: The sweep.
        terms: How it is spoken of.
        console: Whose size the picture fits.
    """
    ended = finished(sweep)
    heading = Table.grid(padding=(0, 1))
    heading.add_row(
        Text(sweep.name, style="bold", no_wrap=True, overflow="ellipsis"),
        ProgressBar(total=sweep.num_trials, completed=ended, width=max(8, min(30, console.width // 4))),
        share_of(ended, sweep),
        Text(", ".join(filter(None, (duration(int(_ran_s(sweep))), _left(sweep, ended)))), style="dim"),
    )
    running = [trial for trial in list(sweep.trials.values()) if trial.status == "running"]
    room = max(1, console.height - 8)
    hidden = [Text(f"and {len(running) - room} more", style="dim")] if len(running) > room else []
    return Group(
        heading,
        Text(tally(sweep), no_wrap=True, overflow="ellipsis"),
        Text(best_so_far(sweep, terms), style="bold green", overflow="fold"),
        _running_table(running[:room], sweep.max_t, terms, console.width),
        *hidden,
    )


def best_so_far(sweep: SweepState, terms: Terms) -> str:
    """Writes the best value so far, and its configuration."""
    best = sweep.best
    if best is not None:
        shown = f"best {terms.worth(best.value)} (trial {best.number}: {terms.configuration(best.best_config)})"
        return printable(shown)
    started = any(trial.started for trial in list(sweep.trials.values()))
    return "no value yet" if started else "processes are being started"


def progress_text(sweep: SweepState) -> str:
    """Writes how many trials have ended, and how long the others may take."""
    ended = finished(sweep)  # once: this is written of every trial that ends
    return ", ".join(filter(None, (share_of(ended, sweep), _left(sweep, ended))))


def _running_table(trials: list[TrialRecord], max_t: int | None, terms: Terms, width: int) -> Table:
    """A row for each trial: the sweep's own time always, steps and the loss beside it where there is room."""
    axis, metric = terms.told_in, terms.metric
    steps = width >= 60 and not axis.by_step
    loss = width >= 72 and metric != "loss" and any("loss" in trial.metrics for trial in trials)
    table = Table(box=None, padding=(0, 1), show_edge=False, expand=True)
    names = ("trial", axis.unit, *(["step"] if steps else []), shortened(metric), *(["loss"] if loss else []))
    for name in names:
        table.add_column(Text(name), justify="right", no_wrap=True, header_style="dim")
    table.add_column("configuration", no_wrap=True, overflow="ellipsis", header_style="dim", ratio=1)
    for trial in trials:
        done = axis.reached_by(trial)
        table.add_row(
            str(trial.number),
            str(done) if max_t is None else f"{done}/{max_t}",
            *([str(trial.global_step)] if steps else []),
            number(trial.metrics.get(metric)),
            *([number(trial.metrics.get("loss"))] if loss else []),
            Text(terms.configuration(trial.config)),  # as it is: it may look like markup
        )
    return table


def _ran_s(sweep: SweepState) -> float:
    return sweep.running_s(sweep.ended or time.time())


def _left(sweep: SweepState, ended: int) -> str:
    """How long the sweep may still take, by how long it took so far; empty where that is too early to say."""
    if ended < _ENOUGH or ended == sweep.num_trials or sweep.state != "running":
        return ""
    ran = _ran_s(sweep)
    now = time.time()
    first = min((trial.started for trial in list(sweep.trials.values()) if trial.started), default=now)
    training = max(0.0, now - max(first, now - ran))  # processes are started once
    budget = (sweep.spec.get("budget") or {}).get("time")
    estimates = [] if budget is None else [max(0.0, budget - ran)]
    if sweep.num_trials is not None:
        estimates.append(training / ended * (sweep.num_trials - ended))
    return f"about {duration(int(max(1.0, min(estimates))))} left" if estimates else ""
