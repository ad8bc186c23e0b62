"""Fused against alone: all combinations, many steps, members joining and leaving at random ones."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import torch

from tests.trainer.fused_models import Case, fit_joining, table, trainer_of
from tests.trainer.test_fused import compare, difference
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.random_state import seed_everything
from xaytune.trainer.trainer import Trainer


def run(steps: int, seed: int) -> None:
    """Trains each combination for so many steps; raises where a member departs by more than 1e-10.

    A rounding that grows while one trains alone may make a member depart as far.
    """
    torch.set_num_threads(1)
    for number, case in enumerate(table()):
        draws = random.Random(seed + number)
        leaves = [draws.randrange(steps // 2, steps + 1) for _ in range(6)]

        def make(member: int, case: Case = case, leaves: list[int] = leaves) -> Trainer:
            trainer = trainer_of(dataclasses.replace(case, epochs=steps), member)
            trainer.state.max_steps = steps

            @trainer.callbacks.on("step_end", every=leaves[member])
            def stop(state: TrainState) -> None:
                state.stop_training()

            return trainer

        for fit in (fit_fused, fit_joining):
            far = compare(make, members=6, fit=fit)
            grown = _grown_rounding(make, members=6) if far >= 1e-10 else 0.0
            alone = f"  (a rounding grows to {grown:.1e} alone)" if grown else ""
            print(f"{far:.1e}  {fit.__name__}  {case}{alone}", flush=True)
            assert far < max(1e-10, 100 * grown), (str(case), far)


def _grown_rounding(make: Callable[[int], Trainer], members: int) -> float:
    """Returns how far runs alone depart whose weights were changed by a rounding before the first step."""
    far = 0.0
    for member in range(members):
        one, other = make(member), make(member)
        with torch.no_grad():
            for parameter in other.model.parameters():
                parameter.mul_(1 + 2e-16)
        for trainer in (one, other):
            seed_everything(7)
            trainer.fit()
        far = max(far, difference(one, other))
    return far
