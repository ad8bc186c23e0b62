"""The story of a trial: what happened to it and why, in words and numbers, from the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from xaytune.records.journal import Event
from xaytune.records.state import SweepState
from xaytune.records.trial_record import TrialRecord
from xaytune.records.uptime import timed
from xaytune.report.printing import one_line, printable
from xaytune.report.terms import Terms, number
from xaytune.report.text import clock, metrics, path_text, restart_text, status_word
from xaytune.sweep import values
from xaytune.sweep.numbers import trials

# What the journal calls failures whose error does not say what kind of thing it is.
_KINDS = {"infeasible": "it cannot be trained here: ", "stalled": "it hung: "}
_VERBS = {"stopped": "was stopped", "completed": "was completed", "failed": "failed", "paused": "is paused"}


@dataclass(frozen=True)
class Moment:
    """Something that happened to a trial.

    Attributes:
        seconds: That the sweep had run.
        text: What it was.
    """

    seconds: float
    text: str

    def __str__(self) -> str:
        """One line."""
        return f"{clock(self.seconds):>9}  {self.text}"


def stories(sweep: SweepState, terms: Terms, events: Iterable[Event]) -> dict[int, list[Moment]]:
    """Returns what happened to each trial, by number, oldest first."""
    teller = _Teller(sweep, terms)
    told: dict[int, list[Moment]] = {number: [] for number in sweep.trials}
    for seconds, event in timed(events):
        text = teller.text(event)
        if text is not None:
            told[event["trial"]].append(Moment(seconds, one_line(text)))
    return told


def why(trial: TrialRecord, sweep: SweepState, terms: Terms) -> str:
    """Says in one sentence why a trial is where it is."""
    reached = f"after {terms.after(epoch=trial.epoch, global_step=trial.global_step)}"
    best = f"; its best {terms.worth(trial.value)}" if trial.value is not None else ""
    reason = f": {one_line(trial.reason)}" if trial.reason else ""
    if trial.status in _VERBS:
        return f"It {_VERBS[trial.status]} {reached}{reason}{best}."
    if trial.status == "running":
        cut_off = status_word(trial.status, sweep) == "cut off"
        return (
            f"It was cut off {reached}: {sweep.reason}{best}." if cut_off else f"It is running, {reached}{best}."
        )
    return f"It waits to be restarted{reason}." if trial.attempts else "It waits for its turn."


def tell(trial: TrialRecord, sweep: SweepState, events: Iterable[Event]) -> str:
    """Writes the whole story of a trial."""
    terms = Terms(sweep)
    changed = trial.written_best_config != trial.written_config
    lines = [
        f"trial {trial.number} of {sweep.name}: {status_word(trial.status, sweep)}",
        f"  {why(trial, sweep, terms)}",
        *terms.lines(trial.config),
        *([f"  at its best {terms.configuration(trial.best_config)}"] if changed else []),
        f"  checkpoint  {path_text(trial.checkpoint) if trial.checkpoint else '-'}",
        "",
        *map(str, stories(sweep, terms, events)[trial.number]),
    ]
    if trial.error:
        lines += ["", *(f"  {line}" for line in trial.error.rstrip().splitlines())]
    return printable("\n".join(lines))


class _Teller:
    """Writes the events of a sweep, one after another.

    Args:
        sweep: The sweep, as it is after all of them.
        terms: How it is spoken of.
    """

    def __init__(self, sweep: SweepState, terms: Terms) -> None:
        self._terms = terms
        self._raised = "" if sweep.spec.get("command") else "the recipe raised "
        self._then = SweepState(sweep.root)  # as it was after the newest event
        self._reasons: dict[int, str | None] = {}  # that were told last, by trial
        self._steps: dict[int, int] = {}  # that values were told of last, by trial
        self._words: dict[str, Callable[[Event], str]] = {
            "trial": self._trial,
            "start": self._start,
            "result": self._result,
            "verdict": self._verdict,
            "progress": lambda event: f"{self._place(event)}: {metrics(event['metrics'])}",
            "stop": lambda event: f"asked to end as {event.get('status', 'stopped')}: {event['reason']}",
            "checkpoint": lambda event: f"saved {_name(event)}",
            "damaged": self._damaged,
            "failure": self._failure,
            "reopen": lambda event: "restarted, though it had failed",
            "offer": lambda event: f"{_name(event)} is kept as a donor checkpoint, for others to resume from",
            "exploit": self._exploit,
            "pause": self._pause,
            "end": self._end,
        }

    def text(self, event: Event) -> str | None:
        """Takes in the next event, and words it; None where it tells nothing new of a trial."""
        self._then.apply(event)
        kind, number = event["event"], event.get("trial", -1)
        word = self._words.get(kind)
        if word is None:
            return None
        if kind in ("result", "progress"):
            before, self._steps[number] = self._steps.get(number), event["global_step"]
            if kind == "progress" and before == event["global_step"]:
                return None
        reason = event.get("reason")
        repeated = reason is not None and reason == self._reasons.get(number)
        if repeated and (kind == "stop" or (kind == "pause" and "epoch" not in event)):
            return None
        self._reasons[number] = event.get("reason", self._reasons.get(number))
        return word({**event, "reason": None} if repeated else event)

    def _trial(self, event: Event) -> str:
        reason = f": {event['reason']}" if event.get("reason") else ""
        return f"new, with seed {event['seed']}{reason}"

    def _start(self, event: Event) -> str:
        where = f"on {event['node']}, process {event['pid']}"
        again = self._then.trials[event["trial"]].restarted
        if again is not None:
            return f"restarted {where}, {restart_text([again])}"
        return f"{'resumed' if event.get('attempt', 0) > 0 else 'started'} {where}"

    def _result(self, event: Event) -> str:
        value = number(event["value"]) if event["value"] is not None else "not finite"
        return f"{self._place(event)}: {self._terms.metric} {value}"

    def _verdict(self, event: Event) -> str:
        follows = {"continue": "continues", "stop": "to be stopped", "pause": "to be paused"}[event["decision"]]
        return f"judged, {follows}: {event['reason']}{self._details(event.get('details') or {})}"

    def _details(self, details: dict[str, Any]) -> str:
        """The further numbers of a decision; lists are for pictures."""
        numbers = [
            f"{name.replace('_', ' ')} {number(value)}"
            for name, value in details.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        ]
        instead = details.get("instead")
        if isinstance(instead, dict):
            numbers.append(f"started instead: {self._terms.configuration(values.read(instead))}")
        return f" ({'; '.join(numbers)})" if numbers else ""

    def _damaged(self, event: Event) -> str:
        again = self._then.trials[event["trial"]].restarted
        taken_up = f": restarted {restart_text([again])}" if again is not None else ""
        return f"{_name(event)} is damaged, and cannot be resumed from{taken_up}"

    def _failure(self, event: Event) -> str:
        kind = event.get("kind", "error")
        if kind == "skipped":
            return "the recipe raised SkipTrial"
        if kind == "shared":
            return f"moves to a process of its own: {event['error']}"
        said = self._raised if kind == "error" else _KINDS.get(kind, "")
        follows = ""
        if event.get("retried"):
            follows = f"; it is restarted {restart_text([self._then.trials[event['trial']].restart])}"
        return f"failed: {said}{event['error']}{follows}"

    def _exploit(self, event: Event) -> str:
        config = self._terms.configuration(values.read(event["config"]))
        reason = f"{event['reason']}; it " if event.get("reason") else ""
        return f"{reason}resumes from {_name(event)} of trial {event['source']}, with {config}"

    def _pause(self, event: Event) -> str:
        reason = f": {event['reason']}" if event["reason"] else ""
        return f"paused{f' after {self._after(event)}' if 'epoch' in event else ''}{reason}"

    def _end(self, event: Event) -> str:
        best, worth = event["best"], ""
        if best is not None:
            worth = f"; best {self._terms.worth(best['value'])} at {self._place(best)}"
        reason = f": {event['reason']}" if event["reason"] else ""
        fused = f"; trained together with {trials(event['fused'] - 1)}" if event.get("fused") else ""
        return f"{event['status']} after {self._after(event)}{reason}{worth}{fused}"

    def _after(self, event: Event) -> str:
        return self._terms.after(epoch=event["epoch"], global_step=event["global_step"])

    def _place(self, event: Event) -> str:
        return self._terms.place(epoch=event["epoch"], global_step=event["global_step"])


def _name(event: Event) -> str:
    return PurePosixPath(event["path"]).name
