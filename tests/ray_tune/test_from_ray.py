"""Ray's own schedulers in a sweep: what has no equal here is refused, and never left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from ray.tune.schedulers import ASHAScheduler, HyperBandScheduler, MedianStoppingRule, TrialScheduler

from xaytune.errors import SpecError
from xaytune.ray_tune.sweep import Sweep


def sweep(scheduler: TrialScheduler) -> Sweep:
    return Sweep("a:b", metric="acc", mode="max", space={"x": {"uniform": [0, 1]}}, scheduler=scheduler)


def test_a_scheduler_of_rays_is_taken_with_its_options() -> None:
    taken = sweep(ASHAScheduler(metric="acc", mode="max", max_t=27, grace_period=3)).spec.scheduler
    assert taken.model_dump().items() >= {"algorithm": "asha", "max_t": 27, "grace_period": 3}.items()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (ASHAScheduler, {"stop_last_trials": False}, "has no equal here with stop_last_trials=False"),
        (HyperBandScheduler, {"stop_last_trials": False}, "has no equal here with stop_last_trials=False"),
        (MedianStoppingRule, {"hard_stop": False, "min_time_slice": 5}, "with hard_stop=False, min_time_slice=5"),
        (ASHAScheduler, {"metric": "loss", "mode": "min"}, "got min loss, the sweep is of max acc"),
    ],
)
def test_what_a_scheduler_of_rays_says_and_has_no_equal_is_refused(
    kind: Callable[..., TrialScheduler], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        sweep(kind(time_attr="training_iteration", **options))
