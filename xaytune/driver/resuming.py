"""Resuming: the search method and the driver are brought to where a sweep's journal ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xaytune.driver.early_end import spent
from xaytune.driver.recorder import Recorder
from xaytune.errors import Problem, SpecError
from xaytune.messages import Assignment, StopRequest
from xaytune.records.trial_record import TrialRecord
from xaytune.search.method import Action, KeepCheckpoint, SearchMethod
from xaytune.search.replay import replay
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import TimeAxis


@dataclass(frozen=True)
class Remaining:
    """What the driver is to do first, where a sweep is resumed; nothing where it is new.

    Attributes:
        unfinished: Numbers of the trials to restart first; those that the method paused are not among them.
        stops: Trials that were to stop, and have not yet.
        actions: What the method had decided that was not carried out any more.
    """

    unfinished: Sequence[int] = ()
    stops: Mapping[int, StopRequest] = field(default_factory=dict)
    actions: Sequence[Action] = ()


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


def next_attempt(record: TrialRecord, axis: TimeAxis, stop: StopRequest | None) -> Assignment:
    """Returns what a trial is given to do when it is started, restarted or resumed.

    Args:
        record: What is known of it.
        axis: What time is counted in.
        stop: Why it is to end at once, if it is to.
    """
    return Assignment(
        trial=record.number,
        seed=record.seed,
        config=record.config,
        attempt=record.attempts,
        checkpoints=tuple(sorted(record.checkpoints)),
        last_judged=axis.reached_by(record.results[-1]) if record.results else 0,
        judged_step=record.results[-1].global_step if record.results else 0,
        taken_over_at=record.taken_over_at,
        stop=stop,
    )
