from __future__ import annotations

import functools
import gc
import itertools
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.trainer.fused_models import CLASSES, FEATURES, Case, data_for, loss_fn, table, trainer_of
from tests.trainer.fused_oddities import ODDITIES
from xaytune.trainer import checkpoint
from xaytune.trainer.callbacks import EVENTS, CallbackManager, TrainState, may_be_late, metrics_only
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.fused.fusion import Fusion
from xaytune.trainer.fused.held import SharedError
from xaytune.trainer.fused.program import Program
from xaytune.trainer.fused.states import States
from xaytune.trainer.fused.timing import FEWEST, FusionTiming
from xaytune.trainer.random_state import seed_everything
from xaytune.trainer.trainer import Trainer

MEMBERS = 5


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


def difference(one: Trainer, other: Trainer) -> float:
    """How far the weights and metrics of two runs are from each other, in their size."""
    assert one.state.global_step == other.state.global_step
    assert one.state.metrics.keys() == other.state.metrics.keys()
    far = max(
        float((a - b).abs().max() / (1 + b.abs().max()))
        for a, b in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    )
    metrics = [
        abs(float(one.state.metrics[n]) - float(v)) / (1 + abs(float(v))) for n, v in other.state.metrics.items()
    ]
    states = [
        float((a - b).abs().max())
        for mine, theirs in zip(one.optimizer.state.values(), other.optimizer.state.values(), strict=True)
        for a, b in zip(mine.values(), theirs.values(), strict=True)
    ]
    return max(far, *metrics, *states, 0.0)


def compare(
    make: Callable[[int], Trainer],
    members: int = MEMBERS,
    fit: Callable[[list[Trainer]], object] = fit_fused,
) -> float:
    """Trains members fused, and each alone; returns how far they are from each other."""
    fused = [make(member) for member in range(members)]
    seed_everything(7)
    fit(fused)
    far = 0.0
    for member, trainer in enumerate(fused):
        alone = make(member)
        seed_everything(7)
        alone.fit()
        far = max(far, difference(trainer, alone))
    return far


