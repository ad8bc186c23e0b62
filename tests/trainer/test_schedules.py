"""Learning rates: every scheduler of torch, resumed, and resumed with other hyperparameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.optim import lr_scheduler as L
from torch.optim.swa_utils import SWALR

from tests.models import CLASSES, FEATURES, loader, make_trainer
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.own import OwnLoop
from xaytune.trainer.trainer import Trainer

pytestmark = pytest.mark.slow


def test_a_new_learning_rate_takes_the_place_of_the_saved_one(tmp_path: Path) -> None:
    make_trainer(lr=0.1, num_epochs=1, checkpoint_dir=tmp_path).fit()
    again = make_trainer(lr=0.07, num_epochs=2, checkpoint_dir=tmp_path)
    again.fit()
    assert again.optimizer.param_groups[0]["lr"] == 0.07
    assert again.state.metrics["learning_rate"] == 0.07


def test_a_new_learning_rate_keeps_its_place_in_the_schedule(tmp_path: Path) -> None:
    def halve(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    make_trainer(lr=0.1, num_epochs=2, checkpoint_dir=tmp_path, schedule=halve).fit()
    again = make_trainer(lr=0.4, num_epochs=3, checkpoint_dir=tmp_path, schedule=halve)
    again.fit()
    assert again.state.metrics["learning_rate"] == pytest.approx(0.1)  # the third epoch's: 0.4 / 2 / 2


def test_the_same_hyperparameters_leave_the_saved_ones_as_they_are(tmp_path: Path) -> None:
    trainer = make_trainer(lr=0.1, num_epochs=1, checkpoint_dir=tmp_path)
    trainer.callbacks.on("step_end")(lambda state: trainer.optimizer.param_groups[0].update(lr=0.01))
    trainer.fit()
    again = make_trainer(lr=0.1, num_epochs=2, checkpoint_dir=tmp_path)
    again.fit()
    assert again.state.metrics["learning_rate"] == 0.01


Make = Callable[[torch.optim.Optimizer, float], Any]


def warm_up(steps: int) -> Callable[[int], float]:
    return lambda count: min(1.0, (count + 1) / steps)


# One row a scheduler of torch. Each is made for an optimizer and the rate that it was made with.
SCHEDULERS: dict[str, Make] = {
    "LambdaLR": lambda o, lr: L.LambdaLR(o, warm_up(8)),
    "MultiplicativeLR": lambda o, lr: L.MultiplicativeLR(o, lambda count: 0.9),
    "StepLR": lambda o, lr: L.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o, lr: L.MultiStepLR(o, [2, 5, 9], 0.5),
    "ConstantLR": lambda o, lr: L.ConstantLR(o, 0.3, total_iters=7),
    "LinearLR": lambda o, lr: L.LinearLR(o, 0.1, total_iters=8),
    "ExponentialLR": lambda o, lr: L.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o, lr: L.PolynomialLR(o, 12, power=2.0),
    "CosineAnnealingLR": lambda o, lr: L.CosineAnnealingLR(o, 12),
    "CosineAnnealingLR, several periods": lambda o, lr: L.CosineAnnealingLR(o, 3),
    "CosineAnnealingWarmRestarts": lambda o, lr: L.CosineAnnealingWarmRestarts(o, 3, 2),
    "CyclicLR": lambda o, lr: L.CyclicLR(o, lr / 10, lr, step_size_up=3),
    "CyclicLR, triangular2": lambda o, lr: L.CyclicLR(o, lr / 10, lr, step_size_up=2, mode="triangular2"),
    "OneCycleLR": lambda o, lr: L.OneCycleLR(o, lr, total_steps=40),
    "OneCycleLR, three phases": lambda o, lr: L.OneCycleLR(o, lr, total_steps=40, three_phase=True),
    "SWALR": lambda o, lr: SWALR(o, swa_lr=lr / 5, anneal_epochs=6),
    "SequentialLR": lambda o, lr: L.SequentialLR(
        o, [L.LinearLR(o, 0.1, total_iters=4), L.CosineAnnealingLR(o, 8)], [4]
    ),
    "SequentialLR, still to switch": lambda o, lr: L.SequentialLR(
        o, [L.LinearLR(o, 0.1, total_iters=8), L.CosineAnnealingLR(o, 4)], [8]
    ),
    "SequentialLR of LambdaLR": lambda o, lr: L.SequentialLR(
        o, [L.LambdaLR(o, warm_up(4)), L.LambdaLR(o, lambda count: 0.9**count)], [4]
    ),
    "ChainedScheduler": lambda o, lr: L.ChainedScheduler(
        [L.LinearLR(o, 0.1, total_iters=4), L.ExponentialLR(o, 0.9)], optimizer=o
    ),
    "ReduceLROnPlateau": lambda o, lr: L.ReduceLROnPlateau(o, patience=0, threshold=10.0),
}
BY_INTERVAL: dict[Any, tuple[int, int]] = {
    "step": (3, 5),
    "epoch": (12, 30),
}  # epochs, and where it is interrupted


def rates(
    name: str, interval: Any, lr: float, *, folder: Path | None = None, until: int = 0, tensor: bool = False
) -> list[tuple[float, float]]:
    """The learning rate and the momentum of every step that is trained."""
    epochs, _ = BY_INTERVAL[interval]
    torch.manual_seed(0)
    model = torch.nn.Linear(FEATURES, CLASSES)
    rate: Any = torch.tensor(lr) if tensor else lr
    optimizer = torch.optim.Adam(model.parameters(), rate) if tensor else torch.optim.SGD(
        model.parameters(), rate, momentum=0.9
    )  # fmt: skip
    trainer = Trainer(
        model,
        optimizer=optimizer,
        train_loader=loader(),
        loss_fn=F.cross_entropy,
        lr_scheduler=SCHEDULERS[name](optimizer, lr),
        lr_interval=interval,
        num_epochs=epochs,
        checkpoint_dir=folder,
        device="cpu",
    )
    found: list[tuple[float, float]] = []

    @trainer.callbacks.on("step_end")
    def note(state: TrainState) -> None:
        found.append((float(state.metrics["learning_rate"]), optimizer.param_groups[0].get("momentum", 0.0)))
        if state.global_step == until:
            state.stop_training()

    trainer.fit()
    return found


def test_the_table_has_a_row_for_every_scheduler_of_torch() -> None:
    schedulers = {
        name
        for name, kind in vars(L).items()
        if isinstance(kind, type) and issubclass(kind, L.LRScheduler) and not name.startswith("_")
    }
    assert schedulers - {"LRScheduler"} <= {name.split(",")[0] for name in SCHEDULERS}


@pytest.mark.parametrize("interval", BY_INTERVAL)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_is_followed_over_a_resume(name: str, interval: Any, tmp_path: Path) -> None:
    _, at = BY_INTERVAL[interval]
    undisturbed = rates(name, interval, 0.1)
    before = rates(name, interval, 0.1, folder=tmp_path, until=at)
    assert before + rates(name, interval, 0.1, folder=tmp_path) == undisturbed


@pytest.mark.parametrize("interval", BY_INTERVAL)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_run_resumed_with_another_rate_follows_the_schedule_of_that_rate(
    name: str, interval: Any, tmp_path: Path
) -> None:
    _, at = BY_INTERVAL[interval]
    expected = rates(name, interval, 0.2)[at:]
    rates(name, interval, 0.1, folder=tmp_path, until=at)
    resumed = rates(name, interval, 0.2, folder=tmp_path)
    assert len(resumed) == len(expected)
    assert np.allclose(resumed, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["StepLR", "SequentialLR", "OneCycleLR"])
def test_a_rate_that_is_a_tensor_is_resumed_and_replaced_like_a_number(name: str, tmp_path: Path) -> None:
    same, other = tmp_path / "same", tmp_path / "other"
    undisturbed = rates(name, "step", 0.1, tensor=True)
    for folder in (same, other):
        rates(name, "step", 0.1, folder=folder, until=5, tensor=True)
    assert rates(name, "step", 0.1, folder=same, tensor=True) == undisturbed[5:]
    expected = rates(name, "step", 0.2, tensor=True)[5:]
    assert np.allclose(rates(name, "step", 0.2, folder=other, tensor=True), expected, rtol=1e-6)


BEFORE: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "another": lambda optimizer: L.StepLR(optimizer, 1, 0.5),
    "none": lambda optimizer: None,
    "by a metric": lambda optimizer: L.ReduceLROnPlateau(optimizer, patience=99),
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize(("interval", "size"), [("epoch", 1), ("step", 6)])
def test_a_run_resumed_with_another_schedule_follows_that_one_from_the_runs_beginning(
    before: str, interval: Any, size: int, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"lr": 1.0, "checkpoint_dir": tmp_path, "lr_interval": interval}
    make_trainer(num_epochs=2, schedule=BEFORE[before], **options).fit()
    again = make_trainer(num_epochs=3, schedule=lambda optimizer: L.StepLR(optimizer, size, 0.1), **options)
    assert again.fit().metrics["learning_rate"] == pytest.approx(0.01)


def given(**options: Any) -> tuple[list[float], list[tuple[int, float]]]:
    """What ReduceLROnPlateau was given, and what was measured at which step."""
    mode = options.pop("mode", "min")
    values: list[float] = []
    measured: list[tuple[int, float]] = []

    class Noting(L.ReduceLROnPlateau):
        def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
            values.append(metrics)
            super().step(metrics, epoch)

    trainer = make_trainer(schedule=lambda optimizer: Noting(optimizer, mode=mode, patience=9), **options)
    trainer.callbacks.on("eval_end")(
        lambda state: measured.append(
            (state.global_step, state.metrics.get(options.get("lr_metric", "eval_loss")))
        )
    )
    trainer.fit()
    return values, measured


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("eval_every", ["epoch", 4, 9])
def test_reduce_on_plateau_is_given_each_evaluation_that_was_asked_for_once(
    interval: Any, eval_every: Any
) -> None:
    values, measured = given(eval_loader=loader(), eval_every=eval_every, lr_interval=interval)
    asked = [value for at, value in measured if eval_every == "epoch" or at % eval_every == 0]
    assert values == asked
    assert len(values) == 18 // (6 if eval_every == "epoch" else eval_every)


def test_reduce_on_plateau_is_given_the_metric_that_the_user_named() -> None:
    values, measured = given(eval_loader=loader(), mode="max", lr_metric="eval_accuracy")
    assert values == [value for _, value in measured]


class Sweep(OwnLoop):
    """A trial of a sweep that tells its metric."""

    def __init__(self, folder: Path) -> None:
        super().__init__(checkpoint_dir=folder, metric="eval_accuracy")
        self.mode = "max"


def test_reduce_on_plateau_is_given_the_metric_of_the_sweep(tmp_path: Path) -> None:
    values, _ = given(eval_loader=loader(), mode="max", trial=Sweep(tmp_path))
    assert len(values) == 3
    assert all(0 <= value <= 1 for value in values)
    with pytest.raises(ValueError, match=r"mode='min'.*'eval_accuracy', whose mode is 'max'"):
        given(eval_loader=loader(), mode="min", trial=Sweep(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "max"}, r"'eval_loss', whose mode is 'min'.*lr_metric="),
        ({"mode": "min", "lr_metric": "eval_accuracy"}, "'eval_accuracy', whose mode is 'max'"),
        ({"lr_metric": "eval_f1"}, "'eval_f1', which was not measured.*eval_accuracy"),
    ],
)
def test_a_metric_that_reduce_on_plateau_would_take_wrongly_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        given(eval_loader=loader(), **options)


def test_a_metric_for_another_scheduler_is_refused() -> None:
    with pytest.raises(ValueError, match="lr_metric='loss' is for ReduceLROnPlateau alone"):
        make_trainer(schedule=lambda optimizer: L.StepLR(optimizer, 1), lr_metric="loss")


def test_a_run_resumed_without_its_schedule_trains_at_the_optimizers_own_rate(tmp_path: Path) -> None:
    make_trainer(schedule=lambda o: L.ExponentialLR(o, 0.5), num_epochs=2, checkpoint_dir=tmp_path).fit()
    resumed = make_trainer(num_epochs=3, checkpoint_dir=tmp_path)
    rate = resumed.optimizer.param_groups[0]["lr"]
    assert resumed.fit().metrics["learning_rate"] == rate


@pytest.mark.parametrize("now", ["none", "ReduceLROnPlateau"])
@pytest.mark.parametrize("before", ["LinearLR", "OneCycleLR", "CosineAnnealingLR", "SequentialLR", "CyclicLR"])
def test_a_run_resumed_with_no_schedule_or_one_by_a_metric_trains_as_the_optimizer_was_made(
    before: str, now: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"lr": 0.1, "checkpoint_dir": tmp_path}
    make_trainer(schedule=lambda o: SCHEDULERS[before](o, 0.1), num_epochs=2, **options).fit()
    again = make_trainer(
        schedule=lambda o: None if now == "none" else L.ReduceLROnPlateau(o, patience=9), num_epochs=3, **options
    )
    assert again.fit().metrics["learning_rate"] == 0.1
    assert again.optimizer.param_groups[0]["momentum"] == 0.9


def test_a_multiplicative_schedule_of_another_function_is_followed_from_its_beginning(tmp_path: Path) -> None:
    def by(factor: float) -> Callable[[torch.optim.Optimizer], Any]:
        return lambda optimizer: L.MultiplicativeLR(optimizer, lambda step: factor)

    make_trainer(lr=0.1, schedule=by(0.9), num_epochs=2, checkpoint_dir=tmp_path).fit()
    again = make_trainer(lr=0.1, schedule=by(0.5), num_epochs=3, checkpoint_dir=tmp_path)
    assert again.fit().metrics["learning_rate"] == pytest.approx(0.1 * 0.5**2)


def test_a_rate_that_a_handler_changes_under_a_multiplicative_schedule_stays(tmp_path: Path) -> None:
    def multiply(optimizer: torch.optim.Optimizer) -> Any:
        return L.MultiplicativeLR(optimizer, lambda step: 0.5)

    trainer = make_trainer(lr=0.1, schedule=multiply, num_epochs=2, checkpoint_dir=tmp_path)
    trainer.callbacks.on("train_start")(lambda state: trainer.optimizer.param_groups[0].update(lr=0.01))
    trainer.fit()
    again = make_trainer(lr=0.1, schedule=multiply, num_epochs=3, checkpoint_dir=tmp_path)
    assert again.fit().metrics["learning_rate"] == pytest.approx(0.01 * 0.5**2)


def test_a_schedule_that_counted_epochs_is_not_continued_by_steps(tmp_path: Path) -> None:
    options: dict[str, Any] = {"schedule": lambda o: L.ExponentialLR(o, 0.5), "checkpoint_dir": tmp_path}
    make_trainer(num_epochs=2, **options).fit()
    with pytest.raises(ValueError, match="scheduled each epoch, and cannot be continued each step"):
        make_trainer(num_epochs=3, lr_interval="step", **options).fit()


def test_a_scheduler_of_another_optimizer_is_refused() -> None:
    other = make_trainer().optimizer
    with pytest.raises(ValueError, match="learning rates of another optimizer"):
        make_trainer(schedule=lambda o: L.ExponentialLR(other, 0.5))
