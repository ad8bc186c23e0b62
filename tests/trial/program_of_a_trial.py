"""A program that a command starts: it finds its trial, trains a loop of its own, and keeps what came of it."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, os.getcwd())

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

import xaytune
from tests.trainer import own_loops
from xaytune.trainer.cadence import Cadence
from xaytune.trainer.random_state import seed_everything

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int)
parser.add_argument("--out", type=Path)
arguments = parser.parse_args()

torch.set_num_threads(1)
seed_everything(arguments.seed)
trial = xaytune.current_trial()
trial._saves.cadence = Cadence(0.0, trial.discard)  # at each step, as the contract asks for
taken = 0


def count(*_: Any) -> None:
    """Counts a step of the optimizer."""
    global taken
    taken += 1


register_optimizer_step_post_hook(count)
weights = own_loops.nested(trial)
torch.save(weights, arguments.out / "weights.pt")
(arguments.out / "taken").write_text(str(taken))
