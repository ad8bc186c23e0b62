"""``python -m tests.benchmarks.trainer``: what a step costs by the Trainer, against plain loops, by turns."""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.trainer import Trainer

FEATURES, CLASSES, BATCH = 64, 10, 64


class Problem:
    """An MLP on random data, `width` wide, trained for `steps` steps an epoch."""

    def __init__(self, width: int, steps: int, device: torch.device) -> None:
        self.steps, self.device = steps, device
        self.inputs = torch.randn(steps * BATCH, FEATURES)
        self.targets = torch.randint(CLASSES, (steps * BATCH,))
        self.model = nn.Sequential(
            nn.Linear(FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CLASSES)
        ).to(device)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        self.loader = DataLoader(TensorDataset(self.inputs, self.targets), BATCH, shuffle=True)

    def by_trainer(self, *, history: bool = False) -> None:
        """The Trainer; with a handler that keeps a row of each step, as a trial's does."""
        trainer = Trainer(
            self.model,
            optimizer=self.optimizer,
            train_loader=self.loader,
            loss_fn=F.cross_entropy,
            device=self.device,
        )
        rows: list[dict[str, object]] = []

        def keep(state: TrainState) -> None:
            rows.append(dict(state.metrics))

        if history:
            trainer.callbacks.on("step_end")(keep)
        trainer.fit()

    def by_loader(self) -> None:
        """A plain loop over the loader, which measures the norm of the gradients too."""
        for inputs, targets in self.loader:
            self._step(inputs.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True))

    def by_index(self) -> None:
        """A plain loop that gathers its batches by index."""
        for index in torch.randperm(len(self.inputs)).split(BATCH):
            inputs, targets = self.inputs[index], self.targets[index]
            self._step(inputs.to(self.device, non_blocking=True), targets.to(self.device, non_blocking=True))

    def _step(self, inputs: Tensor, targets: Tensor) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(inputs), targets).backward()
        nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        self.optimizer.step()


def by_turns(problem: Problem, rounds: int) -> dict[str, list[float]]:
    """Milliseconds a step, of each way in each round."""
    ways: dict[str, Callable[[], None]] = {
        "plain loop, gathers by index": problem.by_index,
        "Trainer": problem.by_trainer,
        "Trainer with a row of each step": lambda: problem.by_trainer(history=True),
        "plain loop over the DataLoader": problem.by_loader,
    }
    # On the CPU its own time: what else the machine does shall not count.
    clock = time.process_time if problem.device.type == "cpu" else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, train in ways.items():
            _wait(problem.device)
            began = clock()
            train()
            _wait(problem.device)
            if turn > 0:  # the first warms up
                taken[name].append((clock() - began) / problem.steps * 1e3)
    return taken


def synchronisations(problem: Problem) -> int:
    """How often the host waited for the device within the steps of the Trainer."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            problem.by_trainer(history=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(warning.message) for warning in caught)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.trainer", description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 1024])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    for width in options.widths:
        problem = Problem(width, options.steps, device)
        taken = by_turns(problem, options.rounds)
        base = taken["plain loop, gathers by index"]
        print(f"\nwidth {width} on {device}: milliseconds a step, medians of {options.rounds} turns")
        for name, times in taken.items():
            against = statistics.median(t / b - 1 for t, b in zip(times, base, strict=True))
            print(f"  {name:34} {statistics.median(times):7.4f}  {against:+.1%}", flush=True)
        if device.type == "cuda":
            print(f"  the host waited {synchronisations(problem)} times in {options.steps} steps of the Trainer")


if __name__ == "__main__":
    main()
