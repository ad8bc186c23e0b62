"""Trying one configuration in this process: no Ray, nothing between the recipe and a debugger."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xaytune.driver.driver import Driver
from xaytune.driver.recorder import Recorder
from xaytune.errors import SpecError
from xaytune.in_process.executor import InProcessExecutor
from xaytune.messages import Assignment, Ended, Message, Task
from xaytune.records.clock import SystemClock
from xaytune.records.history import Row
from xaytune.records.sweep_folder import SweepFolder
from xaytune.search.build import method_for
from xaytune.search.method import Action, Done, End, NewTrial, Next, Result, SearchMethod, Stop
from xaytune.sweep.command import Command
from xaytune.sweep.options import BudgetSpec, FailuresSpec
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import DecisionPoints
from xaytune.trainer.callbacks import TrainState
from xaytune.trial.common.link import Link
from xaytune.trial.process.imports import Imports
from xaytune.trial.process.trial_process import name_program
from xaytune.trial.program.command_run import CommandRun
from xaytune.trial.run.failures import ProgramLostError
from xaytune.trial.run.runner import RecipeRun

# Seconds after which it is shown what a program has trained.
_PROGRAM_S = 0.2


def try_configuration(
    spec: SweepSpec,
    values: Mapping[str, Any],
    on_start: Callable[[dict[str, Any]], None],
    on_epoch_end: Callable[[TrainState], None],
    on_command: Callable[[list[str]], None] = lambda words: None,
) -> Ended:
    """Trains one configuration of a sweep to its end. Its checkpoints are not kept, and no tracker sees it.

    Args:
        spec: The sweep.
        values: Parameters by dotted name; those not given are drawn, as for the sweep's first trial.
        on_start: Called with the configuration.
        on_epoch_end: Called after each epoch.
        on_command: Called with the words that start the program, where the spec has a command.

    Returns:
        How it ended.

    Raises:
        SpecError: The space has no such parameter, or the recipe cannot be called.
        KeyboardInterrupt: The user ended it, through its own loop.
    """
    with tempfile.TemporaryDirectory(prefix="xaytune-try-") as scratch:
        task = _task(spec, scratch)
        if not task.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # as in a sweep
        name_program(task)
        imports = Imports(task)
        imports.load()
        if imports.problems:
            raise SpecError(imports.problems)
        method = _OneConfiguration(spec, values)
        on_start(method.config)
        training = _Training(task, imports.shared, on_epoch_end, on_command)
        _drive(spec, method, SweepFolder(Path(scratch)), training)
    if isinstance(training.raised, KeyboardInterrupt):
        raise training.raised
    assert training.ended is not None
    return training.ended


def _drive(spec: SweepSpec, method: SearchMethod, sweep_folder: SweepFolder, training: _Training) -> None:
    """Runs a sweep of one trial, which is not restarted, and has the time that it takes."""
    alone: dict[str, Any] = {"failures": FailuresSpec(retries=0), "budget": BudgetSpec(), "stall_timeout_s": None}
    spec, clock = spec.model_copy(update=alone), SystemClock()
    with contextlib.closing(Recorder(sweep_folder, spec, clock)) as recorder:
        recorder.begun()
        driver = Driver(spec, method, recorder, clock)
        training.executor(driver).run()
        recorder.finished(*driver.outcome())


class _OneConfiguration(SearchMethod):
    """Begins one trial, which trains to its end unless its metric is not finite.

    Args:
        spec: The sweep.
        values: Parameters by dotted name; the others are drawn as for the sweep's first trial.
    """

    points = DecisionPoints(milestones=())

    def __init__(self, spec: SweepSpec, values: Mapping[str, Any]) -> None:
        fixed = spec.model_copy(update={"space": spec.space.fix(values), "points_to_evaluate": []})
        first = method_for(fixed).next()
        assert isinstance(first, NewTrial)
        self.config = first.config
        self._begun = False

    def next(self) -> Next:
        """Begins the trial."""
        if self._begun:
            return Done()
        self._begun = True
        return NewTrial(self.config)

    def adopt(self, config: Mapping[str, Any]) -> None:
        """Begins the trial that a journal tells of."""
        self._begun = True

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        """Stops a trial that diverged: nothing else is asked between decision points."""
        return [Stop(trial=trial, reason=f"diverged at {self.points.axis.at(result.time)}")]

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        """Needs to do nothing."""
        return []


class _Training:
    """Trains a configuration, a recipe's or a program's, and keeps how that ended.

    Args:
        task: What is trained.
        shared: What the setup returned.
        on_epoch_end: Called after each epoch.
        on_command: Called with the words that start a program.
    """

    def __init__(
        self,
        task: Task,
        shared: Any,
        on_epoch_end: Callable[[TrainState], None],
        on_command: Callable[[list[str]], None],
    ) -> None:
        self._task, self._shared = task, shared
        self._on_epoch_end, self._on_command = on_epoch_end, on_command
        self.ended: Ended | None = None
        self.raised: BaseException | None = None

    def executor(self, driver: Driver) -> InProcessExecutor:
        """Returns what trains it for a driver."""
        if isinstance(self._task.recipe, Command):
            return _ProgramExecutor(driver, self._train_program, self._on_epoch_end)
        return InProcessExecutor(driver, self._train_recipe)

    def _train_program(self, assignment: Assignment, link: Link) -> None:
        task = dataclasses.replace(self._task, heartbeat_s=_PROGRAM_S)
        try:
            self.ended = CommandRun(task, assignment, link, self._on_command).run()
        except ProgramLostError as lost:
            self.ended = Ended(trial=0, status="failed", reason=lost.failure.error, failure=lost.failure)
            raise

    def _train_recipe(self, assignment: Assignment, link: Link) -> None:
        run = RecipeRun(self._task, assignment, link, self._shared)
        run.callbacks.on("epoch_end", last=True)(self._on_epoch_end)
        self.ended = run.run()
        self.raised = run.raised


def _task(spec: SweepSpec, folder: str) -> Task:
    return Task(
        sweep="try",
        sweep_id="",
        sweep_dir=folder,
        remote=None,
        recipe=spec.trains,
        setup=spec.setup,
        callbacks=tuple(spec.callbacks),
        objective=spec.objective,
        seed=spec.search.seed,
        points=DecisionPoints(milestones=()),
        cpus=spec.bundles[0].get("cpu", 1),
        gpus=spec.bundles[0].get("gpu", 0),
    )


class _ProgramExecutor(InProcessExecutor):
    """Hears of the epochs of a program by the rows that it tells.

    Args:
        driver: The driver.
        train: Runs the program.
        on_epoch_end: Called after each epoch.
    """

    def __init__(
        self,
        driver: Driver,
        train: Callable[[Assignment, Link], object],
        on_epoch_end: Callable[[TrainState], None],
    ) -> None:
        super().__init__(driver, train)
        self._on_epoch_end = on_epoch_end
        self._last: Row | None = None

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        """Says which epochs have ended, and takes what the trial says."""
        for row in (Row(*row) for row in rows):
            if self._last is not None and row.epoch != self._last.epoch:
                self._say(self._last)
            self._last = row
        if isinstance(message, Ended) and self._last is not None:
            self._say(self._last)
        super().tell(message, rows)

    def _say(self, row: Row) -> None:
        self._on_epoch_end(TrainState(row.step, row.epoch, row.global_step, metrics=row.metrics))
