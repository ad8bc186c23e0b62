"""Random recipes: whatever one does, its trial ends, and no value is shown that its history does not hold."""

from __future__ import annotations

import gc
import logging
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tests.driver.harness import ASHA, Played
from tests.trial.conftest import Node
from xaytune.driver.orders import Kill, RequestStop
from xaytune.errors import SkipTrial
from xaytune.messages import DecisionDue, Ended
from xaytune.records import history
from xaytune.sweep.time_axis import DecisionPoints
from xaytune.trainer import checkpoint, checkpoint_files
from xaytune.trainer.callbacks import TrainState
from xaytune.trial.client.attempt import AttemptProcess
from xaytune.trial.run.trial import Trial

_EXITS: tuple[str | int, ...] = (0, 3, "no data")
# A trial that has not ended after so long hangs.
_HANGS_S = 90.0


class OddError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class OddNumber(float):
    def __repr__(self) -> str:
        raise RuntimeError("no words")


def _raise(error: BaseException) -> None:
    raise error


ACTS: Mapping[str, Callable[[Trial, TrainState], object]] = {
    "print": lambda trial, state: print("größe \udce4\x1b[2J" * 50),
    "bytes": lambda trial, state: os.write(1, b"\xff\x00\n"),
    "log": lambda trial, state: logging.getLogger("recipe").warning("step %d", state.global_step),
    "warn": lambda trial, state: warnings.warn("odd", stacklevel=1),
    "child": lambda trial, state: subprocess.run(["echo", "a child"], check=True),
    "orphan": lambda trial, state: subprocess.Popen(["sleep", "600"]),
    "fork": lambda trial, state: os.fork() or os._exit(0),
    "thread": lambda trial, state: threading.Thread(target=time.sleep, args=(600,), daemon=True).start(),
    "close output": lambda trial, state: sys.stdout.close(),
    "close descriptor": lambda trial, state: os.close(1),
    "folder": lambda trial, state: os.chdir("/"),
    "environment": lambda trial, state: os.environ.clear(),
    "seed": lambda trial, state: random.seed(0),
    "no threads": lambda trial, state: torch.set_num_threads(2),
    "ignore signals": lambda trial, state: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "collect": lambda trial, state: gc.disable(),
    "odd metric": lambda trial, state: state.metrics.update(odd=[1], text="a", none=None, big=10**400, z=1j),
    "odd name": lambda trial, state: state.metrics.update({5: 1.0, "": 2.0, "a\nb": 3.0}),  # type: ignore[dict-item]
    "odd number": lambda trial, state: state.metrics.update(score=OddNumber(0.5)),
    "a tensor": lambda trial, state: state.metrics.update(score=torch.tensor(0.5, requires_grad=True)),
    "many numbers": lambda trial, state: state.metrics.update(score=torch.ones(3)),
    "nan": lambda trial, state: state.metrics.update(score=math.nan),
    "no metric": lambda trial, state: state.metrics.pop("score", None),
    "error": lambda trial, state: state.metrics.update(error=0.25),
    "no epoch": lambda trial, state: setattr(state, "epoch", 0),
    "a later epoch": lambda trial, state: setattr(state, "epoch", state.epoch + 3),
    "no step": lambda trial, state: setattr(state, "global_step", state.global_step - 1),
    "many steps": lambda trial, state: setattr(state, "global_step", state.global_step + 100),
    "stop": lambda trial, state: state.stop_training(),
    "go on": lambda trial, state: setattr(state, "should_stop", False),
    "fire": lambda trial, state: trial.callbacks.fire("train_end", state),
    "evaluate": lambda trial, state: trial.callbacks.fire("eval_end", state),
    "report": lambda trial, state: trial.report(score=0.5),
    "raise": lambda trial, state: _raise(ValueError("odd")),
    "raise oddly": lambda trial, state: _raise(OddError()),
    "skip": lambda trial, state: _raise(SkipTrial("odd")),
    "exit": lambda trial, state: sys.exit(random.choice(_EXITS)),
    "interrupt": lambda trial, state: _raise(KeyboardInterrupt()),
    "generator exit": lambda trial, state: _raise(GeneratorExit()),
    "end": lambda trial, state: os._exit(random.choice([0, 3])),
    "kill": lambda trial, state: os.kill(os.getpid(), signal.SIGKILL),
    "abort": lambda trial, state: os.abort(),
    "memory": lambda trial, state: _raise(MemoryError()),
    "hang": lambda trial, state: time.sleep(600),
}
# What ends a trial is rarer than what does not, or nothing would come after it.
_FATAL = tuple(name for name in ACTS if list(ACTS).index(name) >= list(ACTS).index("raise"))
_RETURNS: tuple[Any, ...] = (None, 0.5, "0.5", {"score": 0.25}, {"loss": 1.0}, math.nan, [], object)
_FIRES = ("train_start", "step_end", "epoch_end", "train_end")


