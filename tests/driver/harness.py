"""A sweep whose trials a test plays by hand: the real driver, search method and journal, and no process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xaytune.driver.driver import Driver
from xaytune.driver.orders import Order
from xaytune.driver.recorder import Recorder
from xaytune.driver.resuming import resume
from xaytune.messages import Assignment, DecisionDue, Ended, Heartbeat, Started
from xaytune.records.sweep_folder import SweepFolder
from xaytune.records.trial_record import TrialRecord
from xaytune.search.build import method_for
from xaytune.simulation.clock import VirtualClock
from xaytune.sweep.spec import SweepSpec

ASHA = {"algorithm": "asha", "max_t": 9, "grace_period": 1, "reduction_factor": 3}


class Played:
    """A sweep under the hands of a test.

    Args:
        folder: The sweep's folder; one that holds a journal is resumed.
        resume_errored: Whether trials that failed are restarted.
        options: Options of the spec, instead of ASHA over one parameter.
    """

    def __init__(self, folder: Path, *, resume_errored: bool = False, **options: Any) -> None:
        given = {"scheduler": ASHA, "num_samples": 4, **options}
        self.spec = SweepSpec.parse(
            {"recipe": "a:b", "metric": "m", "mode": "max", "space": {"x": {"uniform": [0, 1]}}, **given}
        )
        self.clock = VirtualClock()
        method = method_for(self.spec)
        self.recorder = Recorder(SweepFolder(folder), self.spec, self.clock)
        remaining = resume(self.spec, self.recorder, method, resume_errored=resume_errored)
        self.recorder.begun()
        self.driver = Driver(self.spec, method, self.recorder, self.clock, remaining, delay_s=1.0)

    def __getitem__(self, trial: int) -> TrialRecord:
        return self.driver.state.trials[trial]

    def start(self) -> Assignment:
        """Starts what the driver wants started next."""
        assignment = self.driver.next()
        assert assignment is not None
        assert self.driver.started(assignment.trial) == []
        self.driver.receive(Started(trial=assignment.trial, attempt=assignment.attempt, node="here", node_id="n"))
        return assignment

    def heartbeat(self, trial: int, step: int, **fields: Any) -> list[Order]:
        """Lets a trial say that it trains."""
        return self.driver.receive(Heartbeat(trial=trial, global_step=step, metrics={"m": 0.0}, **fields))

    def report(self, trial: int, epoch: int, value: float, **fields: Any) -> list[Order]:
        """Lets a trial reach a decision point."""
        message = DecisionDue(trial=trial, epoch=epoch, global_step=epoch * 10, metrics={"m": value}, **fields)
        return self.driver.receive(message)

    def end(self, trial: int, epoch: int, **fields: Any) -> list[Order]:
        """Lets a trial end."""
        given = {"global_step": epoch * 10, "status": "completed", "metrics": {"m": 0.5}, **fields}
        return self.driver.receive(Ended(trial=trial, epoch=epoch, **given))

    def close(self) -> None:
        """Closes the journal, as a driver that dies does."""
        self.recorder.close()
