"""Callbacks that a spec names: each is called once a trial, and registers its handlers with that trial."""

from __future__ import annotations

from typing import Any

from xaytune import TrainState, Trial


def print_gradients(trial: Trial, config: dict[str, Any]) -> None:
    """Prints the norm of the gradients every 50 steps, into the output of the trial."""

    @trial.callbacks.on("step_end", every=50)
    def show(state: TrainState) -> None:
        if (norm := state.metrics.get("grad_norm")) is not None:
            print(f"step {state.global_step}: the norm of the gradients is {float(norm):.3g}")
