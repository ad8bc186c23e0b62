"""A trial for a Trainer that is judged where a test says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xaytune.trainer.callbacks import CallbackManager


class Judged:
    """A trial that is judged at given steps."""

    def __init__(self, folder: Path, steps: set[int]) -> None:
        self.callbacks, self.checkpoint_dir, self._steps = CallbackManager(), folder, steps

    def attach(self, save_checkpoint: Callable[[], Path]) -> None:
        pass

    def discard(self, checkpoint: Path) -> None:
        checkpoint.unlink()

    def decision_due(self, *, epoch: int | None = None, global_step: int | None = None) -> bool:
        return global_step in self._steps
