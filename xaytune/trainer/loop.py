"""The Trainer: a training loop that fires the events of `xaytune.trainer.callbacks`."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from xaytune.trainer import checkpoint, hyperparameters, random_state
from xaytune.trainer.callbacks import CallbackManager, TrainState
from xaytune.trainer.data import ResumableLoader, to_device
from xaytune.trainer.objective import LossFn, TrainingStep, batch_loss, evaluate
from xaytune.trainer.precision import Precision, PrecisionName

__all__ = ["LRScheduler", "RunContext", "Trainer"]

logger = logging.getLogger(__name__)

EvalFn = Callable[[nn.Module, Iterable[Any]], Mapping[str, Any]]
LRScheduler = torch.optim.lr_scheduler.LRScheduler | torch.optim.lr_scheduler.ReduceLROnPlateau


class RunContext(Protocol):
    """What the Trainer asks of the trial that it runs for."""

    @property
    def callbacks(self) -> CallbackManager:
        """The handlers of this run."""

    @property
    def checkpoint_dir(self) -> Path:
        """Where this run's checkpoints are kept, and found again when it is resumed."""

    def attach(self, save_checkpoint: Callable[[], Path]) -> None:
        """Takes the means to save the run, where a decision asks for it."""

    def discard(self, checkpoint: Path) -> None:
        """Deletes a checkpoint that the run needs no longer, as soon as a later one is known to be safe."""

    def decision_due(self, *, epoch: int | None = None, global_step: int | None = None) -> bool:
        """Tells whether the run is judged when so many epochs, or optimizer steps, are finished."""


