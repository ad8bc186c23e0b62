"""Metrics: what is taken for one, and how it is kept, saved and shown."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from xaytune.trainer.plain import plain


def number(value: Any) -> Any:
    """Returns a metric as it is kept: numbers of numpy and others as python's, all else as it is."""
    return plain(value) if isinstance(value, (np.generic, np.ndarray, Fraction, Decimal)) else value


def measured(name: str, value: Any) -> Any:
    """Returns a metric as handlers are given it: a number, or a 0-d tensor where that would wait for a device.

    Raises:
        TypeError: It is no number.
    """
    if isinstance(value, torch.Tensor) and not value.is_cpu and value.numel() == 1:
        return value.detach().clone().reshape(())  # a copy: the loop may change it in place
    try:
        taken = value.item() if hasattr(value, "item") else number(value)  # torch's and numpy's
    except (RuntimeError, ValueError):  # of more than one element
        taken = value
    if isinstance(taken, (bool, int, float)):
        return taken
    shape = f" of shape {tuple(value.shape)}" if hasattr(value, "shape") else ""
    raise TypeError(
        f"the metric {name!r} must be a number, or a tensor with one element (got a {type(value).__name__}{shape})"
    )


def shown(value: Any) -> str:
    """Writes a metric: a number with six digits, anything else as it is."""
    try:
        return f"{float(value):.6g}"
    except (TypeError, ValueError, RuntimeError):
        return str(value)


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Returns metrics as plain values; here tensors of one number are read from the device.

    The text of an error is left out: it is of a run that was broken off.
    """
    return {
        name: value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else plain(value, name)
        for name, value in metrics.items()
        if name != "error" or not isinstance(value, str)
    }
