"""A loop of one's own over a loader with workers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from xaytune.trainer.own import OwnLoop


class Noisy(Dataset[Tensor]):
    """Draws random numbers in the workers."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([random.random() + float(torch.rand(()))])


class Killed(BaseException):
    """The process ends here."""


def train(folder: Path, killed_at: tuple[int, int] | None = None) -> list[float]:
    torch.manual_seed(0)
    random.seed(0)
    loader = DataLoader(Noisy(), 4, num_workers=1, persistent_workers=True)
    trial = OwnLoop(checkpoint_dir=folder, save_every_s=0)
    trial.keep(model=nn.Linear(1, 1))
    sums: list[float] = []
    for epoch in trial.epochs(3):
        for at, batch in enumerate(trial.steps(loader)):
            if (epoch, at) == killed_at:
                raise Killed
            trial.log(loss=0.0)
            sums.append(float(batch.sum()))
    trial.finish()
    return sums


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [(1, 0), (1, 2)], ids=str)
def test_workers_that_would_live_on_over_epochs_draw_the_same_after_a_resume(
    killed_at: tuple[int, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Killed):
        train(tmp_path / "killed", killed_at)
    resumed = train(tmp_path / "killed")
    assert resumed == train(tmp_path / "whole")[-len(resumed) :]
    assert len(resumed) == 9 - 3 * killed_at[0] - killed_at[1]
    assert caplog.text.count("workers are started anew each epoch") == 3
