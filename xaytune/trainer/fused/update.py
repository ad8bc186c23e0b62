"""Optimizer steps of many members at once: torch's SGD, Adam and AdamW with hyperparameters of each member's own.

Values are (members, numbers): a row is a member's. The formulas are torch's (``torch.optim.sgd``,
``torch.optim.adam``), so that a member's row is what its own optimizer would make of it, to rounding.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

# Hyperparameters that may differ between members.
COLUMNS: Final[Mapping[type[Optimizer], tuple[str, ...]]] = {
    SGD: ("lr", "weight_decay", "momentum"),
    Adam: ("lr", "weight_decay", "betas", "eps"),
    AdamW: ("lr", "weight_decay", "betas", "eps"),
}
_READERS: Final[Mapping[type[Optimizer], Callable[[Mapping[str, Any]], tuple[Any, ...]]]] = {
    kind: operator.itemgetter(*names) for kind, names in COLUMNS.items()
}
# What an optimizer keeps of each parameter, beside the count of its steps.
STATES: Final[Mapping[type[Optimizer], tuple[str, ...]]] = {
    SGD: ("momentum_buffer",),
    Adam: ("exp_avg", "exp_avg_sq"),
    AdamW: ("exp_avg", "exp_avg_sq"),
}
# Options that are the same for all members.
_SHARED_OPTIONS: Final = ("nesterov", "decoupled_weight_decay")


def shared_options(group: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a group of parameters that all members have in common."""
    return {name: group[name] for name in _SHARED_OPTIONS if name in group}


class Hyper:
    """The hyperparameters of members, for one group of parameters each.

    Args:
        kind: The optimizer's class.
        groups: The group of each member's optimizer.
        like: Of the numbers and the device of the parameters.

    Attributes:
        read: What was read from the groups.
        exact: A row for each member, a column for each hyperparameter, in float64.
        columns: The same as columns (members, 1), in the numbers of the parameters.
        decays: Whether all members decay their weights; None if some do.
        momenta: Whether all members of SGD have a momentum; None if some have.
    """

    def __init__(self, kind: type[Optimizer], groups: Sequence[Mapping[str, Any]], like: Tensor) -> None:
        self.read = read(kind, groups)
        rows = self.read if kind is SGD else [(rate, decay, *betas, eps) for rate, decay, betas, eps in self.read]
        self.exact = torch.tensor(rows, dtype=torch.float64, device=like.device)
        self.columns = self.exact.to(like.dtype).split(1, dim=1)
        self.decays = _whether([bool(row[1]) for row in rows])
        self.momenta = _whether([bool(row[2]) for row in rows])

    def on(self, exact: Tensor) -> Hyper:
        """Returns the same, with the numbers in another tensor."""
        if exact is self.exact:
            return self
        other = copy.copy(self)
        other.exact, other.columns = exact, exact.to(self.columns[0].dtype).split(1, dim=1)
        return other


def _whether(some: Sequence[bool]) -> bool | None:
    """Whether it is so for all; None if only for some."""
    return all(some) if all(some) == any(some) else None


def _decayed(gradients: Tensor, values: Tensor, decays: Tensor, hyper: Hyper) -> Tensor:
    """Returns gradients with those of the decay; an infinite weight that does not decay has none."""
    if hyper.decays is False:
        return gradients
    decayed = torch.addcmul(gradients, values, decays)
    return decayed if hyper.decays else torch.where(decays != 0, decayed, gradients)


def read(kind: type[Optimizer], groups: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """Returns the hyperparameters of groups as they are now."""
    return list(map(_READERS[kind], groups))


def clip(gradients: Tensor, norms: Tensor, largest: Tensor) -> None:
    """Scales gradients (members, numbers) in place: the norm of each member is at most its largest (members,).

    As ``torch.nn.utils.clip_grads_with_norm_`` does it.
    """
    gradients.mul_((largest / (norms + 1e-6)).clamp(max=1.0).unsqueeze(1))


def prepare(
    kind: type[Optimizer],
    options: Mapping[str, Any],
    values: Tensor,
    gradients: Tensor,
    states: Mapping[str, Tensor],
    hyper: Hyper,
    counts: Tensor,
) -> Callable[[], None]:
    """Prepares a step, and returns what takes it, in place.

    All memory is allocated here. The function that is returned allocates none, so a step is never left half done.

    Args:
        kind: The optimizer's class.
        options: Those that all members share.
        values: Parameters.
        gradients: Their gradients, which stay as they are.
        states: What the optimizer keeps, by name.
        hyper: Hyperparameters.
        counts: Steps of each member with this one, (members, 1) in float64.
    """
    if kind is SGD:
        return _sgd(values, gradients, states["momentum_buffer"], hyper, nesterov=bool(options.get("nesterov")))
    return _adam(values, gradients, states, hyper, counts, decoupled=bool(options.get("decoupled_weight_decay")))


def _sgd(
    values: Tensor, gradients: Tensor, buffers: Tensor, hyper: Hyper, *, nesterov: bool
) -> Callable[[], None]:
    rates, decays, momenta = hyper.columns
    gradients = _decayed(gradients, values, decays, hyper)
    if hyper.momenta:
        ahead = torch.empty_like(gradients) if nesterov else buffers

        def take() -> None:
            buffers.mul_(momenta).add_(gradients)
            if nesterov:
                torch.addcmul(gradients, buffers, momenta, out=ahead)
            values.addcmul_(ahead, rates, value=-1)

        return take
    moved, kept = gradients, buffers
    if hyper.momenta is None:  # the buffers of those without stay as they are
        has = momenta != 0
        kept = torch.where(has, buffers * momenta + gradients, buffers)
        moved = torch.where(has, torch.addcmul(gradients, kept, momenta) if nesterov else kept, gradients)

    def take_some() -> None:
        if kept is not buffers:
            buffers.copy_(kept)
        values.addcmul_(moved, rates, value=-1)

    return take_some


def _adam(
    values: Tensor,
    gradients: Tensor,
    states: Mapping[str, Tensor],
    hyper: Hyper,
    counts: Tensor,
    *,
    decoupled: bool,
) -> Callable[[], None]:
    _, decays, _, beta2, eps = hyper.columns
    rates, exact_decays, exact_beta1, exact_beta2, _ = hyper.exact.split(1, dim=1)
    averages, squares = states["exp_avg"], states["exp_avg_sq"]
    kind = values.dtype
    left = (1 - rates * exact_decays).to(kind) if decoupled and hyper.decays is not False else None
    if not decoupled:
        gradients = _decayed(gradients, values, decays, hyper)
    new = (1 - exact_beta1).to(kind)
    sizes = (rates / (1 - exact_beta1**counts)).to(kind)
    roots = (1 - exact_beta2**counts).sqrt().to(kind)
    scratch = gradients * (1 - exact_beta2).to(kind)

    def take() -> None:
        if left is not None:
            values.mul_(left)
        averages.lerp_(gradients, new)
        squares.mul_(beta2).addcmul_(gradients, scratch)
        torch.sqrt(squares, out=scratch).div_(roots).add_(eps)
        values.addcmul_(torch.div(averages, scratch, out=scratch), sizes, value=-1)

    return take
