"""How a run is told to stop, and what no longer counts of it then."""

from __future__ import annotations

import dataclasses

from xaytune.messages import StopRequest, standing
from xaytune.trainer.callbacks import TrainState
from xaytune.trial.common.metrics import capture


class Stopping:
    """Whether a run was told to stop, at which step, and whether its loop trained on.

    Args:
        request: Why it is to stop at once, if it is.

    Attributes:
        request: Why it is to stop, once it is asked to.
        cut_at: The step at whose end its loop was told to, or had all the steps that it may.
        cut_by_evaluation_at: The step after which an evaluation told it to.
        overrun: Whether its loop trained on: what it trains then does not count.
        final: The run as it stood when it was told to; None while it was not, and where it only pauses.
    """

    def __init__(self, request: StopRequest | None) -> None:
        self.request = request
        self.cut_at: int | None = None
        self.cut_by_evaluation_at: int | None = None
        self.overrun = False
        self.final: TrainState | None = None

    @property
    def pauses(self) -> bool:
        """Whether the run is asked to pause, and not to end."""
        return self.request is not None and self.request.status == "paused"

    def take(self, request: StopRequest | None) -> None:
        """Takes a request to stop; the first one counts, but for one that only pauses."""
        self.request = standing(self.request, request)

    def tell(self, state: TrainState) -> None:
        """Tells the loop to stop where there is a request, and keeps the run as it stands if it is to end."""
        if self.request is not None:
            state.stop_training()
        if state.should_stop and not self.pauses:
            metrics = {name: capture(value) for name, value in state.metrics.items()}
            self.final = dataclasses.replace(state, metrics=metrics)

    def tell_after_step(self, state: TrainState) -> None:
        """Tells the loop to stop at the end of a step."""
        self.tell(state)
        if 0 < state.max_steps <= state.global_step or (state.should_stop and self.cut_at is None):
            self.cut_at = state.global_step

    def overruns(self, state: TrainState) -> bool:
        """Tells whether the loop has trained on after it was told to stop."""
        final = self.final
        if final is not None and not self.overrun:
            self.overrun = state.global_step > final.global_step or state.epoch > final.epoch
        return self.overrun
