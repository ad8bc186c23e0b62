"""The Trainer, and a loop that fires the events by hand. Each gets a trial, and returns its weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models import dataset, loader
from tests.trainer.own_loops import INPUTS, TARGETS, network, step
from xaytune.testing.training import weights_of
from xaytune.trainer import checkpoint, random_state
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.handlers import SaveCheckpoint
from xaytune.trainer.own import OwnLoop
from xaytune.trainer.trainer import Trainer


def with_trainer(trial: OwnLoop, **options: int) -> Tensor:
    model = network()
    trainer = Trainer(
        model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
        loss_fn=F.cross_entropy,
        train_loader=loader(),
        eval_loader=torch.utils.data.DataLoader(dataset(), 16),
        num_epochs=4,
        trial=trial,
        **options,  # type: ignore[arg-type]
    )
    trial.callbacks.on("step_end")(SaveCheckpoint(trainer))
    trainer.fit()
    return weights_of(model)


def accumulated(trial: OwnLoop) -> Tensor:
    return with_trainer(trial, accumulate=4)


def by_hand(trial: OwnLoop) -> Tensor:
    """Epochs of one step, each saved and evaluated."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    state, fire = TrainState(num_epochs=8), trial.callbacks.fire
    latest = trial.latest_checkpoint
    if latest is not None:
        saved = checkpoint.load(latest)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        random_state.restore(saved["random"])
        state.epoch, state.global_step = saved["epochs"], saved["epochs"]
    fire("train_start", state)
    for epoch in range(state.epoch, 8):
        if state.should_stop:
            break
        state.epoch, state.step = epoch, 0
        fire("epoch_start", state)
        fire("step_start", state)
        state.metrics["loss"] = step(model, optimizer, INPUTS, TARGETS).detach()
        state.step, state.global_step = 1, epoch + 1
        fire("step_end", state)
        fire("eval_start", state)
        state.metrics["score"] = score_of(model)
        save(trial, model, optimizer, epoch + 1)
        fire("eval_end", state)
        fire("checkpoint_saved", state)
        fire("epoch_end", state)
    fire("train_end", state)
    return weights_of(model)


def save(trial: OwnLoop, model: nn.Module, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    assert trial.checkpoint_dir is not None
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "random": random_state.capture()}
    path = checkpoint.path_for(trial.checkpoint_dir, epochs)
    checkpoint.save({**states, "epochs": epochs}, path)
    trial.attach(lambda: path)


def score_of(model: nn.Module) -> float:
    with torch.no_grad():
        return float((model(INPUTS).argmax(1) == TARGETS).float().mean())
