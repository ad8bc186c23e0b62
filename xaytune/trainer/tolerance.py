"""When what is computed in another way is compared with what it is to be equal to, and how near it must be."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from xaytune.trainer.precision import Precision

_TOLERANCES: Final = {torch.float64: 1e-8, torch.float32: 2e-3}
_TOLERANCE_HALF: Final = 0.1
_ROUNDING: Final = {torch.float64: 1e-15, torch.float32: 1e-6}
_ROUNDING_HALF: Final = 1e-2


def is_compared(time: int) -> bool:
    """Whether it is compared this time, counted from 1: the 1st, the 10th, the 100th ..."""
    return str(time).strip("0") == "1"


def tolerance(dtype: torch.dtype, precision: Precision) -> float:
    """Returns how large the distance of losses and gradients may be, by the numbers they are computed in."""
    return _TOLERANCES.get(dtype, _TOLERANCE_HALF) if precision.name == "fp32" else _TOLERANCE_HALF


def rounding(dtype: torch.dtype, precision: Precision) -> float:
    """Returns the size of some roundings of a number, in its own size."""
    return _ROUNDING.get(dtype, _ROUNDING_HALF) if precision.name == "fp32" else _ROUNDING_HALF


def distance(one: Tensor, other: Tensor) -> float:
    """Returns how far values are from others, in the size of these."""
    one, other = one.detach().double(), other.detach().double()
    if torch.equal(one.isfinite(), other.isfinite()) and not one.isfinite().all():
        return 0.0  # both have overflown at the same places
    size = float(other.norm())
    return float((one - other).norm()) / (size if size > 1e-12 else 1.0)
