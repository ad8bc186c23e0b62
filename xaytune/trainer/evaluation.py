"""Evaluation: what is measured over a loader, leaving the run as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from xaytune.trainer import random_state
from xaytune.trainer.batches import describe, to_device
from xaytune.trainer.criterion import BatchLoss, Criterion, is_integer
from xaytune.trainer.data import batches_of, generators_of
from xaytune.trainer.metrics import number
from xaytune.trainer.precision import Precision
from xaytune.trainer.weights import weighted

EvalFn = Callable[[nn.Module, Iterable[Any]], Mapping[str, Any]]


class EvalMetric(Protocol):
    """A metric that is measured over all batches of an evaluation, as those of torchmetrics are."""

    def update(self, outputs: Any, targets: Any, /) -> Any:
        """Takes the model's outputs for a batch, and its targets."""

    def compute(self) -> Any:
        """Returns the value over all batches since the last reset: one number."""

    def reset(self) -> Any:
        """Forgets all batches."""


class Evaluator:
    """Measures a model over a loader.

    Args:
        model: Put in eval mode, and back into the modes that its modules had.
        forward: The model, as it is called.
        loader: Batches to evaluate on.
        criterion: The loss.
        precision: Of forward passes.
        device: Where the model is.
        eval_fn: Measures in place of all that is measured here.
        eval_metrics: Further metrics by name.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: nn.Module,
        loader: Iterable[Any],
        criterion: Criterion,
        precision: Precision,
        device: torch.device,
        eval_fn: EvalFn | None,
        eval_metrics: Mapping[str, EvalMetric],
    ) -> None:
        self._model, self.forward, self.loader, self._criterion = model, forward, loader, criterion
        self.eval_fn, self.eval_metrics = eval_fn, eval_metrics
        self._device, self._precision = device, precision
        self._generators = generators_of(loader)

    def __call__(self) -> dict[str, Any]:
        """Evaluates the model, without gradients; random states and the modules' modes are as before.

        Returns:
            What the `eval_fn` returned, or: ``eval_loss``, the mean over the examples (or over what the loss
            averages over); ``eval_accuracy`` (0 to 1) for outputs (N, C, ...) with C of at least 2 and integer
            targets (N, ...), of which those that the loss ignores are left out; and ``eval_<name>`` for each
            of `eval_metrics`.

        Raises:
            ValueError: The loader yielded no batch, or the size of a batch is not known.
            TypeError: The `eval_fn` returned something else than numbers by name.
        """
        with self._leaving_all_as_it_was(), torch.no_grad(), self._precision.autocast():
            if self.eval_fn is None:
                return self._measure()
            return _of_the_users(self.eval_fn(self.forward, self.loader))

    def _measure(self) -> dict[str, Any]:
        """Waits for the device once, at the end."""
        total: Tensor | float = 0.0
        weight: Tensor | float = 0.0
        hits: Tensor | float = 0.0
        judged: Tensor | float = 0.0
        batches = 0
        for metric in self.eval_metrics.values():
            if isinstance(metric, nn.Module):
                metric.to(self._device)
            metric.reset()
        for batches, batch in enumerate(batches_of(self.loader), start=1):  # noqa: B007
            batch = to_device(batch, self._device)
            result = self._criterion.loss(self.forward, batch)
            counts = self._criterion.weight(batch, result)
            total = total + weighted(result.loss.double(), counts)
            weight = weight + counts
            right, of = self.hits(result)
            hits, judged = hits + right, judged + of
            for metric in self.eval_metrics.values():
                metric.update(result.outputs, result.targets)
        if batches == 0:
            raise ValueError(
                "eval_loader yielded no batch; it must yield its batches anew each time it is iterated"
            )
        metrics = evaluated(float(total), float(weight), float(hits), float(judged))
        for name, metric in self.eval_metrics.items():
            metrics[f"eval_{name}"] = _one_number(name, metric.compute())
            metric.reset()
        return metrics

    def hits(self, result: BatchLoss) -> tuple[Tensor | float, Tensor | float]:
        """How many targets had the highest score, and of how many; none where these are no scores of classes."""
        outputs, targets, criterion = result.outputs, result.targets, self._criterion
        if not (isinstance(outputs, Tensor) and isinstance(targets, Tensor) and is_integer(targets)):
            return 0.0, 0.0
        if outputs.dim() < 2 or outputs.shape[1] < 2 or outputs.shape[:1] + outputs.shape[2:] != targets.shape:
            return 0.0, 0.0
        if outputs.shape[:-1] == targets.shape and outputs.dim() > 2 and not criterion.over_classes:
            return 0.0, 0.0  # (N, C, L) or (N, L, C), where C is L
        counted = targets != criterion.ignore_index
        return ((outputs.argmax(1) == targets) & counted).sum(), counted.sum()

    @contextlib.contextmanager
    def _leaving_all_as_it_was(self) -> Iterator[None]:
        randomness = random_state.capture(self._generators)
        modes = [(module, module.training) for module in self._model.modules()]
        self._model.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            random_state.restore(randomness, self._generators)


def evaluated(total: float, weight: float, hits: float, judged: float) -> dict[str, Any]:
    """Returns what an evaluation gave, by its loss in all, what that weighs, and its hits of so many targets."""
    loss = {"eval_loss": total / weight if weight else float("nan")}
    return loss | ({"eval_accuracy": hits / judged} if judged else {})


def _of_the_users(measured: Any) -> dict[str, Any]:
    if not isinstance(measured, Mapping):
        raise TypeError(f"eval_fn must return metrics by name, {{'eval_loss': 0.3}} (got {describe(measured)})")
    numbers = {name: number(value) for name, value in measured.items()}
    for name, value in numbers.items():
        size = value.numel() if isinstance(value, Tensor) else getattr(value, "size", 1)
        if size != 1 or not isinstance(value, (Tensor, np.ndarray, int, float, str)):
            raise TypeError(f"eval_fn must return one number as {name!r} (got {describe(value)})")
    return numbers


def _one_number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"eval_metrics[{name!r}] must compute one number (got {type(value).__name__}): for more, give eval_fn"
        ) from None
