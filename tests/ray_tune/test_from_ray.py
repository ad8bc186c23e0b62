"""Ray's own schedulers and spaces in a sweep: what has no equal here is refused, and never left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from ray import tune
from ray.tune.schedulers import ASHAScheduler, HyperBandScheduler, MedianStoppingRule, TrialScheduler

from xaytune.errors import SpecError
from xaytune.ray_tune.sweep import Sweep


def sweep(scheduler: TrialScheduler) -> Sweep:
    return Sweep("a:b", metric="acc", mode="max", space={"x": {"uniform": [0, 1]}}, scheduler=scheduler)


class Point(NamedTuple):
    x: int
    y: int


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"choice": [Point(1, 2), Point(2, 3)]}, "a Point.* cannot be kept"),
        ({"choice": [tune.uniform(0, 1), Point(2, 3)]}, "a Point.* cannot be kept"),
        ({"grid_search": 5}, "takes a list of values .got 5"),
        ({"grid_search": None}, "takes a list of values .got None"),
        (tune.grid_search("adam"), "takes a list of values .got 'adam'"),
        (tune.grid_search({"a": 1}), "takes a list of values"),
    ],
)
def test_values_of_a_space_that_is_rays_are_refused_where_they_cannot_be_kept_or_are_no_list(
    values: Any, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        Sweep("a:b", metric="acc", mode="max", space={"x": values})


@pytest.mark.parametrize(
    ("values", "as_list"),
    [(range(3), [0, 1, 2]), (np.logspace(-2, 0, 3), [0.01, 0.1, 1.0]), (np.arange(2), [0, 1])],
)
def test_choices_may_be_a_range_or_an_array_and_a_number_numpys(values: Any, as_list: list[Any]) -> None:
    space = {"x": {"choice": values}}
    spec = Sweep("a:b", metric="acc", mode="max", space=space, num_samples=np.int64(3)).spec  # type: ignore[arg-type]
    assert (spec.space.raw, spec.num_samples) == ({"x": {"choice": as_list}}, 3)
    assert [type(value) for value in spec.space.raw["x"]["choice"]] == [type(value) for value in as_list]


def test_a_scheduler_of_rays_is_taken_with_its_options() -> None:
    taken = sweep(ASHAScheduler(metric="acc", mode="max", max_t=27, grace_period=3)).spec.scheduler
    assert taken.model_dump().items() >= {"algorithm": "asha", "max_t": 27, "grace_period": 3}.items()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (ASHAScheduler, {"stop_last_trials": False}, "has no equal here with stop_last_trials=False"),
        (HyperBandScheduler, {"stop_last_trials": False}, "has no equal here with stop_last_trials=False"),
        (MedianStoppingRule, {"hard_stop": False, "min_time_slice": 5}, "with hard_stop=False, min_time_slice=5"),
        (ASHAScheduler, {"brackets": 3}, "has no equal here with brackets=3"),
        (ASHAScheduler, {"metric": "loss", "mode": "min"}, "got min loss, the sweep is of max acc"),
    ],
)
def test_what_a_scheduler_of_rays_says_and_has_no_equal_is_refused(
    kind: Callable[..., TrialScheduler], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        sweep(kind(time_attr="training_iteration", **options))
