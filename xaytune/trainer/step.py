"""One optimizer step over a window of batches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from xaytune.trainer import gradients
from xaytune.trainer.batches import to_device
from xaytune.trainer.criterion import BatchLoss, Criterion
from xaytune.trainer.data import ResumableLoader
from xaytune.trainer.graphed_steps import GraphedSteps
from xaytune.trainer.graphs import is_recorded
from xaytune.trainer.metrics import number
from xaytune.trainer.precision import Precision
from xaytune.trainer.weights import Shares, above_zero, weighted

_NO_BATCH = object()


class Step(NamedTuple):
    """An optimizer step that a run asks for.

    Attributes:
        batches: What it is to be taken over, at least one batch; each may be let go once it is used.
        window: The most that there are.
        expected: How many there are, as far as the loader says.
        more: How many steps over one batch each may be taken after it, before the run is to see any of them.
        following: Their batches, which have the shapes of this one's.
    """

    batches: Iterator[Any]
    window: int
    expected: int
    more: int = 0
    following: Iterator[Any] = iter(())


class Stepped(NamedTuple):
    """What an optimizer step gave.

    Attributes:
        metrics: ``grad_norm``, ``loss`` and what the `training_step` returned besides: means over the window.
        skipped: Whether the gradients overflowed, so that the optimizer was not stepped.
    """

    metrics: dict[str, Any]
    skipped: bool


class WindowMeans:
    """Means of metrics over the batches of a window; of what is no number, such as a text, it keeps the last."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._weights: dict[str, Any] = {}  # None for what is not averaged

    @property
    def weight(self) -> Any:
        """What the batches weigh together."""
        return self._weights["loss"]

    def add(self, metrics: dict[str, Any], weight: Any) -> None:
        """Adds those of a batch, ``loss`` among them."""
        for name, value in metrics.items():
            if isinstance(value, bool) or not isinstance(value, (int, float, complex, Tensor, np.ndarray)):
                self._sums[name], self._weights[name] = value, None
            else:
                if self._weights.get(name, 0.0) is None:  # it was no number before
                    del self._sums[name], self._weights[name]
                self._sums[name] = self._sums.get(name, 0.0) + weighted(value, weight)
                self._weights[name] = self._weights.get(name, 0.0) + weight

    def metrics(self) -> dict[str, Any]:
        """Returns the means; NaN where nothing weighs anything."""
        return {name: _mean(value, self._weights[name]) for name, value in self._sums.items()}