@pytest.mark.slow
@pytest.mark.parametrize("case", table()[::3], ids=str)  # all of it: python -m tests.campaigns fused
def test_members_end_as_they_would_alone(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    assert compare(lambda member: trainer_of(case, member)) < 1e-10
    assert not caplog.records, "all of it is fused"


@pytest.mark.slow
@pytest.mark.parametrize("name", ODDITIES)
def test_an_odd_model_is_trained_as_it_would_be_alone_or_refused(name: str) -> None:
    data, build = ODDITIES[name]
    case = Case(model=data, optimizer="adam", epochs=2)
    assert compare(lambda member: trainer_of(case, member, build=build)) < 1e-9


def member_with_events(member: int, folder: Path) -> tuple[Trainer, list[str], list[int]]:
    """A member that notes its events and steps."""
    callbacks, events, steps = CallbackManager(), list[str](), list[int]()
    for event in EVENTS:
        callbacks.on(event)(lambda state, event=event: events.append(event))
    callbacks.on("step_end")(lambda state: steps.append(state.global_step))
    case = Case(model="dropout", optimizer="adam")
    return trainer_of(case, member, folder / str(member), callbacks=callbacks), events, steps


def test_each_member_ends_in_its_own_way_and_the_others_train_on(tmp_path: Path) -> None:
    made = [member_with_events(member, tmp_path / "fused") for member in range(6)]
    trainers = [trainer for trainer, _, _ in made]

    @trainers[1].callbacks.on("step_end")
    def stop(state: TrainState) -> None:
        if state.global_step == 4:
            state.stop_training()

    @trainers[2].callbacks.on("step_end")
    def fail(state: TrainState) -> None:
        if state.global_step == 6:
            raise ValueError("its own matter")

    seed_everything(7)
    with pytest.raises(ExceptionGroup, match="1 of 6 runs failed") as caught:
        fit_fused(trainers)
    assert [str(error) for error in caught.value.exceptions] == ["its own matter"]
    assert trainers[1].state.global_step == 4
    assert made[1][1][-4:] == ["step_end", "checkpoint_saved", "epoch_end", "train_end"]
    assert made[2][1][-3:] == ["step_end", "error", "train_end"]
    for trainer, events, steps in made:
        assert events.count("train_end") == 1
        assert steps == list(range(1, trainer.state.global_step + 1))
    for member in (0, 3, 4, 5):
        alone, events, _ = member_with_events(member, tmp_path / "alone")
        seed_everything(7)
        alone.fit()
        assert difference(trainers[member], alone) < 1e-10
        assert made[member][1] == events


def test_a_member_that_was_stopped_continues_alone_from_its_checkpoint_and_the_other_way_round(
    tmp_path: Path,
) -> None:
    case = Case(model="dropout", optimizer="momentum", schedule="onecycle", interval="step", epochs=4)
    whole = [trainer_of(case, member) for member in range(4)]
    for trainer in whole:
        seed_everything(7)
        trainer.fit()

    def stopped(member: int, folder: Path) -> Trainer:
        trainer = trainer_of(case, member, folder / str(member))

        @trainer.callbacks.on("step_end")
        def stop(state: TrainState) -> None:
            if state.global_step == 7:
                state.stop_training()

        return trainer

    begun = [stopped(member, tmp_path / "fused") for member in range(4)]
    seed_everything(7)
    fit_fused(begun)
    for member in range(4):
        trainer = stopped(member, tmp_path / "alone")
        seed_everything(7)
        trainer.fit()
    continued = [trainer_of(case, member, tmp_path / "fused" / str(member)) for member in range(4)]
    for trainer in continued:
        trainer.fit()
    fused = [trainer_of(case, member, tmp_path / "alone" / str(member)) for member in range(4)]
    fit_fused(fused)
    for member in range(4):
        assert difference(continued[member], whole[member]) < 1e-10
        assert difference(fused[member], whole[member]) < 1e-10


def test_trainers_that_a_generator_yields_are_trained() -> None:
    assert [state.epoch for state in fit_fused(trainer_of(Case(), member) for member in range(2))] == [2, 2]


def test_a_batch_that_one_member_cannot_take_is_that_members_failure() -> None:
    trainers = [trainer_of(Case(), member) for member in range(5)]

    @trainers[2].callbacks.on("epoch_end")
    def spoil(state: TrainState) -> None:
        with torch.no_grad():
            next(trainers[2].model.parameters()).resize_(8, 5)

    seed_everything(7)
    with pytest.raises(ExceptionGroup, match="1 of 5 runs failed"):
        fit_fused(trainers)
    for member in (0, 1, 3, 4):
        alone = trainer_of(Case(), member)
        seed_everything(7)
        alone.fit()
        assert difference(trainers[member], alone) < 1e-10


def test_a_checkpoint_saved_where_a_step_fails_is_that_before_the_step_and_the_failure_is_the_steps(
    tmp_path: Path,
) -> None:
    saved: list[Path] = []
    alone = tmp_path / "alone"

    def made(member: int, folder: Path) -> Trainer:
        torch.manual_seed(member)
        data = torch.randn(100, FEATURES, dtype=torch.float64), torch.zeros(100, dtype=torch.long)
        data[1][13 * 5] = CLASSES if member == 2 else 0  # of the 14th step, which is one of several in a row
        loader = DataLoader(TensorDataset(*data), 5)
        trainer = trainer_of(Case(epochs=8), member, folder, train_loader=loader)

        @trainer.callbacks.on("error")
        def save(state: TrainState) -> None:
            saved.append(trainer.save_checkpoint())

        return trainer

    with pytest.raises(ExceptionGroup) as caught:
        fit_fused([made(member, tmp_path / str(member)) for member in range(MEMBERS)])
    assert [type(error) for error in caught.value.exceptions] == [IndexError]
    with pytest.raises(IndexError):
        made(2, alone).fit()
    name = "step-00000013.pt"
    assert saved == [tmp_path / "2" / name, alone / name]
    fused, right = map(checkpoint.load, saved)
    assert fused["data"]["taken"] == right["data"]["taken"] == 13
    for one, other in zip(fused["model"].values(), right["model"].values(), strict=True):
        assert torch.allclose(one, other, rtol=0.0, atol=1e-10)


def test_steps_that_are_taken_in_a_row_are_told_one_by_one() -> None:
    """To handlers that may be called later: they are given what each step gave."""

    def made(member: int) -> tuple[Trainer, list[tuple[int, int, Any]]]:
        trainer = trainer_of(Case(model="dropout", optimizer="adam", epochs=6), member)
        told: list[tuple[int, int, Any]] = []

        def note(state: TrainState) -> None:
            told.append((state.epoch, state.global_step, state.metrics["loss"]))

        trainer.callbacks.on("step_end")(may_be_late(metrics_only(note)))
        return trainer, told

    members = [made(member) for member in range(MEMBERS)]
    seed_everything(7)
    fit_fused([trainer for trainer, _ in members])
    assert any(type(loss) is float for _, told in members for _, _, loss in told), "some were read in a row"
    for member, (_, told) in enumerate(members):
        alone, alone_told = made(member)
        seed_everything(7)
        alone.fit()
        assert [place[:2] for place in told] == [place[:2] for place in alone_told]
        assert [float(loss) for *_, loss in told] == pytest.approx([float(loss) for *_, loss in alone_told])


@pytest.mark.parametrize("fails", [RuntimeError, torch.OutOfMemoryError])
def test_a_step_of_a_row_that_cannot_be_taken_at_once_is_taken_alone(
    fails: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    train, calls = Program.train, itertools.count(1)

    def sometimes_fails(self: Program, *args: Any) -> Any:
        if next(calls) % 3 == 0:
            raise fails("now and then")
        return train(self, *args)

    monkeypatch.setattr(Program, "train", sometimes_fails)
    assert compare(lambda member: trainer_of(Case(epochs=8), member)) < 1e-10
    assert next(calls) > 3


def test_a_loss_that_counts_its_calls_is_trained_alone_with_the_values_that_it_has_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def made(member: int) -> Trainer:
        calls = [0]

        def step(model: nn.Module, batch: Any) -> torch.Tensor:
            calls[0] += 1
            return loss_fn(model(batch[0]), batch[1]) * (1 + 0.01 * calls[0])

        return trainer_of(Case(), member, training_step=step)

    assert compare(made) == 0
    assert caplog.messages == ["trained alone: its loss changes what it captures, such as a count of its calls"]


def test_a_late_handler_that_stops_the_run_or_saves_it_is_told_that_it_must_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def made(member: int, handler: Callable[[Trainer], Callable[[TrainState], object]]) -> Trainer:
        trainer = trainer_of(Case(epochs=8), member, tmp_path / str(member))
        late = handler(trainer)
        trainer.callbacks.on("step_end")(
            may_be_late(metrics_only(lambda state: state.global_step == 17 and late(state)))
        )
        return trainer

    fit_fused([made(member, lambda trainer: lambda state: state.stop_training()) for member in range(4)])
    assert "marked with may_be_late told the run to stop at step 17, when it had trained on to" in caplog.text
    with pytest.raises(ExceptionGroup) as caught:
        fit_fused([made(member, lambda trainer: lambda _: trainer.save_checkpoint()) for member in range(4, 8)])
    assert "marked with may_be_late cannot save a checkpoint" in str(caught.value.exceptions[0])


class Noisy(TensorDataset):
    """Data with noise of a generator of its own."""

    def __init__(self, *tensors: torch.Tensor, generator: Any) -> None:
        super().__init__(*tensors)
        self.generator = generator

    def __getitem__(self, index: Any) -> Any:
        inputs, targets = super().__getitem__(index)  # type: ignore[no-untyped-call]
        return inputs + 0.1 * self.generator.random(), targets


@pytest.mark.parametrize("generator", [np.random.default_rng, random.Random])
def test_each_member_draws_from_a_generator_of_its_data(generator: Callable[[int], Any]) -> None:
    def made(member: int) -> Trainer:
        data = Noisy(*data_for("mlp").tensors, generator=generator(member))
        return trainer_of(Case(), member, train_loader=DataLoader(data, 5, shuffle=True))

    assert compare(made) < 1e-10


def test_a_run_that_is_like_no_other_waits_for_none() -> None:
    order: list[str] = []
    runs = {"odd": trainer_of(Case(model="dropout"), 0)} | {f"{n}": trainer_of(Case(), n) for n in (1, 3, 5)}
    for name, trainer in runs.items():
        trainer.callbacks.on("step_end")(lambda state, name=name: order.append(name))
    fit_fused(list(runs.values()))
    assert order.count("odd") < order.count("1")
    assert "odd" not in order[-3:], "it ends before the others, which train for longer"


def test_a_run_that_has_ended_is_kept_by_nothing() -> None:
    fusion, trainer = Fusion(), trainer_of(Case(), 0)
    model = weakref.ref(trainer.model)
    states = States(entered=functools.partial(print, trainer))  # as that of a trial, which keeps all of it
    fusion.end(fusion.begin(trainer, states))
    del trainer, states
    gc.collect()
    assert model() is None


def test_runs_that_share_a_model_are_refused() -> None:
    one = trainer_of(Case(), 0)
    other = trainer_of(Case(), 1, build=lambda: one.model)
    with pytest.raises(ValueError, match="must not share what training changes"):
        fit_fused([one, other])


def test_bf16_is_fused_within_its_rounding(caplog: pytest.LogCaptureFixture) -> None:
    def make(member: int) -> Trainer:
        torch.manual_seed(member)
        model = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))
        inputs, targets = data_for("mlp").tensors
        data = TensorDataset(inputs.float(), targets)
        return Trainer(
            model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.05 * (1 + member)),
            loss_fn=loss_fn,
            train_loader=DataLoader(data, 5, shuffle=True),
            eval_loader=DataLoader(data, 8),
            num_epochs=2,
            precision="bf16",
            device="cpu",
        )

    fused = [make(member) for member in range(4)]
    seed_everything(7)
    fit_fused(fused)
    for member, trainer in enumerate(fused):
        alone = make(member)
        seed_everything(7)
        alone.fit()
        assert abs(trainer.state.metrics["eval_loss"] - alone.state.metrics["eval_loss"]) < 0.02
    assert not caplog.records, "all of it is fused"


