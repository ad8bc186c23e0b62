"""What is known of one trial."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from xaytune.sweep import values

TrialStatus = Literal["pending", "running", "paused", "completed", "stopped", "failed"]
TRIAL_STATUSES: tuple[TrialStatus, ...] = ("pending", "running", "paused", "completed", "stopped", "failed")


@dataclass(frozen=True, slots=True)
class Best:
    """Where a trial's metric was best: its value there, and all metrics of that step."""

    value: float
    epoch: int
    global_step: int
    metrics: dict[str, float]

    def fields(self) -> dict[str, Any]:
        """Returns what the journal holds of it."""
        return {
            "value": self.value,
            "epoch": self.epoch,
            "global_step": self.global_step,
            "metrics": self.metrics,
        }


@dataclass(frozen=True, slots=True)
class ResultRecord:
    """What a trial was worth at a decision point.

    Attributes:
        epoch: Epochs finished.
        global_step: Optimizer steps done.
        value: The sweep's metric; None where it was not finite.
        due: Whether it was a decision point.
    """

    epoch: int
    global_step: int
    value: float | None
    due: bool = True


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """What was decided on a trial at a decision point; the reason stands in the journal.

    Attributes:
        t: Unix seconds.
        epoch: Epochs finished.
        global_step: Optimizer steps done.
        decision: ``continue``, ``stop`` or ``pause``.
        cutoff: The value that it was compared with, if there was one.
    """

    t: float
    epoch: int
    global_step: int
    decision: Literal["continue", "stop", "pause"]
    cutoff: float | None


@dataclass(frozen=True, slots=True)
class Restart:
    """Where a trial that lost its process is restarted.

    Attributes:
        attempt: Times that the trial had been started, this one included.
        step: The step of its newest checkpoint; 0 without one.
        lost: Steps after that which are trained again, as far as they were reported.
    """

    attempt: int
    step: int
    lost: int


