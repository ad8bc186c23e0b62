"""Which schedules may look at a run: all that are not known to compute with numbers alone."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LambdaLR, StepLR

from xaytune.trainer.computed_schedules import only_computes

WARM_UP = 5


def warmed_up(step: int, *, total: int) -> float:
    return max(0.0, min(step / 5, (total - step) / total))


def of_itself(step: int) -> float:
    return 1.0 if step == 0 else 0.9 * of_itself(step - 1)


def recursive() -> Callable[[int], float]:
    def rate(step: int) -> float:
        return 1.0 if step == 0 else 0.9 * rate(step - 1)

    return rate


def made() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)


def by(function: Any) -> LambdaLR:
    return LambdaLR(made(), function)


class Own(StepLR):
    """A class of the user's."""


def chained(function: Any) -> ChainedScheduler:
    optimizer = made()
    return ChainedScheduler([StepLR(optimizer, 2), LambdaLR(optimizer, function)])


WEIGHTS = torch.ones(3)


@pytest.mark.parametrize(
    ("scheduler", "computes"),
    [
        (None, True),
        (StepLR(made(), 2), True),
        (CosineAnnealingLR(made(), 9), True),
        (by(lambda step: 0.9**step), True),
        (by(lambda step: 0.5 * (1 + math.cos(math.pi * min(step, 9) / 9))), True),
        (by(functools.partial(warmed_up, total=9)), True),
        (by(recursive()), True),
        (by(lambda step, rates=(1.0, 0.5): rates[step % 2]), True),
        (by(lambda step: random.uniform(0.5, 1)), False),
        (by(lambda step, draw=random.random: 1 - draw() / 2), False),
        (by(lambda step, weights=WEIGHTS: float(weights[0])), False),
        (by(lambda step: 1 / WARM_UP), False),  # a name at the top of a module may change
        (by(of_itself), False),
        (Own(made(), 2), False),
        (chained(lambda step: 0.9**step), True),
        (chained(lambda step: float(WEIGHTS[0])), False),
    ],
)
def test_a_schedule_only_computes_if_it_is_torchs_and_its_functions_hold_nothing_but_numbers(
    scheduler: Any, computes: bool
) -> None:
    assert only_computes(scheduler) is computes
