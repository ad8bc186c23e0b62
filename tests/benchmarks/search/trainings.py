"""Small trainings: each takes a configuration, trains for real, and gives the metric epoch by epoch.

A whole one takes a fraction of a second of one core. All that is random in it follows from the configuration and
the epoch: trainings may take turns in one process, and one that is begun again comes to the same values.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pydoc_data.topics import topics
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import make_friedman1
from torch import Tensor, nn

from sweeps.digits import datasets, mlp
from tests.benchmarks.search.curves import seed_of
from xaytune.sweep.objective import Mode
from xaytune.sweep.space import Space
from xaytune.sweep.space_parser import parse_space

# Of a full training.
EPOCHS = 27
# What a language model sees of a text, and how many places of it an epoch trains on.
_CONTEXT, _PLACES = 8, 1024

Config = Mapping[str, Any]


@dataclass(frozen=True)
class _Data:
    """What is trained and evaluated on.

    Attributes:
        parts: Inputs and targets, to train on and to evaluate on.
        epoch: Examples of an epoch.
    """

    parts: tuple[Tensor, Tensor, Tensor, Tensor]
    epoch: int


@dataclass(frozen=True)
class Recipe:
    """A task to train.

    Attributes:
        space: Of its configurations.
        mode: What is better.
        data: Returns what it trains and evaluates on.
        model: Makes the model of a configuration.
        loss: Of outputs and targets.
        metric: The same, of those that are evaluated on.
        rate: What the learning rate is multiplied by at a share of the training.
    """

    space: Space
    mode: Mode
    data: Callable[[], _Data]
    model: Callable[[Config], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor], Tensor]
    rate: Callable[[Config, float], float] = lambda config, share: 1.0

    def train(self, config: Config) -> Iterator[float]:
        """Trains a configuration in full. Yields the metric after each epoch."""
        (seed,), data = seed_of(dict(config)), self.data()
        x, y, x_eval, y_eval = data.parts
        torch.manual_seed(seed)
        model = self.model(config)
        optimizer = _optimizer(model, config)
        for epoch in range(EPOCHS):
            torch.manual_seed(seed + 1 + epoch)
            model.train()
            order = torch.randperm(len(x)) if data.epoch == len(x) else torch.randint(len(x), (data.epoch,))
            batches = order.split(config.get("batch_size", 384))
            for index, batch in enumerate(batches):
                for group in optimizer.param_groups:
                    group["lr"] = config["lr"] * self.rate(config, (epoch + index / len(batches)) / EPOCHS)
                optimizer.zero_grad()
                self.loss(model(x[batch]), y[batch]).backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                value = float(self.metric(model(x_eval), y_eval))
            yield value


def _optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    options = {"lr": config["lr"], "weight_decay": config.get("weight_decay", 0.0), "fused": True}
    if "momentum" in config:
        return torch.optim.SGD(model.parameters(), momentum=config["momentum"], **options)
    return torch.optim.AdamW(model.parameters(), **options)


def _cosine(config: Config, share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))


def _cosine_where_asked(config: Config, share: float) -> float:
    return _cosine(config, share) if config["schedule"] == "cosine" else 1.0


def _warm_up_and_cosine(config: Config, share: float) -> float:
    warm_up = float(config["warm_up"])
    if share < warm_up:
        return share / warm_up
    return _cosine(config, (share - warm_up) / (1 - warm_up))


def _accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).float().mean()


@functools.cache
def _digits() -> _Data:
    """1347 digits to train on, 450 to evaluate on."""
    train, evaluate = datasets()
    return _Data((train.tensors[0], train.tensors[1], evaluate.tensors[0], evaluate.tensors[1]), len(train))


def _mlp(config: Config) -> nn.Module:
    return mlp(config["hidden"], dropout=0.0)


@functools.cache
def _patches() -> _Data:
    """The digits as 3x3 pixels round every other one, ``[n, 4 blocks, 4 places, 9]``."""
    x, y, x_eval, y_eval = _digits().parts

    def patches(images: Tensor) -> Tensor:
        places = F.unfold(images.view(-1, 1, 8, 8), 3, stride=2, padding=1)
        return places.view(-1, 9, 2, 2, 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 4, 9)

    return _Data((patches(x), y, patches(x_eval), y_eval), len(x))


def _cnn(config: Config) -> nn.Module:
    """Two convolutions, of 3x3 pixels and then of 2x2 places, each as the product of matrices that it is."""
    channels = config["channels"]
    return nn.Sequential(
        nn.Linear(9, channels),
        nn.ReLU(),
        nn.Flatten(2),
        nn.Linear(4 * channels, 2 * channels),
        nn.ReLU(),
        nn.Flatten(1),
        nn.Linear(8 * channels, 10),
    )


@functools.cache
def _friedman() -> _Data:
    """800 points of Friedman's first function to train on, 400 to evaluate on, targets of variance 1."""
    inputs, targets = (torch.as_tensor(part).float() for part in make_friedman1(1200, noise=1.0, random_state=0))
    targets = ((targets - targets.mean()) / targets.std())[:, None]
    return _Data((inputs[:800], targets[:800], inputs[800:], targets[800:]), 800)


