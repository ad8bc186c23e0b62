"""Lightning: what is gathered in a part of an epoch, which its checkpoints do not hold."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities import move_data_to_device
from torchmetrics import Metric

__all__ = ["gradients_of", "means_of", "metrics_of", "restore_gradients", "restore_metrics", "sums"]


def means_of(trainer: pl.Trainer) -> dict[str, dict[str, torch.Tensor]]:
    """Returns the sums and weights that are being gathered for the metrics of the epoch, by what is logged."""
    found = {}
    for key, result in (trainer._results or {}).items():
        if result.is_tensor and result.meta.on_epoch:
            names = ("value", "cumulated_batch_size") if result.meta.is_mean_reduction else ("value",)
            found[key] = {name: getattr(result, name).clone() for name in names}
    return found


def sums(result: Any) -> bool:
    """Whether what is logged is gathered by adding it up."""
    return bool(result.meta.is_mean_reduction or result.meta.is_sum_reduction)


def metrics_of(module: pl.LightningModule) -> dict[str, dict[str, Any]]:
    """Returns what metrics of torchmetrics have gathered, by their names in the module."""
    metrics = {name: part for name, part in module.named_modules() if isinstance(part, Metric)}
    return {
        name: {**metric.metric_state, "_update_count": metric._update_count} for name, metric in metrics.items()
    }


def restore_metrics(module: pl.LightningModule, saved: dict[str, dict[str, Any]]) -> None:
    """Puts back what metrics of torchmetrics had gathered."""
    parts: dict[str, Any] = dict(module.named_modules())
    for name in saved.keys() & parts.keys():
        for key, value in move_data_to_device(saved[name], parts[name].device).items():
            setattr(parts[name], key, value)


def gradients_of(module: pl.LightningModule) -> dict[str, torch.Tensor]:
    """Returns the gradients of the parameters, by name."""
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def restore_gradients(module: pl.LightningModule, saved: dict[str, torch.Tensor]) -> None:
    """Puts back the gradients of a step that was not done."""
    parameters = dict(module.named_parameters())
    for name in saved.keys() & parameters.keys():
        parameters[name].grad = saved[name].to(parameters[name].device)
