"""What a sweep lost on the way: attempts that lost their processes, and the steps that were trained again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from xaytune.records.journal import Event
from xaytune.sweep.time_axis import TimeAxis

__all__ = ["Incidents", "Restart", "restart_text"]

_STEPS = TimeAxis("global_step")
_OVER = ("end", "pause", "failure", "exploit")


@dataclass(frozen=True)
class Restart:
    """Where a trial that lost its process is taken up.

    Attributes:
        step: The step of its newest checkpoint; 0 without one.
        lost: Steps after that which are trained again, as far as they were reported.
    """

    step: int
    lost: int


@dataclass
class _Trial:
    """How far a trial is, as the events tell it.

    Attributes:
        reached: Steps that were reported of the attempt.
        saved: Steps of its checkpoints.
        has_saved: Whether it ever wrote one, which may be deleted by now.
        runs: Whether an attempt runs.
        lost: Steps that earlier attempts had trained and later ones trained again.
    """

    reached: int = 0
    saved: set[int] = field(default_factory=set)
    has_saved: bool = False
    runs: bool = False
    lost: int = 0

    @property
    def restart(self) -> Restart:
        step = max(self.saved, default=0)
        return Restart(step, max(0, self.reached - step))


class Incidents:
    """Follows the events of a sweep.

    Attributes:
        restarts: Attempts that began where an earlier one had lost its process.
        fell_back: Why decisions are made by cheaper means, if they are.
    """

    def __init__(self) -> None:
        self.restarts = 0
        self.fell_back: str | None = None
        self._trials: defaultdict[int, _Trial] = defaultdict(_Trial)
        self._again: dict[int, Restart] = {}  # where trials began that had lost their process

    def apply(self, event: Event) -> None:
        """Takes in the next event."""
        if event["event"] == "fall_back":
            self.fell_back = event["reason"]
        if "trial" not in event:
            return
        trial = self._trials[event["trial"]]
        if event["event"] == "start":
            self._start(event["trial"], trial)
        elif event["event"] == "damaged":
            self._damaged(event["trial"], trial, event["global_step"])
        elif event["event"] == "deleted":
            trial.saved.discard(event["global_step"])
        elif event["event"] == "exploit":
            trial.saved, trial.reached = {event["global_step"]}, event["global_step"]
        elif event["event"] == "checkpoint":
            trial.saved.add(event["global_step"])
        elif event["event"] in ("result", "progress", "failure", "pause", "end"):
            trial.reached = max(trial.reached, event.get("global_step", 0))
            trial.saved |= set(map(int, event.get("checkpoints", {})))
        trial.has_saved = trial.has_saved or bool(trial.saved)
        if event["event"] in _OVER:
            # What a failed attempt had trained is lost, but for its checkpoints; a pause has written one.
            trial.runs = event["event"] == "failure"

    def restart(self, trial: int) -> Restart:
        """Returns where a trial is taken up that has lost its process."""
        return self._trials[trial].restart

    def begun_again(self, trial: int) -> Restart | None:
        """Returns where the newest attempt of a trial began, if the one before it had lost its process."""
        return self._again.get(trial)

    @property
    def lost(self) -> int:
        """Steps of all trials that were trained again."""
        return sum(trial.lost for trial in self._trials.values())

    @property
    def without_checkpoint(self) -> bool:
        """Whether steps were lost by trials that never wrote a checkpoint."""
        return any(trial.lost and not trial.has_saved for trial in self._trials.values())

    def _start(self, number: int, trial: _Trial) -> None:
        self._again.pop(number, None)
        if trial.runs:
            self.restarts += 1
            self._again[number] = trial.restart
            trial.lost += trial.restart.lost
            trial.reached = trial.restart.step
        trial.runs = True

    def _damaged(self, number: int, trial: _Trial, step: int) -> None:
        """A checkpoint cannot be used: the attempt that was to begin there began further back."""
        trial.saved.discard(step)
        begun = self._again.get(number)
        if begun is not None and begun.step == step:
            further_back = max(trial.saved, default=0)
            trial.lost += step - further_back
            trial.reached = further_back
            self._again[number] = Restart(further_back, begun.lost + step - further_back)


def restart_text(restarts: Sequence[Restart]) -> str:
    """Words where trials are restarted, and what that costs."""
    lost = sum(restart.lost for restart in restarts)
    verb = "is" if lost == 1 else "are"
    again = f"at least {_STEPS.count(lost)} {verb} trained again" if lost else ""
    if not any(restart.step for restart in restarts):
        it = "it" if len(restarts) == 1 else "them"
        return f"from the start: no checkpoint of {it} had been recorded" + (f", {again}" if again else "")
    where = f"from step {restarts[0].step}" if len(restarts) == 1 else "from their newest checkpoints"
    return where + (f"; {again}" if again else "")
