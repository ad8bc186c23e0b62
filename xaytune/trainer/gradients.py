"""The gradients of a run: which are zeroed, which are measured and clipped.

Zeroed are all that the model and the optimizer have; measured and clipped are the optimizer's, for they are what a
step is made of.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def optimized(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Returns the parameters that the optimizer has a gradient for."""
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def not_optimized(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Returns the parameters of a model that its optimizer does not have."""
    known = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [p for p in model.parameters() if id(p) not in known]


def norm(parameters: list[Tensor]) -> Tensor:
    """Returns the L2 norm of all gradients of the parameters together (0-d, on their device)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if any(gradient.is_sparse for gradient in gradients):
        # Rows that were met several times stand there several times, until they are added up.
        gradients = [g.coalesce().values() if g.is_sparse else g for g in gradients]
    if any(gradient.dtype is not gradients[0].dtype for gradient in gradients):
        gradients = [gradient.float() for gradient in gradients]
    return get_total_norm(gradients)


def clip(parameters: list[Tensor], largest: float, total: Tensor) -> None:
    """Scales the gradients of the parameters so that their norm, which is `total`, is at most `largest`."""
    sparse = [p for p in parameters if p.grad is not None and p.grad.is_sparse]
    if not sparse:
        clip_grads_with_norm_(parameters, largest, total)
        return
    clip_grads_with_norm_([p for p in parameters if p.grad is not None and not p.grad.is_sparse], largest, total)
    factor = (largest / (total + 1e-6)).clamp(max=1.0)  # as torch has it
    for parameter in sparse:
        assert parameter.grad is not None
        parameter.grad.mul_(factor.to(parameter.grad.device))


def scale(parameters: list[Tensor], factor: float | Tensor) -> None:
    """Multiplies the gradients of the parameters by a factor."""
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.mul_(factor)
