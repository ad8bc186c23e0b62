"""Fused trials of three models, on a CPU or a GPU: member-steps a second, without the start.

``python -m tests.benchmarks fused-models`` compares a plain loop of torch, in one process and in several at once,
as other tuners run it, with a Trainer, with one by a CUDA graph, and with Trainers fused. All keep a row of each
step.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from xaytune.trainer.callbacks import TrainState, may_be_late, metrics_only
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.trainer import Trainer
from xaytune.trial.common.metrics import capture

# Steps before those that are measured: of all that is loaded late, and until a graph is recorded.
_WARM_UP = 40
_WORDS, _LENGTH = 96, 64


class Workload(NamedTuple):
    """What is trained."""

    model: Callable[[], nn.Module]
    data: Callable[[], TensorDataset]
    optimizer: Callable[[Any], torch.optim.Optimizer]
    batch_size: int


class CharModel(nn.Module):
    """A transformer that predicts the next of each character; its loss is that of the last layer's outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(_WORDS, 128), nn.Parameter(torch.zeros(_LENGTH, 128))
        self.layers = nn.ModuleList([_Block() for _ in range(2)])
        self.head = nn.Linear(128, _WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embed(tokens) + self.place
        for layer in self.layers:
            hidden = layer(hidden)
        logits: Tensor = self.head(hidden)
        return logits.transpose(1, 2)


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(128), nn.LayerNorm(128)
        self.mixed, self.out = nn.Linear(128, 3 * 128), nn.Linear(128, 128)
        self.wide, self.narrow = nn.Linear(128, 512), nn.Linear(512, 128)

    def forward(self, hidden: Tensor) -> Tensor:
        parts = self.mixed(self.before(hidden)).unflatten(-1, (3, 4, 32)).movedim(-3, 0).transpose(2, 3)
        seen = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        hidden = hidden + self.out(seen.transpose(1, 2).flatten(2))
        given: Tensor = hidden + self.narrow(F.gelu(self.wide(self.after(hidden))))
        return given


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def _cnn() -> nn.Module:
    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]

    return nn.Sequential(*block(1, 32), *block(32, 64), nn.Flatten(), nn.Linear(64 * 49, 23), nn.Linear(23, 10))


def _numbers(*shape: int) -> TensorDataset:
    return TensorDataset(torch.randn(2048, *shape), torch.randint(10, (2048,)))


def _text() -> TensorDataset:
    tokens = torch.randint(_WORDS, (2048, _LENGTH + 1))
    return TensorDataset(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


MODELS = {
    "mlp": Workload(_mlp, lambda: _numbers(64), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), 64),
    "cnn": Workload(_cnn, lambda: _numbers(1, 28, 28), lambda p: torch.optim.AdamW(p, lr=1e-3), 64),
    "transformer": Workload(CharModel, _text, lambda p: torch.optim.AdamW(p, lr=1e-3), 16),
}


def compare(
    device: torch.device, names: Sequence[str], widths: Sequence[int], processes: Sequence[int], steps: int
) -> None:
    """Prints member-steps a second.

    Args:
        device: Where models are trained.
        names: Of the models.
        widths: How many Trainers are fused.
        processes: How many processes train plain loops at once.
        steps: That each alone takes; fused ones take four times as many.
    """
    for name in names:
        alone = _rate_of_trainers(name, device, 1, steps)
        rates = {f"torch, {n} processes": _rate_of_processes(name, device, n, steps) for n in processes}
        rates |= {"a Trainer alone": alone}
        rates |= {"a Trainer, cuda_graph": _rate_of_trainers(name, device, 1, steps, cuda_graph=True)}
        rates |= {f"{width} fused": _rate_of_trainers(name, device, width, 4 * steps) for width in widths}
        for way, rate in rates.items():
            times = f"{rate / alone:6.2f} times a Trainer's"
            print(f"{name:12} {way:22} {rate:11,.0f} member-steps a second, {times}", flush=True)


def _rate_of_trainers(name: str, device: torch.device, members: int, steps: int, **options: Any) -> float:
    torch.manual_seed(0)
    data = TensorDataset(*(tensor.to(device) for tensor in MODELS[name].data().tensors))
    train = fit_fused if members > 1 else lambda trainers: trainers[0].fit()
    trainers = [_trainer(name, data, device, **options) for _ in range(members)]
    for trainer in trainers:
        trainer.state.max_steps = _WARM_UP
    train(trainers)
    for trainer in trainers:  # which go on
        trainer.state.max_steps = _WARM_UP + steps
    _wait_for(device)
    begun = time.perf_counter()
    train(trainers)
    _wait_for(device)
    return members * steps / (time.perf_counter() - begun)


def _trainer(name: str, data: TensorDataset, device: torch.device, **options: Any) -> Trainer:
    workload = MODELS[name]
    model = workload.model().to(device)
    trainer = Trainer(
        model,
        optimizer=workload.optimizer(model.parameters()),
        loss_fn=F.cross_entropy,
        train_loader=DataLoader(data, workload.batch_size, shuffle=True),
        device=device,
        num_epochs=10**6,
        **options,
    )
    rows: list[dict[str, Any]] = []

    def keep(state: TrainState) -> None:
        rows.append({metric: capture(value) for metric, value in state.metrics.items()})

    trainer.callbacks.on("step_end")(may_be_late(metrics_only(keep)))
    return trainer


def _rate_of_processes(name: str, device: torch.device, processes: int, steps: int) -> float:
    """What plain loops reach together that begin at the same time."""
    command = [sys.executable, "-m", __name__, name, str(device), str(steps)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for process in started:
        assert process.stdout is not None
        process.stdout.readline()  # it is ready
    return sum(float(output) for output in _answers(started))


def _answers(started: Sequence[subprocess.Popen[str]]) -> list[str]:
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate()[0] for process in started]


def _loop(name: str, device: torch.device, steps: int) -> None:
    """A plain loop: says when it is warm, waits for a line, and prints its steps a second."""
    workload = MODELS[name]
    inputs, targets = (tensor.to(device) for tensor in workload.data().tensors)
    model = workload.model().to(device)
    optimizer = workload.optimizer(model.parameters())
    losses: list[Tensor] = []

    def train(count: int) -> None:
        for _ in range(count):
            batch = torch.randint(len(inputs), (workload.batch_size,), device=device)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs[batch]), targets[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())

    train(_WARM_UP)
    _wait_for(device)
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.perf_counter()
    train(steps)
    _wait_for(device)
    print(steps / (time.perf_counter() - begun))


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


if __name__ == "__main__":
    torch.set_num_threads(1)
    _loop(sys.argv[1], torch.device(sys.argv[2]), int(sys.argv[3]))
