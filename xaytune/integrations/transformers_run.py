"""Hugging Face: what the Trainer makes for a run, its arguments, loader and schedules, made to serve a trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from torch.utils.data import DataLoader
from transformers import TrainerState, TrainingArguments, optimization

from xaytune.trainer import hyperparameters
from xaytune.trainer.made_with import has_other_functions

__all__ = ["ARGUMENTS", "empty", "follow_arguments", "follow_functions", "leave_out_next_step", "steps_per_epoch"]

# Arguments that the Trainer makes its optimizer with.
ARGUMENTS = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
_STEPPED_BY_EVALUATIONS: Final = (ReduceLROnPlateau, getattr(optimization, "GreedyLR", ReduceLROnPlateau))


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


def steps_per_epoch(args: TrainingArguments, state: TrainerState, loader: Any) -> tuple[int, bool]:
    """Returns the optimizer steps of an epoch, as the Trainer counts them, and whether that is only the most."""
    try:
        batches = len(loader)
    except TypeError:  # a stream: as many as it has, and then from its beginning
        return int(state.max_steps), True
    return max(math.ceil(batches / args.gradient_accumulation_steps), 1), False


def empty(args: TrainingArguments, loader: Any) -> None:
    """Leaves a run nothing to train: the Trainer looks whether it is to stop only after a step."""
    loader.base_dataloader = DataLoader[Any]([])  # type: ignore[arg-type]
    args.ignore_data_skip = True


def leave_out_next_step(scheduler: Any) -> None:
    """Has a schedule by evaluations leave out the step that the Trainer takes next, after this evaluation."""
    if not isinstance(scheduler, _STEPPED_BY_EVALUATIONS):
        return
    own = vars(scheduler)  # which is saved with it: nothing of this may stay

    def leave_out(*_: Any, **__: Any) -> None:
        del own["step"]

    own["step"] = leave_out
