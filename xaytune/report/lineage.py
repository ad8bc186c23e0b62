"""Where the weights of a trial come from that took over others: which configurations they were trained with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from xaytune.records.journal import Event
from xaytune.records.trial_record import TrialRecord
from xaytune.report.terms import Terms
from xaytune.sweep import values


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one configuration.

    Attributes:
        trial: The trial that trained it.
        config: Its configuration, as the journal has it.
        until: The step up to which that lasted.
    """

    trial: int
    config: dict[str, Any]
    until: int


def lineage(events: Iterable[Event], trial: int, until: int) -> list[Stage]:
    """Returns how the weights that a trial had at a step were trained, oldest first."""
    events = list(events)
    last = _last_taken_over(events, trial, until)
    configs: dict[int, dict[str, Any]] = {}
    # What each trial's weights had behind them when it began its configuration.
    before: dict[int, list[Stage]] = {}
    kept: dict[int, list[Stage]] = {}  # the same of its donor checkpoint, whole
    for index, event in enumerate(events):
        number = event.get("trial", -1)
        if event["event"] == "trial":
            configs[number], before[number] = event["config"], []
        elif event["event"] == "offer":
            kept[number] = [*before[number], Stage(number, configs[number], event["global_step"])]
        elif event["event"] == "exploit":
            if number == trial and index > last:
                break  # what follows is not part of it
            configs[number], before[number] = event["config"], kept[event["source"]]
    return [*before[trial], Stage(trial, configs[trial], until)]


def _last_taken_over(events: Sequence[Event], trial: int, until: int) -> int:
    """Returns which event is the last by which a trial took over another before a step; -1 where there is none."""
    taken: list[tuple[int, int]] = []  # event and step; going back further drops what came after that
    for index, event in enumerate(events):
        if event["event"] == "exploit" and event["trial"] == trial:
            taken = [(at, step) for at, step in taken if step < event["global_step"]]
            taken.append((index, event["global_step"]))
    return max((at for at, step in taken if step < until), default=-1)


def lineage_lines(events: Iterable[Event], trial: TrialRecord, terms: Terms) -> list[str]:
    """Writes the configurations that the best weights of a trial were trained with, where they were several."""
    if trial.best is None or not trial.written_before:
        return []
    stages = lineage(events, trial.number, trial.best.global_step)
    if len(stages) < 2:
        return []
    told = [
        f"    to step {stage.until}: {terms.configuration(values.read(stage.config))}, as trial {stage.trial}"
        for stage in stages
    ]
    return ["  its weights were trained with", *told]
