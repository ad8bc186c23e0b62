"""Metrics as they are while training, and as numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

from xaytune.records.history import Row


def capture(value: Any) -> Any:
    """Takes a metric as it stands, without waiting for a device.

    Returns:
        A float; a tensor of its own where the value lies on an accelerator; None for what is no number.
    """
    if isinstance(value, float):
        return float(value)
    if hasattr(value, "detach"):
        if value.numel() != 1 or value.is_complex():
            return None
        # A copy: the loop may go on to change the tensor in place. float() warns of a loss with its graph.
        return float(value.item()) if value.device.type == "cpu" else value.detach().clone().reshape(())
    try:
        if hasattr(value, "dtype") and hasattr(value, "item"):
            value = value.item()  # of an array with one element
        return float(value) if isinstance(value, (Real, Decimal)) else None
    except (TypeError, ValueError, OverflowError):
        return None


def materialize(rows: Sequence[Row], *, lenient: bool) -> set[str]:
    """Turns the captured metrics of rows into floats, in place, waiting for the device once.

    What is no number is left out.

    Args:
        rows: The rows.
        lenient: Leave out what cannot be read any more, as on a device after a failed assertion.

    Returns:
        The names of what is no number.
    """
    left_out: set[str] = set()
    others = [
        (row.metrics, name, value)
        for row in rows
        for name, value in row.metrics.items()
        if type(value) is not float
    ]
    waiting: dict[tuple[Any, Any], list[tuple[dict[str, Any], str, Any]]] = defaultdict(list)
    for metrics, name, value in others:
        if value is None:
            del metrics[name]
            left_out.add(name)
        else:
            tensor: Any = value
            waiting[tensor.device, tensor.dtype].append((metrics, name, tensor))
    for (device, _), entries in waiting.items():
        try:
            values = _read(device, [tensor for _, _, tensor in entries])
        except Exception:
            if not lenient:
                raise
            for metrics, name, _ in entries:
                del metrics[name]
        else:
            for (metrics, name, _), value in zip(entries, values, strict=True):
                metrics[name] = float(value)
    return left_out


def readable(metrics: Mapping[str, Any], *, lenient: bool = False) -> dict[str, float]:
    """Returns the metrics that are numbers, as floats; this waits for the device.

    Args:
        metrics: Values by name.
        lenient: Leave out what cannot be read, too.
    """
    found = {}
    for name, value in metrics.items():
        try:
            captured = capture(value)
            if captured is not None:
                found[name] = float(captured)
        except Exception:
            if not lenient:
                raise
    return found


def _read(device: Any, tensors: Sequence[Any]) -> list[float]:
    import torch

    # Training may use a stream of its own: the copies must have been made.
    torch.accelerator.synchronize(device)
    values: list[float] = torch.stack(list(tensors)).tolist()
    return values
