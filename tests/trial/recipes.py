"""Recipes that do to their process what programs do, and what they should not."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import faulthandler
import functools
import importlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from tests.trial.world import RUNS, Net, cached, world
from xaytune.trainer.callbacks import EVENTS, Event, TrainState
from xaytune.trainer.trainer import Trainer
from xaytune.trial.run.trial import Trial

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")

MODEL = torch.nn.Linear(4, 1)
DATA = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))


class WordlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def loop(trial: Trial, epochs: int = 3, steps: int = 2, **metrics: Any) -> TrainState:
    """A loop that fires its events; its score is the number of epochs."""
    state, fire = TrainState(num_epochs=epochs, metrics=metrics), trial.callbacks.fire
    fire("train_start", state)
    for epoch in range(epochs):
        state.epoch, state.step = epoch, 0
        for _ in range(steps):
            state.step, state.global_step = state.step + 1, state.global_step + 1
            state.metrics["loss"] = 1.0 / state.global_step
            fire("step_end", state)
            if state.should_stop:
                break
        state.metrics["score"] = epoch + 1.0
        fire("epoch_end", state)
        if state.should_stop:
            break
    fire("train_end", state)
    return state


def train(config: dict[str, Any], trial: Trial) -> TrainState:
    return loop(trial)


def trains_after_a_while(config: dict[str, Any], trial: Trial) -> TrainState:
    """The first trial takes a while to begin; each says which have trained a step before it begins."""
    time.sleep(0.6 if trial.number == 0 else 0.0)
    print(set(RUNS))
    model = torch.nn.Linear(4, 1)
    trainer = Trainer(
        model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        loss_fn=mse_loss,
        train_loader=DataLoader(TensorDataset(DATA, DATA[:, :1]), 16),
        num_epochs=20,
        trial=trial,
    )
    trial.callbacks.on("step_end")(lambda state: RUNS.append(trial.number))
    return trainer.fit()


def writes_where_it_ends(config: dict[str, Any], trial: Trial) -> None:
    @trial.callbacks.on("train_end")
    def write(state: TrainState) -> None:
        (trial.checkpoint_dir / "best.pt").write_text("weights")

    for _ in trial.epochs(2):
        trial.report(score=1.0)


def pollute(config: dict[str, Any], trial: Trial) -> TrainState:
    """Prints what it finds, and changes all of it."""
    print(world())
    RUNS.append(1)
    Net.calls += 1
    cached("a").append(1)
    torch.multiprocessing.set_sharing_strategy("file_system")
    np.seterr(all="raise")
    np.set_printoptions(precision=2)
    sys.setrecursionlimit(5000)
    sys.setswitchinterval(0.1)
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    torch.set_flush_denormal(True)
    torch.set_default_device("meta")
    os.environ["LEAKED"] = "1"
    os.chdir("/")
    os.umask(0o077)
    warnings.simplefilter("error")
    logging.getLogger("leaked").setLevel(logging.DEBUG)
    logging.root.addHandler(logging.NullHandler())
    sys.argv[:] = ["main.py", "--leaked"]
    sys.path.insert(0, "/leaked")
    torch.nn.functional.relu = world  # type: ignore[assignment]
    sys.excepthook = lambda *error: None
    signal.signal(signal.SIGTERM, lambda *event: None)
    threading.Thread(target=time.sleep, args=(3600,), name="leaked", daemon=True).start()
    subprocess.Popen(["sleep", "3600"])
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,), daemon=True).start()
    open("/dev/null")  # noqa: SIM115
    return loop(trial)


def module_level_model(config: dict[str, Any], trial: Trial) -> TrainState:
    optimizer = torch.optim.SGD(MODEL.parameters(), lr=0.1)
    state = TrainState(max_steps=5)
    for step in range(1, 6):
        loss = mse_loss(MODEL(DATA), DATA.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state.step = state.global_step = step
        state.metrics["score"] = loss.item()
        trial.callbacks.fire("step_end", state)
    return state


def process_group(config: dict[str, Any], trial: Trial) -> TrainState:
    """Makes what there is only one of in a process, and leaves it."""
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=store)
    multiprocessing.set_start_method("spawn")
    return loop(trial)


def parses_arguments(config: dict[str, Any], trial: Trial) -> TrainState:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--data", required=config.get("required", False))
    return loop(trial, epochs=parser.parse_args().epochs)


def says(config: dict[str, Any], trial: Trial) -> TrainState:
    """Says something in every way there is."""
    print("by print, in greek: \u03b1")
    print("to stderr", file=sys.stderr)
    logging.getLogger(__name__).info("by a handler of the module's")
    subprocess.run(["echo", "by a child"], check=True)
    subprocess.run(["echo", "by a child that was given stdout"], stdout=sys.stdout, check=True)
    os.write(1, b"to the descriptor\n")
    ctypes.CDLL(None).printf(b"by C code\n")
    sys.stdout.buffer.write(b"bytes\n")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    warnings.warn("a warning", stacklevel=1)
    print("encoding", sys.stdout.encoding.lower(), "terminal", sys.stdout.isatty())
    return loop(trial)


def ends(config: dict[str, Any], trial: Trial) -> TrainState:
    """Ends in a way of many, after its training or before."""
    if config.get("trained", True):
        loop(trial)
    ways: dict[str, Callable[[], object]] = {
        "sys.exit(0)": lambda: sys.exit(0),
        "sys.exit()": lambda: sys.exit(),
        "sys.exit(3)": lambda: sys.exit(3),
        "sys.exit(text)": lambda: sys.exit("there is no data"),
        "os._exit(0)": lambda: os._exit(0),
        "os._exit(3)": lambda: os._exit(3),
        "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
        "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "SIGSEGV": lambda: ctypes.string_at(0),
        "abort": os.abort,
        "KeyboardInterrupt": lambda: _throw(KeyboardInterrupt()),
        "GeneratorExit": lambda: _throw(GeneratorExit()),
        "wordless": lambda: _throw(WordlessError()),
        "its own cause": lambda: _throw_from_itself(ValueError()),
        "breakpoint": lambda: breakpoint(),
        "input": lambda: input("how many? "),
        "memory": lambda: torch.empty(2**50),
        "unreadable": lambda: _throw(RuntimeError("device-side assert triggered")),
    }
    ways[config["way"]]()
    return TrainState()


def _throw(error: BaseException) -> None:
    raise error


def _throw_from_itself(error: BaseException) -> None:
    raise error from error


def unreadable_metric(config: dict[str, Any], trial: Trial) -> TrainState:
    """As on a GPU after a failed assertion: a metric that cannot be read any more; `meta` stands for that GPU."""
    state = TrainState(num_epochs=2)
    trial.callbacks.fire("train_start", state)
    state.step = state.global_step = 1
    state.metrics |= {"loss": torch.empty((), device="meta"), "score": 1.0}
    trial.callbacks.fire("step_end", state)
    if config["raises"]:
        raise RuntimeError("device-side assert triggered")
    return state


def main_thread(config: dict[str, Any], trial: Trial) -> TrainState:
    """Does what only a main thread may."""
    signal.signal(signal.SIGALRM, lambda *event: None)
    asyncio.new_event_loop().run_until_complete(asyncio.sleep(0))
    asyncio.set_event_loop(asyncio.new_event_loop())
    asyncio.get_event_loop().close()
    assert threading.current_thread() is threading.main_thread()
    return loop(trial)


def loads(config: dict[str, Any], trial: Trial) -> TrainState:
    """Reads batches by processes of its own that stay."""
    data = TensorDataset(torch.randn(32, 4))
    context = config.get("context", "fork")
    loader = DataLoader(data, 8, num_workers=2, persistent_workers=True, multiprocessing_context=context)
    for _ in range(2):
        assert sum(len(batch) for (batch,) in loader) == 32
    return loop(trial)


def starts_slowly(config: dict[str, Any], trial: Trial) -> TrainState:
    """Does for more than a second what could be done once."""
    reads_its_data()
    return loop(trial)


def reads_its_data() -> None:
    time.sleep(1.3)


def leaves_children(config: dict[str, Any], trial: Trial) -> TrainState:
    """Leaves processes: its own child, one in a session of its own, and a daemon that belongs to nobody."""
    children = [
        subprocess.Popen(["sleep", "3600"]).pid,
        subprocess.Popen(["sleep", "3601"], start_new_session=True).pid,
    ]
    subprocess.run(
        ["sh", "-c", "setsid sleep 3602 & echo $! > daemon"], cwd=trial.checkpoint_dir.parents[1], check=True
    )
    children.append(int((trial.checkpoint_dir.parents[1] / "daemon").read_text()))
    (trial.checkpoint_dir.parents[1] / "children").write_text(" ".join(map(str, children)))
    if config.get("hangs"):
        hang(trial)
    return loop(trial)


def hang(trial: Trial) -> None:
    """Hangs in C code, with the interpreter's lock held: no handler of Python's ever runs."""
    state = TrainState(global_step=1, metrics={"score": 1.0})
    trial.callbacks.fire("step_end", state)
    (trial.checkpoint_dir.parents[1] / "hangs").touch()
    ctypes.PyDLL(None).sleep(3600)


def hangs(config: dict[str, Any], trial: Trial) -> TrainState:
    hang(trial)
    return TrainState()


def waits(config: dict[str, Any], trial: Trial) -> TrainState:
    """Trains until it is told to stop."""
    state = TrainState(metrics={"score": 1.0})
    while not state.should_stop:
        state.step = state.global_step = state.global_step + 1
        trial.callbacks.fire("step_end", state)
        time.sleep(0.001)
    return state


def saves(config: dict[str, Any], trial: Trial) -> TrainState:
    """Saves where it is judged, and writes down which events were fired."""
    from xaytune.trainer import checkpoint

    def save() -> Path:
        path = checkpoint.path_for(trial.checkpoint_dir, 1)
        checkpoint.save({}, path)
        trial.callbacks.fire("checkpoint_saved", TrainState(global_step=1))
        return path

    trial.attach(save)
    events: tuple[Event, ...] = ("error", "train_end")
    for event in events:
        trial.callbacks.on(event)(functools.partial(print_event, event))
    try:
        return loop(trial)
    finally:
        print("finally")


def print_event(event: str, state: TrainState) -> None:
    print(event)


def prints_its_world(config: dict[str, Any], trial: Trial) -> TrainState:
    print(torch.get_num_threads(), repr(os.environ.get("CUDA_VISIBLE_DEVICES")), torch.cuda.is_available())
    print(Path("/proc/self/oom_score_adj").read_text().strip(), "pyarrow" in sys.modules)
    return loop(trial)


def prints_what_is_looked_at(config: dict[str, Any], trial: Trial) -> TrainState:
    """Prints the events whose handlers look at more than metrics."""
    print([event for event in EVENTS if not trial.callbacks.metrics_suffice(event)])
    return loop(trial)


def imports_lazily(config: dict[str, Any], trial: Trial) -> TrainState:
    os.environ.update(config.get("settings", {}))
    print("there" if config["module"] in sys.modules else "not there")
    importlib.import_module(config["module"])
    return loop(trial)


def writes_in_threads(config: dict[str, Any], trial: Trial) -> TrainState:
    """Returns while a thread, and one of an executor, have only begun to write, or wait for a file."""
    returned, folder = threading.Event(), trial.checkpoint_dir.parents[1]

    def write(name: str) -> None:
        returned.wait()
        time.sleep(0.2)
        while "until" in config and not (folder / config["until"]).exists():
            time.sleep(0.01)
        (folder / name).write_text("written")

    threading.Thread(target=write, args=("by a thread",)).start()
    ThreadPoolExecutor().submit(write, "by an executor")
    trial.callbacks.on("train_end")(lambda state: returned.set())
    return loop(trial)


def scores_steps(config: dict[str, Any], trial: Trial) -> TrainState:
    """Six steps, each of which scores its number."""
    state = TrainState(max_steps=6)
    while not state.should_stop and state.global_step < 6:
        state.step = state.global_step = state.global_step + 1
        state.metrics["score"] = float(state.global_step)
        trial.callbacks.fire("step_end", state)
    return state


def eats_memory(config: dict[str, Any], trial: Trial) -> TrainState:
    """Takes more and more of it."""
    kept = []
    while True:
        kept.append(bytearray(50_000_000))


def loops_until_stopped(config: dict[str, Any], trial: Trial) -> None:
    """A loop of its own, which never waits for a decision."""
    for _ in trial.steps(10**9):
        time.sleep(0.001)
        trial.log(score=1.0)


def is_judged_beside_a_loop(config: dict[str, Any], trial: Trial) -> TrainState | None:
    """The first trial waits for decisions; another one loops, and says so in a file."""
    if trial.number == 0:
        return loop(trial)
    for _ in trial.steps(10**9):
        (trial.checkpoint_dir.parents[1] / "loops").touch()
        trial.log(score=1.0)
    return None


class OfTheDefaultDtype(torch.nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * torch.ones(4))


def changes_the_default_dtype(config: dict[str, Any], trial: Trial) -> TrainState:
    """The first trial computes in other numbers than all others."""
    if trial.number == 0:
        torch.set_default_dtype(torch.float64)
    model, data = OfTheDefaultDtype(4, 1), DATA.to(torch.get_default_dtype())
    loader = DataLoader(TensorDataset(data, data.sum(1, keepdim=True)), 8, shuffle=True)
    trainer = Trainer(
        model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01),
        loss_fn=mse_loss,
        train_loader=loader,
        num_epochs=9,
        trial=trial,
    )
    trial.callbacks.on("epoch_end")(lambda state: state.metrics.update(score=1.0))
    return trainer.fit()
