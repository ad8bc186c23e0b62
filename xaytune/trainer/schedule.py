"""The schedule of a run's learning rates: when its scheduler steps, and how it is resumed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from xaytune.trainer import hyperparameters
from xaytune.trainer.made_with import (
    counts,
    factors_of,
    follow_from_its_beginning,
    has_other_functions,
    is_another,
    kind_of,
    put_options,
)

LRInterval = Literal["epoch", "step"]
LRScheduler = torch.optim.lr_scheduler.LRScheduler | ReduceLROnPlateau
_DIRECTIONS = {"loss": "min", "eval_loss": "min", "eval_accuracy": "max"}


class Schedule:
    """Steps a learning rate scheduler, and the optimizer's hyperparameters with it where a run is resumed.

    Attributes:
        scheduler: As it was given.

    Args:
        optimizer: The Trainer's.
        scheduler: Any of torch's over it, or with the same interface; None keeps the rates as they are.
        interval: Step each epoch, or each optimizer step.
        metric: What the user named for ReduceLROnPlateau to watch.
        sweep: The metric and mode of the sweep.
        evaluates: Whether the run evaluates: then ReduceLROnPlateau is given its metric once after each
            evaluation, whatever the interval.

    Raises:
        ValueError: The metric is better in another direction than the scheduler takes it to be, or there is no
            ReduceLROnPlateau to watch it.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler | None,
        interval: LRInterval,
        metric: str | None,
        *,
        sweep: tuple[str, str] | None,
        evaluates: bool,
    ) -> None:
        if isinstance(scheduler, ReduceLROnPlateau):
            metric = _watched_metric(scheduler, metric, sweep, evaluates=evaluates)
        elif metric is not None:
            raise ValueError(
                f"lr_metric={metric!r} is for ReduceLROnPlateau alone (got {type(scheduler).__name__})"
            )
        self._optimizer, self.scheduler, self._interval = optimizer, scheduler, interval
        self._metric = metric
        self._begun = hyperparameters.of(optimizer)
        self._by_evaluations = metric is not None and evaluates
        self._scheduler_begun = self._scheduler_state()
        # Whatever the scheduler does: a run may be resumed with another one.
        self._counted: dict[LRInterval, int] = {"epoch": 0, "step": 0}
        self._given_at = -1  # the global step of the evaluation that the scheduler was given last

    @property
    def by_step(self) -> bool:
        """Whether rates may change after each step."""
        return self.scheduler is not None and self._interval == "step"

    def after_step(self, metrics: Mapping[str, Any]) -> None:
        """Counts an optimizer step that was not skipped."""
        self._count("step", metrics)

    def after_epoch(self, metrics: Mapping[str, Any]) -> None:
        """Counts an epoch."""
        self._count("epoch", metrics)

    def after_evaluation(self, metrics: Mapping[str, Any], global_step: int) -> None:
        """Gives ReduceLROnPlateau its metric, once for each evaluation.

        Raises:
            ValueError: The evaluation did not measure it.
        """
        if self._metric is None or not self._by_evaluations or self._given_at == global_step:
            return
        self._given_at = global_step
        self._reduce(self._metric, metrics)

    def _count(self, interval: LRInterval, metrics: Mapping[str, Any]) -> None:
        self._counted[interval] += 1
        if self.scheduler is None or self._by_evaluations or interval != self._interval:
            return
        if self._metric is not None:
            self._reduce(self._metric, metrics)
        else:
            self.scheduler.step()

    def _reduce(self, metric: str, metrics: Mapping[str, Any]) -> None:
        if metric not in metrics:
            raise ValueError(
                f"ReduceLROnPlateau watches {metric!r}, which was not measured; name one that is with lr_metric=: "
                + ", ".join(sorted(metrics))
            )
        assert isinstance(self.scheduler, ReduceLROnPlateau)
        self.scheduler.step(float(metrics[metric]))

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the scheduler, and what the run was begun with."""
        return {
            "lr_scheduler": self._scheduler_state(),
            "lr_scheduler_begun": self._scheduler_begun,
            "lr_scheduler_kind": self._kind,
            "lr_factors": factors_of(self.scheduler),
            "lr_interval": self._interval,
            "lr_counted": dict(self._counted),
            "lr_given_at": self._given_at,
            "hyperparameters": self._begun,
        }

    def load_state_dict(self, saved: Mapping[str, Any], *, another_optimizer: bool) -> None:
        """Resumes the schedule; the optimizer's own state was loaded before.

        Hyperparameters that are not those which the saved run was begun with take the place of the saved ones.
        A schedule that has become another one, by its kind, its rate or its own options, is followed from its
        beginning to where the run is. Where it is of another kind and does not count steps, or there is none any
        more, the rates are the optimizer's own again.

        Args:
            saved: What :meth:`state_dict` returned.
            another_optimizer: Whether the saved run's was of another kind, so that nothing of it was loaded.

        Raises:
            ValueError: The schedule counted epochs, and is to count steps now, or the other way round.
        """
        interval = saved.get("lr_interval", self._interval)
        # An earlier version counted the steps of a schedule alone.
        steps = saved.get("lr_steps", saved["lr_scheduler"].get("last_epoch", 0))
        self._counted = saved.get("lr_counted") or {**self._counted, interval: steps}
        self._given_at = saved.get("lr_given_at", -1)
        begun = saved["hyperparameters"]
        hyperparameters.note_stepped(self._optimizer)
        if not another_optimizer:
            hyperparameters.follow(self._optimizer, self._begun, begun)
        # An earlier version did not tell the kind.
        saved_kind = saved.get("lr_scheduler_kind", self._kind or "") if saved["lr_scheduler"] else None
        another_kind = self._kind != saved_kind
        if another_kind:
            hyperparameters.put_rates(self._optimizer, self._begun)
        if self.scheduler is None:
            return
        counted_both = another_kind and "lr_counted" in saved
        if saved["lr_scheduler"] and interval != self._interval and not (self._by_evaluations or counted_both):
            raise ValueError(
                f"the checkpoint's learning rates were scheduled each {interval}, and cannot be continued each "
                f"{self._interval}: give lr_interval={interval!r}, or begin another run: with resume=False; in a "
                "sweep, as a new trial"
            )
        was_begun = saved.get("lr_scheduler_begun", self._scheduler_begun)
        another = another_kind or is_another((self._begun, self._scheduler_begun), (begun, was_begun))
        followed = counts(self.scheduler) and (another or another_optimizer)
        if not followed and not another_kind:
            self.scheduler.load_state_dict(saved["lr_scheduler"])
            followed = has_other_functions(self.scheduler, saved.get("lr_factors"))
        if followed:
            steps = self._counted[self._interval]
            follow_from_its_beginning(self.scheduler, self._scheduler_begun, self._begun, steps)
        elif another and not another_kind:
            put_options(self.scheduler, self._scheduler_begun, was_begun)

    @property
    def _kind(self) -> str | None:
        return None if self.scheduler is None else kind_of(self.scheduler)

    def _scheduler_state(self) -> dict[str, Any]:
        return {} if self.scheduler is None else copy.deepcopy(self.scheduler.state_dict())


def _watched_metric(
    scheduler: ReduceLROnPlateau, named: str | None, sweep: tuple[str, str] | None, *, evaluates: bool
) -> str:
    """Returns the metric that the scheduler is given.

    Args:
        scheduler: The scheduler.
        named: The metric that the user named.
        sweep: The metric and mode of the sweep.
        evaluates: Whether the run evaluates.

    Raises:
        ValueError: It is better in the other direction than the scheduler takes it to be.
    """
    if named is not None:
        metric, mode = named, _DIRECTIONS.get(named)
        if sweep is not None and named == sweep[0]:
            mode = sweep[1]
    elif sweep is not None:
        metric, mode = sweep
    else:
        metric = "eval_loss" if evaluates else "loss"
        mode = "min"
    if mode is not None and mode != scheduler.mode:
        raise ValueError(
            f"ReduceLROnPlateau has mode={scheduler.mode!r}, but it would be given {metric!r}, whose mode is "
            f"{mode!r}: name another metric with lr_metric=, or make it with mode={mode!r}"
        )
    return metric
