"""Ready-made handlers. Each is called with the state at one event::

    callbacks.on("eval_end")(EarlyStopping("eval_loss", mode="min", patience=3))
    callbacks.on("step_end", every=500)(SaveCheckpoint(trainer))

What a handler must remember beyond a resume it keeps in ``state.metrics``, which every checkpoint holds.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import nn

from xaytune.trainer import gradients
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.metrics import shown
from xaytune.trainer.trainer import Trainer

__all__ = [
    "EarlyStopping",
    "GradientNorm",
    "LogMetrics",
    "NonFiniteGuard",
    "SaveBest",
    "SaveCheckpoint",
    "Throughput",
]

logger = logging.getLogger(__name__)


_BEST, _CHECKS, _SAVED_BEST = "checked_best_", "checks_since_best_", "saved_best_"


def forget(metrics: dict[str, Any], metric: str) -> None:
    """Removes a metric, and what handlers have noted of the best values of any: they are of another run."""
    for name in list(metrics):
        if name == metric or name.startswith((_BEST, _CHECKS, _SAVED_BEST)):
            del metrics[name]


class EarlyStopping:
    """Stops a run whose metric no longer improves. For ``eval_end`` or ``epoch_end``.

    The best value and the number of checks since are metrics themselves: ``checked_best_<name>`` and
    ``checks_since_best_<name>``.

    Args:
        metric: Name of the metric; a check without it counts for nothing.
        mode: Whether a ``"min"`` or a ``"max"`` is better.
        patience: Checks without an improvement after which the run is stopped; each call is one.
        min_delta: Smallest change that counts as an improvement.
        name: A name of its own where several watch one metric; by default the metric's.
    """

    def __init__(
        self,
        metric: str,
        *,
        mode: Literal["min", "max"],
        patience: int,
        min_delta: float = 0.0,
        name: str | None = None,
    ) -> None:
        _check_mode(mode)
        if patience < 1:
            raise ValueError(f"patience must be at least 1 (got {patience})")
        self._metric, self._mode, self._patience, self._min_delta = metric, mode, patience, min_delta
        name = metric if name is None else name
        self._best_name, self.remembers_in = f"{_BEST}{name}", f"{_CHECKS}{name}"
        self._named = "" if name == metric else f", name={name!r}"

    def __repr__(self) -> str:
        return f"EarlyStopping({self._metric!r}, mode={self._mode!r}, patience={self._patience}{self._named})"

    def has_ended(self, state: TrainState) -> bool:
        """Tells whether a run that is resumed had not improved for too long already."""
        checks = state.metrics.get(self.remembers_in, 0)
        return bool(checks >= self._patience)

    def __call__(self, state: TrainState) -> None:
        """Checks the metric, and stops the run if it has not improved for too long."""
        if self._metric not in state.metrics:
            return
        value = float(state.metrics[self._metric])
        best_name, checks_name = self._best_name, self.remembers_in
        best = state.metrics.get(best_name, math.nan)
        first = best_name not in state.metrics or (math.isnan(best) and not math.isnan(value))
        if first or _improvement(self._mode, value, best) > self._min_delta:
            state.metrics[best_name], state.metrics[checks_name] = value, 0
            return
        state.metrics[checks_name] += 1
        if state.metrics[checks_name] >= self._patience:
            state.stop_training()


class NonFiniteGuard:
    """Stops a run whose metric is NaN or infinite. For ``step_end`` or ``eval_end``.

    Reading a metric waits for the device: on a GPU register it with ``every=N``.
    """

    def __init__(self, metric: str = "loss") -> None:
        self._metric = metric

    def __call__(self, state: TrainState) -> None:
        """Checks the metric, and stops the run if it is not finite."""
        value = float(state.metrics.get(self._metric, 0.0))
        if not math.isfinite(value):
            logger.warning("%s is %s at step %d: stopping", self._metric, value, state.global_step)
            state.stop_training()


class Throughput:
    """Measures ``steps_per_second`` between its calls. For ``step_end``."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None

    def __call__(self, state: TrainState) -> None:
        """Measures the rate since the last call."""
        now = time.perf_counter()
        if self._last is not None and now > self._last[0]:
            then, step = self._last
            state.metrics["steps_per_second"] = (state.global_step - step) / (now - then)
        self._last = now, state.global_step


class GradientNorm:
    """Measures the L2 norm of a module's gradients. For ``step_end``.

    Args:
        module: The module, for instance one layer; the whole model's norm a Trainer measures anyway.
        name: Name of the metric.
    """

    def __init__(self, module: nn.Module, name: str = "grad_norm") -> None:
        self._module, self._name = module, name

    def __call__(self, state: TrainState) -> None:
        """Measures the norm."""
        state.metrics[self._name] = gradients.norm(list(self._module.parameters()))


class LogMetrics:
    """Logs metrics with python's logging, for instance the learning rate and the gradient's norm.

    For any event, for instance ``callbacks.on("step_end", every=50)(LogMetrics("learning_rate", "grad_norm"))``.
    """

    def __init__(self, *names: str) -> None:
        self._names: Sequence[str] = names

    def __call__(self, state: TrainState) -> None:
        """Logs the metrics that there are."""
        line = ", ".join(f"{n} {shown(state.metrics[n])}" for n in self._names if n in state.metrics)
        logger.info("step %d: %s", state.global_step, line)


class SaveCheckpoint:
    """Writes a checkpoint of a Trainer. For ``step_end``, ``eval_end`` or ``epoch_end``, with ``every=N``."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __call__(self, state: TrainState) -> None:
        """Writes a checkpoint."""
        self._trainer.save_checkpoint()


class SaveBest:
    """Writes a checkpoint where a metric is the best so far, in place of the one before. For ``eval_end``.

    The best value is a metric itself: ``saved_best_<name>``. A run that is resumed leaves the file of its best
    evaluation before that where it is.

    Args:
        trainer: The Trainer.
        metric: Name of the metric; what is not finite is never best.
        mode: Whether a ``"min"`` or a ``"max"`` is better.
        name: A name of its own where several watch one metric; by default the metric's.
    """

    def __init__(
        self, trainer: Trainer, metric: str, *, mode: Literal["min", "max"], name: str | None = None
    ) -> None:
        _check_mode(mode)
        self._trainer, self._metric, self._mode = trainer, metric, mode
        name = metric if name is None else name
        self.remembers_in = f"{_SAVED_BEST}{name}"
        self._named = "" if name == metric else f", name={name!r}"
        self._written: Path | None = None

    def __repr__(self) -> str:
        return f"SaveBest({self._metric!r}, mode={self._mode!r}{self._named})"

    def __call__(self, state: TrainState) -> None:
        """Writes a checkpoint if the metric is better than before."""
        value = float(state.metrics.get(self._metric, math.nan))
        best = state.metrics.get(self.remembers_in)
        if not math.isfinite(value) or (best is not None and _improvement(self._mode, value, best) <= 0):
            return
        state.metrics[self.remembers_in] = value
        before, self._written = self._written, self._trainer.save_checkpoint()
        if before is not None and before != self._written:
            self._trainer.discard_checkpoint(before)


def _check_mode(mode: str) -> None:
    if mode not in ("min", "max"):
        raise ValueError(f"mode must be 'min' or 'max' (got {mode!r})")


def _improvement(mode: str, value: float, best: float) -> float:
    return best - value if mode == "min" else value - best
