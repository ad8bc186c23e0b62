"""Executors keep their contract: recorded curves in virtual time, this process, and Ray Tune."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.executors.contract import EPOCHS, WORKERS, ExecutorContract, train, value
from xaytune.driver.driver import Driver
from xaytune.driver.recorder import Recorder
from xaytune.in_process.executor import InProcessExecutor
from xaytune.messages import Task
from xaytune.records.clock import SystemClock
from xaytune.records.sweep_folder import SweepFolder
from xaytune.search.build import method_for
from xaytune.simulation.curves import Surrogate
from xaytune.simulation.simulate import simulate
from xaytune.sweep.objective import Objective
from xaytune.sweep.spec import SweepSpec
from xaytune.trainer.current import set_current_trial
from xaytune.trial.run.runner import RecipeRun


class TestSimulated(ExecutorContract):
    def execute(self, spec: SweepSpec, folder: Path) -> None:
        def curve(config: Mapping[str, Any]) -> tuple[list[float], list[float]]:
            return [1.0, 2.0, 3.0, 4.0], [value(config["number"], epoch) for epoch in range(1, EPOCHS + 1)]

        simulate(spec, Surrogate(curve), SweepFolder(folder), WORKERS)


class TestInProcess(ExecutorContract):
    workers = 1

    @pytest.fixture(autouse=True)
    def no_trial_left(self) -> Iterator[None]:
        yield
        set_current_trial(None)

    def execute(self, spec: SweepSpec, folder: Path) -> None:
        method, clock = method_for(spec), SystemClock()
        task = Task(
            sweep="here",
            sweep_id="",
            sweep_dir=str(folder),
            remote=None,
            recipe=train,
            objective=Objective(spec.metric, spec.mode),
            seed=0,
            points=method.points,
        )
        with contextlib.closing(Recorder(SweepFolder(folder), spec, clock)) as recorder:
            recorder.begun()
            driver = Driver(spec, method, recorder, clock)
            InProcessExecutor(driver, lambda assignment, link: RecipeRun(task, assignment, link).run()).run()
            recorder.finished(*driver.outcome())


class TestRayTune(ExecutorContract):
    @pytest.fixture(autouse=True, scope="class")
    def in_ray(self, ray_here: None) -> None:
        """Needs Ray."""

    def execute(self, spec: SweepSpec, folder: Path) -> None:
        from xaytune.ray_tune.running import run_sweep
        from xaytune.ray_tune.session import RaySession

        with RaySession() as session:
            run_sweep(spec, str(folder.parent), folder.name, folder.name, session)