@dataclass(slots=True, repr=False)
class TrialRecord:
    """What is known of a trial.

    Attributes:
        number: From 0, in the order of suggestion.
        written_config: Its configuration, as the journal has it.
        written_before: The configurations that it had before, oldest first, each with the step up to which it did.
        seed: What its random generators began from.
        status: Where it is in its life.
        node: Where it ran last.
        pid: The process that it had last.
        epoch: Epochs finished.
        global_step: Optimizer steps done.
        metrics: Latest metrics that were reported.
        best: Where the metric was best; None while it was never reported.
        stop_reason: Why it was asked to stop, in words and numbers; None if it was not.
        stop_status: The status it was to end with.
        reason: Why it ended as it did, where there is more to say than that it was finished.
        checkpoints: Paths by global step.
        has_saved: Whether it ever wrote a checkpoint, which may be deleted by now.
        reached: Optimizer steps that its newest attempt is known to have reached.
        restarts: Where it was restarted after it had lost its process, oldest first.
        donor_checkpoint: Path, within the sweep's folder, of the checkpoint that others may resume from.
        error: Traceback of its failure.
        failure: Kind of its failure, as the journal tells them apart.
        attempts: Times that it was started.
        lost: Times that it lost its process, by no fault of the node.
        started: Unix seconds.
        ended: Unix seconds.
        fused: The mean number of trials that trained in one step with it, itself included; 0 if it never shared
            one.
        seconds: What its attempts have trained together, as far as it was heard of; not while they waited to be
            decided on.
        results: What it was worth at each decision point.
        decisions: What followed.
    """

    number: int
    written_config: dict[str, Any]
    seed: int
    status: TrialStatus = "pending"
    node: str | None = None
    pid: int | None = None
    epoch: int = 0
    global_step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: Best | None = None
    stop_reason: str | None = None
    stop_status: TrialStatus | None = None
    reason: str | None = None
    checkpoints: dict[int, str] = field(default_factory=dict)
    has_saved: bool = False
    reached: int = 0
    restarts: tuple[Restart, ...] = ()
    donor_checkpoint: str | None = None
    error: str | None = None
    failure: str | None = None
    attempts: int = 0
    lost: int = 0
    started: float | None = None
    ended: float | None = None
    fused: int = 0
    seconds: float = 0.0
    written_before: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    results: list[ResultRecord] = field(default_factory=list)
    decisions: list[DecisionRecord] = field(default_factory=list)
    _trained_before: float = 0.0  # seconds, in earlier attempts
    _began: float | None = None  # the attempt, in seconds of the driver's run

    def __repr__(self) -> str:
        shown = f"{self.number}, {self.status}, value={self.value}, best_config={self.best_config}"
        return f"<{type(self).__name__} {shown}, checkpoint={self.checkpoint!r}>"

    @property
    def config(self) -> dict[str, Any]:
        """What the recipe gets: each value as it is in the space, of its own type."""
        config: dict[str, Any] = values.read(self.written_config)
        return config

    @property
    def written_best_config(self) -> dict[str, Any]:
        """The configuration that its best value was reached with, as the journal has it."""
        return self.written_config if self.best is None else self._written_config_at(self.best.global_step)

    @property
    def best_config(self) -> dict[str, Any]:
        """The same, each value of its own type: one that a scheduler changed meanwhile is as it was then."""
        config: dict[str, Any] = values.read(self.written_best_config)
        return config

    @property
    def taken_over_at(self) -> int | None:
        """The step of another trial's checkpoint that it went on from last; None if it never did."""
        return self.written_before[-1][0] if self.written_before else None

    @property
    def best_weights_gone(self) -> bool:
        """Whether it took over another trial after its best value: checkpoints are of what came since."""
        taken_over_at = self.taken_over_at
        return self.best is not None and taken_over_at is not None and self.best.global_step <= taken_over_at

    @property
    def value(self) -> float | None:
        """The best value that the sweep's metric reached."""
        return self.best.value if self.best is not None else None

    @property
    def counted_value(self) -> float | None:
        """The value that it counts with among the others: none of one that failed."""
        return self.value if self.status != "failed" else None

    @property
    def finished(self) -> bool:
        """Whether the trial has ended, in whatever way."""
        return self.status in ("completed", "stopped", "failed")

    @property
    def checkpoint_step(self) -> int | None:
        """Step of the checkpoint to use: the best step if it has one, else the newest."""
        if self.best is not None and self.best.global_step in self.checkpoints and not self.best_weights_gone:
            return self.best.global_step
        return max(self.checkpoints, default=None)

    @property
    def checkpoint(self) -> str | None:
        """Path of that checkpoint."""
        return self.checkpoints[self.checkpoint_step] if self.checkpoint_step is not None else None

    @property
    def restart(self) -> Restart:
        """Where it is restarted if it loses its process now."""
        step = max(self.checkpoints, default=0)
        return Restart(self.attempts, step, max(0, self.reached - step))

    @property
    def restarted(self) -> Restart | None:
        """Where its newest attempt began, if the one before had lost its process."""
        last = self.restarts[-1] if self.restarts else None
        return last if last is not None and last.attempt == self.attempts else None

    @property
    def trained_again(self) -> int:
        """Steps that were trained again after restarts, as far as they were reported."""
        return sum(restart.lost for restart in self.restarts)

    def start(self, attempt: int, uptime: float) -> None:
        """Notes that an attempt begins to train.

        Args:
            attempt: Its number, from 0.
            uptime: Seconds that the driver has run.
        """
        cut_off = self._began is not None or (self.status == "pending" and self.failure is not None)
        self.status, self.attempts = "running", attempt + 1
        if cut_off:
            self.restarts += (self.restart,)
            self.reached = self.restart.step
        self._trained_before, self._began = self.seconds, uptime

    def add_checkpoint(self, global_step: int, path: str) -> None:
        """Notes that it has written a checkpoint."""
        self.checkpoints[global_step], self.has_saved = path, True

    def drop_damaged(self, global_step: int) -> None:
        """Notes that a checkpoint cannot be used: an attempt that was to begin there began further back."""
        self.checkpoints.pop(global_step, None)
        begun = self.restarted
        if begun is not None and begun.step == global_step:
            self.reached = max(self.checkpoints, default=0)
            lost = begun.lost + global_step - self.reached
            self.restarts = (*self.restarts[:-1], replace(begun, step=self.reached, lost=lost))

    def take_over(self, global_step: int, written_config: dict[str, Any]) -> None:
        """Notes that it goes on from another trial's checkpoint, with another configuration.

        Args:
            global_step: The step of that checkpoint.
            written_config: The configuration, as the journal has it.
        """
        self.written_before = [
            *((until, config) for until, config in self.written_before if until < global_step),
            (global_step, self._written_config_at(global_step)),
        ]
        self.written_config, self.reached = written_config, global_step
        self.results = [result for result in self.results if result.global_step <= global_step]
        if self.best is not None and self.best.global_step > global_step:
            self.best = None  # that is no part of its training any more

    def _written_config_at(self, global_step: int) -> dict[str, Any]:
        """The configuration that it trained a step with."""
        earlier = (config for until, config in self.written_before if global_step <= until)
        return next(earlier, self.written_config)

    def add_training_time(self, uptime: float, seconds: float | None) -> None:
        """Notes how long its attempt has trained by now.

        Args:
            uptime: Seconds that the driver has run.
            seconds: What the attempt has trained; None where it was lost and cannot say so.
        """
        if self._began is not None:
            trained = uptime - self._began if seconds is None else seconds
            self.seconds = max(self.seconds, self._trained_before + trained)

    def stop_clock(self) -> None:
        """Notes that its attempt is over."""
        self._began = None

    def to_dict(self) -> dict[str, Any]:
        """Returns what makes the trial worth choosing, as data that JSON can hold."""
        best = self.best
        return {
            "trial": self.number,
            "status": self.status,
            "value": self.value,
            "epoch": best.epoch if best is not None else None,
            "global_step": best.global_step if best is not None else None,
            "config": self.written_best_config,
            "metrics": best.metrics if best is not None else {},
            "checkpoint": self.checkpoint,
            "checkpoint_step": self.checkpoint_step,
            "stop_reason": self.stop_reason,
        }
