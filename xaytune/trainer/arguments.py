"""What a Trainer refuses when it is made: what it could not do rightly."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xaytune.trainer.batches import describe
from xaytune.trainer.plain import plain


def require(condition: bool, message: str) -> None:
    """Raises a ValueError with the message, unless the condition holds."""
    if not condition:
        raise ValueError(message)


def check_numbers(
    num_epochs: int | None,
    max_steps: int,
    accumulate: int,
    eval_every: Any,
    lr_interval: str,
    clip_grad_norm: float | None,
) -> None:
    """Checks what is a number or one of a few words."""
    require(
        num_epochs is None or _is_count(num_epochs),
        f"num_epochs must be a whole number of at least 1 (got {num_epochs})",
    )
    require(
        _is_count(max_steps) or (max_steps == -1 and not isinstance(max_steps, float)),
        f"max_steps must be -1 or a whole number of at least 1 (got {max_steps})",
    )
    require(_is_count(accumulate), f"accumulate must be a whole number of at least 1 (got {accumulate})")
    require(
        eval_every == "epoch" or _is_count(eval_every),
        f"eval_every must be 'epoch' or a number of steps (got {eval_every!r})",
    )
    require(lr_interval in ("epoch", "step"), f"lr_interval must be 'epoch' or 'step' (got {lr_interval!r})")
    require(clip_grad_norm is None or clip_grad_norm > 0, f"clip_grad_norm must be above 0 (got {clip_grad_norm})")


def check_evaluation(eval_loader: Any, eval_fn: Any, eval_metrics: Any, loss_fn: Any, training_step: Any) -> None:
    """Checks that what is to be measured can be."""
    require(eval_fn is None or eval_loader is not None, "eval_fn needs an eval_loader to measure the model on")
    require(
        not isinstance(eval_loader, Iterator),
        f"eval_loader is {describe(eval_loader)}, used up after one evaluation: give what can be iterated anew",
    )
    if not eval_metrics:
        return
    require(eval_loader is not None, "eval_metrics need an eval_loader to be measured on")
    require(eval_fn is None, "give eval_metrics or eval_fn, not both: eval_fn measures all by itself")
    require(
        training_step is None and loss_fn is not None,
        "eval_metrics are given the model's outputs and the targets, which only a loss_fn's batches tell: with a "
        "training_step, measure them in eval_fn",
    )
    for name, metric in eval_metrics.items():
        lacking = [
            method for method in ("update", "compute", "reset") if not callable(getattr(metric, method, None))
        ]
        if isinstance(metric, type) or lacking:
            raise TypeError(f"eval_metrics[{name!r}] must have update, compute and reset (got {metric!r})")


def check_trial(trial: Any, *, callbacks: Any, checkpoint_dir: Any, run: str | None, resume: bool) -> None:
    """Checks that nothing is given that a trial has itself."""
    require(
        trial is None or run is None,
        "give run or a trial, not both: a trial is one run; what else there is to train, such as a first phase, "
        "is trained by a Trainer that is not given the trial",
    )
    require(run is None or checkpoint_dir is not None, "run names a folder in checkpoint_dir, which is not given")
    require(
        run is None or (run not in ("", ".", "..") and "/" not in run),
        f"run must be a folder's name (got {run!r})",
    )
    if trial is None:
        return
    require(callbacks is None, "give callbacks or a trial, not both: a trial has its own callbacks")
    require(checkpoint_dir is None, "give checkpoint_dir or a trial, not both")
    require(
        resume, "give resume=False or a trial, not both: a trial that was paused or restarted has to be resumed"
    )


def check_optimizer(optimizer: Any, model: nn.Module, kept: Iterator[Tensor], *, saves: bool) -> None:
    """Checks that the optimizer can be stepped, and that all it trains is saved.

    Args:
        optimizer: The optimizer.
        model: The model.
        kept: Parameters of modules that are saved beside the model.
        saves: Whether anything is saved at all.

    Raises:
        TypeError: It cannot be stepped, or has an option that a checkpoint could not hold.
        ValueError: It trains what is not the model's.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer (got {describe(optimizer)}); for several, write a loop of "
            "your own, or use one with several groups of parameters"
        )
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TypeError(
            f"{type(optimizer).__name__} computes the loss several times in a step, which the Trainer does not: "
            "write a loop of your own"
        )
    saved = {id(parameter) for parameters in (model.parameters(), kept) for parameter in parameters}
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    require(
        any(id(parameter) in saved for parameter in trained),
        "the optimizer has no parameter of the model: make it over the parameters of the model that you give",
    )
    if not saves:
        return
    plain([group | {"params": []} for group in optimizer.param_groups], "the optimizer's param_groups")
    unsaved = [tuple(parameter.shape) for parameter in trained if id(parameter) not in saved]
    require(
        not unsaved,
        f"the optimizer trains {len(unsaved)} parameters that are not the model's and would not be saved, of the "
        f"shapes {', '.join(map(str, unsaved[:5]))}: give the module that has them (a loss?) as "
        "keep={name: module}",
    )


def check_scheduler(scheduler: Any, optimizer: torch.optim.Optimizer) -> None:
    """Checks that a scheduler sets the rates of the optimizer, as far as it says whose it sets."""
    groups = getattr(getattr(scheduler, "optimizer", None), "param_groups", optimizer.param_groups)
    require(
        groups is optimizer.param_groups,
        "lr_scheduler sets the learning rates of another optimizer: make it over the optimizer that you give",
    )


def check_folder(checkpoint_dir: str | Path | None) -> None:
    """Checks that checkpoints can be written into a folder."""
    require(
        checkpoint_dir is None or not Path(checkpoint_dir).is_file(),
        f"checkpoint_dir must be a folder: {checkpoint_dir} is a file",
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
