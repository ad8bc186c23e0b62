"""The Trainer: a training loop that fires the events of `xaytune.trainer.callbacks`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from xaytune.trainer import arguments
from xaytune.trainer.batches import BatchSize
from xaytune.trainer.callbacks import CallbackManager, TrainState
from xaytune.trainer.context import EvalEvery, EvaluationTimes, RunContext
from xaytune.trainer.criterion import Criterion, LossFn, TrainingStep
from xaytune.trainer.data import ResumableLoader, with_workers_of_each_epoch
from xaytune.trainer.evaluation import EvalFn, EvalMetric, Evaluator
from xaytune.trainer.folder import CheckpointFolder
from xaytune.trainer.kept import Kept
from xaytune.trainer.parts import Parts
from xaytune.trainer.precision import Precision, PrecisionName
from xaytune.trainer.run import Run
from xaytune.trainer.schedule import LRInterval, LRScheduler, Schedule
from xaytune.trainer.step import Stepper


class Trainer(Run):
    """Trains a model; works alone, or for a trial of a sweep.

    Metrics are, after every step, ``loss``, ``learning_rate`` (of the optimizer's first group, in this step),
    ``grad_norm`` (L2, over all parameters of the optimizer, before clipping) and what a ``training_step`` returned
    besides its loss; and what evaluations measure. ``loss`` and ``grad_norm`` are 0-d tensors on the device until
    somebody reads them. Means are over examples, also where batches are unequal or accumulated; for torch's
    losses over classes, over the targets that they average.

    The last checkpoint is written when a run is finished or told to stop, not when it raises. What it cannot do
    rightly the Trainer refuses, most of it when it is made.

    Args:
        model: Any module, also one that ``torch.compile`` returned. It is moved to the device, and put in train
            mode if it is in eval mode as a whole; modules in it that are in eval mode (a frozen BatchNorm) stay
            so.
        optimizer: Over parameters of `model`, or of modules in `keep`. Refused: one that needs a closure (LBFGS),
            several of them, and, where checkpoints are kept, parameters that would not be saved.
        train_loader: Yields batches, anew each time it is iterated. A DataLoader that was interrupted within an
            epoch comes back with the same order and bits; so that it does, ``persistent_workers`` are started
            anew each epoch where checkpoints are kept.
        loss_fn: Takes the model's outputs and the targets, and returns a 0-d tensor, a mean. What it averages
            over is known of torch's losses alone: of others, also of a function around one of torch's, it is
            taken to be the examples, unless `batch_size` says otherwise. One with a state of its own belongs
            into `keep` too.
        training_step: Takes the model and a batch (on the device), and returns the loss (0-d), or a dict of
            metrics with the loss under ``loss``, which alone is measured in evaluations too. For batches that
            ``loss_fn`` cannot serve, see :meth:`xaytune.trainer.criterion.Criterion.loss`.
        eval_loader: Batches to evaluate on, anew each time it is iterated; refused if it yields none.
        eval_fn: Takes the model (in eval mode, without gradients) and `eval_loader`, and returns metrics by
            name, in place of all that is measured otherwise.
        eval_metrics: Metrics by name, each with ``update(outputs, targets)``, ``compute()`` and ``reset()``, as
            those of torchmetrics: ``{"f1": metric}`` is reported as ``eval_f1``. They need a `loss_fn`; refused
            with a `training_step` or an `eval_fn`.
        eval_every: ``"epoch"``, or a number of optimizer steps. A run that reaches its `num_epochs` or `max_steps`
            is evaluated there in any case; one that is told to stop is not.
        batch_size: Takes a batch (on the device) and returns how much it counts in means, such as the number of
            its examples or tokens. By default the first dimension of its tensors; where they differ, or cannot be
            told from a list of examples, and the number is needed (for evaluations, or with `accumulate`), the
            first step refuses the batch.
        num_epochs: Epochs to train; by default one, or as many as `max_steps` needs.
        max_steps: Optimizer steps after which the run ends; -1 is no limit.
        lr_scheduler: Any scheduler of ``torch.optim.lr_scheduler``, over `optimizer`. Steps that fp16 skipped do
            not count. A run that is resumed with other rates or options follows the new schedule as if from its
            beginning.
        lr_interval: Step the scheduler each ``"epoch"`` or each optimizer ``"step"``. ReduceLROnPlateau is given
            its metric once after each evaluation that `eval_every` asks for, if there are evaluations.
        lr_metric: What ReduceLROnPlateau watches; by default the sweep's metric, else ``eval_loss``, or ``loss``
            where nothing is evaluated. Refused, if its mode is known to be another than the scheduler's.
        accumulate: Batches an optimizer step takes its gradient from; the last window of an epoch may be shorter.
        clip_grad_norm: Largest L2 norm of all gradients of the optimizer together.
        precision: ``"fp32"``, or ``"bf16"`` or ``"fp16"`` under autocast.
        compile: Run the model through ``torch.compile``.
        cuda_graph: Record forward and backward passes as a CUDA graph, once for each shape of the batches, and
            launch them as a whole: many times as fast for a small model, whose steps are mostly Python. Python
            in `model`, `loss_fn` and `training_step` runs no more then, so that no number of theirs may change
            from step to step; now and then a step is computed in both ways. What cannot be recorded, or gives
            anything else, is trained as usual, which is logged. Without a GPU nothing is recorded.
        device: Where to train; by default the accelerator if there is one, else the CPU.
        callbacks: Handlers of the run; a trial's own where there is one.
        checkpoint_dir: Where checkpoints are kept; a trial's own where there is one. None keeps none.
        keep: What else is saved and restored with the run, by name: whatever has ``state_dict`` and
            ``load_state_dict``, or ``save(folder)`` and ``load(folder)``; see :mod:`xaytune.trainer.kept`.
        run: A name for the run, so that several (folds) may share `checkpoint_dir`: each has a folder in it.
            Without one, checkpoints of a run on other training data are refused.
        resume: Continue from the newest checkpoint in `checkpoint_dir`, if there is one. False moves those that
            are there into a folder ``aside-1``; refused with a trial.
        trial: The trial of a sweep that this run is.

    Raises:
        ValueError: An argument is out of its range, or contradicts another.
        TypeError: An argument is of a kind that the Trainer cannot use.
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
        eval_metrics: Mapping[str, EvalMetric] | None = None,
        eval_every: EvalEvery = "epoch",
        batch_size: BatchSize | None = None,
        num_epochs: int | None = None,
        max_steps: int = -1,
        lr_scheduler: LRScheduler | None = None,
        lr_interval: LRInterval = "epoch",
        lr_metric: str | None = None,
        accumulate: int = 1,
        clip_grad_norm: float | None = None,
        precision: PrecisionName = "fp32",
        compile: bool = False,
        cuda_graph: bool = False,
        device: torch.device | str | None = None,
        callbacks: CallbackManager | None = None,
        checkpoint_dir: Path | str | None = None,
        keep: Mapping[str, Any] | None = None,
        run: str | None = None,
        resume: bool = True,
        trial: RunContext | None = None,
    ) -> None:
        arguments.check_numbers(num_epochs, max_steps, accumulate, eval_every, lr_interval, clip_grad_norm)
        arguments.check_evaluation(eval_loader, eval_fn, eval_metrics, loss_fn, training_step)
        arguments.check_trial(trial, callbacks=callbacks, checkpoint_dir=checkpoint_dir, run=run, resume=resume)
        if trial is not None:
            callbacks, checkpoint_dir = trial.callbacks, trial.checkpoint_dir
        kept, saves, evaluates = Kept(keep or {}), checkpoint_dir is not None, eval_loader is not None
        arguments.check_optimizer(optimizer, model, kept.parameters(), saves=saves)
        arguments.check_scheduler(lr_scheduler, optimizer)
        if saves:
            train_loader = with_workers_of_each_epoch(train_loader)
        arguments.check_folder(checkpoint_dir)
        self.device = torch.device(device) if device is not None else _default_device()
        self.model = model.to(self.device)
        _move_state(optimizer)
        self.optimizer = optimizer
        forward: nn.Module = torch.compile(model) if compile else model  # type: ignore[assignment]
        criterion = Criterion(loss_fn, training_step, batch_size)
        numeric = Precision(precision, self.device, optimizer)
        sweep = None
        if trial is not None and trial.metric is not None and trial.mode is not None:
            sweep = trial.metric, trial.mode
        schedule = Schedule(optimizer, lr_scheduler, lr_interval, lr_metric, sweep=sweep, evaluates=evaluates)
        stepper = Stepper(
            self.model,
            forward,
            optimizer,
            criterion,
            numeric,
            self.device,
            window=accumulate,
            clip_grad_norm=clip_grad_norm,
            sizes_are_needed=evaluates and eval_fn is None,
            cuda_graph=cuda_graph,
        )
        evaluator: Evaluator | None = None
        if eval_loader is not None:
            evaluator = Evaluator(
                self.model, forward, eval_loader, criterion, numeric, self.device, eval_fn, eval_metrics or {}
            )
        folder: CheckpointFolder | None = None
        if checkpoint_dir is not None:
            folder = CheckpointFolder(Path(checkpoint_dir), run, trial, train_loader, resume=resume)
        if num_epochs is None:
            num_epochs = 1 if max_steps == -1 else 0  # 0 is no limit
        super().__init__(
            callbacks if callbacks is not None else CallbackManager(),
            TrainState(num_epochs=num_epochs, max_steps=max_steps),
            Parts(self.model, optimizer, schedule, numeric, ResumableLoader(train_loader), kept),
            stepper,
            evaluator,
            EvaluationTimes(eval_every, trial),
            folder,
        )
        if trial is not None:
            trial.attach(self.save_checkpoint)
            self._conductor = trial.conductor


def _default_device() -> torch.device:
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def _move_state(optimizer: torch.optim.Optimizer) -> None:
    """Moves the state that an optimizer made before its parameters were moved, as Adagrad does, after them."""
    stays_behind = any(
        isinstance(value, torch.Tensor) and name != "step" and value.device != parameter.device
        for parameter, values in optimizer.state.items()
        for name, value in values.items()
    )
    if stays_behind:
        optimizer.load_state_dict(optimizer.state_dict())
