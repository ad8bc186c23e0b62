"""Models and settings that are trained fused and alone, to compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from xaytune.trainer.callbacks import CallbackManager
from xaytune.trainer.fused.fusion import Answer, Fusion
from xaytune.trainer.fused.member import Member
from xaytune.trainer.fused.states import States
from xaytune.trainer.trainer import Trainer

FEATURES, CLASSES, WORDS, LENGTH, EXAMPLES = 6, 3, 11, 5, 22


class Tied(nn.Module):
    """An embedding whose weight is the output's too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 4)
        self.out = nn.Linear(4, WORDS, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.out(self.embedding(tokens).mean(1))
        return found[:, :CLASSES]


class Attention(nn.Module):
    """A block of a transformer, with torch's own attention."""

    def __init__(self, *, drop: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, 8)
        self.norm, self.out, self.drop = nn.LayerNorm(8), nn.Linear(8, CLASSES), nn.Dropout(drop)
        self.qkv = nn.Linear(8, 24)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        found: Tensor = self.out((x + self.drop(mixed)).mean(1))
        return found


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(2))
        self.first, self.last, self.scale = (
            nn.Linear(FEATURES, 8),
            nn.Linear(8, CLASSES),
            nn.Parameter(torch.ones(1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + self.scale * block(x)
        found: Tensor = self.last(x)
        return found


def sequence(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))
    model[0].requires_grad_(False)
    return model


def head(inputs: int) -> nn.Module:
    return nn.Linear(inputs, CLASSES)


IMAGE = nn.Unflatten(1, (1, 2, 3))
FUSED_MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: sequence(nn.Linear(FEATURES, 8), nn.ReLU(), head(8)),
    "batchnorm": lambda: sequence(nn.Linear(FEATURES, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), head(8)),
    "layernorm": lambda: sequence(nn.Linear(FEATURES, 8), nn.LayerNorm(8), nn.SiLU(), head(8)),
    "dropout": lambda: sequence(nn.Dropout(0.1), nn.Linear(FEATURES, 8), nn.Tanh(), nn.Dropout(0.3), head(8)),
    "embedding": lambda: sequence(nn.Embedding(WORDS, 4), nn.Flatten(), head(4 * LENGTH)),
    "conv": lambda: sequence(nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten(), head(8)),
    "conv with batchnorm": lambda: sequence(
        nn.Unflatten(1, (1, 2, 3)),
        nn.Conv2d(1, 4, 2, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        head(8),
    ),
    "attention": Attention,
    "attention with dropout": lambda: Attention(drop=0.2),
    "tied": Tied,
    "frozen": frozen,
    "residual": Residual,
}


def data_for(name: str) -> TensorDataset:
    generator = torch.Generator().manual_seed(5)
    targets = torch.randint(CLASSES, (EXAMPLES,), generator=generator)
    if name.startswith(("attention", "tied", "embedding", "tokens")):
        return TensorDataset(torch.randint(WORDS, (EXAMPLES, LENGTH), generator=generator), targets)
    return TensorDataset(torch.randn(EXAMPLES, FEATURES, generator=generator, dtype=torch.float64), targets)


@dataclass(frozen=True)
class Case:
    """What is varied; members differ in their weights, rates, and the length of their training besides."""

    model: str = "mlp"
    optimizer: str = "sgd"
    clip: bool = False
    accumulate: int = 1
    schedule: str | None = None
    interval: str = "epoch"
    batch: int = 5  # the last batch of an epoch is smaller
    handlers: str | None = None
    epochs: int = 3

    def __str__(self) -> str:
        default = Case()
        changed = {name: value for name, value in vars(self).items() if value != getattr(default, name)}
        return ", ".join(f"{name}={value}" for name, value in changed.items()) or "plain"


def optimizer_of(name: str, model: nn.Module, member: int) -> torch.optim.Optimizer:
    rate, trained = 0.02 * (1 + member), [p for p in model.parameters() if p.requires_grad]
    if name == "sgd":
        return torch.optim.SGD(trained, lr=rate)
    if name == "momentum":
        return torch.optim.SGD(trained, lr=rate, momentum=0.3 * (member % 3), weight_decay=0.01 * member)
    if name == "nesterov":
        return torch.optim.SGD(trained, lr=rate, momentum=0.5 + 0.1 * member, nesterov=True, weight_decay=0.1)
    if name == "adam":
        return torch.optim.Adam(trained, lr=rate, betas=(0.8 + 0.02 * member, 0.99), weight_decay=0.02 * member)
    if name == "adamw":
        return torch.optim.AdamW(trained, lr=rate, eps=1e-6 * (1 + member), weight_decay=0.1 * member)
    groups = [{"params": trained[:1], "lr": rate / 2}, {"params": trained[1:], "weight_decay": 0.05}]
    return torch.optim.AdamW(groups, lr=rate)


def schedule_of(name: str | None, optimizer: torch.optim.Optimizer, member: int) -> Any:
    match name:
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=4 + member)
        case "onecycle":
            steps = 1000  # more than any test takes
            return lr_scheduler.OneCycleLR(optimizer, max_lr=0.1 + 0.01 * member, total_steps=steps)
        case "lambda":
            return lr_scheduler.LambdaLR(optimizer, lambda count: 1 / (1 + 0.1 * member + count))
        case "warmup":
            warm, after = (
                lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3),
                lr_scheduler.StepLR(optimizer, 4, 0.5),
            )
            return lr_scheduler.SequentialLR(optimizer, [warm, after], milestones=[3])
        case "plateau":
            return lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=0)
    return None