class Stepper:
    """Takes optimizer steps.

    Args:
        model: Whose gradients are zeroed.
        forward: The model, as it is called.
        optimizer: Steps once for each window.
        criterion: The loss of a batch.
        precision: Of forward and backward passes, and steps.
        device: Where batches are moved.
        window: Batches of a step.
        clip_grad_norm: Largest norm of the optimizer's gradients together.
        sizes_are_needed: Whether evaluations need the number of a batch's examples: where it is not known, the
            first step already refuses.
        cuda_graph: Whether gradients are computed by CUDA graphs, where that is possible.
    """

    def __init__(
        self,
        model: nn.Module,
        forward: nn.Module,
        optimizer: torch.optim.Optimizer,
        criterion: Criterion,
        precision: Precision,
        device: torch.device,
        *,
        window: int,
        clip_grad_norm: float | None,
        sizes_are_needed: bool,
        cuda_graph: bool,
    ) -> None:
        self.model, self.forward, self.optimizer, self.criterion = model, forward, optimizer, criterion
        self.precision, self.device, self.window = precision, device, window
        self.clip_grad_norm = clip_grad_norm
        self._check_sizes = sizes_are_needed
        self._not_optimized: list[nn.Parameter] = []
        self._modes = self._modes_now()  # while it trains
        self._graphed = GraphedSteps(self) if cuda_graph and is_recorded(device) else None

    def begin(self) -> None:
        """Puts a model that is in eval mode as a whole into train mode, as a loop does before it trains."""
        if not self.model.training:
            self.model.train()
        self._modes = self._modes_now()

    def begin_epoch(self) -> None:
        """Looks what there is to train, and puts back the modes of a model that a handler left in eval mode."""
        if not self.model.training:
            for module, training in self._modes:
                module.training = training
        self._modes = self._modes_now()
        self._not_optimized = gradients.not_optimized(self.model, self.optimizer)

    def over(self, batches: Iterator[Any], data: ResumableLoader) -> Step | None:
        """Returns a step over the next batches; None if there are none left."""
        if self.window == 1:
            batch = next(batches, _NO_BATCH)
            return None if batch is _NO_BATCH else Step(iter((batch,)), 1, 1)
        left = data.batches_left()
        batch = next(batches, _NO_BATCH)
        if batch is _NO_BATCH:
            return None
        expected = self.window if left is None else max(1, min(self.window, left))
        following = itertools.islice(batches, self.window - 1)
        return Step(itertools.chain((batch,), following), self.window, expected)

    def __call__(self, step: Step) -> Stepped:
        """Takes a step: its gradient is the mean over all examples (or over what the loss averages).

        The metrics stay tensors on the device.

        Raises:
            TypeError: A batch gave no loss.
            ValueError: The number of a batch's examples is needed, and not known.
        """
        metrics = self.gradients(step) if self._graphed is None else self._graphed(step)
        skipped = not self.precision.step()
        return Stepped(metrics, skipped)

    def gradients(self, step: Step) -> dict[str, Any]:
        """Computes the gradients of a step, clipped, and returns its metrics."""
        # Here, not after the optimizer's step: handlers of step_end may read the gradients.
        self.optimizer.zero_grad()
        for parameter in self._not_optimized:
            parameter.grad = None
        if step.window == 1:
            metrics, correction = self._one_batch(next(step.batches)), None
        else:
            metrics, correction = self._several(step)
        self.precision.unscale()
        parameters = gradients.optimized(self.optimizer)
        if correction is not None:
            gradients.scale(parameters, correction)
        norm = gradients.norm(parameters)
        if self.clip_grad_norm is not None:
            gradients.clip(parameters, self.clip_grad_norm, norm)
        return {"grad_norm": norm} | metrics

    def _one_batch(self, batch: Any) -> dict[str, Any]:
        batch, result = self._forward_pass(batch)
        if self._check_sizes:
            self.criterion.weight(batch, result)
            self._check_sizes = False
        self.precision.backward(result.loss)
        return _metrics(result)

    def _several(self, step: Step) -> tuple[dict[str, Any], float | Tensor | None]:
        """Returns the metrics, and what the gradients are to be multiplied by.

        While the window is not over its weight is not known: batches are taken to weigh as the first one.
        """
        means, shares = WindowMeans(), Shares()
        for batch in step.batches:
            batch, result = self._forward_pass(batch)
            share = shares.of(self.criterion.weight(batch, result))
            self.precision.backward(weighted(result.loss, share) / step.expected)
            means.add(_metrics(result), share)
        whole = means.weight
        certain = not isinstance(whole, Tensor) and whole == step.expected
        return means.metrics(), None if certain else step.expected / above_zero(whole, 1)

    def _modes_now(self) -> list[tuple[nn.Module, bool]]:
        return [(module, module.training) for module in self.model.modules()]

    def _forward_pass(self, batch: Any) -> tuple[Any, BatchLoss]:
        batch = to_device(batch, self.device)
        with self.precision.autocast():
            return batch, self.criterion.loss(self.forward, batch)


def _mean(total: Any, weight: Any) -> Any:
    if weight is None:
        return total
    return total / weight if isinstance(total, Tensor) or weight else math.nan


def _metrics(result: BatchLoss) -> dict[str, Any]:
    metrics: dict[str, Any] = {"loss": result.loss.detach()}
    for name, value in result.metrics.items():
        metrics[name] = value.detach() if isinstance(value, Tensor) else number(value)
    return metrics
