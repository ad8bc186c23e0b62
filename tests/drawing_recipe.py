"""A recipe whose module draws when it is imported."""

from __future__ import annotations

import time
from typing import Any

import torch

from xaytune.trainer.callbacks import TrainState
from xaytune.trial.run.trial import Trial

DRAWN = torch.rand(()).item()


def drawn_at_import(config: dict[str, Any], trial: Trial) -> TrainState:
    """Its score was drawn when its module was imported."""
    state = TrainState(global_step=1, metrics={"score": DRAWN})
    trial.callbacks.fire("step_end", state)
    # Two trials that wait for each other cannot run in one process.
    begun = trial.checkpoint_dir.parents[1] / "begun"
    begun.mkdir(exist_ok=True)
    (begun / str(trial.number)).touch()
    while len(list(begun.iterdir())) < 2:
        time.sleep(0.01)
    return state