def test_runs_that_are_to_be_compiled_are_fused_and_said_to_be_without(caplog: pytest.LogCaptureFixture) -> None:
    fused = [trainer_of(Case(), member, compile=True) for member in range(4)]
    compiled = [trainer.stepper.forward for trainer in fused]
    seed_everything(7)
    fit_fused(fused)
    assert caplog.messages == ["runs with compile=True are trained fused, without torch.compile"]
    for member, trainer in enumerate(fused):
        alone = trainer_of(Case(), member)
        seed_everything(7)
        alone.fit()
        assert difference(trainer, alone) < 1e-10
        assert trainer.stepper.forward is compiled[member], "alone, it would be compiled"


def test_what_is_not_faster_at_once_is_trained_one_after_the_other() -> None:
    def measured(timing: FusionTiming, alone: float, together: float, members: int) -> str | None:
        return [timing.took(alone, together, members) for _ in range(8)][-1]

    faster, slower = FusionTiming(), FusionTiming()
    assert measured(faster, 0.001, 0.003, 8) is None
    assert (faster.begin("shapes"), faster.fewest) == (False, FEWEST)
    assert measured(slower, 0.001, 0.0044, 4) is None
    assert (slower.begin("shapes"), slower.fewest) == (True, 8), "more of them may be faster"
    assert not slower.begin("other shapes")
    assert measured(slower, 0.001, 0.0088, 8) == "a step of 8 at once takes 1.1 ms each, and alone 1 ms"
    assert not slower.begin("shapes")


def test_runs_that_were_not_begun_because_one_was_refused_are_still_compiled() -> None:
    trainer = trainer_of(Case(), 0, compile=True)
    compiled = trainer.stepper.forward
    with pytest.raises(SharedError):
        fit_fused([trainer, trainer])
    assert trainer.stepper.forward is compiled
