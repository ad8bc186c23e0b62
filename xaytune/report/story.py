"""The story of a trial: what happened to it and why, in words and numbers, from the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from xaytune.records.journal import Event
from xaytune.records.state import SweepState, TrialRecord
from xaytune.report.text import clock, configuration, metrics, number

__all__ = ["Moment", "stories", "tell", "why"]


@dataclass(frozen=True)
class Moment:
    """Something that happened to a trial.

    Attributes:
        seconds: Since the sweep was begun.
        text: What it was.
    """

    seconds: float
    text: str

    def __str__(self) -> str:
        """One line."""
        return f"{clock(self.seconds):>9}  {self.text}"


def stories(sweep: SweepState, events: Iterable[Event]) -> dict[int, list[Moment]]:
    """Returns what happened to each trial, by number, oldest first."""
    told: dict[int, list[Moment]] = {number: [] for number in sweep.trials}
    reasons: dict[int, str | None] = {}  # that were told last
    for event in events:
        word, number = _WORDS.get(event["event"]), event.get("trial", -1)
        repeated = event.get("reason") is not None and event.get("reason") == reasons.get(number)
        if word is None or (repeated and event["event"] in ("stop", "pause")):
            continue
        reasons[number] = event.get("reason", reasons.get(number))
        text = word({**event, "reason": None} if repeated else event, sweep.spec["metric"])
        told[number].append(Moment(event["t"] - (sweep.started or event["t"]), text))
    return told


def why(trial: TrialRecord, sweep: SweepState) -> str:
    """Says in one sentence why a trial is where it is."""
    metric, reached = sweep.spec["metric"], f"after {_trained(trial.epoch, trial.global_step)}"
    best = f"; its best {metric} was {number(trial.value)}" if trial.value is not None else ""
    if trial.status == "stopped":
        return f"It was stopped {reached}: {trial.reason}{best}."
    if trial.status == "completed":
        return f"It was completed {reached}{f': {trial.reason}' if trial.reason else ''}{best}."
    if trial.status == "failed":
        return f"It failed {reached}: {trial.reason}{best}."
    if trial.status == "paused":
        return f"It is paused {reached}: {trial.reason}{best}."
    if trial.status == "running" and sweep.state == "lost":
        return f"It was cut off {reached}, when {sweep.reason}{best}."
    if trial.status == "running":
        return f"It is running, {reached}{best}."
    return "It waits for its turn."


def tell(trial: TrialRecord, sweep: SweepState, events: Iterable[Event]) -> str:
    """Writes the whole story of a trial."""
    lines = [
        f"trial {trial.number} of {sweep.name}: {trial.status}",
        f"  {why(trial, sweep)}",
        f"  config      {configuration(trial.config) or '-'}",
        f"  checkpoint  {trial.checkpoint or '-'}",
        "",
        *map(str, stories(sweep, events)[trial.number]),
    ]
    if trial.error:
        lines += ["", *(f"  {line}" for line in trial.error.rstrip().splitlines())]
    return "\n".join(lines)


def _trained(epochs: int, steps: int) -> str:
    return f"{epochs} epoch{'' if epochs == 1 else 's'} ({steps} step{'' if steps == 1 else 's'})"


def _start(event: Event, metric: str) -> str:
    begun = "begun again" if event.get("attempt", 0) > 0 else "started"
    return f"{begun} on {event['node']}, process {event['pid']}"


def _result(event: Event, metric: str) -> str:
    value = number(event["value"]) if event["value"] is not None else "not finite"
    return f"epoch {event['epoch']}, step {event['global_step']}: {metric} {value}"


def _verdict(event: Event, metric: str) -> str:
    follows = {"continue": "goes on", "stop": "to be stopped", "pause": "to be paused"}[event["decision"]]
    return f"judged, {follows}: {event['reason']}"


def _failure(event: Event, metric: str) -> str:
    follows = "; it is begun again" if event.get("retried") else ""
    return f"failed ({event.get('kind', 'error')}): {event['error']}{follows}"


def _exploit(event: Event, metric: str) -> str:
    file = PurePosixPath(event["path"]).name
    return f"takes over {file} of trial {event['source']}, with {configuration(event['config'])}"


def _end(event: Event, metric: str) -> str:
    best = event["best"]
    worth = f"; best {metric} {number(best['value'])} at epoch {best['epoch']}" if best is not None else ""
    reason = f": {event['reason']}" if event["reason"] else ""
    return f"{event['status']} after {_trained(event['epoch'], event['global_step'])}{reason}{worth}"


_WORDS: dict[str, Callable[[Event, str], str]] = {
    "trial": lambda event, metric: f"suggested, with seed {event['seed']}",
    "start": _start,
    "result": _result,
    "verdict": _verdict,
    "progress": lambda event, metric: f"step {event['global_step']}: {metrics(event['metrics'])}",
    "stop": lambda event, metric: f"told to end as {event.get('status', 'stopped')}: {event['reason']}",
    "checkpoint": lambda event, metric: f"saved {PurePosixPath(event['path']).name}",
    "damaged": lambda event, metric: f"{PurePosixPath(event['path']).name} is damaged and was left out",
    "failure": _failure,
    "reopen": lambda event, metric: "is begun again: no trial of the sweep had trained a step",
    "offer": lambda event, metric: f"lets others take over {PurePosixPath(event['path']).name}",
    "exploit": _exploit,
    "pause": lambda event, metric: f"paused: {event['reason']}",
    "end": _end,
}
