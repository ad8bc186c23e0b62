"""Fused trials against trials with processes of their own: member-steps a second, and whole sweeps."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.benchmarks.workload import digits
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.loop import Trainer

__all__ = ["core", "sweeps"]

_EPOCHS, _BATCH = 3, 64


def core(runs: int, widths: tuple[int, ...] = (8, 32, 128)) -> None:
    """Prints member-steps a CPU second: Trainers alone one after the other, and fused, alternated."""
    torch.set_num_threads(1)
    steps = _EPOCHS * -(-len(digits()[0]) // _BATCH)
    _trainer(0).fit()  # what is imported and compiled once
    fit_fused([_trainer(member) for member in range(4)])
    alone: list[float] = []
    fused: dict[int, list[float]] = {width: [] for width in widths}
    for _ in range(runs):
        for width in widths:
            trainers = [_trainer(member) for member in range(width)]
            begun = time.process_time()
            fit_fused(trainers)
            fused[width].append(width * steps / (time.process_time() - begun))
            trainer = _trainer(0)
            begun = time.process_time()
            trainer.fit()
            alone.append(steps / (time.process_time() - begun))
    one = statistics.median(alone)
    print(f"alone: {one:,.0f} steps a CPU second")
    for width, rates in fused.items():
        rate = statistics.median(rates)
        print(f"{width:4d} fused: {rate:,.0f} member-steps a CPU second, {rate / one:.1f} times alone", flush=True)


def sweeps(runs: int, trials: int, scratch: Path) -> None:
    """Prints seconds of whole sweeps, from the command to its end, alternated."""
    took: dict[int, list[float]] = {64: [], 1: []}
    for run in range(runs):
        for width, seconds in took.items():
            options = ("--set", f"fused={width}", "--set", f"num_samples={trials}", "--storage", scratch / "fused")
            command = [sys.executable, "-m", "xaytune", "run", "sweeps/digits_fused.yaml", *map(str, options)]
            begun = time.monotonic()
            subprocess.run([*command, "--name", f"{width}-{run}"], check=True, capture_output=True, env=os.environ)
            seconds.append(time.monotonic() - begun)
    fused, plain = (statistics.median(took[width]) for width in (64, 1))
    print(
        f"{trials} trials of one shape under ASHA, end to end: fused {fused:.1f} s, else {plain:.1f} s", flush=True
    )
    print(f"fused is {plain / fused:.1f} times as fast")


def _trainer(member: int) -> Trainer:
    torch.manual_seed(member)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10))
    x_train, y_train, x_eval, y_eval = digits()
    return Trainer(
        model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.01 * (1 + member % 10), momentum=0.9),
        loss_fn=F.cross_entropy,
        train_loader=DataLoader(TensorDataset(x_train, y_train), _BATCH, shuffle=True),
        eval_loader=DataLoader(TensorDataset(x_eval, y_eval), 450),
        num_epochs=_EPOCHS,
        device="cpu",
    )
