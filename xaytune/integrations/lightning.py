"""Lightning: a callback makes a run of ``lightning.pytorch.Trainer`` the run of a trial.

Two lines of a program change::

    trainer = L.Trainer(max_epochs=27, callbacks=[XaytuneCallback(trial)])
    trainer.fit(model, ckpt_path=trial.latest_checkpoint)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning_utilities.core.apply_func import apply_to_collection

from xaytune.integrations.lightning_epoch import (
    gradients_of,
    means_of,
    metrics_of,
    restore_gradients,
    restore_metrics,
    sums,
)
from xaytune.trainer import checkpoint, checkpoint_files, random_state
from xaytune.trainer.cadence import Cadence
from xaytune.trainer.callbacks import Event, Pause, TrainState, note_error
from xaytune.trainer.context import RunContext
from xaytune.trainer.made_with import MadeWith
from xaytune.trainer.metrics import plain_metrics

__all__ = ["XaytuneCallback"]

# Where a checkpoint was written: each is resumed in its own way. At an epoch's end Lightning has not stepped a
# ReduceLROnPlateau yet; resumed after an epoch's last batch, it takes the epoch for finished.
Where = Literal["between_epochs", "within_epoch", "last_batch", "epoch_end"]


class XaytuneCallback(Checkpoint):
    """Fires the trial's events, stops the Trainer where the trial is to stop, and writes its checkpoints.

    A step is a batch after which an optimizer has stepped: with ``accumulate_grad_batches`` not every one is, and
    several optimizers that step in one batch are one step. Lightning's own ``max_steps`` counts each of them.
    Metrics are the loss of each step, what validation logs, and all that was logged every ``log_every_n_steps``
    and where the trial is judged. Checkpoints are Lightning's own, with the random states: pass
    ``trial.latest_checkpoint`` as ``ckpt_path``, and a resumed run ends with the bits of an undisturbed one. One
    that goes on within an epoch loads the batches again that it has trained.

    Args:
        trial: The trial.
        save_every_s: Seconds between two checkpoints that nothing but the time asks for, at least.
    """

    best_model_path = ""  # which Lightning reads of the first Checkpoint for ckpt_path="best"

    def __init__(self, trial: RunContext, *, save_every_s: float = 10.0) -> None:
        self._trial = trial
        self._state = TrainState()
        self._cadence = Cadence(save_every_s, trial.discard)
        self._optimizer_steps = 0  # as Lightning counts them: one for each optimizer
        self._in_step = False
        self._phase: Literal["new", "running", "ended"] = "new"
        self._settled = False  # whether the last checkpoint of a run that is over was written
        self._where: Where = "between_epochs"
        self._epoch_random: dict[str, Any] | None = None  # when the epoch began
        self._made_with = MadeWith()
        self._resumed: dict[str, Any] | None = None  # until the run is where it was
        self._means: dict[str, Any] = {}  # of a part of an epoch that was trained before, by what was logged
        self._known: dict[str, Any] = {}  # what was logged, as it was when it was read last

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Turns the progress bar off in a trial, whose output is a file.

        Raises:
            ValueError: The Trainer would not stop where it is told to.
        """
        if trainer.min_epochs or trainer.min_steps:
            raise ValueError(
                "Trainer(min_epochs=..., min_steps=...) trains on where a trial is told to stop: leave them out"
            )
        if any(callback is not self for callback in trainer.checkpoint_callbacks):
            # The first one is that of ckpt_path="best". Another list, for the hooks of this one are being called.
            others = [callback for callback in trainer.callbacks if callback is not self]  # type: ignore[attr-defined]
            trainer.callbacks = [*others, self]  # type: ignore[attr-defined]
        if stage != "fit" or self._trial.checkpoint_dir is None:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ProgressBar):
                callback.disable()
        self._trial.attach(lambda: self._save(trainer, asked=True))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the run's place from a checkpoint; one of a search of learning rates, before the run, has none."""
        if state_dict["epoch_random"] is not None:
            self._resumed = state_dict

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the random states of the first epoch's beginning, and what the optimizers were made with."""
        self._epoch_random = random_state.capture()
        self._made_with = MadeWith()
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        for at, thing in enumerate([*trainer.optimizers, *schedulers]):
            self._made_with.add(str(at), thing)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins the run, or goes on where it was."""
        self._begin(trainer)
        resumed = self._resumed
        if resumed is None or self._state.should_stop:
            return
        self._made_with.follow(resumed.get("made_with", {}))
        if resumed["where"] in ("last_batch", "epoch_end"):
            self._reduce_rates(trainer, pl_module, resumed["epoch"])
        if resumed["where"] == "last_batch":
            self._fire("epoch_start", trainer)
            self._fire("epoch_end", trainer)
        elif resumed["where"] == "within_epoch":
            self._fire("epoch_start", trainer)
            self._skip_batches(trainer, resumed)
            restore_metrics(pl_module, resumed["torchmetrics"])
            restore_gradients(pl_module, resumed.get("gradients", {}))
            self._means = dict(resumed["means"])
            self._resumed = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins an epoch."""
        self._state.epoch, self._state.step = trainer.current_epoch, 0
        self._known = dict(trainer.callback_metrics)
        self._where = "between_epochs"
        self._fire("epoch_start", trainer)
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            random_state.restore(resumed["random"] if trainer.current_epoch > 0 else resumed["epoch_random"])
        if trainer.current_epoch > 0:
            self._epoch_random = random_state.capture()
        if resumed is not None:
            self._begin_iterator(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begins a step with the first of its batches."""
        if not self._in_step:
            self._in_step = True
            self._fire("step_start", trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts a step, where an optimizer has stepped."""
        if self._means:
            self._add_means(trainer)
        self._where = "last_batch" if trainer.is_last_batch else "within_epoch"
        if trainer.global_step == self._optimizer_steps:
            return
        state = self._state
        self._optimizer_steps, self._in_step = trainer.global_step, False
        state.step += 1
        state.global_step += 1
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor):
            batches = trainer.accumulate_grad_batches  # by which Lightning has divided it
            state.metrics["loss"] = loss.detach() if batches == 1 else loss.detach() * batches
        logged = state.global_step % (trainer.log_every_n_steps or 1) == 0  # type: ignore[attr-defined]
        if logged or self._trial.decision_due(global_step=state.global_step):
            self._take_logged(trainer)  # takes 50 us
        self._fire("step_end", trainer)
        self._save_within_epoch(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begins an evaluation."""
        if self._evaluates(trainer):
            self._fire("eval_start", trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes what was measured."""
        if self._evaluates(trainer):
            self._take_logged(trainer)
            self._fire("eval_end", trainer)
            self._save_within_epoch(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends an epoch; a Checkpoint's hook is called after the module's."""
        self._take_logged(trainer)
        self._in_step, self._where = False, "epoch_end"
        self._fire("epoch_end", trainer)
        if not trainer.should_stop and self._due():
            self._save(trainer, asked=False)
        if trainer.fit_loop.restarting:  # then Lightning leaves it out
            self._reduce_rates(trainer, pl_module, trainer.current_epoch)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ends the run, with its last checkpoint."""
        self._where = "between_epochs"
        if self._trial.checkpoint_dir is not None and not self._settled:
            self._save(trainer, asked=True)
        self._end(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Ends a run that raised; a pause is not an end."""
        if self._phase != "running" or isinstance(exception, Pause):
            return
        note_error(self._state, exception)
        try:
            self._fire("error", trainer)
        finally:
            self._end(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begins and ends a run that has nothing left to train, for which Lightning calls no other hook."""
        if stage == "fit" and self._phase == "new" and self._resumed is not None:
            self._begin(trainer)
            self._end(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds what Lightning does not save of a part of an epoch.

        An epoch whose last batch was trained counts as finished: Lightning would run it without a batch.
        """
        if self._where == "within_epoch":
            mine = checkpoint["callbacks"][self.state_key]
            mine["means"], mine["torchmetrics"] = means_of(trainer), metrics_of(pl_module)
            if self._in_step:  # evaluated between batches whose gradients accumulate
                mine["gradients"] = gradients_of(pl_module)
        if self._where == "last_batch":
            loops = checkpoint["loops"]["fit_loop"]
            for counts in loops["epoch_progress"].values():
                counts["processed"] = counts["started"]
            for name in ("total", "current"):
                batches = loops["epoch_loop.batch_progress"][name]
                batches["completed"] = batches["processed"]

    def state_dict(self) -> dict[str, Any]:
        """Returns the run's place, and the random states."""
        state = self._state
        return {
            "step": state.step,
            "epoch": state.epoch,
            "global_step": state.global_step,
            # Lightning's own loader refuses arrays.
            "metrics": apply_to_collection(plain_metrics(state.metrics), np.ndarray, np.ndarray.tolist),
            "where": self._where,
            "random": random_state.capture(),
            "epoch_random": self._epoch_random,
            "made_with": self._made_with.state_dict(),
            "means": {},
            "torchmetrics": {},
            "gradients": {},
        }

    def _take_logged(self, trainer: pl.Trainer) -> None:
        """Takes what was logged since it was read last."""
        new = {n: v for n, v in trainer.callback_metrics.items() if v is not self._known.get(n)}
        self._known.update(new)
        self._state.metrics.update(new)

    def _add_means(self, trainer: pl.Trainer) -> None:
        """Adds what was trained of the epoch before the run was resumed to means that are being logged now."""
        for key in self._means.keys() & (trainer._results or {}).keys():
            result: Any = trainer._results[key]  # type: ignore[index]
            for name, before in self._means.pop(key).items():
                after = getattr(result, name)
                together = result.meta.reduce_fx if name == "value" and not sums(result) else torch.add
                setattr(result, name, together(before.to(after.device), after))

    def _begin(self, trainer: pl.Trainer) -> None:
        state, resumed = self._state, self._resumed
        self._phase, self._optimizer_steps = "running", trainer.global_step
        state.num_epochs = max(trainer.max_epochs or 0, 0)
        # Lightning counts a step of each of several optimizers: how many steps of the run these are is not known.
        state.max_steps = trainer.max_steps if len(trainer.optimizers) <= 1 else -1
        if resumed is not None:
            self._where, self._epoch_random = resumed["where"], resumed["epoch_random"]
            state.epoch, state.step, state.global_step = (resumed[n] for n in ("epoch", "step", "global_step"))
            state.metrics.update(resumed["metrics"])
            finished = self._where in ("epoch_end", "between_epochs") and state.step > 0
            if finished and not 0 < state.num_epochs <= state.epoch + 1:
                state.epoch, state.step = state.epoch + 1, 0
        self._fire("train_start", trainer)
        self._settled = resumed is not None and state.should_stop

    def _end(self, trainer: pl.Trainer) -> None:
        self._phase = "ended"
        self._fire("train_end", trainer)

    def _save_within_epoch(self, trainer: pl.Trainer) -> None:
        """Saves a run that ends before its epoch does, and one whose time has come."""
        over = self._state.should_stop or 0 < trainer.max_steps <= trainer.global_step
        if trainer.is_last_batch or self._settled or self._trial.checkpoint_dir is None:
            return
        if over or self._due():
            self._save(trainer, asked=over)
            self._settled = over

    def _due(self) -> bool:
        return self._trial.checkpoint_dir is not None and self._cadence.due()

    def _save(self, trainer: pl.Trainer, *, asked: bool) -> Path:
        assert self._trial.checkpoint_dir is not None
        path = checkpoint.path_for(self._trial.checkpoint_dir, self._state.global_step)
        with self._cadence.saving(), checkpoint_files.replacing(path) as temporary:
            trainer.save_checkpoint(temporary)
        self._cadence.wrote(path, asked=asked)
        self._fire("checkpoint_saved", trainer)
        return path

    def _skip_batches(self, trainer: pl.Trainer, resumed: dict[str, Any]) -> None:
        """Loads the batches of the epoch that were trained, in their order: Lightning begins with the first."""
        random_state.restore(resumed["epoch_random"])
        self._begin_iterator(trainer)
        if not _keeps_its_place(trainer):
            fetcher: Any = trainer.fit_loop._data_fetcher
            for _ in range(trainer.fit_loop.epoch_loop.batch_progress.current.ready):
                next(fetcher.iterator)
        random_state.restore(resumed["random"])

    def _begin_iterator(self, trainer: pl.Trainer) -> None:
        """Makes the epoch's iterator again: Lightning made it before the random states were restored."""
        if not _keeps_its_place(trainer):
            fetcher: Any = trainer.fit_loop._data_fetcher
            iter(fetcher)

    def _reduce_rates(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int) -> None:
        """Steps each ReduceLROnPlateau as Lightning does after the hooks of an epoch's end."""
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.interval == "epoch" and (epoch + 1) % config.frequency == 0:
                metric = self._state.metrics.get(str(config.monitor))
                pl_module.lr_scheduler_step(config.scheduler, metric)

    def _evaluates(self, trainer: pl.Trainer) -> bool:
        return self._phase == "running" and not trainer.sanity_checking

    def _fire(self, event: Event, trainer: pl.Trainer) -> None:
        self._trial.callbacks.fire(event, self._state)
        if self._state.should_stop:
            trainer.should_stop = True


def _keeps_its_place(trainer: pl.Trainer) -> bool:
    """Whether the training data has a state of its own, which Lightning saves and restores."""
    return callable(getattr(trainer.train_dataloader, "load_state_dict", None))
