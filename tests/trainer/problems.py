"""Settings of a run, each trained by the Trainer and by a plain loop of PyTorch, to compare their bits."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Dataset, RandomSampler, SubsetRandomSampler, TensorDataset

from xaytune.trainer.random_state import seed_everything
from xaytune.trainer.trainer import Trainer

FEATURES, CLASSES, WORDS, LENGTH = 5, 3, 7, 4
EXAMPLES = 23


@dataclass(frozen=True)
class Setting:
    """What is varied; the defaults are a plain run of two epochs."""

    model: str = "mlp"
    optimizer: str = "sgd"
    data: str = "shuffled"
    schedule: str | None = None
    interval: str = "epoch"
    accumulate: int = 1
    clip: float | None = None
    precision: str = "fp32"
    eval_every: int | str | None = None
    batch: int = 4
    epochs: int = 2

    def __str__(self) -> str:
        default = Setting()
        changed = {name: value for name, value in vars(self).items() if value != getattr(default, name)}
        return ", ".join(f"{name}={value}" for name, value in changed.items()) or "plain"


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """A map dataset that draws from all global generators, as augmentation does."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.randn(FEATURES) + 0.1 * random.random() + 0.1 * float(np.random.rand())
        return self.inputs[index] + noise, self.targets[index]


class Frozen(nn.Module):
    """A backbone with a frozen BatchNorm in eval mode, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(FEATURES).requires_grad_(False).eval()
        self.body = nn.Linear(FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.head(torch.tanh(self.body(self.norm(inputs))))
        return scores


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, CLASSES)
    )


def _words() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(WORDS, 6, sparse=True), nn.Linear(6, CLASSES))


def _tokens() -> nn.Module:
    return nn.Sequential(nn.Embedding(WORDS, 6), nn.Linear(6, CLASSES), _ClassesSecond())


class _ClassesSecond(nn.Module):
    def forward(self, scores: Tensor) -> Tensor:
        return scores.transpose(1, 2)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": _mlp,
    "linear": lambda: nn.Linear(FEATURES, CLASSES),
    "frozen": Frozen,
    "head": lambda: nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh(), nn.Linear(6, CLASSES)),
    "sparse": _words,
    "tokens": _tokens,
}


def own_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss of which nothing is known but its value."""
    return F.cross_entropy(outputs, targets)


OWN_LOSS = ("linear", "frozen", "head")

SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "warm-up": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=60),
}


def _optimizer(setting: Setting, model: nn.Module) -> torch.optim.Optimizer:
    trained: Any = model[2].parameters() if setting.model == "head" else model.parameters()  # type: ignore[index]
    trained = [p for p in trained if p.requires_grad]
    if setting.optimizer == "adamw":
        return torch.optim.AdamW(trained, lr=0.02)
    momentum = 0.9 if setting.optimizer == "momentum" or setting.schedule == "one cycle" else 0.0
    return torch.optim.SGD(trained, lr=0.1, momentum=momentum)


def _data(setting: Setting) -> tuple[Dataset[Any], Dataset[Any]]:
    drawn = torch.Generator().manual_seed(1)
    targets = torch.randint(CLASSES, (EXAMPLES,), generator=drawn)
    if setting.model in ("sparse", "tokens"):
        inputs = torch.randint(WORDS, (EXAMPLES, LENGTH), generator=drawn)
        if setting.model == "tokens":  # of unequal length: what is missing is ignored
            targets = torch.randint(CLASSES, (EXAMPLES, LENGTH), generator=drawn)
            targets[torch.arange(LENGTH) > torch.randint(LENGTH, (EXAMPLES, 1), generator=drawn)] = -100
    else:
        inputs = torch.randn(EXAMPLES, FEATURES, generator=drawn)
    whole = TensorDataset(inputs, targets)
    return (Noisy(inputs, targets) if setting.data.startswith("noisy") else whole), whole


def loaders(setting: Setting) -> tuple[Any, Any]:
    dataset, evaluated = _data(setting)
    options: dict[str, Any] = {"batch_size": setting.batch, "shuffle": True}
    if setting.data == "in order":
        options["shuffle"] = False
    elif setting.data == "own generator":
        options["generator"] = torch.Generator().manual_seed(3)
    elif setting.data == "replaced":
        options = {
            "batch_size": setting.batch,
            "sampler": RandomSampler(range(EXAMPLES), replacement=True, num_samples=18),
        }
    elif setting.data == "subset":
        options = {"batch_size": setting.batch, "sampler": SubsetRandomSampler(range(0, EXAMPLES, 2))}
    elif setting.data == "noisy, workers":
        options["num_workers"] = 2
    elif setting.data == "dropped":
        options["drop_last"] = True
    return DataLoader(dataset, **options), DataLoader(evaluated, 8, shuffle=True)


def seed(setting: Setting) -> nn.Module:
    seed_everything(0)
    return MODELS[setting.model]()