def train(config: Mapping[str, Any], trial: Trial) -> Any:
    """Trains by hand for four epochs of two steps, and does at each step what the configuration says."""
    state, saved = TrainState(num_epochs=4), checkpoint_files.list_checkpoints(trial.checkpoint_dir)
    if saved and config["resumes"]:
        state.epoch = checkpoint.load(saved[-1])["epoch"]
        state.global_step = 2 * state.epoch

    def fire(event: Any) -> None:
        if event in config["fires"]:
            trial.callbacks.fire(event, state)

    fire("train_start")
    for epoch in range(state.epoch, 4):
        state.epoch, state.step = epoch, 0
        for _ in range(2):
            state.step, state.global_step = state.step + 1, state.global_step + 1
            state.metrics["score"] = (config["x"] + state.global_step) / 10
            for act in config["acts"].get(str(state.global_step), ()):
                ACTS[act](trial, state)
            fire("step_end")
            if state.should_stop and config["looks"]:
                break
        if config["saves"]:
            path = checkpoint.path_for(trial.checkpoint_dir, state.global_step)
            checkpoint.save({"epoch": epoch + 1}, path)
            trial.callbacks.fire("checkpoint_saved", state)
        fire("epoch_end")
        if state.should_stop and config["looks"]:
            break
    fire("train_end")
    return _RETURNS[config["returns"]]


def run(runs: int, seed: int) -> None:
    """Runs sweeps of random recipes, of 10 trials each, in real processes under the real driver.

    Args:
        runs: How many recipes.
        seed: What they are drawn from.

    Raises:
        AssertionError: A trial hangs, or is shown with a value that its history does not hold.
    """
    kinds: Counter[str] = Counter()
    for first in range(0, runs, 10):
        with tempfile.TemporaryDirectory(prefix="recipes-") as scratch:
            kinds += _sweep(Path(scratch), random.Random(f"{seed}-{first}"), min(10, runs - first))
    print(", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))


def _sweep(folder: Path, draw: random.Random, trials: int) -> Counter[str]:
    configs = [_recipe(draw) for _ in range(trials)]
    played = Played(
        folder / "sweep",
        metric="score",
        scheduler=ASHA,
        num_samples=trials,
        failures={"retries": 1},
        stall_timeout_s=2,
        stop_grace_s=2,
    )
    node = Node(folder / "sweep", "tests.campaigns.recipes:train", points=DecisionPoints(milestones=(1, 3, 9)))
    kinds: Counter[str] = Counter()
    try:
        while (assignment := played.driver.next()) is not None and played.driver.ending is None:
            config = configs[assignment.trial] | {"x": assignment.config["x"]}
            _train(played, node, folder / "sweep", assignment, config)
        for number, trial in played.driver.state.trials.items():
            assert trial.finished, f"trial {number} is {trial.status}: {configs[number]}"
            kinds[trial.failure or trial.status] += 1
            if trial.status != "failed":  # what a lost process had not told is gone
                _check_value(folder / "sweep", number, trial.value, configs[number])
    finally:
        node.template.end()
        played.close()
    return kinds


def _recipe(draw: random.Random) -> dict[str, Any]:
    harmless = [name for name in ACTS if name not in _FATAL]
    acts: dict[str, list[str]] = {}
    for _ in range(draw.randint(0, 4)):
        acts.setdefault(str(draw.randint(1, 8)), []).append(draw.choice(harmless))
    if draw.random() < 0.4:
        acts.setdefault(str(draw.randint(1, 8)), []).append(draw.choice(_FATAL))
    return {
        "acts": acts,
        "fires": draw.choice([_FIRES, _FIRES, _FIRES, _FIRES[:3], ("epoch_end",), ("step_end",), ()]),
        "looks": draw.random() < 0.7,
        "saves": draw.random() < 0.5,
        "resumes": draw.random() < 0.7,
        "returns": draw.randrange(len(_RETURNS)),
    }


def _train(played: Played, node: Node, folder: Path, assignment: Any, config: dict[str, Any]) -> None:
    """Trains an attempt of a trial, and does what the driver commands, as an executor does."""
    driver, number = played.driver, assignment.trial
    driver.started(number)
    fields = {
        name: getattr(assignment, name)
        for name in ("trial", "seed", "attempt", "checkpoints", "last_judged", "judged_step", "stop")
    }
    process: AttemptProcess = node.begin(folder, config=config, **fields)
    begun = time.monotonic()
    try:
        while driver.runs(number):
            assert time.monotonic() < begun + _HANGS_S, f"trial {number} hangs: {config}"
            message = process.next_message(0.2)
            played.clock.set_forward(played.clock.monotonic() + 0.2 * (not isinstance(message, DecisionDue)))
            commands = [*driver.receive(message), *driver.tick()]
            for command in commands:
                if isinstance(command, RequestStop):
                    process.request_stop(command.request)
                elif isinstance(command, Kill):
                    process.close()
                    driver.lost(number, "lost", "killed")
            if isinstance(message, Ended):
                break
    finally:
        process.close()


def _check_value(folder: Path, number: int, value: float | None, config: dict[str, Any]) -> None:
    path = history.path_for(folder, number)
    table = history.read(path)
    rows = table["metrics.score"].dropna().tolist() if "metrics.score" in table else []
    assert value is None or value in rows, f"trial {number}: {value} is not in {rows}: {config}"
