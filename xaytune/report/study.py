"""A sweep as a study of Optuna: for its plots, its importances and its dashboard."""

from __future__ import annotations

from datetime import datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from xaytune.records.state import SweepState
from xaytune.records.trial_record import TrialRecord
from xaytune.search.distributions import Choices, direction_of, distribution_of
from xaytune.sweep.space import Space
from xaytune.sweep.space_parser import parse_space

_STATES = {
    "pending": TrialState.WAITING,
    "running": TrialState.RUNNING,
    "paused": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def space_of(sweep: SweepState) -> Space:
    """Returns the space of a sweep, as its journal has it."""
    return parse_space(sweep.spec["space"])


def study_of(sweep: SweepState, space: Space) -> optuna.Study:
    """Returns a study of all trials that reached a value: by it, whether they were stopped or not."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name=sweep.name, direction=direction_of(sweep.objective))
    for trial in sweep.trials.values():
        if trial.counted_value is not None:
            study.add_trial(frozen(trial, space, TrialState.COMPLETE))
    return study


def frozen(
    trial: TrialRecord,
    space: Space,
    state: TrialState | None = None,
    intermediate_values: dict[int, float] | None = None,
) -> FrozenTrial:
    """Returns a trial as Optuna knows trials.

    Args:
        trial: The trial.
        space: Its sweep's space.
        state: The state to give it; by default what its status is to Optuna.
        intermediate_values: Its metric by the time of its training.
    """
    domains = {parameter.name: parameter.domain for parameter in space.parameters}
    values = space.values(trial.best_config)
    told = {"status": trial.status, "reason": trial.reason, "checkpoint": trial.checkpoint}
    state = state or _state_of(trial)
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=state,
        value=trial.value if state == TrialState.COMPLETE else None,
        params={name: Choices(domains[name]).encode(value) for name, value in values.items()},
        distributions={name: distribution_of(domains[name]) for name in values},
        intermediate_values=intermediate_values or {},
        user_attrs={name: value for name, value in told.items() if value is not None},
        system_attrs={},
        datetime_start=_moment(trial.started),
        # A trial that continues counts with what it has reached: Optuna asks when that was.
        datetime_complete=_moment(trial.ended or trial.started) if state.is_finished() else None,
    )


def _state_of(trial: TrialRecord) -> TrialState:
    """What a trial's status is to Optuna."""
    if trial.status == "completed" and trial.value is None:
        return TrialState.FAIL
    return _STATES[trial.status]


def _moment(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds) if seconds is not None else None
