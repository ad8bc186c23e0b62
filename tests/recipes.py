"""Recipes for the tests. Most are loops of their own, that only fire events."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import torch

from tests.callbacks import break_at_step_5
from tests.models import loader, make_trainer
from xaytune.trainer import checkpoint
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.handlers import SaveCheckpoint
from xaytune.trial.run.trial import Trial

STEPS_PER_EPOCH = 4


def score(config: dict[str, Any], epoch: int) -> float:
    """A learning curve: rises with the epochs towards x."""
    return float(config["x"]) * (1 - 0.5 ** (epoch + 1))


def curve(config: dict[str, Any], trial: Trial) -> TrainState:
    """A hand-written loop of nine epochs. It uses no Trainer, and fires its events itself."""
    state = TrainState(num_epochs=9)
    callbacks = trial.callbacks
    callbacks.fire("train_start", state)
    for epoch in range(9):
        state.epoch = epoch
        callbacks.fire("epoch_start", state)
        for step in range(1, STEPS_PER_EPOCH + 1):
            state.step = step
            callbacks.fire("step_start", state)
            state.global_step += 1
            state.metrics["loss"] = 1 / state.global_step
            callbacks.fire("step_end", state)
            if state.should_stop:
                break
        state.metrics["score"] = score(config, state.epoch)
        callbacks.fire("epoch_end", state)
        if state.should_stop:
            break
    checkpoint.save({"x": config["x"]}, checkpoint.path_for(trial.checkpoint_dir, state.global_step))
    callbacks.fire("checkpoint_saved", state)
    callbacks.fire("train_end", state)
    return state


def trained(config: dict[str, Any], trial: Trial) -> TrainState:
    """A Trainer on a tiny problem; its metric is `eval_accuracy`."""
    return make_trainer(
        lr=config["x"], seed=trial.seed, num_epochs=9, eval_loader=loader(shuffle=False), trial=trial
    ).fit()


def trained_by_steps(config: dict[str, Any], trial: Trial) -> TrainState:
    """A Trainer that evaluates every fifth step, and where it is judged."""
    return make_trainer(
        lr=config["x"], seed=trial.seed, num_epochs=9, eval_loader=loader(shuffle=False), eval_every=5, trial=trial
    ).fit()


def fails_for_some(config: dict[str, Any], trial: Trial) -> TrainState:
    """Raises in its third step where x is below one half."""

    @trial.callbacks.on("step_end")
    def fail(state: TrainState) -> None:
        if state.global_step == 3 and config["x"] < 0.5:
            raise RuntimeError(f"broken for {trial.number}")

    return curve(config, trial)


def diverges_for_some(config: dict[str, Any], trial: Trial) -> TrainState:
    """Its score is not a number after the second epoch where x is below one half."""

    @trial.callbacks.on("epoch_end")
    def diverge(state: TrainState) -> None:
        if state.epoch == 1 and config["x"] < 0.5:
            state.metrics["score"] = float("nan")

    return curve(config, trial)


def ignores_stops(config: dict[str, Any], trial: Trial) -> TrainState:
    """The first trial to be stopped goes on all the same."""
    state = TrainState(num_epochs=9)
    for epoch in range(9):
        state.epoch = epoch
        state.global_step += 1
        trial.callbacks.fire("step_end", state)
        state.metrics["score"] = score(config, state.epoch)
        trial.callbacks.fire("epoch_end", state)
        while state.should_stop:
            time.sleep(0.1)
    return state


def reports_another_metric(config: dict[str, Any], trial: Trial) -> TrainState:
    """Never reports `score`."""
    state = TrainState()
    for _ in range(3):
        state.global_step += 1
        state.metrics["scores"] = 1.0
        trial.callbacks.fire("step_end", state)
    return state


def two_arguments_short() -> None:
    """No recipe: it takes nothing."""


def documented(config: dict[str, Any], trial: Trial) -> TrainState:
    """The handlers of the callbacks' documentation, pasted unchanged."""
    trainer = make_trainer(lr=0.1, num_epochs=100, trial=trial)
    callbacks = trainer.callbacks
    callbacks.on("step_end")(lambda state: state.metrics.update(score=0.5))
    seen = trial.checkpoint_dir.parents[1] / f"seen-{trial.number}.txt"

    def print(*words: object) -> None:
        with seen.open("a") as file:
            file.write(" ".join(map(str, words)) + "\n")

    @callbacks.on("step_end")
    def stop_at_low_loss(state: TrainState) -> None:
        if state.metrics.get("loss", float("inf")) < 0.02:
            state.stop_training()

    @callbacks.on("step_end")
    def log_gradients(state: TrainState) -> None:
        if state.global_step % 50 == 0:
            print(f"step {state.global_step}: grad_norm {state.metrics['grad_norm']:.3f}")

    @callbacks.on("checkpoint_saved")
    def notice(state: TrainState) -> None:
        print(f"checkpoint saved at step {state.global_step}")

    @callbacks.on("error")
    def on_error(state: TrainState) -> None:
        print(f"failed at step {state.global_step}: {state.metrics.get('error')}")

    return trainer.fit()


def documented_and_broken(config: dict[str, Any], trial: Trial) -> TrainState:
    """The same, where the fifth step raises."""
    break_at_step_5(trial, config)
    return documented(config, trial)


def draws(config: dict[str, Any], trial: Trial) -> TrainState:
    """Its score is what python, numpy and torch draw first."""
    import random

    import numpy as np
    import torch

    state = TrainState(global_step=1)
    state.metrics.update(score=random.random(), numpy=np.random.rand(), torch=torch.rand(()))
    trial.callbacks.fire("step_end", state)
    return state


