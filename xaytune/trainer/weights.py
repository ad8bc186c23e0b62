"""Weights of batches in means over them; some weigh nothing, and their own means are NaN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Shares:
    """Weights of the batches of a window, in weights of the first one that weighs anything.

    Attributes:
        given: Those of the batches so far.
    """

    def __init__(self) -> None:
        self.given: list[Any] = []
        self._first: Any = 0

    def of(self, weight: Any) -> Any:
        """Returns the share of the next batch, as a number or on the weight's device."""
        self._first = above_zero(self._first, weight)
        self.given.append(weight / above_zero(self._first, 1))
        return self.given[-1]


def above_zero(weight: Any, other: Any) -> Any:
    """Returns a weight where it is above 0, else another one."""
    if isinstance(weight, Tensor):
        return torch.where(weight > 0, weight, other)
    return weight if weight > 0 else other


def weighted(value: Any, weight: Any) -> Any:
    """Returns a value times its weight: what weighs nothing counts nothing, be it NaN, and gets no gradients."""
    product = value * weight
    if isinstance(weight, Tensor):
        return product.where((weight > 0).to(product.device), 0.0)
    if weight > 0:
        return product
    return product.masked_fill(torch.ones_like(product, dtype=torch.bool), 0) if isinstance(value, Tensor) else 0.0
