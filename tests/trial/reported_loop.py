"""A loop that fires its events, with a reporter, and a driver that answers as a test says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xaytune.messages import Assignment, DecisionDue, Ended, Message, StopRequest, Task
from xaytune.records.history import Row
from xaytune.sweep.objective import Objective
from xaytune.sweep.time_axis import DecisionPoints, TimeAxis
from xaytune.trainer.callbacks import CallbackManager, TrainState
from xaytune.trial.run.reporter import Reporter
from xaytune.trial.run.trial import Trial


class Loop:
    """A loop that fires its events, four steps an epoch, and notes each decision as (time, value, due).

    It is its own link to a driver, which answers as it is told to.
    """

    busy = False

    def __init__(
        self,
        time_attr: Any,
        milestones: tuple[int, ...] | None,
        folder: Path,
        *,
        pausing: bool = False,
        heartbeat_s: float = 1000,
        points: DecisionPoints | None = None,
        assignment: Assignment | None = None,
        **state: Any,
    ) -> None:
        self.callbacks = CallbackManager()
        self.state = TrainState(**state)
        self.decisions: list[tuple[int, float, bool]] = []
        self.told: list[tuple[Any, list[Row]]] = []
        self.answer: StopRequest | None = None
        self.asked: StopRequest | None = None
        self.axis = TimeAxis(time_attr)
        self.task = task = Task(
            sweep="s",
            sweep_id="1",
            sweep_dir=str(folder),
            remote=None,
            recipe="module:recipe",
            objective=Objective("score", "max"),
            seed=0,
            points=points or DecisionPoints(self.axis, milestones, pausing=pausing),
            heartbeat_s=heartbeat_s,
        )
        assignment = assignment or Assignment(trial=0, seed=0, config={})
        checkpoints = folder / "checkpoints" / "00000"
        self.reporter = Reporter(task, assignment, checkpoints, self)
        self.trial = Trial(task, assignment, self.callbacks, checkpoints, self.reporter)
        self.reporter.attach(self.callbacks)

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        self.told.append((message, list(rows)))

    def ask(self, message: DecisionDue, rows: Sequence[Row]) -> StopRequest | None:
        self.tell(message, rows)
        time = self.axis.reached_by(message)
        self.decisions.append((time, message.metrics["score"], message.due))
        return self.answer

    def stop_request(self) -> StopRequest | None:
        return self.asked

    def start(self) -> Loop:
        self.callbacks.fire("train_start", self.state)
        return self

    def steps(self, count: int, **metrics: Any) -> Loop:
        for _ in range(count):
            self.state.global_step += 1
            self.state.metrics.update(metrics)
            self.callbacks.fire("step_end", self.state)
        return self

    def evaluate(self, value: Any, name: str = "score") -> Loop:
        self.callbacks.fire("eval_start", self.state)
        self.state.metrics[name] = value
        self.callbacks.fire("eval_end", self.state)
        return self

    def end_epoch(self) -> Loop:
        self.callbacks.fire("epoch_end", self.state)
        self.state.epoch += 1
        return self

    def end(self) -> Ended:
        self.callbacks.fire("train_end", self.state)
        ended, rows = self.reporter.end("completed", None)
        self.tell(ended, rows)
        return ended
