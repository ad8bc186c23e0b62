"""The spec that a sweep is resumed with: the one in its journal, with options that may be set anew."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from xaytune.errors import JournalError, Problem, SpecError, nearest
from xaytune.records.state import SweepState
from xaytune.sweep.loader import assign
from xaytune.sweep.spec import SweepSpec

# What a sweep may be resumed with otherwise than it was begun.
_CHANGEABLE = (
    "budget",
    "callbacks",
    "checkpoint_config",
    "command",
    "failures",
    "fused",
    "max_concurrent_trials",
    "num_samples",
    "placement_strategy",
    "recipe",
    "requirements",
    "resources_per_trial",
    "setup",
    "stall_timeout_s",
    "stop_grace_s",
    "tracker_timeout_s",
    "trackers",
)
# Those of them that say how much is trained.
_AMOUNTS = ("budget", "num_samples")


def resumed_spec(sweep: SweepState, overrides: Mapping[str, Any]) -> SweepSpec:
    """Returns the spec that a sweep is resumed with.

    Args:
        sweep: The sweep.
        overrides: Options by dotted name. What decides on trials cannot change any more.

    Raises:
        JournalError: The journal does not say what sweep it is of, or it is that of a simulation.
        SpecError: An option cannot be changed, or its value is wrong.
    """
    if not sweep.spec:
        raise JournalError(f"{sweep.root}: its journal does not say what sweep it is of")
    if sweep.simulated:
        message = "it was simulated, and its trials are not trained: `xaytune run` its spec as another sweep"
        raise JournalError(f"{sweep.root}: {message}")
    plain = copy.deepcopy(sweep.spec)
    for name, value in overrides.items():
        option = name.partition(".")[0]
        if option not in _CHANGEABLE:
            raise SpecError([Problem((option,), f"cannot be changed any more; {nearest(option, _CHANGEABLE)}")])
        assign(plain, name, value)
    spec = SweepSpec.parse(plain)
    if spec.num_trials is not None and spec.num_trials < len(sweep.trials):
        message = f"the sweep has {len(sweep.trials)} trials already (got {spec.num_trials} in all)"
        raise SpecError([Problem(("num_samples",), message)])
    return spec


def has_more(sweep: SweepState, overrides: Mapping[str, Any], *, resume_errored: bool) -> bool:
    """Whether there is something to train where a sweep is resumed.

    Args:
        sweep: The sweep.
        overrides: Options by dotted name.
        resume_errored: Whether trials that failed resume, too.

    Raises:
        JournalError: The journal does not say what sweep it is of, or it is that of a simulation.
        SpecError: An option cannot be changed, or its value is wrong.
    """
    if not sweep.done or (resume_errored and sweep.counts()["failed"] > 0):
        return True
    if not overrides:
        return False
    others = {name: value for name, value in overrides.items() if name.partition(".")[0] not in _AMOUNTS}
    spec, before = resumed_spec(sweep, overrides), resumed_spec(sweep, others)
    return spec.num_trials != before.num_trials or (spec.num_trials is None and spec.budget != before.budget)
