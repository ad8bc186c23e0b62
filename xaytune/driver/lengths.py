"""How long trials train, where the search method judges by that and the spec does not say."""

from __future__ import annotations

import math

from xaytune.driver.recorder import Recorder
from xaytune.errors import Problem, SpecError
from xaytune.messages import Ended, Length
from xaytune.records.trial_record import TrialRecord
from xaytune.search.method import SearchMethod
from xaytune.sweep.time_axis import DecisionPoints


def take_length(message: Length, method: SearchMethod, recorder: Recorder) -> SpecError | None:
    """Takes what a trial says when it starts, and when another loop begins: what the first one says holds for all.

    Args:
        message: How long the trial is to train.
        method: Learns it.
        recorder: Keeps it.

    Returns:
        What is wrong where a trial says another number, or none.
    """
    length, axis, known = message.length, method.points.axis, recorder.state.max_t
    if known is None and length:
        recorder.set_max_t(length)
        method.set_max_t(length)
    elif length != known:
        trains = (
            f"is to train {axis.count(length)}" if length else f"does not say how many {axis.unit}s it is to train"
        )
        others = f" (known before: {axis.count(known)})" if known is not None else ""
        name = "max_steps" if axis.by_step else "num_epochs"
        why = (
            f"trial {message.trial} {trains}{others}; the scheduler judges by that, and it cannot be changed any "
            f"more: begin another sweep with the scheduler's max_t: {max(known or 0, length) or 27} (of loops one "
            f"after another, what all of them train), or with the same {name} in all trials"
        )
        return SpecError([Problem(("scheduler", "max_t"), why)])
    return None


def never_judged(message: Ended, points: DecisionPoints, record: TrialRecord) -> str | None:
    """Returns a message that says that a trial was never judged before its end; None where it was, or none is."""
    first, axis = points.after(0), points.axis
    time = axis.reached_by(message)
    if message.status != "completed" or message.reason is not None or time == 0 or first == math.inf:
        return None
    if time >= first:
        if record.results or record.best is None or (message.due and time == first):
            return None
        return (
            f"a trial was never judged before its end, at {axis.at(time)}: its metric was not measured where "
            f"{axis.unit}s end; report it after what each {axis.unit} trains, not before"
        )
    return f"trials end before the scheduler's first decision, at {axis.at(int(first))}: it stops none of these"
