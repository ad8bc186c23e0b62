"""A recipe whose module draws when it is imported."""

from __future__ import annotations

import time
from typing import Any

import torch

from xaytune.trainer.callbacks import TrainState
from xaytune.tuning.trial import Trial

DRAWN = torch.rand(()).item()


def drawn_at_import(config: dict[str, Any], trial: Trial) -> TrainState:
    """Its score was drawn when its module was imported."""
    state = TrainState(global_step=1, metrics={"score": DRAWN})
    trial.callbacks.fire("step_end", state)
    time.sleep(0.2)  # long enough for both processes to get a trial
    return state
