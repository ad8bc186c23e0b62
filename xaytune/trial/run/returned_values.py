"""Recipes that report nothing by themselves: what they return is taken, or they are told how to report."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from xaytune.messages import Failure
from xaytune.trainer.callbacks import CallbackManager, TrainState
from xaytune.trial.common.metrics import capture

# What Ray warns of where its report is called outside of a Tuner.
_RAY_WARNS = "`report` is meant to only be called inside"


def report_returned(returned: Any, metric: str, callbacks: CallbackManager) -> None:
    """Reports what a recipe returned, as an objective does: one epoch of one step. Anything else is left alone.

    Args:
        returned: A number, which is the value of the metric, or a mapping of metrics that has it.
        metric: The sweep's.
        callbacks: The trial's.
    """
    metrics = dict(returned) if isinstance(returned, Mapping) else {metric: returned}
    if capture(metrics.get(metric)) is None:
        return
    state = TrainState(num_epochs=1)
    callbacks.fire("train_start", state)
    state.step = state.global_step = 1
    state.metrics.update(metrics)
    callbacks.fire("step_end", state)
    callbacks.fire("epoch_end", state)


def nothing_reported(recipe: str, returned: Any, metric: str) -> Failure:
    """Returns the failure of a recipe that reported nothing, and returned nothing that could be taken for it."""
    if returned is None:
        what = "nothing"
    elif isinstance(returned, Mapping):
        what = f"a mapping of {', '.join(map(str, returned)) or 'nothing'}"
    else:
        what = f"a {type(returned).__name__}"
    return Failure(
        "no_metric",
        f"{recipe} never reported {metric!r}: it reported no metric at all and returned {what}; return its value "
        f"or a mapping that has it, or report it: {_call(metric)}",
    )


def notice_tune_report() -> None:
    """Makes Ray Tune's ``report``, left in a recipe, raise where it would do nothing but warn."""
    warnings.filterwarnings("error", _RAY_WARNS)


def tune_report_failure(error: BaseException, metric: str) -> Failure | None:
    """Returns the failure of a recipe that calls Ray Tune's ``report``; None if that is not what was raised."""
    if not isinstance(error, UserWarning) or _RAY_WARNS not in str(error):
        return None
    return Failure(
        "error",
        f"Ray's report() does nothing in a recipe of xaytune: call {_call(metric)} in its place, within "
        "`for epoch in trial.epochs(N)`",
    )


def _call(metric: str) -> str:
    return f"trial.report({metric}=...)" if metric.isidentifier() else f"trial.report(**{{{metric!r}: ...}})"
