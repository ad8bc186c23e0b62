"""A loop of one's own with Accelerate, which keeps the state of all that it has prepared."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from tests.models import loader
from tests.trainer.own_loops import measure, network
from xaytune.testing.training import weights_of
from xaytune.trainer.own import OwnLoop


def train(trial: OwnLoop, mixed_precision: str = "no") -> Tensor:
    accelerator = Accelerator(cpu=True, mixed_precision=mixed_precision)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model, optimizer, batches = accelerator.prepare(model, optimizer, loader())
    trial.keep(accelerator=accelerator)
    for _ in trial.epochs(4):
        for inputs, targets in trial.steps(batches):
            with accelerator.autocast():
                loss = torch.nn.functional.cross_entropy(model(inputs), targets)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            trial.log(loss=loss)
            if trial.due:
                trial.report(score=measure(model))
        trial.report(score=measure(model))
    accelerator.free_memory()
    return weights_of(model)


def half_precision(trial: OwnLoop) -> Tensor:
    return train(trial, "bf16")