def counts_threads(config: dict[str, Any], trial: Trial) -> TrainState:
    """Reports how many threads torch may use."""
    state = TrainState(global_step=1)
    state.metrics.update(score=1.0, threads=torch.get_num_threads())
    trial.callbacks.fire("step_end", state)
    return state


def waits(config: dict[str, Any], trial: Trial) -> TrainState:
    """Trains until it is told to stop."""
    state = TrainState(metrics={"score": 1.0})
    trial.callbacks.fire("train_start", state)
    while not state.should_stop:
        state.global_step += 1
        trial.callbacks.fire("step_end", state)
        time.sleep(0.01)
    checkpoint.save({}, checkpoint.path_for(trial.checkpoint_dir, state.global_step))
    trial.callbacks.fire("checkpoint_saved", state)
    trial.callbacks.fire("train_end", state)
    return state


def loses_its_process_or_waits(config: dict[str, Any], trial: Trial) -> TrainState:
    """Its process is killed at once where x is below one half; else it trains until it is told to stop."""
    if config["x"] < 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
    return waits(config, trial)


def saved(config: dict[str, Any], trial: Trial) -> TrainState:
    """A Trainer that writes a checkpoint after every epoch, and takes its time."""
    trainer = make_trainer(
        lr=config["x"], seed=trial.seed, num_epochs=9, eval_loader=loader(shuffle=False), trial=trial
    )
    trial.callbacks.on("epoch_end")(SaveCheckpoint(trainer))
    trial.callbacks.on("step_end")(lambda state: time.sleep(0.005))
    return trainer.fit()


def hangs_for_some(config: dict[str, Any], trial: Trial) -> TrainState:
    """Its third step never ends where x is below one half."""

    @trial.callbacks.on("step_end")
    def hang(state: TrainState) -> None:
        if state.global_step == 3 and config["x"] < 0.5:
            time.sleep(3600)

    return curve(config, trial)


def swallows_everything(config: dict[str, Any], trial: Trial) -> TrainState:
    """Goes on whatever is raised, and whatever it is told."""
    state = TrainState(num_epochs=9)
    while True:
        try:
            state.global_step += 1
            state.metrics["score"] = score(config, state.epoch)
            trial.callbacks.fire("step_end", state)
            trial.callbacks.fire("epoch_end", state)
            state.epoch += 1
            if config["x"] > 0.5 and state.epoch == 9:
                return state
            time.sleep(0.01)
        except BaseException:
            continue


def too_large_for_some(config: dict[str, Any], trial: Trial) -> TrainState:
    """Asks for more memory than there is where x is below one half."""
    if config["x"] < 0.5:
        torch.empty(2**50)
    return curve(config, trial)


def has_a_typo(config: dict[str, Any], trial: Trial) -> TrainState:
    """Names what is not there."""
    return curv(config, trial)  # type: ignore[name-defined,no-any-return]  # noqa: F821


def stopped_early_for_some(config: dict[str, Any], trial: Trial) -> TrainState:
    """A callback ends it in its second step where x is below one half."""

    @trial.callbacks.on("step_end")
    def stop(state: TrainState) -> None:
        if state.global_step == 2 and config["x"] < 0.5:
            state.stop_training()

    state = TrainState(num_epochs=9)
    for epoch in range(9):
        state.epoch = epoch
        for _ in range(STEPS_PER_EPOCH):
            state.global_step += 1
            trial.callbacks.fire("step_end", state)
            if state.should_stop:
                return state
        state.metrics["score"] = score(config, epoch)
        trial.callbacks.fire("epoch_end", state)
    return state


def reports_words(config: dict[str, Any], trial: Trial) -> TrainState:
    """Its score is no number."""
    trial.callbacks.on("epoch_end")(lambda state: state.metrics.update(score="good"))
    return curve(config, trial)


def kills_itself_for_some(config: dict[str, Any], trial: Trial) -> TrainState:
    """Its process is killed in the third step where x is below one half."""

    @trial.callbacks.on("step_end")
    def kill(state: TrainState) -> None:
        if state.global_step == 3 and config["x"] < 0.5:
            os.kill(os.getpid(), signal.SIGKILL)

    return curve(config, trial)


def breaks_at_its_end(config: dict[str, Any], trial: Trial) -> TrainState:
    """A handler of train_end raises."""

    @trial.callbacks.on("train_end")
    def fail(state: TrainState) -> None:
        raise RuntimeError("at the end")

    return curve(config, trial)


def trains_twice(config: dict[str, Any], trial: Trial) -> TrainState:
    """Fits two Trainers."""
    trained({"x": 0.1}, trial)
    return trained({"x": 0.1}, trial)


def prints(config: dict[str, Any], trial: Trial) -> TrainState:
    """Prints its number."""
    print("trial", trial.number)
    print("to stderr", file=sys.stderr)
    return draws(config, trial)


def raises_until_it_is_mended(config: dict[str, Any], trial: Trial) -> None:
    """Adds up its x, and raises in the third epoch where that is above .15, until there is a file."""
    sums = Sums()
    trial.keep(sums=sums)
    for epoch in trial.epochs(4):
        if epoch == 2 and config["x"] > 0.15 and not os.path.exists(config["mended"]):
            raise KeyError("lr")
        sums.x += config["x"]
        trial.report(score=sums.x)


class Sums:
    """A sum that is saved."""

    x = 0.0

    def state_dict(self) -> dict[str, float]:
        return {"x": self.x}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.x = state["x"]
