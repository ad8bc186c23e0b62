"""Recipes that the benchmarks run in xaytune."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from tests.benchmarks import workload
from xaytune.trainer.callbacks import CallbackManager, TrainState
from xaytune.trainer.trainer import Trainer
from xaytune.trial.run.trial import Trial


def digits(config: dict[str, Any], trial: Trial) -> TrainState:
    """The shared workload, as a loop of one's own that fires its events."""
    state = TrainState(num_epochs=workload.MAX_EPOCHS)
    callbacks = trial.callbacks
    callbacks.fire("train_start", state)

    def on_step(metrics: dict[str, Any]) -> None:
        state.global_step += 1
        state.metrics.update(metrics)
        callbacks.fire("step_end", state)

    def on_epoch(accuracy: float) -> bool:
        state.metrics["accuracy"] = accuracy
        callbacks.fire("epoch_end", state)
        state.epoch += 1
        return state.should_stop

    workload.train(workload.configuration(config["number"]), on_step, on_epoch, config.get("compute_log"))
    callbacks.fire("train_end", state)
    return state


def of_one_shape(config: dict[str, Any], trial: Trial) -> TrainState:
    """The same with a Trainer, and models of one shape."""
    given = workload.of_one_shape(config["number"])
    torch.manual_seed(given["number"])
    return trainer_of(given, trial=trial).fit()


def of_four_shapes(config: dict[str, Any], trial: Trial) -> TrainState:
    """The same, and models of four shapes."""
    given = {**workload.of_one_shape(config["number"]), **workload.configuration(config["number"])}
    torch.manual_seed(given["number"])
    return trainer_of(given, trial=trial).fit()


def with_a_handler(config: dict[str, Any], trial: Trial) -> TrainState:
    """Models of one shape, whose losses a handler reads after each step."""
    losses: list[float] = []

    @trial.callbacks.on("step_end")
    def read(state: TrainState) -> None:
        losses.append(float(state.metrics["loss"]))

    return of_one_shape(config, trial)


def trainer_of(config: dict[str, Any], **options: Any) -> Trainer:
    """Returns a Trainer of a configuration."""
    x_train, y_train, x_eval, y_eval = workload.digits()
    model = workload.mlp(config["hidden"])
    return Trainer(
        model,
        optimizer=torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9),
        loss_fn=F.cross_entropy,
        train_loader=DataLoader(TensorDataset(x_train, y_train), config["batch_size"], shuffle=True),
        eval_loader=DataLoader(TensorDataset(x_eval, y_eval), len(x_eval)),
        **{"num_epochs": workload.MAX_EPOCHS, "device": "cpu", **options},
    )


def empty_steps(config: dict[str, Any], trial: Trial) -> TrainState:
    """Steps that do nothing, reported and not: their rates are its metrics."""
    steps = config["steps"]
    silent, reported = CallbackManager(), trial.callbacks
    state = TrainState()
    state.metrics.update(silent=_rate(silent, steps), reported=_rate(reported, steps))
    reported.fire("epoch_end", state)
    return state


def _rate(callbacks: CallbackManager, steps: int) -> float:
    state = TrainState()
    began = time.perf_counter()
    for step in range(1, steps + 1):
        state.global_step = step
        state.metrics["loss"] = 1.0 / step
        state.metrics["lr"] = 0.1
        state.metrics["grad_norm"] = 2.0
        state.metrics["tokens"] = step * 64.0
        callbacks.fire("step_end", state)
    return steps / (time.perf_counter() - began)


def digits_steps(config: dict[str, Any], trial: Trial) -> TrainState:
    """The digits loop, its steps reported or not in turn: the seconds of each are its metrics."""
    seconds = {"silent": 0.0, "reported": 0.0}
    state = TrainState()
    for turn in range(2 * config["turns"]):
        kind = ("silent", "reported")[turn % 2]
        callbacks = CallbackManager() if kind == "silent" else trial.callbacks

        def on_step(metrics: dict[str, Any], callbacks: CallbackManager = callbacks) -> None:
            state.global_step += 1
            state.metrics.update(metrics)
            callbacks.fire("step_end", state)

        began = time.perf_counter()
        workload.train(workload.configuration(0), on_step, lambda accuracy: False)
        if turn >= 2:  # the first of each warms up
            seconds[kind] += time.perf_counter() - began
    state.metrics.update(seconds)
    trial.callbacks.fire("epoch_end", state)
    return state


def first_step(config: dict[str, Any], trial: Trial) -> TrainState:
    """Notes when its first step begins; its score makes every other trial stop at once."""
    state = TrainState()
    trial.callbacks.fire("train_start", state)
    state.metrics["began"] = time.time()
    for epoch in range(4):
        state.epoch = epoch
        state.global_step += 1
        trial.callbacks.fire("step_end", state)
        state.metrics["accuracy"] = -float(config["number"])
        trial.callbacks.fire("epoch_end", state)
        if state.should_stop:
            break
    trial.callbacks.fire("train_end", state)
    return state


def notes_its_start(config: dict[str, Any], trial: Trial) -> TrainState:
    """Writes when its first step was done."""

    @trial.callbacks.on("step_end")
    def note(state: TrainState) -> None:
        if state.global_step == 1:
            workload.note(config["first_step"], time.time())

    return digits(config, trial)


def decides_often(config: dict[str, Any], trial: Trial) -> TrainState:
    """Reaches decision points as fast as the driver takes them."""
    state = TrainState()
    for epoch in range(config["decisions"]):
        state.epoch = epoch
        state.global_step += 1
        state.metrics["accuracy"] = 1.0
        trial.callbacks.fire("step_end", state)
        trial.callbacks.fire("epoch_end", state)
    return state
