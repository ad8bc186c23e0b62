"""Simulating a sweep from its spec: what it would have decided, in virtual time."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from xaytune.driver.driver import Driver
from xaytune.driver.recorder import Listener, Recorder
from xaytune.driver.resuming import resume
from xaytune.errors import Problem, RemoteError, SpecError
from xaytune.records.mirror import Mirror
from xaytune.records.results import Results
from xaytune.records.sweep_folder import SweepFolder
from xaytune.search.build import method_for
from xaytune.simulation.clock import VirtualClock
from xaytune.simulation.curves import Curves, RecordedCurves
from xaytune.simulation.executor import SimulatedExecutor
from xaytune.sweep.spec import SweepSpec


@dataclass(frozen=True)
class Simulated:
    """What came of a simulation.

    Attributes:
        results: The sweep, as its journal tells it.
        decisions: Decisions that were taken.
        censored: Trials that would have trained on where nothing more is known of them.
        matched: How many trials played the curve of another configuration.
        seconds: Virtual seconds that the sweep took.
    """

    results: Results
    decisions: int
    censored: int
    matched: int
    seconds: float


def simulate(
    spec: SweepSpec, curves: Curves, sweep_folder: SweepFolder, workers: int, listener: Listener | None = None
) -> Simulated:
    """Runs a sweep in virtual time, with its own search method and the driver of all sweeps.

    Args:
        spec: The sweep.
        curves: What its configurations are worth as they train.
        sweep_folder: Where its journal is written; a simulation that was cut off is resumed.
        workers: Trials that train at once.
        listener: Called with the state and each event, as it is recorded.

    Raises:
        SpecError: The sweep cannot be simulated.
        RemoteError: Its journal cannot be copied to its remote storage.
    """
    if spec.scheduler.algorithm in ("pbt", "pb2"):
        message = (
            "cannot be simulated: it changes configurations while they train, and no curve tells what follows"
        )
        raise SpecError([Problem(("scheduler", "algorithm"), message)])
    method, clock = method_for(spec), VirtualClock()
    if spec.budget.epochs is not None and method.points.axis.by_step:
        message = "cannot be simulated with time_attr: global_step, whose curves tell no epochs: give budget.time"
        raise SpecError([Problem(("budget", "epochs"), message)])
    with (
        Mirror(sweep_folder) as mirror,
        contextlib.closing(Recorder(sweep_folder, spec, clock, listener, saves=False)) as recorder,
    ):
        remaining = resume(spec, recorder, method)
        recorder.begun()
        driver = Driver(spec, method, recorder, clock, remaining)
        budgeted = spec.budget.limited
        executor = SimulatedExecutor(driver, method, spec.objective, curves, workers, clock, budgeted=budgeted)
        executor.run()
        recorder.finished(*driver.outcome())
    if driver.fatal is not None:
        raise driver.fatal
    if mirror.error is not None:
        raise RemoteError(str(mirror.error))
    matched = len(curves.matched) if isinstance(curves, RecordedCurves) else 0
    results = Results(sweep_folder, driver.state)
    return Simulated(results, executor.decisions, executor.censored, matched, clock.monotonic())
