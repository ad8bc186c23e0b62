"""Loops of one's own, of every shape. Each gets a trial, and returns its weights."""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.models import CLASSES, FEATURES, dataset, loader
from xaytune.testing.training import JudgedRun, weights_of
from xaytune.trainer.current import set_current_trial
from xaytune.trainer.own import OwnLoop

DATA = dataset()
INPUTS, TARGETS = DATA.tensors


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, CLASSES))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> Tensor:
    loss: Tensor = F.cross_entropy(model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def measure(model: nn.Module) -> Tensor:
    """An accuracy whose measurement draws random numbers: examples, and what dropout leaves out."""
    chosen = torch.randint(len(INPUTS), (16,))
    with torch.no_grad():
        right: Tensor = model(INPUTS[chosen]).argmax(1) == TARGETS[chosen]
    return right.float().mean()


def nested(trial: OwnLoop) -> Tensor:
    """Epochs of batches, a scheduler that steps after the evaluation, and a loader with its own generator."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    trial.keep(model=model, optimizer=optimizer, scheduler=scheduler)
    own = torch.Generator().manual_seed(int(torch.randint(99, ())))
    batches = DataLoader(DATA, 8, shuffle=True, generator=own)
    for _ in trial.epochs(4):
        for inputs, targets in trial.steps(batches):
            loss = step(model, optimizer, inputs, targets)
            trial.log(loss=loss)
            if trial.due:
                trial.report(score=measure(model))
        trial.report(score=measure(model))
        scheduler.step()
    return weights_of(model)


def adversarial(trial: OwnLoop) -> Tensor:
    """Two models with an optimizer each, numbers drawn at the top of an epoch, and two loops of steps in it."""
    first, second = nn.Linear(FEATURES, 1), nn.Linear(FEATURES, 1)
    minimizer = torch.optim.SGD(first.parameters(), 0.1, momentum=0.9)
    maximizer = torch.optim.SGD(second.parameters(), 0.1, momentum=0.9, maximize=True)
    trial.keep(first=first, second=second, minimizer=minimizer, maximizer=maximizer)
    for _ in trial.epochs(range(1, 5)):
        noise = torch.randn(())
        for part in (1, 2):
            for inputs, _targets in trial.steps(loader(16)):
                gap = part * noise * (first(inputs) - second(inputs)).tanh().mean()
                for optimizer in (minimizer, maximizer):
                    optimizer.zero_grad()
                gap.backward()
                minimizer.step()
                maximizer.step()
                trial.log(gap=gap)
                if trial.due:
                    trial.report(score=measure(first))
        trial.report(score=first(INPUTS).mean())
    return weights_of(first, second)


def by_steps(trial: OwnLoop) -> Tensor:
    """A number of steps, evaluated at the top of the body, with batches that are drawn (as in nanoGPT)."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 0.02)
    trial.keep(model=model, optimizer=optimizer)
    for index in trial.steps(20):
        if (index % 5 == 0 or trial.due) and trial.report(score=measure(model)):
            break
        for group in optimizer.param_groups:
            group["lr"] = 0.02 / (1 + trial.state.global_step)
        chosen = torch.randint(len(INPUTS), (8,))
        trial.log(loss=step(model, optimizer, INPUTS[chosen], TARGETS[chosen]))
    return weights_of(model)


def by_episodes(trial: OwnLoop) -> Tensor:
    """Episodes, each a step that is reported; what came of them so far is in the memory (as in REINFORCE)."""
    policy = nn.Linear(FEATURES, CLASSES)
    optimizer = torch.optim.Adam(policy.parameters(), 0.05)
    trial.keep(policy=policy, optimizer=optimizer)
    memory = trial.memory
    for _ in trial.steps(itertools.count()):
        chosen = torch.randint(len(INPUTS), (5,))
        drawn = torch.distributions.Categorical(logits=policy(INPUTS[chosen]))
        actions = drawn.sample()
        reward = (actions == TARGETS[chosen]).float()
        optimizer.zero_grad()
        (-drawn.log_prob(actions) * reward).sum().backward()
        optimizer.step()
        memory["running"] = 0.9 * memory.get("running", 0.0) + 0.1 * float(reward.sum())
        trial.log(reward=reward.sum())
        trial.report(score=memory["running"])
        if trial.state.global_step == 30:
            break
    return weights_of(policy)


def by_epochs(trial: OwnLoop) -> Tensor:
    """Epochs without steps: each body is one."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    trial.keep(model=model, optimizer=optimizer)
    for _ in trial.epochs(6):
        step(model, optimizer, INPUTS, TARGETS)
        trial.report(score=measure(model))
    return weights_of(model)


def plain_within_epochs(trial: OwnLoop) -> Tensor:
    """Epochs whose batches the trial does not see; it is told to stop by what `log` returns."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    trial.keep(model=model, optimizer=optimizer)
    for _ in trial.epochs(4):
        for inputs, targets in loader(16):
            if trial.log(loss=step(model, optimizer, inputs, targets)):
                break
        trial.report(score=measure(model))
    return weights_of(model)


def folds(trial: OwnLoop) -> Tensor:
    """Three folds, one after another: models of their own, and what each was worth in the memory."""
    scores: dict[int, float] = trial.memory.setdefault("scores", {})
    for fold in range(3):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        trial.keep(model=model, optimizer=optimizer)
        kept = [index for index in range(len(DATA)) if index % 3 != fold]
        batches = DataLoader(torch.utils.data.Subset(DATA, kept), 8, shuffle=True)
        for _ in trial.epochs(2):
            for inputs, targets in trial.steps(batches):
                trial.log(loss=step(model, optimizer, inputs, targets))
                if trial.due:
                    trial.report(score=measure(model))
            trial.report(score=measure(model))
        if fold not in scores:
            scores[fold] = float(weights_of(model).sum())
    return torch.tensor([*scores.values()])


def at_module_level(trial: OwnLoop) -> Tensor:
    """A script: it is run from its top to its end, and finds its trial by itself."""
    set_current_trial(trial)
    try:
        weights: Tensor = runpy.run_module("tests.trainer.script_of_its_own")["weights"]
    finally:
        set_current_trial(None)
    return weights


def run_of(folder: Path, **options: Any) -> JudgedRun:
    """A judged run that saves what there is of every run."""
    run = JudgedRun(folder, **options)
    run.keep()
    return run