class Trainer:
    """Trains a model; works alone, or for a trial of a sweep.

    Metrics are ``loss``, ``learning_rate`` and ``grad_norm`` (before clipping) after every step, what a
    ``training_step`` returns besides its loss, and what the evaluation measures. ``loss`` and ``grad_norm``
    are 0-d tensors on the device until somebody reads them.

    The last checkpoint is written when a run is finished or told to stop, not when it raises.

    Args:
        model: Any module. It is moved to the device.
        optimizer: Over the parameters of `model`.
        train_loader: Yields batches, anew each time it is iterated.
        loss_fn: Takes the model's outputs and the targets, and returns a 0-d tensor.
        training_step: Takes the model and a batch (on the device), and returns the loss, or a dict of metrics
            with the loss under ``loss``. For batches that ``loss_fn`` cannot serve, see
            :func:`xaytune.trainer.objective.batch_loss`.
        eval_loader: Batches to evaluate on.
        eval_fn: Takes the model (in eval mode, without gradients) and `eval_loader`, and returns metrics by
            name. Without it ``eval_loss`` and, for class targets, ``eval_accuracy`` are measured.
        eval_every: ``"epoch"``, or a number of optimizer steps.
        num_epochs: Epochs to train.
        max_steps: Optimizer steps after which the run ends; -1 is no limit.
        lr_scheduler: Any scheduler of ``torch.optim.lr_scheduler``. ReduceLROnPlateau watches ``eval_loss``,
            or ``loss`` where nothing is evaluated.
        lr_interval: Step the scheduler each ``"epoch"`` or each optimizer ``"step"``.
        accumulate: Batches an optimizer step takes its gradient from.
        clip_grad_norm: Largest norm of all gradients together.
        precision: ``"fp32"``, or ``"bf16"`` or ``"fp16"`` under autocast.
        compile: Run the model through ``torch.compile``.
        device: Where to train; by default the accelerator if there is one, else the CPU.
        callbacks: Handlers of the run; a trial's own where there is one.
        checkpoint_dir: Where checkpoints are kept; a trial's own where there is one. None keeps none.
        resume: Continue from the newest checkpoint in `checkpoint_dir`, if there is one.
        trial: The trial of a sweep that this run is.

    Raises:
        ValueError: An argument is out of its range, or contradicts another.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        optimizer: torch.optim.Optimizer,
        train_loader: Iterable[Any],
        loss_fn: LossFn | None = None,
        training_step: TrainingStep | None = None,
        eval_loader: Iterable[Any] | None = None,
        eval_fn: EvalFn | None = None,
        eval_every: Literal["epoch"] | int = "epoch",
        num_epochs: int = 1,
        max_steps: int = -1,
        lr_scheduler: LRScheduler | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        accumulate: int = 1,
        clip_grad_norm: float | None = None,
        precision: PrecisionName = "fp32",
        compile: bool = False,
        device: torch.device | str | None = None,
        callbacks: CallbackManager | None = None,
        checkpoint_dir: Path | str | None = None,
        resume: bool = True,
        trial: RunContext | None = None,
    ) -> None:
        _require(num_epochs >= 1, f"num_epochs must be at least 1 (got {num_epochs})")
        _require(max_steps == -1 or max_steps >= 1, f"max_steps must be -1 or at least 1 (got {max_steps})")
        _require(accumulate >= 1, f"accumulate must be at least 1 (got {accumulate})")
        _require(
            eval_every == "epoch" or (isinstance(eval_every, int) and eval_every >= 1),
            f"eval_every must be 'epoch' or a number of steps (got {eval_every!r})",
        )
        _require(lr_interval in ("epoch", "step"), f"lr_interval must be 'epoch' or 'step' (got {lr_interval!r})")
        _require(
            clip_grad_norm is None or clip_grad_norm > 0,
            f"clip_grad_norm must be above 0 (got {clip_grad_norm})",
        )
        _require(
            eval_fn is None or eval_loader is not None, "eval_fn needs an eval_loader to measure the model on"
        )
        if trial is not None:
            _require(callbacks is None, "give callbacks or a trial, not both: a trial has its own callbacks")
            _require(checkpoint_dir is None, "give checkpoint_dir or a trial, not both")
            callbacks, checkpoint_dir = trial.callbacks, trial.checkpoint_dir
        self.device = torch.device(device) if device is not None else _default_device()
        self.model = model.to(self.device)
        self.optimizer = optimizer
        self.callbacks = callbacks if callbacks is not None else CallbackManager()
        self.state = TrainState(num_epochs=num_epochs, max_steps=max_steps)
        self._forward: nn.Module = torch.compile(model) if compile else model  # type: ignore[assignment]
        self._hyperparameters = hyperparameters.of(optimizer)
        self._data = ResumableLoader(train_loader)
        self._loss_fn, self._training_step = loss_fn, training_step
        self._eval_loader, self._eval_fn, self._eval_every = eval_loader, eval_fn, eval_every
        self._lr_scheduler, self._lr_interval = lr_scheduler, lr_interval
        self._accumulate, self._clip_grad_norm = accumulate, clip_grad_norm
        self._precision = Precision(precision, self.device)
        self._checkpoint_dir = Path(checkpoint_dir) if checkpoint_dir is not None else None
        self._resume = resume
        self._trial = trial
        if trial is not None:
            trial.attach(self.save_checkpoint)
        self._epoch_finished = False
        self._evaluated_at = -1  # the global step of the newest evaluation
        self._saved: tuple[int, int, bool] | None = None  # the position of the newest checkpoint

    def fit(self) -> TrainState:
        """Trains until the run is over, and returns its state.

        Ctrl-C (where this runs in the main thread) stops the run after its current step, like
        ``state.stop_training()``, and is raised at the end; a second one is raised at once.

        Raises:
            CheckpointError: Every checkpoint that the run could resume from is damaged.
            Exception: Whatever the model, the data or a handler raised, after ``error`` and ``train_end``.
        """
        with _interrupt_stops(self.state):
            try:
                self._load_newest()
                self._fire("train_start")
                while not self._over():
                    self._train_epoch()
                self._save_last()
            except (Exception, KeyboardInterrupt, SystemExit) as error:
                # Other BaseExceptions unwind a run that goes on elsewhere: a pause is not an end.
                self.state.metrics["error"] = f"{type(error).__name__}: {error}"
                try:
                    self._fire("error")
                finally:
                    self._fire("train_end")
                raise
            self._fire("train_end")
        return self.state

    def save_checkpoint(self) -> Path:
        """Writes the whole state of the run to `checkpoint_dir`, fires ``checkpoint_saved``, returns the path.

        Raises:
            ValueError: The run has no `checkpoint_dir`.
            OSError: The file system refused.
        """
        if self._checkpoint_dir is None:
            raise ValueError("the Trainer has no checkpoint_dir to save a checkpoint in")
        path = checkpoint.path_for(self._checkpoint_dir, self.state.global_step)
        checkpoint.save(self.state_dict(), path)
        self._saved = self._position()
        self._fire("checkpoint_saved")
        return path

    def discard_checkpoint(self, path: Path) -> None:
        """Deletes a checkpoint of this run that a later one replaces."""
        if self._trial is not None:
            self._trial.discard(path)
        else:
            path.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state of the run, in tensors and plain values."""
        state = dataclasses.asdict(dataclasses.replace(self.state, metrics={}))
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr_scheduler": self._lr_scheduler.state_dict() if self._lr_scheduler is not None else {},
            "hyperparameters": self._hyperparameters,
            "precision": self._precision.state_dict(),
            "state": state | {"metrics": _plain(self.state.metrics)},
            "epoch_finished": self._epoch_finished,
            "evaluated_at": self._evaluated_at,
            "data": self._data.state_dict(),
            "random": random_state.capture(self._data.generators),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Returns to a state that :meth:`state_dict` gave; `num_epochs` and `max_steps` stay this run's own.

        So do the optimizer's hyperparameters, where they are not those that the saved run began with.
        """
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self._lr_scheduler is not None:
            self._lr_scheduler.load_state_dict(saved["lr_scheduler"])
        hyperparameters.follow(self.optimizer, self._lr_scheduler, self._hyperparameters, saved["hyperparameters"])
        self._precision.load_state_dict(saved["precision"])
        for name in ("step", "epoch", "global_step", "metrics"):
            setattr(self.state, name, saved["state"][name])
        self._epoch_finished = saved["epoch_finished"]
        if self._epoch_finished and self.state.epoch + 1 < self.state.num_epochs:
            self._next_epoch()
        self._evaluated_at = saved["evaluated_at"]
        self._data.load_state_dict(saved["data"])
        self._saved = self._position()
        # Else torch warns, falsely: a scheduler does not see the steps of the process before.
        self.optimizer._opt_called = True  # type: ignore[attr-defined]
        random_state.restore(saved["random"], self._data.generators)

    def _load_newest(self) -> None:
        if self._checkpoint_dir is None or not self._resume:
            return
        damaged: checkpoint.CheckpointError | None = None
        for path in reversed(checkpoint.list_checkpoints(self._checkpoint_dir)):
            try:
                self.load_state_dict(checkpoint.load(path))
                return
            except checkpoint.CheckpointError as error:
                logger.warning("%s; trying the one before it", error)
                damaged = error
        if damaged is not None:
            raise damaged

    def _train_epoch(self) -> None:
        state = self.state
        if self._epoch_finished:
            self._next_epoch()
        self._fire("epoch_start")
        self.model.train()
        if state.step > 0 and self._evaluation_due_at_step():
            self._evaluate()  # a run that was broken off between a step and its evaluation makes up for it
        exhausted = False
        batches = self._data.epoch()
        while group := list(itertools.islice(batches, self._accumulate)):
            self._train_step(group)
            if self._over():
                break
        else:
            _require(state.step > 0, "train_loader yielded no batch; it must yield its batches anew each epoch")
            exhausted = True
        last = exhausted and state.epoch + 1 >= state.num_epochs
        if not state.should_stop and self._evaluation_due_at_epoch_end(last or self._over()):
            self._evaluate()
        if exhausted:
            self._finish_epoch()
        if self._over():
            self._save_last()
        self._fire("epoch_end")

    def _next_epoch(self) -> None:
        self.state.epoch, self.state.step, self._epoch_finished = self.state.epoch + 1, 0, False

    def _finish_epoch(self) -> None:
        if self._lr_interval == "epoch":
            self._step_lr_scheduler()
        self._data.finish_epoch()
        self._epoch_finished = True

    def _train_step(self, batches: list[Any]) -> None:
        """Takes one optimizer step over a group of batches, and evaluates where that is due."""
        state = self.state
        self._fire("step_start")
        # Here, not after the optimizer's step: handlers of step_end may read the gradients.
        self.optimizer.zero_grad()
        losses = []
        for batch in batches:
            with self._precision.autocast():
                result = batch_loss(
                    self._forward, to_device(batch, self.device), self._loss_fn, self._training_step
                )
            self._precision.backward(result.loss / len(batches) if len(batches) > 1 else result.loss)
            losses.append(result.loss.detach())
        state.metrics["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        state.metrics["grad_norm"] = self._precision.step(self.optimizer, self.model, self._clip_grad_norm)
        state.metrics["loss"] = losses[0] if len(losses) == 1 else torch.stack(losses).mean()
        for name, value in result.metrics.items():
            state.metrics[name] = value.detach() if isinstance(value, torch.Tensor) else value
        if self._lr_interval == "step":
            self._step_lr_scheduler()
        state.step += 1
        state.global_step += 1
        self._fire("step_end")
        if not state.should_stop and self._evaluation_due_at_step():
            self._evaluate()

    def _over(self) -> bool:
        state = self.state
        if state.should_stop or 0 <= state.max_steps <= state.global_step:
            return True
        return self._epoch_finished and state.epoch + 1 >= state.num_epochs

    def _evaluation_due_at_step(self) -> bool:
        step = self.state.global_step
        if self._evaluated_at == step:
            return False
        if self._trial is not None and self._trial.decision_due(global_step=step):
            return True
        return self._eval_every != "epoch" and step % self._eval_every == 0

    def _evaluation_due_at_epoch_end(self, last: bool) -> bool:
        if self._evaluated_at == self.state.global_step:
            return False
        if self._eval_every == "epoch" or last:
            return True
        return self._trial is not None and self._trial.decision_due(epoch=self.state.epoch + 1)

    def _evaluate(self) -> None:
        if self._eval_loader is None:
            return
        self._fire("eval_start")
        self.model.eval()
        with torch.no_grad(), self._precision.autocast():
            if self._eval_fn is not None:
                measured = self._eval_fn(self._forward, self._eval_loader)
            else:
                measured = evaluate(
                    self._forward, self._eval_loader, self._loss_fn, self._training_step, self.device
                )
        self.model.train()
        self.state.metrics.update(measured)
        self._evaluated_at = self.state.global_step
        self._fire("eval_end")

    def _step_lr_scheduler(self) -> None:
        scheduler = self._lr_scheduler
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            metrics = self.state.metrics
            scheduler.step(float(metrics.get("eval_loss", metrics["loss"])))
        elif scheduler is not None:
            scheduler.step()

    def _save_last(self) -> None:
        if self._checkpoint_dir is not None and self._saved != self._position():
            self.save_checkpoint()

    def _position(self) -> tuple[int, int, bool]:
        return self.state.global_step, self._evaluated_at, self._epoch_finished

    def _fire(self, event: Any) -> None:
        self.callbacks.fire(event, self.state)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _default_device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics as plain numbers and strings; this is where they are read from the device."""
    values = {k: v.item() if isinstance(v, torch.Tensor) and v.numel() == 1 else v for k, v in metrics.items()}
    return {k: v for k, v in values.items() if isinstance(v, (bool, int, float, str))}


@contextlib.contextmanager
def _interrupt_stops(state: TrainState) -> Iterator[None]:
    """Makes the first Ctrl-C stop the run through its own loop, and raises it when the loop has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = False

    def stop(signum: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        state.stop_training()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt
