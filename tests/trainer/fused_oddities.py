"""Models and losses that may not be fused: each is refused, or trained as it would be alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from tests.trainer.fused_models import CLASSES, FEATURES, LENGTH, WORDS

Make = Callable[[], nn.Module]


class Odd(nn.Module):
    """A linear model whose forward pass does something odd between its layers."""

    def __init__(self, between: Callable[[Odd, Tensor], Tensor], **attributes: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)
        self.between = between
        self.kept: Tensor
        self.register_buffer("kept", torch.zeros(8))
        self.calls = 0
        self.seen: list[float] = []
        self.memory: Tensor | None = None
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.between(self, self.first(x)))
        return found


def branches(model: Odd, x: Tensor) -> Tensor:
    return x.relu() if x.mean() > 0 else x.tanh()


def reads_a_number(model: Odd, x: Tensor) -> Tensor:
    return x * (1 + abs(float(x.detach().mean())))


def goes_through_numpy(model: Odd, x: Tensor) -> Tensor:
    return x * torch.from_numpy(np.sign(x.detach().numpy()))


def selects(model: Odd, x: Tensor) -> Tensor:
    return x + x[x > 0].mean()


def finds(model: Odd, x: Tensor) -> Tensor:
    return x + len(torch.nonzero(x > 0)) / 100


def drops(model: Odd, x: Tensor) -> Tensor:
    return F.dropout(x, 0.2, model.training)


def adds_noise(model: Odd, x: Tensor) -> Tensor:
    return x + 0.1 * torch.randn_like(x) if model.training else x


def counts(model: Odd, x: Tensor) -> Tensor:
    model.calls += 1
    return x / model.calls


def remembers(model: Odd, x: Tensor) -> Tensor:
    before, model.memory = model.memory, x.detach().mean(0)
    return x if before is None else x + before


def writes_a_list(model: Odd, x: Tensor) -> Tensor:
    model.seen.append(0.1)
    return x * (1 + sum(model.seen))


def averages(model: Odd, x: Tensor) -> Tensor:
    if model.training:
        model.kept.mul_(0.9).add_(0.1 * x.detach().mean(0))
    return x - model.kept


def replaces_a_buffer(model: Odd, x: Tensor) -> Tensor:
    if model.training:
        model.kept = 0.9 * model.kept + 0.1 * x.detach().mean(0)
    return x - model.kept


def uses_python_randomness(model: Odd, x: Tensor) -> Tensor:
    return x * random.random() if model.training else x


def sorts(model: Odd, x: Tensor) -> Tensor:
    return x.sort(dim=1).values


def builds(model: Odd, x: Tensor) -> Tensor:
    return x + torch.arange(8, dtype=x.dtype) + torch.zeros(len(x), 1, dtype=x.dtype)


def changes_in_place(model: Odd, x: Tensor) -> Tensor:
    y = x.clone()
    y[:, 0] = 0
    return y


def checkpoints(model: Odd, x: Tensor) -> Tensor:
    found: Tensor = torch.utils.checkpoint.checkpoint(torch.tanh, x, use_reentrant=False)
    return found


def takes_a_gradient(model: Odd, x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return x
    (gradient,) = torch.autograd.grad(x.square().sum(), x, create_graph=True)
    return x + 0.1 * gradient


def shrinks_its_weight(model: Odd, x: Tensor) -> Tensor:
    if model.training:
        with torch.no_grad():
            model.last.weight.mul_(0.99)
    return x


class Taught(nn.Module):
    """A model with a teacher, whose weights are means of its own, as in MoCo and BYOL."""

    def __init__(self) -> None:
        super().__init__()
        self.student, self.out = nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)
        self.teacher = nn.Linear(FEATURES, 8).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                for mean, weight in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                    mean.mul_(0.9).add_(weight, alpha=0.1)
        found: Tensor = self.out(torch.tanh(self.student(x) + self.teacher(x)))
        return found


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM]) -> None:
        super().__init__()
        self.embedding, self.rnn, self.out = (
            nn.Embedding(WORDS, 4),
            kind(4, 6, batch_first=True),
            nn.Linear(6, CLASSES),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.out(self.rnn(self.embedding(tokens))[0][:, -1])
        return found


def hooked() -> nn.Module:
    model = nn.Linear(FEATURES, CLASSES)
    model.register_forward_hook(lambda module, inputs, output: output * 2)
    return model


def hooked_parameter() -> nn.Module:
    model = nn.Linear(FEATURES, CLASSES)
    model.weight.register_hook(lambda gradient: gradient * 0.5)
    return model


def with_an_alias() -> nn.Module:
    model = Odd(lambda model, x: x)
    model.memory = model.first.weight.data
    return model


def partly_unused() -> nn.Module:
    return Odd(lambda model, x: x, spare=nn.Linear(3, 3))


def encoder(drop: float) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=drop, batch_first=True)
    return nn.Sequential(nn.Embedding(WORDS, 8), layer, nn.Flatten(), nn.Linear(8 * LENGTH, CLASSES))


def local_class() -> nn.Module:
    class Local(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input).sinh()

    return Local(FEATURES, CLASSES)


ODDITIES: dict[str, tuple[str, Make]] = {
    **{
        function.__name__: ("mlp", lambda function=function: Odd(function))  # type: ignore[misc]
        for function in (
            branches,
            reads_a_number,
            goes_through_numpy,
            selects,
            finds,
            drops,
            adds_noise,
            counts,
            remembers,
            writes_a_list,
            averages,
            replaces_a_buffer,
            uses_python_randomness,
            sorts,
            builds,
            changes_in_place,
            checkpoints,
            takes_a_gradient,
            shrinks_its_weight,
        )
    },
    "a teacher": ("mlp", Taught),
    "GRU": ("tokens", lambda: Recurrent(nn.GRU)),
    "LSTM": ("tokens", lambda: Recurrent(nn.LSTM)),
    "hooks": ("mlp", hooked),
    "parameter hooks": ("mlp", hooked_parameter),
    "an alias of a parameter": ("mlp", with_an_alias),
    "unused parameters": ("mlp", partly_unused),
    "an encoder": ("tokens", lambda: encoder(0.0)),
    "an encoder with dropout": ("tokens", lambda: encoder(0.1)),
    "a class made in the recipe": ("mlp", local_class),
    "weight_norm": ("mlp", lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(FEATURES, CLASSES)))),
    "spectral_norm": ("mlp", lambda: nn.Sequential(parametrizations.spectral_norm(nn.Linear(FEATURES, CLASSES)))),
    "max_norm": (
        "tokens",
        lambda: nn.Sequential(nn.Embedding(WORDS, 4, max_norm=0.5), nn.Flatten(), nn.Linear(4 * LENGTH, CLASSES)),
    ),
    "feature dropout": (
        "mlp",
        lambda: nn.Sequential(
            nn.Unflatten(1, (2, 3)), nn.Dropout1d(0.3), nn.Flatten(), nn.Linear(FEATURES, CLASSES)
        ),
    ),
    "cumulative batchnorm": (
        "mlp",
        lambda: nn.Sequential(nn.BatchNorm1d(FEATURES, momentum=None), nn.Linear(FEATURES, CLASSES)),
    ),
    "a frozen batchnorm": (
        "mlp",
        lambda: nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8).eval(), nn.Linear(8, CLASSES)),
    ),
    "PReLU": ("mlp", lambda: nn.Sequential(nn.Linear(FEATURES, 8), nn.PReLU(8), nn.Linear(8, CLASSES))),
    "bilinear": ("mlp", lambda: nn.Sequential(nn.Linear(FEATURES, 8), nn.GLU(), nn.Linear(4, CLASSES))),
}
