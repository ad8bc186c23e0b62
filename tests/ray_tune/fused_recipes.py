"""Recipes of trials that are trained fused."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.cpp_backtrace import get_cpp_backtrace

from tests.models import CLASSES, FEATURES, loader
from xaytune import Trainer, TrainState, Trial, current_trial

STEPS_PER_EPOCH = 6


def trainer_for(config: dict[str, Any], trial: Trial, num_epochs: int = 9) -> Trainer:
    model = nn.Sequential(
        nn.Linear(FEATURES, 8), nn.ReLU(), nn.Dropout(config["drop"]), nn.Linear(8, CLASSES)
    ).double()
    return Trainer(
        model,
        optimizer=torch.optim.SGD(model.parameters(), lr=config["x"], momentum=0.9),
        training_step=loss,
        train_loader=loader(),
        eval_loader=loader(shuffle=False),
        num_epochs=num_epochs,
        trial=trial,
    )


def loss(model: nn.Module, batch: Any) -> torch.Tensor:
    return F.cross_entropy(model(batch[0].double()), batch[1])


def train(config: dict[str, Any], trial: Trial) -> TrainState:
    assert current_trial() is trial
    print(f"begins {trial.number}")
    trainer = trainer_for(config, trial)

    @trial.callbacks.on("epoch_end")
    def say(state: TrainState) -> None:
        assert current_trial() is trial
        print(f"trial {trial.number} epoch {state.epoch}")

    state = trainer.fit()
    print(f"ends {trial.number}")
    return state


def killed(config: dict[str, Any], trial: Trial) -> TrainState:
    """The process of all is killed once, in the middle of an epoch of one of them."""
    trainer = trainer_for(config, trial)
    if trial.number == 3:

        @trial.callbacks.on("step_end")
        def kill(state: TrainState) -> None:
            mark = Path(trial.checkpoint_dir.parents[1]) / "killed"
            if state.global_step == 20 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    trial.callbacks.on("epoch_end")(lambda state: trainer.save_checkpoint())
    return trainer.fit()


def saving(config: dict[str, Any], trial: Trial) -> TrainState:
    """It says from which step it begins, saves after each epoch, and takes long enough to be killed meanwhile."""
    trainer = trainer_for(config, trial)
    trial.callbacks.on("step_end")(lambda state: time.sleep(0.005))
    trial.callbacks.on("train_start")(lambda state: print(f"from {state.global_step}", flush=True))
    trial.callbacks.on("epoch_end")(lambda state: trainer.save_checkpoint())
    return trainer.fit()


def changes_settings(config: dict[str, Any], trial: Trial) -> TrainState:
    """The first trial changes settings of torch, and keeps them; all train long enough to meet."""
    if trial.number == 0:
        torch.set_autocast_enabled("cuda", True)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.fp32_precision = "tf32"  # which the older interface refuses to read then

    def found() -> tuple[Any, ...]:
        cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        return torch.is_autocast_enabled("cuda"), cudnn.benchmark, matmul.fp32_precision == "tf32"

    own = (trial.number == 0,) * 3
    assert found() == own
    state = trainer_for(config, trial, num_epochs=30).fit()
    assert found() == own
    return state


def shows_its_stack(config: dict[str, Any], trial: Trial) -> TrainState:
    """Prints the stack that an error of torch would look at."""
    print(get_cpp_backtrace(0, 64))
    return trainer_for(config, trial, num_epochs=1).fit()


def interrupted(config: dict[str, Any], trial: Trial) -> TrainState:
    """As above, but slow until a file says that the sweep was interrupted: that comes in time, however late."""
    if not (trial.checkpoint_dir.parents[1] / "interrupted").exists():
        trial.callbacks.on("step_end")(lambda state: time.sleep(0.1))
    return saving(config, trial)


def ends_badly(config: dict[str, Any], trial: Trial) -> TrainState:
    """One trial raises, one diverges, and none of the others is to take notice; else they train for long."""
    trainer = trainer_for({**config, "x": 1e200} if trial.number == 3 else config, trial, num_epochs=1000)
    if trial.number == 2:

        @trial.callbacks.on("step_end")
        def fail(state: TrainState) -> None:
            if state.global_step == 10:
                raise ValueError("its own matter")

    return trainer.fit()
