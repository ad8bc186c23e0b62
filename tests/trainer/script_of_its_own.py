"""A script whose model, optimizer and loop are at the top of its module."""

import torch

import xaytune
from tests.models import loader
from tests.trainer.own_loops import measure, network, step
from xaytune.testing.training import weights_of

trial = xaytune.current_trial()
model = network()
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
trial.keep(model=model, optimizer=optimizer)

for _ in trial.epochs(4):
    for inputs, targets in trial.steps(loader(16)):
        loss = step(model, optimizer, inputs, targets)
        trial.log(loss=loss)
        if trial.due:
            trial.report(score=measure(model))
    trial.report(score=measure(model))
weights = weights_of(model)
