"""A trial for a Trainer that is judged where a test says."""

from __future__ import annotations

from pathlib import Path

from xaytune.trainer.own import OwnLoop


class Judged(OwnLoop):
    """A trial that is judged at given steps."""

    def __init__(self, folder: Path, steps: set[int]) -> None:
        super().__init__(checkpoint_dir=folder)
        self._steps = steps

    def decision_due(self, *, epoch: int | None = None, global_step: int | None = None) -> bool:
        return global_step in self._steps
