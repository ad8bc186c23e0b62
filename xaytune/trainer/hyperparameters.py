"""Hyperparameters of an optimizer: those that a run began with, and new ones in place of saved ones."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["follow", "of"]

_RATES = ("lr", "initial_lr")


def of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Returns the hyperparameters of each group of parameters."""
    return [
        {name: _plain(value) for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]


def follow(
    optimizer: torch.optim.Optimizer, lr_scheduler: Any, fresh: list[dict[str, Any]], begun: list[dict[str, Any]]
) -> None:
    """Puts hyperparameters in the place of loaded ones, where a configuration has changed.

    A learning rate keeps its place in its schedule: it changes by as much as the rate that the run begins with.

    Args:
        optimizer: Its state was loaded.
        lr_scheduler: Likewise; None if there is none.
        fresh: What the optimizer was made with.
        begun: What the saved run's was made with.
    """
    for index, (group, now, then) in enumerate(zip(optimizer.param_groups, fresh, begun, strict=True)):
        for name in now.keys() & then.keys():
            if now[name] == then[name]:
                continue
            scheduled = name in _RATES and group[name] != then[name]
            group[name] = group[name] * now[name] / then[name] if scheduled else now[name]
        base_rates = getattr(lr_scheduler, "base_lrs", None)
        if base_rates is not None and now["lr"] != then["lr"]:
            base_rates[index] = now.get("initial_lr", now["lr"])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value