def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)


def trainer_of(
    case: Case,
    member: int,
    folder: Path | None = None,
    build: Callable[[], nn.Module] | None = None,
    callbacks: CallbackManager | None = None,
    **options: Any,
) -> Trainer:
    """Returns the Trainer of a member, made anew each time."""
    torch.manual_seed(100 + member)
    model = (build or FUSED_MODELS[case.model])().double()
    optimizer = optimizer_of(case.optimizer, model, member)
    data = data_for(case.model)
    given: dict[str, Any] = {"loss_fn": loss_fn} if "training_step" not in options else {}
    given["train_loader"] = DataLoader(data, case.batch, shuffle=True)
    trainer = Trainer(
        model,
        optimizer=optimizer,
        eval_loader=DataLoader(data, 8),
        max_steps=-1 if member % 2 else 4 * case.epochs - member,
        num_epochs=case.epochs,
        clip_grad_norm=0.5 + 0.1 * member if case.clip else None,
        accumulate=case.accumulate,
        lr_scheduler=schedule_of(case.schedule, optimizer, member),
        lr_interval=case.interval,  # type: ignore[arg-type]
        device="cpu",
        callbacks=callbacks,
        checkpoint_dir=folder,
        **(given | options),
    )
    if case.handlers is not None:
        HANDLERS[case.handlers](trainer)
    return trainer


def fit_joining(trainers: Sequence[Trainer], together: int = 3, steps: int = 3) -> None:
    """Trains Trainers side by side, of which the later ones join the others one by one.

    Args:
        trainers: The Trainers.
        together: How many begin at the same time.
        steps: How often the others are asked for something between two that join.
    """
    fusion, states = Fusion(), [States() for _ in trainers]
    members = [fusion.begin(trainer, of) for trainer, of in zip(trainers, states, strict=True)]
    loops = {member: member.run.loop(member) for member in members}
    asking: list[Member] = []

    def resume(member: Member, answer: Answer | None) -> None:
        loop = loops[member]
        try:
            if answer is None or answer.error is None:
                member.request = loop.send(None if answer is None else answer.value)
            else:
                member.request = loop.throw(answer.error)
        except StopIteration:
            fusion.end(member)
        else:
            asking.append(member)

    for number, member in enumerate(members):
        for other in members:  # until all have joined
            other.one_step_at_a_time = number + 1 < len(members)
        member.enter()
        resume(member, None)
        for _ in range(0 if number + 1 < together else steps if number + 1 < len(members) else 10**6):
            if not asking:
                break
            answers = fusion.perform(asking)
            answered = {answer.member for answer in answers}
            asking[:] = [member for member in asking if member not in answered]
            for answer in answers:
                resume(answer.member, answer)
    fusion.randomness.vacate()


def changes_the_rate(trainer: Trainer) -> None:
    @trainer.callbacks.on("step_end", every=3)
    def lower(state: Any) -> None:
        trainer.optimizer.param_groups[0]["lr"] *= 0.5


def changes_weights(trainer: Trainer) -> None:
    @trainer.callbacks.on("step_end")
    def bound(state: Any) -> None:
        gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        state.metrics["largest"] = max(float(gradient.abs().max()) for gradient in gradients)
        with torch.no_grad():
            for p in trainer.model.parameters():
                p.clamp_(-0.4, 0.4)


def draws(trainer: Trainer) -> None:
    @trainer.callbacks.on("epoch_end")
    def add_noise(state: Any) -> None:
        with torch.no_grad():
            for p in trainer.model.parameters():
                p.add_(0.01 * torch.randn_like(p))


def freezes(trainer: Trainer) -> None:
    @trainer.callbacks.on("epoch_end")
    def freeze(state: Any) -> None:
        next(iter(trainer.model.parameters())).requires_grad_(state.epoch % 2 == 1)


HANDLERS: dict[str, Callable[[Trainer], None]] = {
    "rate": changes_the_rate,
    "weights": changes_weights,
    "noise": draws,
    "freeze": freezes,
}


def table() -> list[Case]:
    """All combinations that are compared."""
    cases = [Case(model=m, optimizer=o) for m in FUSED_MODELS for o in ("momentum", "adamw")]
    cases += [
        Case(optimizer=o, clip=c, accumulate=a)
        for o in ("sgd", "nesterov", "adam", "groups")
        for c, a in ((False, 1), (True, 1), (False, 3), (True, 2))
    ]
    cases += [
        Case(schedule=s, interval=i, optimizer=o)
        for s, i, o in (
            ("cosine", "epoch", "momentum"),
            ("cosine", "step", "adam"),
            ("onecycle", "step", "momentum"),
            ("onecycle", "step", "adam"),
            ("lambda", "epoch", "groups"),
            ("warmup", "step", "adamw"),
            ("plateau", "epoch", "sgd"),
        )
    ]
    cases += [
        Case(handlers=h, model=m, optimizer=o)
        for h in HANDLERS
        for m, o in (("mlp", "momentum"), ("dropout", "sgd" if h == "freeze" else "adam"))
    ]
    cases += [
        Case(model=m, accumulate=2, clip=True, optimizer="adam")
        for m in ("batchnorm", "dropout", "conv with batchnorm", "attention with dropout", "tied")
    ]
    cases += [Case(model="dropout", batch=EXAMPLES, epochs=6), Case(batch=4, epochs=4, optimizer="nesterov")]
    return cases
