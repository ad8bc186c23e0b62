"""What a batch costs: the loss of a supervised model, and its evaluation over a loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xaytune.trainer.data import to_device

__all__ = ["BatchLoss", "LossFn", "TrainingStep", "batch_loss", "evaluate"]

LossFn = Callable[[Any, Any], Tensor]
TrainingStep = Callable[[nn.Module, Any], "Tensor | Mapping[str, Any]"]


class BatchLoss(NamedTuple):
    """The loss of a batch (0-d), with what it was computed from where that is known."""

    loss: Tensor
    outputs: Any = None
    targets: Any = None
    metrics: Mapping[str, Any] = {}


def batch_loss(
    model: nn.Module, batch: Any, loss_fn: LossFn | None, training_step: TrainingStep | None
) -> BatchLoss:
    """Computes the loss of one batch.

    A `training_step` decides alone. Else a tuple or list is ``(*inputs, target)``; a dict holds the model's
    keyword arguments, and its ``"labels"`` are the target of `loss_fn`; without a `loss_fn` the model gets
    the labels too and returns its own loss, under the key or attribute ``loss``.

    Raises:
        TypeError: The batch has none of these forms, or no loss came of it.
    """
    if training_step is not None:
        returned = training_step(model, batch)
        if isinstance(returned, Tensor):
            return BatchLoss(returned)
        if isinstance(returned, Mapping) and isinstance(returned.get("loss"), Tensor):
            metrics = {name: value for name, value in returned.items() if name != "loss"}
            return BatchLoss(returned["loss"], metrics=metrics)
        raise TypeError(
            "training_step must return the loss as a tensor, or a dict of metrics with the tensor 'loss' "
            f"(got {_describe(returned)})"
        )
    if isinstance(batch, Mapping):
        return _keyword_loss(model, batch, loss_fn)
    if isinstance(batch, (tuple, list)) and len(batch) >= 2 and loss_fn is not None:
        *inputs, targets = batch
        outputs = model(*inputs)
        return BatchLoss(loss_fn(outputs, targets), outputs, targets)
    raise TypeError(
        "a batch must be (*inputs, target) with a loss_fn, or a dict of the model's arguments; for anything "
        f"else give a training_step (got {_describe(batch)}, loss_fn={loss_fn!r})"
    )


def _keyword_loss(model: nn.Module, batch: Mapping[str, Any], loss_fn: LossFn | None) -> BatchLoss:
    if loss_fn is None:
        outputs = model(**batch)
        loss = outputs["loss"] if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
        if not isinstance(loss, Tensor):
            raise TypeError(f"without a loss_fn the model must return its loss (got {_describe(outputs)})")
        return BatchLoss(loss, outputs)
    if "labels" not in batch:
        raise TypeError(f"a dict batch needs 'labels' for the loss_fn (got {_describe(batch)})")
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    outputs = model(**inputs)
    return BatchLoss(loss_fn(outputs, batch["labels"]), outputs, batch["labels"])


def evaluate(
    model: nn.Module,
    loader: Iterable[Any],
    loss_fn: LossFn | None,
    training_step: TrainingStep | None,
    device: torch.device,
) -> dict[str, float]:
    """Evaluates a model over a loader, without gradients, and waits for the device once, at the end.

    Returns:
        ``eval_loss``, the mean over batches weighted by their size, and ``eval_accuracy`` (0 to 1) where the
        outputs are scores of classes and the targets are their indices.
    """
    total_loss = torch.zeros((), dtype=torch.float64)
    correct: Tensor | None = None
    weight = judged = 0
    for batch in loader:
        batch = to_device(batch, device)
        result = batch_loss(model, batch, loss_fn, training_step)
        size = _batch_size(batch)
        total_loss = total_loss.to(result.loss.device) + result.loss.detach() * size
        weight += size
        hits = _hits(result.outputs, result.targets)
        if hits is not None:
            correct = hits.sum() if correct is None else correct + hits.sum()
            judged += hits.numel()
    metrics = {"eval_loss": float(total_loss) / weight if weight else float("nan")}
    if correct is not None:
        metrics["eval_accuracy"] = float(correct) / judged
    return metrics


def _batch_size(batch: Any) -> int:
    if isinstance(batch, Tensor):
        return batch.shape[0] if batch.dim() else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch
    return next((part.shape[0] for part in parts if isinstance(part, Tensor) and part.dim()), 1)


def _hits(outputs: Any, targets: Any) -> Tensor | None:
    """Where the highest score is the target's; None where these are no scores of classes."""
    if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor)):
        return None
    if targets.is_floating_point() or outputs.dim() != targets.dim() + 1:
        return None
    if outputs.shape[:-1] == targets.shape:  # (..., classes)
        return outputs.argmax(-1) == targets
    if outputs.shape[:1] + outputs.shape[2:] == targets.shape:  # (batch, classes, ...)
        return outputs.argmax(1) == targets
    return None


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict with the keys {', '.join(map(str, value))}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
