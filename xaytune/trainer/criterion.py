"""What a batch costs: its loss, and how much it counts in a mean over batches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xaytune.trainer.batches import BatchSize, batch_size, describe

LossFn = Callable[[Any, Any], Tensor]
TrainingStep = Callable[[nn.Module, Any], "Tensor | Mapping[str, Any]"]

_OVER_CLASSES = (F.cross_entropy, F.nll_loss)
_OVER_CLASSES_MODULES = (nn.CrossEntropyLoss, nn.NLLLoss)
_IGNORED = -100  # what torch's losses over classes leave out if they are told nothing else


class BatchLoss(NamedTuple):
    """The loss of a batch (0-d), with what it was computed from where that is known."""

    loss: Tensor
    outputs: Any = None
    targets: Any = None
    metrics: Mapping[str, Any] = {}


class Criterion:
    """The loss of a batch, by a `loss_fn`, a `training_step`, or the model itself.

    Attributes:
        over_classes: Whether the loss is known to be torch's cross entropy or negative log likelihood, which
            take outputs (N, C, ...) and targets (N, ...).
        ignore_index: The target that the loss leaves out.
        loss_fn: As it was given; and so the others.

    Args:
        loss_fn: Takes the model's outputs and the targets, and returns a 0-d tensor.
        training_step: Takes the model and a batch, and returns the loss, or a dict with it.
        size: Tells how much a batch counts; without it, the number of its examples.

    Raises:
        ValueError: The loss is not reduced to one number.
    """

    def __init__(
        self, loss_fn: LossFn | None, training_step: TrainingStep | None = None, size: BatchSize | None = None
    ) -> None:
        options = loss_fn.keywords if isinstance(loss_fn, functools.partial) else {}
        function = loss_fn.func if isinstance(loss_fn, functools.partial) else loss_fn
        self.over_classes = function in _OVER_CLASSES or isinstance(loss_fn, _OVER_CLASSES_MODULES)
        ignored = options.get("ignore_index", getattr(loss_fn, "ignore_index", None))
        self.ignore_index = _IGNORED if ignored is None else int(ignored)
        self._class_weights = (
            options.get("weight", getattr(loss_fn, "weight", None)) if self.over_classes else None
        )
        reduction = options.get("reduction", getattr(loss_fn, "reduction", "mean"))
        if reduction == "none":
            raise ValueError("loss_fn must return one number: its reduction is 'none', use 'mean'")
        if reduction == "sum":
            raise ValueError(
                "loss_fn must be a mean: its reduction is 'sum', so that values and gradients depend on the size "
                "of the batches; use 'mean', or divide the sum yourself in a training_step"
            )
        self._averages = reduction == "mean"
        self.loss_fn, self.training_step, self.size = loss_fn, training_step, size

    def loss(self, model: nn.Module, batch: Any) -> BatchLoss:
        """Computes the loss of one batch.

        A `training_step` decides alone. Else a tuple or list is ``(*inputs, target)``; a dict holds the model's
        keyword arguments, and its ``"labels"`` are the target of `loss_fn`; without a `loss_fn` the model gets
        the labels too and returns its own loss, under the key or attribute ``loss``.

        Raises:
            TypeError: The batch has none of these forms, or no 0-d loss came of it.
        """
        if self.training_step is not None:
            result = self._of_training_step(model, batch, self.training_step)
        elif isinstance(batch, Mapping):
            result = self._of_keywords(model, batch)
        elif isinstance(batch, (tuple, list)) and len(batch) >= 2 and self.loss_fn is not None:
            *inputs, targets = batch
            outputs = model(*inputs)
            result = BatchLoss(self.loss_fn(outputs, targets), outputs, targets)
        else:
            raise TypeError(
                "a batch must be (*inputs, target) with a loss_fn, or a dict of the model's arguments; for "
                f"anything else give a training_step (got {describe(batch)}, loss_fn={self.loss_fn!r})"
            )
        if not isinstance(result.loss, Tensor) or result.loss.dim():
            raise TypeError(
                f"the loss must be one number, a 0-d tensor (got {describe(result.loss)}); average it, and return "
                "what else there is to report from a training_step, as a dict with the loss under 'loss'"
            )
        return result

    def weight(self, batch: Any, result: BatchLoss) -> int | float | Tensor:
        """Returns how much a batch counts in a mean over batches.

        It is what the loss averages over, where that is known: for torch's losses over classes the targets that
        are not ignored, by the weights of their classes (0-d, on their device). Else it is the number of
        examples, or what the user's `batch_size` says.

        Raises:
            ValueError: The number of examples is not known.
        """
        if self.size is not None:
            return self.size(batch)
        targets = result.targets
        if not (self.over_classes and self._averages and isinstance(targets, Tensor) and is_integer(targets)):
            return batch_size(batch, in_parts=self.training_step is None)
        counted: Tensor = targets != self.ignore_index
        if self._class_weights is None:
            return counted.sum()
        weights: Tensor = self._class_weights.to(targets.device)[targets.where(counted, 0)]
        return (weights * counted).sum()

    def _of_training_step(self, model: nn.Module, batch: Any, training_step: TrainingStep) -> BatchLoss:
        returned = training_step(model, batch)
        if isinstance(returned, Tensor):
            return BatchLoss(returned)
        if isinstance(returned, Mapping) and isinstance(returned.get("loss"), Tensor):
            metrics = {name: value for name, value in returned.items() if name != "loss"}
            return BatchLoss(returned["loss"], metrics=metrics)
        raise TypeError(
            "training_step must return the loss as a tensor, or a dict of metrics with the tensor 'loss' "
            f"(got {describe(returned)})"
        )

    def _of_keywords(self, model: nn.Module, batch: Mapping[str, Any]) -> BatchLoss:
        if self.loss_fn is None:
            outputs = model(**batch)
            loss = outputs["loss"] if isinstance(outputs, Mapping) else getattr(outputs, "loss", None)
            if not isinstance(loss, Tensor):
                raise TypeError(f"without a loss_fn the model must return its loss (got {describe(outputs)})")
            return BatchLoss(loss, outputs)
        if "labels" not in batch:
            raise TypeError(f"a dict batch needs 'labels' for the loss_fn (got {describe(batch)})")
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        outputs = model(**inputs)
        return BatchLoss(self.loss_fn(outputs, batch["labels"]), outputs, batch["labels"])


def is_integer(tensor: Tensor) -> bool:
    """Tells whether the numbers of a tensor may be indices of classes."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
