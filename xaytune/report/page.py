"""The report of a sweep: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xaytune.records.results import Results, dotted
from xaytune.records.state import SweepState, TrialRecord
from xaytune.report.curves import rungs
from xaytune.report.figures import Plot
from xaytune.report.story import stories, why
from xaytune.report.templating import render
from xaytune.report.text import clock, configuration, duration, number

__all__ = ["page"]


@dataclass(frozen=True)
class _Cell:
    text: str
    sort: str


def page(results: Results, plots: Sequence[Plot]) -> str:
    """Returns the report as HTML, which works without a network.

    Args:
        results: The sweep.
        plots: Its plots.
    """
    sweep = results.sweep
    names = list(dict.fromkeys(name for trial in results.trials for name in dotted(trial.config)))
    best = sweep.best
    return render(
        "report.html",
        plots,
        title=f"{sweep.name}: {sweep.spec['metric']}",
        sweep=sweep,
        metric=sweep.spec["metric"],
        headline=_headline(sweep),
        counts=[(status, count) for status, count in sweep.counts().items() if count],
        best=best,
        best_value=number(best.value if best is not None else None),
        best_config=[(name, _text(value)) for name, value in dotted(best.config if best else {}).items()],
        columns=_columns(sweep, names),
        rows=[_row(trial, names) for trial in _ranked(sweep)],
        rungs=rungs(sweep),
        unit="step" if sweep.spec["scheduler"].get("time_attr") == "global_step" else "epoch",
        number=number,
        failures=[trial for trial in results.trials if trial.status == "failed"],
        spec=json.dumps(sweep.spec, indent=2),
        stories=_stories(results),
    )


def _headline(sweep: SweepState) -> str:
    spec = sweep.spec
    ran = f" in {duration(sweep.running_s(sweep.ended))}" if sweep.ended else ""
    goal = "maximised" if sweep.maximize else "minimised"
    algorithms = f"search {spec['search']['algorithm']}, scheduler {spec['scheduler']['algorithm']}"
    return (
        f"{spec['recipe']}: {sweep.state}{ran}, {sweep.num_trials} trials, {spec['metric']} {goal}, {algorithms}"
    )


def _columns(sweep: SweepState, names: Sequence[str]) -> list[dict[str, str]]:
    metric = sweep.spec["metric"]
    heads = ["trial", "status", metric, "epochs", "steps", "seconds", *names, "why"]
    ranked = "descending" if sweep.maximize else "ascending"
    return [{"name": name, "sorted": ranked if index == 2 else ""} for index, name in enumerate(heads)]


def _ranked(sweep: SweepState) -> list[TrialRecord]:
    """The trials, best first; last those that failed, and those without a value."""
    sign = -1 if sweep.maximize else 1
    return sorted(
        sweep.trials.values(),
        key=lambda trial: (
            trial.status == "failed",
            trial.value is None,
            sign * (trial.value or 0.0),
            trial.number,
        ),
    )


def _row(trial: TrialRecord, names: Sequence[str]) -> dict[str, Any]:
    config = dotted(trial.config)
    seconds = trial.ended - trial.started if trial.ended and trial.started else None
    cells = [
        _Cell(number(trial.value), "" if trial.value is None else repr(trial.value)),
        _Cell(str(trial.epoch), str(trial.epoch)),
        _Cell(str(trial.global_step), str(trial.global_step)),
        _Cell("-" if seconds is None else f"{seconds:.1f}", "" if seconds is None else str(seconds)),
        *(_Cell(_text(config.get(name)), "" if config.get(name) is None else str(config[name])) for name in names),
    ]
    return {"number": trial.number, "status": trial.status, "cells": cells, "reason": trial.reason or ""}


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return number(value) if isinstance(value, float) else str(value)


def _stories(results: Results) -> dict[int, dict[str, Any]]:
    sweep = results.sweep
    told = stories(sweep, results.events())
    return {
        trial.number: {
            "status": trial.status,
            "why": why(trial, sweep),
            "config": configuration(trial.config),
            "moments": [(clock(moment.seconds), moment.text) for moment in told[trial.number]],
            "error": trial.error,
        }
        for trial in results.trials
    }
