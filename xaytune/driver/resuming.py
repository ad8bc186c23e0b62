"""Resuming: the search method and the driver are brought to where a sweep's journal ends."""

from __future__ import annotations

from xaytune.driver.recorder import Recorder
from xaytune.driver.remaining import Remaining
from xaytune.search.method import KeepCheckpoint, SearchMethod
from xaytune.search.replay import replay
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.messages import StopRequest

__all__ = ["resume"]


def resume(spec: SweepSpec, recorder: Recorder, method: SearchMethod) -> Remaining:
    """Gives a new method what the journal holds, and returns what is left to do; all of it of a new sweep.

    Args:
        spec: The sweep.
        recorder: Its recorder.
        method: A new one, as the spec makes it.
    """
    if not recorder.state.trained:
        # The recipe was at fault where every trial raised before its first step: they are restarted.
        for trial in list(recorder.state.trials.values()):
            if trial.failure == "error":
                recorder.reopened(trial.number)
    left = replay(method, recorder.events(), spec.metric)
    stops = {trial: StopRequest(stop.reason, stop.status) for trial, stop in left.stops.items()}
    return Remaining(
        unfinished=[trial for trial in left.unfinished if trial not in left.paused],
        stops=stops,
        actions=[*(KeepCheckpoint(trial) for trial in sorted(left.keeps)), *left.exploits.values()],
    )
