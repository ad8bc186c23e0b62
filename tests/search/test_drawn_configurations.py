"""Whatever is searched, by whom, and after whatever: configurations are of the space."""

from __future__ import annotations

from typing import Any

import pytest

from tests.campaigns import spaces
from tests.search.runs import spec_of
from xaytune.search.build import method_for
from xaytune.search.method import NewTrial
from xaytune.sweep.values import same


@pytest.mark.slow
def test_every_configuration_that_is_given_is_one_of_the_space() -> None:
    # Of every sampler and scheduler; `python -m tests.campaigns spaces` plays more.
    spaces.run(16, seed=30)


@pytest.mark.parametrize("scheduler", ["fifo", "curves"])
@pytest.mark.parametrize("choices", [[0, False, 0.0], [(1, 2), [1, 2]], [{1: "a"}, {"1": "a"}]])
def test_choices_that_differ_by_their_types_alone_are_tried_each_and_then_the_space_is_used_up(
    scheduler: str, choices: list[Any]
) -> None:
    method = method_for(spec_of(scheduler, space={"x": {"choice": choices}}, num_samples=20))
    answers = [method.next() for _ in range(len(choices) + 1)]
    given = [answer.config["x"] for answer in answers if isinstance(answer, NewTrial)]
    assert len(given) == len(choices)
    assert all(any(same(one, choice) for one in given) for choice in choices)