def _regressor(config: Config) -> nn.Module:
    widths = [10, *[config["width"]] * config["layers"]]
    hidden = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(widths[-1], 1))


@functools.cache
def _characters() -> _Data:
    """The text of Python's own help: eight characters, and the next one."""
    text = "".join(topics[name] for name in sorted(topics))
    alphabet = {character: index for index, character in enumerate(sorted(set(text)))}
    windows = torch.tensor([alphabet[character] for character in text]).unfold(0, _CONTEXT + 1, 1)
    held_out = windows[len(windows) * 95 // 100 :]
    held_out = held_out[:: len(held_out) // 500]
    train = windows[: len(windows) * 95 // 100]
    return _Data((train[:, :-1], train[:, -1], held_out[:, :-1], held_out[:, -1]), _PLACES)


def _language_model(config: Config) -> nn.Module:
    """A neural probabilistic language model (Bengio et al., 2003)."""
    count, width, hidden = int(_characters().parts[0].max()) + 1, config["width"], config["hidden"]
    return nn.Sequential(
        nn.Embedding(count, width),
        nn.Flatten(),
        nn.Linear(_CONTEXT * width, hidden),
        nn.Tanh(),
        nn.Linear(hidden, count),
    )


_MLP_SPACE = parse_space(
    {
        "lr": {"loguniform": [1e-4, 0.3]},
        "hidden": {"choice": [8, 16, 32, 64]},
        "weight_decay": {"loguniform": [1e-5, 1.0]},
        "optimizer": {"choice": ["sgd", "adamw"]},
        "momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": "sgd"}},
    }
)
_CNN_SPACE = parse_space(
    {
        "lr": {"loguniform": [1e-3, 1.0]},
        "momentum": {"uniform": [0.0, 0.99]},
        "weight_decay": {"loguniform": [1e-6, 1e-2]},
        "channels": {"lograndint": [4, 17]},
        "batch_size": {"choice": [192, 384]},
    }
)
_REGRESSION_SPACE = parse_space(
    {
        "lr": {"loguniform": [1e-4, 0.1]},
        "weight_decay": {"loguniform": [1e-4, 1.0]},
        "layers": {"randint": [1, 4]},
        "width": {"lograndint": [8, 65]},
        "batch_size": {"choice": [100, 200]},
        "schedule": {"choice": ["constant", "cosine"]},
    }
)
_CHARLM_SPACE = parse_space(
    {
        "lr": {"loguniform": [1e-4, 0.1]},
        "warm_up": {"uniform": [0.0, 0.5]},
        "weight_decay": {"loguniform": [1e-4, 1.0]},
        "width": {"lograndint": [2, 9]},
        "hidden": {"lograndint": [16, 65]},
        "batch_size": {"choice": [128, 256]},
    }
)
RECIPES = {
    "digits accuracy": Recipe(_MLP_SPACE, "max", _digits, _mlp, F.cross_entropy, _accuracy),
    "digits loss": Recipe(_MLP_SPACE, "min", _digits, _mlp, F.cross_entropy, F.cross_entropy),
    "cnn": Recipe(_CNN_SPACE, "max", _patches, _cnn, F.cross_entropy, _accuracy, _cosine),
    "regression": Recipe(
        _REGRESSION_SPACE, "min", _friedman, _regressor, F.mse_loss, F.mse_loss, _cosine_where_asked
    ),
    "charlm": Recipe(
        _CHARLM_SPACE, "min", _characters, _language_model, F.cross_entropy, F.cross_entropy, _warm_up_and_cosine
    ),
}
