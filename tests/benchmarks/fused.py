"""Fused trials against trials with processes of their own: member-steps a second, and whole sweeps."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tests.benchmarks import workload
from tests.benchmarks.recipes import trainer_of
from xaytune.records.results import Results
from xaytune.records.sweep_folder import SweepFolder
from xaytune.simulation.curves import Surrogate
from xaytune.simulation.simulate import simulate
from xaytune.sweep.spec import SweepSpec
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.trainer import Trainer

_EPOCHS = 3


def core(runs: int, widths: tuple[int, ...] = (8, 32, 128)) -> None:
    """Prints member-steps a CPU second: torch alone, a Trainer alone, and Trainers fused, alternated."""
    torch.set_num_threads(1)
    config = workload.of_one_shape(0)
    steps = _EPOCHS * -(-len(workload.digits()[0]) // config["batch_size"])
    ways: dict[str, tuple[int, Callable[[], object]]] = {
        "torch alone": (1, lambda: workload.train(config, lambda m: None, lambda a: False, epochs=_EPOCHS)),
        "a Trainer alone": (1, lambda: _trainer(0).fit()),
    }
    for width in widths:
        ways[f"{width} fused"] = (width, lambda width=width: fit_fused([_trainer(n) for n in range(width)]))  # type: ignore[misc]
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(runs + 1):
        for name, (width, train) in ways.items():
            begun = time.process_time()
            train()
            if run > 0:  # the first imports and compiles
                rates[name].append(width * steps / (time.process_time() - begun))
    alone = statistics.median(rates["a Trainer alone"])
    for name, found in rates.items():
        rate = statistics.median(found)
        print(
            f"{name:16} {rate:9,.0f} member-steps a CPU second, {rate / alone:4.1f} times a Trainer's", flush=True
        )


def sweeps(runs: int, trials: int, scratch: Path) -> None:
    """Prints seconds of whole sweeps of one shape under ASHA, from the command to its end, alternated."""
    commands = {name: _Sweep("of_one_shape", fused) for name, fused in _WAYS.items()}
    peers = [f"optuna_of_one_shape_{n}" for n in sorted({1, os.cpu_count() or 1})] + ["ray_of_one_shape"]
    _print_times(runs, trials, scratch, {**commands, **dict.fromkeys(peers)})


def mixed_sweeps(runs: int, trials: int, scratch: Path) -> None:
    """Prints seconds of the same where the models are of four shapes, and where each trial has a handler."""
    for recipe in ("of_four_shapes", "with_a_handler"):
        print(recipe.replace("_", " "), flush=True)
        _print_times(runs, trials, scratch, {name: _Sweep(recipe, fused) for name, fused in _WAYS.items()})


class _Sweep(NamedTuple):
    """A sweep of xaytune."""

    recipe: str
    fused: int | str


_WAYS: dict[str, int | str] = {"fused 64": 64, "fused auto": "auto", "unfused": 1}


def _print_times(runs: int, trials: int, scratch: Path, sweeps: Mapping[str, _Sweep | None]) -> None:
    """Runs sweeps by turns; those that are None are of a peer, by their names.

    Their schedulers stop by other rules, so each trains another number of epochs: these are printed too.
    """
    took: dict[str, list[float]] = {name: [] for name in sweeps}
    epochs: dict[str, list[int]] = {name: [] for name in sweeps}
    for _ in range(runs):
        for name, sweep in sweeps.items():
            folder = Path(tempfile.mkdtemp(dir=scratch))
            begun = time.monotonic()
            done = subprocess.run(_command(name, sweep, trials, folder), capture_output=True, text=True)
            took[name].append(time.monotonic() - begun)
            if done.returncode != 0:
                raise SystemExit(f"{name} failed:\n{done.stdout}{done.stderr}")
            epochs[name].append(_epochs(folder))
    unfused = statistics.median(took["unfused"])
    for name, seconds in took.items():
        median, trained = statistics.median(seconds), statistics.median(epochs[name])
        print(
            f"{trials:4} trials  {name:22} {median:7.1f} s  xaytune unfused {unfused / median:5.2f} times that"
            f"  {trained:6,.0f} epochs, {trained / median:5.1f} a second",
            flush=True,
        )


def _epochs(folder: Path) -> int:
    """Returns how many epochs the trials of a sweep, or of a peer, have trained."""
    of_a_peer = workload.noted(folder / "compute")
    return len(of_a_peer) or sum(trial.epoch for trial in Results(folder / "sweep").trials)


def ahead(seeds: int, scratch: Path) -> None:
    """Prints what is found with more trials in flight, of which a search knows nothing yet, in virtual time."""
    space = {
        "lr": {"loguniform": [1e-5, 1]},
        "momentum": {"uniform": [0, 1]},
        "decay": {"loguniform": [1e-7, 1e-1]},
        "dropout": {"uniform": [0, 0.6]},
    }
    for algorithm in ("random", "tpe"):
        for workers in (1, 8, 16, 32, 64):
            best = []
            for seed in range(seeds):
                search = {"algorithm": algorithm, "seed": seed}
                spec = SweepSpec.parse(
                    {
                        "recipe": "a:b",
                        "metric": "m",
                        "mode": "max",
                        "space": space,
                        "search": search,
                        "num_samples": 96,
                    }
                )
                sweep_folder = SweepFolder(scratch / f"ahead-{algorithm}-{workers}-{seed}")
                found = simulate(spec, Surrogate(_curve), sweep_folder, workers).results.best
                assert found is not None
                assert found.value is not None
                best.append(found.value)
            print(f"{algorithm:7} {workers:3} trials at once: {statistics.mean(best):.4f} in the mean", flush=True)


def _curve(config: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """A curve of 27 epochs that nears 1 where all four parameters are right."""
    far = (math.log10(config["lr"]) + 2.2) ** 2 / 6 + (math.log10(config["decay"]) + 4) ** 2 / 30
    far += 2 * (config["momentum"] - 0.8) ** 2 + abs(config["dropout"] - 0.15)
    seconds = [epoch * (1 + 0.2 * config["momentum"]) for epoch in range(1, 28)]
    return seconds, [(1 - far) * (1 - 0.8 * epoch**-0.7) for epoch in range(1, 28)]


def _command(name: str, sweep: _Sweep | None, trials: int, folder: Path) -> list[str]:
    if sweep is None:
        return [sys.executable, "-m", "tests.benchmarks.peers", name, str(trials), str(folder)]
    spec = {
        "recipe": f"tests.benchmarks.recipes:{sweep.recipe}",
        "setup": "tests.benchmarks.workload:digits",  # the data is loaded once a node
        "metric": "eval_accuracy",
        "mode": "max",
        "space": {"number": {"grid": list(range(trials))}},
        "scheduler": {"algorithm": "asha", "max_t": workload.MAX_EPOCHS, "reduction_factor": 3},
        "fused": sweep.fused,
    }
    file = folder / "spec.yaml"
    file.write_text(json.dumps(spec))  # JSON is YAML
    return [sys.executable, "-m", "xaytune", "run", str(file), "--name", "sweep", "--storage", str(folder)]


def _trainer(member: int) -> Trainer:
    torch.manual_seed(member)
    return trainer_of(workload.of_one_shape(member), num_epochs=_EPOCHS)
