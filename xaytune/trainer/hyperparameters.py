"""Hyperparameters of an optimizer: those that a run began with, and new ones in place of saved ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from xaytune.trainer.plain import plain

# What schedulers of torch keep in the groups of an optimizer.
SCHEDULED: Final = frozenset(
    {"lr", "initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum", "min_momentum"}
)
# What they cycle besides, of the optimizer's own.
CYCLED: Final = frozenset({"momentum", "betas"})
RATES: Final = frozenset({"lr", "initial_lr"})


def of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Returns the hyperparameters of each group of parameters, in plain values; objects are left out."""
    return [dict(_of_group(group)) for group in optimizer.param_groups]


def follow(optimizer: torch.optim.Optimizer, fresh: list[dict[str, Any]], begun: list[dict[str, Any]]) -> None:
    """Puts hyperparameters in the place of loaded ones, where a configuration has changed.

    A learning rate that was changed during the run keeps its place: it changes by as much as the rate that the
    run begins with.

    Args:
        optimizer: Its state was loaded.
        fresh: What the optimizer was made with.
        begun: What the saved run's was made with.
    """
    for group, now, then in zip(optimizer.param_groups, fresh, begun, strict=True):
        for name in now.keys() & then.keys():
            if now[name] == then[name]:
                continue
            scheduled = name in RATES and then[name] and _value(group[name]) != then[name]
            put(group, name, _value(group[name]) * now[name] / then[name] if scheduled else now[name])


def put_rates(optimizer: torch.optim.Optimizer, fresh: list[dict[str, Any]]) -> None:
    """Gives groups the rates, and what else schedulers change there, that the optimizer was made with."""
    for group, begun in zip(optimizer.param_groups, fresh, strict=True):
        for name in begun.keys() & (SCHEDULED | CYCLED):
            put(group, name, begun[name])


def put(group: dict[str, Any], name: str, value: Any) -> None:
    """Sets a hyperparameter of a group; one that is a tensor (a learning rate of a captured step) stays one."""
    if isinstance(group.get(name), Tensor):
        group[name].fill_(value)
    else:
        group[name] = value


def note_stepped(optimizer: torch.optim.Optimizer) -> None:
    """Notes that an optimizer has stepped where its schedulers do not see it: else they warn, falsely."""
    optimizer._opt_called = True  # type: ignore[attr-defined]


def _of_group(group: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in group.items():
        if name != "params":
            with contextlib.suppress(TypeError):
                yield name, _value(value)


def _value(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else plain(value)
