"""A loop of one's own whose gradients accumulate: its steps are those of its optimizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from xaytune.trainer.own import OwnLoop

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X, X.sum(1, keepdim=True))
BATCHES, EVERY, EPOCHS = 10, 3, 3
STEPS = EPOCHS * 4  # of an epoch: after its batches 3, 6, 9 and the last


class Killed(BaseException):
    """The process ends here."""


def train(folder: Path | None, killed_at: tuple[int, int] | None = None, *, logs: bool = True) -> list[float]:
    """Trains, and returns the weights and the number of each step that ended."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    trial = OwnLoop(checkpoint_dir=folder, save_every_s=0)
    trial.keep(model=model, optimizer=optimizer)
    steps: list[float] = []
    trial.callbacks.on("step_end")(lambda state: steps.append(state.global_step))
    for epoch in trial.epochs(EPOCHS):
        for at, (x, y) in trial.steps(enumerate(DataLoader(DATA, 6, shuffle=True))):
            if (epoch, at) == killed_at:
                raise Killed
            loss = F.mse_loss(model(x), y)
            (loss / EVERY).backward()
            if at % EVERY == EVERY - 1 or at == BATCHES - 1:
                optimizer.step()
                optimizer.zero_grad()
                if logs:
                    trial.log(loss=loss)
        trial.report(error=float(F.mse_loss(model(X), DATA.tensors[1]).detach()))
    trial.finish()
    return [*model.weight.detach().flatten().tolist(), *steps]


@pytest.mark.parametrize("logs", [True, False])
def test_batches_whose_gradients_accumulate_are_one_step(logs: bool) -> None:
    assert train(None, logs=logs)[4:] == list(range(1, STEPS + 1))


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_run_that_is_killed_while_gradients_accumulate_is_resumed_at_a_step(batch: int, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, killed_at=(1, batch))
    undisturbed, resumed = train(None), train(tmp_path)
    assert resumed[:4] == undisturbed[:4]
    assert resumed[4:] == list(range(5 + batch // EVERY, STEPS + 1))