def trainer(setting: Setting, folder: Path | None = None) -> Trainer:
    model = seed(setting)
    optimizer = _optimizer(setting, model)
    train_loader, eval_loader = loaders(setting)
    return Trainer(
        model,
        optimizer=optimizer,
        loss_fn=own_loss if setting.model in OWN_LOSS else F.cross_entropy,
        train_loader=train_loader,
        eval_loader=eval_loader if setting.eval_every is not None else None,
        eval_every=setting.eval_every or "epoch",  # type: ignore[arg-type]
        num_epochs=setting.epochs,
        lr_scheduler=SCHEDULES[setting.schedule](optimizer) if setting.schedule else None,
        lr_interval=setting.interval,  # type: ignore[arg-type]
        accumulate=setting.accumulate,
        clip_grad_norm=setting.clip,
        precision=setting.precision,  # type: ignore[arg-type]
        device="cpu",
        checkpoint_dir=folder,
    )


def plain_loop(setting: Setting) -> tuple[nn.Module, list[float]]:
    """The same run without the Trainer; returns the model, and the loss of each step."""
    model = seed(setting)
    optimizer = _optimizer(setting, model)
    schedule = SCHEDULES[setting.schedule](optimizer) if setting.schedule else None
    train_loader, _ = loaders(setting)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[setting.precision]
    scaler = torch.amp.GradScaler("cpu", enabled=setting.precision == "fp16")
    losses = []
    for _ in range(setting.epochs):
        for window in _windows(train_loader, setting.accumulate):
            model.zero_grad()
            weights = [_weight(setting, targets) for _, targets in window]
            parts = []
            for (inputs, targets), weight in zip(window, weights, strict=True):
                with torch.autocast("cpu", dtype=dtype, enabled=setting.precision != "fp32"):
                    loss = F.cross_entropy(model(inputs), targets)
                scaler.scale(loss * (weight / weights[0]) / len(window)).backward()
                parts.append(loss.detach() * (weight / weights[0]))
            scaler.unscale_(optimizer)
            trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            share = sum(weight / weights[0] for weight in weights)
            if share != len(window):
                for parameter in trained:
                    parameter.grad.mul_(len(window) / share)
            if setting.clip is not None:
                _clip(trained, setting.clip)
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            losses.append(float(torch.stack(parts).sum() / share))
            if schedule is not None and setting.interval == "step" and scaler.get_scale() >= before:
                schedule.step()
        if schedule is not None and setting.interval == "epoch":
            schedule.step()
    return model, losses


def _windows(batches: Any, size: int) -> Iterator[list[Any]]:
    window: list[Any] = []
    for batch in batches:
        window.append(batch)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def _weight(setting: Setting, targets: Tensor) -> Any:
    return len(targets) if setting.model in OWN_LOSS else (targets != -100).sum()


def _clip(parameters: Sequence[Tensor], largest: float) -> None:
    dense = [p for p in parameters if p.grad is not None and not p.grad.is_sparse]
    if len(dense) == len(parameters):
        nn.utils.clip_grad_norm_(dense, largest)
        return
    values = [p.grad.coalesce().values() if p.grad.is_sparse else p.grad for p in parameters if p.grad is not None]
    factor = (largest / (nn.utils.get_total_norm(values) + 1e-6)).clamp(max=1.0)
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.mul_(factor)


def bits(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


TABLE: list[Setting] = [
    Setting(),
    *(Setting(model=model) for model in MODELS if model != "mlp"),
    *(Setting(data=data) for data in ("in order", "own generator", "replaced", "subset", "noisy", "dropped")),
    *(Setting(optimizer=name, clip=0.5) for name in ("sgd", "momentum", "adamw")),
    *(Setting(accumulate=n, batch=3) for n in (2, 3, 5, 20)),
    *(Setting(accumulate=3, batch=3, model=model) for model in ("frozen", "head", "sparse", "tokens")),
    *(Setting(accumulate=2, clip=0.3, model=model) for model in ("linear", "sparse", "tokens")),
    *(Setting(schedule=name, interval=i) for name in SCHEDULES for i in ("epoch", "step")),
    *(Setting(precision=p, clip=c) for p in ("bf16", "fp16") for c in (None, 0.2)),
    *(Setting(precision=p, accumulate=3, schedule="cosine", interval="step") for p in ("bf16", "fp16")),
    *(Setting(eval_every=n) for n in ("epoch", 1, 4)),
    Setting(eval_every=2, accumulate=2, schedule="one cycle", interval="step", optimizer="momentum"),
    Setting(eval_every=3, data="noisy", optimizer="adamw", clip=1.0),
    Setting(eval_every=1, data="own generator", model="sparse", clip=0.1),
    Setting(eval_every=2, model="frozen", accumulate=4, batch=2, schedule="warm-up", interval="step"),
    Setting(data="noisy, workers", eval_every=3, accumulate=2),
]
