"""Fused against alone: all combinations, many steps, members joining and leaving at random ones."""

from __future__ import annotations

import dataclasses
import random

import torch

from tests.trainer.fused_models import Case, fit_joining, table, trainer_of
from tests.trainer.test_fused import compare
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.trainer import Trainer


def run(steps: int, seed: int) -> None:
    """Trains each combination for so many steps; raises where a member departs by more than 1e-10."""
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
            print(f"{far:.1e}  {fit.__name__}  {case}", flush=True)
            assert far < 1e-10, (str(case), far)
