"""The report of a sweep: one HTML file that needs nothing else, or a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xaytune.records.journal import Event
from xaytune.records.results import Results
from xaytune.records.state import SweepState
from xaytune.records.trial_record import TrialRecord
from xaytune.report.curves import rungs, trained
from xaytune.report.loading import lines_to_load
from xaytune.report.plot import Plot
from xaytune.report.printing import printable, shortened
from xaytune.report.story import stories, why
from xaytune.report.templating import render
from xaytune.report.terms import Terms, number, value_text
from xaytune.report.text import (
    checkpoint_advice,
    checkpoint_text,
    clock,
    counts,
    duration,
    losses,
    planned,
    status_word,
)
from xaytune.report.timeline import slowest_words, timeline
from xaytune.sweep import values
from xaytune.sweep.space import dotted


@dataclass(frozen=True)
class _Cell:
    text: str
    sort: str


def page(results: Results, plots: Sequence[Plot], events: Sequence[Event], *, whole: bool = True) -> str:
    """Returns the report as HTML, which works without a network.

    Args:
        results: The sweep.
        plots: Its plots.
        events: Of its journal.
        whole: Whether plotly's bundle is in it, instead of beside it.
    """
    sweep, terms = results.sweep, Terms(results.sweep)
    names = list(dict.fromkeys(name for trial in results.trials for name in terms.differing(trial.best_config)))
    worked, best = timeline(events), sweep.best
    return render(
        "report.html",
        plots,
        whole=whole,
        title=f"{sweep.name}: {terms.metric}",
        sweep=sweep,
        metric=shortened(terms.metric),
        headline=_headline(sweep, terms),
        notes=[f"{line[0].upper()}{line[1:]}." for line in (*losses(sweep), *sweep.notes)],
        counts=counts(sweep).items(),
        unit=terms.told_in.unit,
        trained=trained(sweep, terms.told_in),
        best=best,
        checkpoint=checkpoint_text(best) if best is not None else "",
        advice=" ".join(checkpoint_advice(best)) if best is not None else "",
        loading=lines_to_load(best.checkpoint) if best is not None else [],
        best_value=number(best.value if best is not None else None),
        best_at=_best_at(best, terms),
        best_config=[
            (name, value_text(value)) for name, value in terms.differing(best.best_config if best else {}).items()
        ],
        constants=[(name, value_text(value)) for name, value in terms.constants.items()],
        recommended=_recommended(results),
        ours=_columns(sweep, terms),
        names=[shortened(name) for name in names],
        rows=[_row(trial, sweep, names, terms) for trial in _ranked(sweep)],
        rungs=rungs(sweep),
        slowest=slowest_words(worked, sweep, terms),
        parts=[
            (part, duration(s), s / (worked.start_up + worked.span or 1)) for part, s in worked.parts().items()
        ],
        number=number,
        failures=[trial for trial in results.trials if trial.status == "failed"],
        spec=printable(json.dumps(sweep.spec, indent=2, ensure_ascii=False)),
        stories=_stories(sweep, terms, events),
    )


def _headline(sweep: SweepState, terms: Terms) -> str:
    spec = sweep.spec
    ran = f" in {duration(sweep.ran_s)}" if sweep.ended else ""
    goal = "maximised" if sweep.objective.sign > 0 else "minimised"
    scheduler = spec["scheduler"]["algorithm"]
    search = scheduler if scheduler == "curves" else spec["search"]["algorithm"]  # curves is both
    algorithms = f"search {search}, scheduler {scheduler}"
    trained = spec.get("command") or spec["recipe"]
    return f"{trained}: {sweep.state}{ran}, {planned(sweep)}, {terms.metric} {goal}, {algorithms}"


def _best_at(best: TrialRecord | None, terms: Terms) -> str:
    if best is None or best.best is None:
        return ""
    return terms.place(epoch=best.best.epoch, global_step=best.best.global_step)


def _recommended(results: Results) -> str:
    """Which configuration to train again, where that is not the one of the best value."""
    recommended, best = results.recommended, results.best
    if recommended is None or best is None or recommended.trial.number == best.number:
        return ""
    return f"To train again, take the configuration of trial {recommended.trial.number}: {recommended.reason}."


def _columns(sweep: SweepState, terms: Terms) -> list[dict[str, str]]:
    """Our own columns; those of the configuration come after them, and the reason last."""
    trained = ["epochs", "steps"] if terms.tells_steps_too else [f"{terms.told_in.unit}s"]
    heads = ["trial", "status", shortened(terms.metric), *trained, "seconds"]
    ranked = "descending" if sweep.objective.sign > 0 else "ascending"
    return [{"name": name, "sorted": ranked if index == 2 else ""} for index, name in enumerate(heads)]


def _ranked(sweep: SweepState) -> list[TrialRecord]:
    """The trials, best first; last those without a value, and those that failed."""
    others = [trial for trial in sweep.trials.values() if trial.counted_value is None]
    return [*sweep.ranked(), *sorted(others, key=lambda trial: trial.status == "failed")]


def _row(trial: TrialRecord, sweep: SweepState, names: Sequence[str], terms: Terms) -> dict[str, Any]:
    config = dotted(trial.best_config)
    in_both = [trial.epoch, trial.global_step]
    trained = in_both if terms.tells_steps_too else [terms.told_in.reached_by(trial)]
    seconds = trial.seconds if trial.started is not None else None
    cells = [
        _Cell(number(trial.value), "" if trial.value is None else repr(trial.value)),
        *(_Cell(str(count), str(count)) for count in trained),
        _Cell("-" if seconds is None else f"{seconds:.1f}", "" if seconds is None else str(seconds)),
        *(_cell(config[name]) if name in config else _Cell("-", "") for name in names),
    ]
    return {
        "number": trial.number,
        "status": status_word(trial.status, sweep),
        "cells": cells,
        "reason": printable(trial.reason or ""),
    }


def _cell(value: Any) -> _Cell:
    return _Cell(value_text(value), repr(value) if isinstance(value, float) else values.text(value))


def _configurations(trial: TrialRecord, terms: Terms) -> str:
    """The configuration of a trial, and that of its best value where it is another one."""
    now = terms.configuration(trial.config)
    changed = trial.written_best_config != trial.written_config
    return f"{now}; at its best {terms.configuration(trial.best_config)}" if changed else now


def _stories(sweep: SweepState, terms: Terms, events: Sequence[Event]) -> dict[int, dict[str, Any]]:
    told = stories(sweep, terms, events)
    return {
        trial.number: {
            "status": status_word(trial.status, sweep),
            "why": why(trial, sweep, terms),
            "config": _configurations(trial, terms),
            "moments": [(clock(moment.seconds), moment.text) for moment in told[trial.number]],
            "error": printable(trial.error) if trial.error else None,
        }
        for trial in sweep.trials.values()
    }
