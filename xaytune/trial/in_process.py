"""Trying one configuration in this process: no Ray, nothing between the recipe and a debugger."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xaytune.errors import SpecError
from xaytune.records.history import Row
from xaytune.search.build import method_for
from xaytune.search.method import NewTrial
from xaytune.sweep.command import Command
from xaytune.sweep.objective import Objective
from xaytune.sweep.seeds import trial_seed
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import DecisionPoints
from xaytune.trainer.callbacks import TrainState
from xaytune.trial.command import CommandRun
from xaytune.trial.forked import name_program
from xaytune.trial.imports import Imports
from xaytune.trial.messages import Assignment, DecisionDue, Ended, Failure, Message, StopRequest, Task
from xaytune.trial.program import ProgramLostError
from xaytune.trial.runner import RecipeRun

__all__ = ["try_configuration"]

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
        first = method_for(
            spec.model_copy(update={"space": spec.space.fix(values), "points_to_evaluate": []})
        ).next()
        assert isinstance(first, NewTrial)
        on_start(first.config)
        assignment = Assignment(trial=0, seed=trial_seed(spec.search.seed, 0), config=first.config)
        if isinstance(task.recipe, Command):
            return _run_program(task, assignment, on_command, on_epoch_end)
        run = RecipeRun(task, assignment, _NoDriver(), imports.shared)
        run.callbacks.on("epoch_end", last=True)(on_epoch_end)
        ended = run.run()
    if isinstance(run.raised, KeyboardInterrupt):
        raise run.raised
    return ended


def _task(spec: SweepSpec, folder: str) -> Task:
    return Task(
        sweep="try",
        sweep_id="",
        sweep_dir=folder,
        remote=None,
        recipe=spec.trains,
        setup=spec.setup,
        callbacks=tuple(spec.callbacks),
        objective=Objective(spec.metric, spec.mode),
        seed=spec.search.seed,
        points=DecisionPoints(milestones=()),
        cpus=spec.bundles[0].get("cpu", 1),
        gpus=spec.bundles[0].get("gpu", 0),
    )


def _run_program(
    task: Task,
    assignment: Assignment,
    on_command: Callable[[list[str]], None],
    on_epoch_end: Callable[[TrainState], None],
) -> Ended:
    task = dataclasses.replace(task, heartbeat_s=_PROGRAM_S)
    link = _EpochsOf(on_epoch_end)
    try:
        return CommandRun(task, assignment, link, on_command).run()
    except ProgramLostError as lost:
        failure = Failure("lost", f"the program was {lost}", f"the program was {lost}")
        return Ended(trial=0, status="failed", reason=failure.error, failure=failure)


class _NoDriver:
    """There is no driver here: a metric that is not finite is all there is to decide on."""

    busy = True

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        """Nobody listens."""

    def ask(self, message: DecisionDue, rows: Sequence[Row]) -> StopRequest:
        """Stops a run that diverged."""
        return StopRequest(f"diverged at epoch {message.epoch}")

    def stop_request(self) -> None:
        """Nobody asks."""


class _EpochsOf(_NoDriver):
    """Hears of the epochs of a program by the rows that it tells.

    Args:
        on_epoch_end: Called after each.
    """

    busy = False

    def __init__(self, on_epoch_end: Callable[[TrainState], None]) -> None:
        self._on_epoch_end = on_epoch_end
        self._last: Row | None = None

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        """Says which epochs have ended."""
        for row in (Row(*row) for row in rows):
            if self._last is not None and row.epoch != self._last.epoch:
                self._say(self._last)
            self._last = row
        if isinstance(message, Ended) and self._last is not None:
            self._say(self._last)

    def _say(self, row: Row) -> None:
        self._on_epoch_end(TrainState(row.step, row.epoch, row.global_step, metrics=row.metrics))
