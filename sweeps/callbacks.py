"""Callbacks that a spec names: each is called once a trial, and registers its handlers with that trial."""

from __future__ import annotations

import logging
from typing import Any

from xaytune import TrainState, Trial

logger = logging.getLogger(__name__)


def log_gradients(trial: Trial, config: dict[str, Any]) -> None:
    """Logs the norm of the gradients every 50 steps."""

    @trial.callbacks.on("step_end", every=50)
    def log(state: TrainState) -> None:
        logger.info("trial %d, step %d: %s", trial.number, state.global_step, state.metrics.get("grad_norm"))
