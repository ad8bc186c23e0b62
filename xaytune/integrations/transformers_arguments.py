"""Hugging Face: a run that goes on from the checkpoint of another one trains with its own arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.optim.lr_scheduler import LambdaLR

from xaytune.trainer import hyperparameters
from xaytune.trainer.made_with import has_other_functions

__all__ = ["ARGUMENTS", "follow_arguments", "follow_functions"]

# Arguments that the Trainer makes its optimizer with.
ARGUMENTS = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")


def follow_arguments(
    optimizer: torch.optim.Optimizer, now: Mapping[str, float], then: Mapping[str, float]
) -> None:
    """Gives the optimizer that the Trainer has made the arguments of this run, where the saved run had others."""
    names = {"weight_decay": "weight_decay", "eps": "adam_epsilon"}
    for at, group in enumerate(optimizer.param_groups):
        for rate in hyperparameters.RATES & group.keys() if then["learning_rate"] else ():
            hyperparameters.put(group, rate, group[rate] * now["learning_rate"] / then["learning_rate"])
        for name, argument in names.items():
            # The second group is of what does not decay.
            if group.get(name) == then[argument] and (group[name] or at == 0):
                group[name] = now[argument]
        if tuple(group.get("betas", ())) == (then["adam_beta1"], then["adam_beta2"]):
            group["betas"] = (now["adam_beta1"], now["adam_beta2"])


def follow_functions(scheduler: LambdaLR, rates: Sequence[float]) -> None:
    """Gives a schedule that the Trainer has made the rates that it has in this run, at this step."""
    scheduler.base_lrs = list(rates)
    if not has_other_functions(scheduler):
        return
    groups = scheduler.optimizer.param_groups
    for group, rate, function in zip(groups, rates, scheduler.lr_lambdas, strict=True):
        hyperparameters.put(group, "initial_lr", rate)
        hyperparameters.put(group, "lr", rate * function(scheduler.last_epoch))
    scheduler._last_lr = [group["lr"] for group in groups]
