"""A run that goes on from a checkpoint with other hyperparameters than those it began with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models import make_trainer


def test_a_new_learning_rate_takes_the_place_of_the_saved_one(tmp_path: Path) -> None:
    make_trainer(lr=0.1, num_epochs=1, checkpoint_dir=tmp_path).fit()
    again = make_trainer(lr=0.07, num_epochs=2, checkpoint_dir=tmp_path)
    again.fit()
    assert again.optimizer.param_groups[0]["lr"] == 0.07
    assert again.state.metrics["learning_rate"] == 0.07


def test_a_new_learning_rate_keeps_its_place_in_the_schedule(tmp_path: Path) -> None:
    def halve(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    make_trainer(lr=0.1, num_epochs=2, checkpoint_dir=tmp_path, schedule=halve).fit()
    again = make_trainer(lr=0.4, num_epochs=3, checkpoint_dir=tmp_path, schedule=halve)
    again.fit()
    assert again.state.metrics["learning_rate"] == pytest.approx(0.1)  # the third epoch's: 0.4 / 2 / 2


def test_the_same_hyperparameters_leave_the_saved_ones_as_they_are(tmp_path: Path) -> None:
    trainer = make_trainer(lr=0.1, num_epochs=1, checkpoint_dir=tmp_path)
    trainer.callbacks.on("step_end")(lambda state: trainer.optimizer.param_groups[0].update(lr=0.01))
    trainer.fit()
    again = make_trainer(lr=0.1, num_epochs=2, checkpoint_dir=tmp_path)
    again.fit()
    assert again.state.metrics["learning_rate"] == 0.01
