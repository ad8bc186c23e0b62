"""Resuming: the search method and the driver are brought to where a sweep's journal ends."""

from __future__ import annotations

from xaytune.driver.early_end import spent
from xaytune.driver.recorder import Recorder
from xaytune.driver.remaining import Remaining
from xaytune.errors import Problem, SpecError
from xaytune.search.method import KeepCheckpoint, SearchMethod
from xaytune.search.replay import replay
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.messages import StopRequest

__all__ = ["resume"]


def resume(
    spec: SweepSpec, recorder: Recorder, method: SearchMethod, *, resume_errored: bool = False
) -> Remaining:
    """Gives a new method what the journal holds, and returns what is left to do; all of it of a new sweep.

    Args:
        spec: The sweep.
        recorder: Its recorder.
        method: A new one, as the spec makes it.
        resume_errored: Whether trials that failed are restarted, too.

    Raises:
        SpecError: Trials that failed cannot be restarted, for others have gone on without them.
    """
    # The recipe was at fault where every trial raised before its first step: they are restarted. So are trials
    # whose process never began.
    state = recorder.state
    if resume_errored and method.points.pausing:
        message = "its trials have not waited for those that failed: these cannot be resumed; begin another sweep"
        raise SpecError([Problem(("scheduler",), message)])
    budget_left = spent(spec.budget, state.epochs, state.ran_s) is None
    if resume_errored and not budget_left:
        message = "is spent: trials that failed can be resumed with a larger one, as in --set budget.time=2h"
        raise SpecError([Problem(("budget",), message)])
    faultless = [] if state.trained else ["error"]
    # Where trials are paused to wait for others, these were not waited for.
    if not method.points.pausing and budget_left:
        faultless.append("not_started")
    for trial in list(state.trials.values()):
        if trial.status == "failed" and (resume_errored or trial.failure in faultless):
            recorder.reopened(trial.number)
    left = replay(method, recorder.events(), spec.metric)
    stops = {trial: StopRequest(stop.reason, stop.status) for trial, stop in left.stops.items()}
    return Remaining(
        unfinished=[trial for trial in left.unfinished if trial not in left.paused],
        stops=stops,
        actions=[*(KeepCheckpoint(trial) for trial in sorted(left.keeps)), *left.exploits.values()],
    )
