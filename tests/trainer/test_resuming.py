"""A resumed run has all that the interrupted one had, or refuses in words."""

from __future__ import annotations

import enum
import functools
import random
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, SubsetRandomSampler, TensorDataset

from tests.models import CLASSES, FEATURES, checkpoints, dataset, loader, make_trainer, weights
from xaytune.trainer import checkpoint, random_state
from xaytune.trainer.callbacks import Event, TrainState
from xaytune.trainer.handlers import EarlyStopping, SaveBest, SaveCheckpoint
from xaytune.trainer.loop import Trainer


def stopped_at(trainer: Trainer, step: int) -> Trainer:
    trainer.callbacks.on("step_end")(lambda state: state.global_step == step and state.stop_training())
    return trainer


class Colour(enum.IntEnum):
    RED = 3


Point = namedtuple("Point", "x y")

KINDS: dict[str, tuple[Any, Any]] = {
    "np.float64": (np.float64(0.5), 0.5),
    "np.float32": (np.float32(0.5), 0.5),
    "np.float16": (np.float16(0.5), 0.5),
    "np.int64": (np.int64(3), 3),
    "np.bool": (np.bool_(True), True),
    "np.str": (np.str_("a"), "a"),
    "0-d array": (np.array(0.5), np.array(0.5)),
    "array": (np.arange(3.0), np.arange(3.0)),
    "tensor": (torch.tensor(0.5), 0.5),
    "tensors": (torch.arange(3.0), torch.arange(3.0)),
    "Fraction": (Fraction(1, 2), 0.5),
    "Decimal": (Decimal("0.5"), 0.5),
    "complex": (1 + 2j, 1 + 2j),
    "enum": (Colour.RED, 3),
    "None": (None, None),
    "tuple": ((1, np.float64(2)), (1, 2.0)),
    "named tuple": (Point(1, 2), [1, 2]),
    "dict": ({"a": np.float64(1)}, {"a": 1.0}),
    "ordered dict": (OrderedDict(a=np.int32(1)), OrderedDict(a=1)),
    "set": ({np.int64(1), 2}, {1, 2}),
}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, (Tensor, np.ndarray)):
        return type(one) is type(other) and bool(np.all(np.asarray(one == other)))
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_number_that_is_saved_can_be_loaded(kind: str, tmp_path: Path) -> None:
    value, read = KINDS[kind]
    trainer = make_trainer(checkpoint_dir=tmp_path, max_steps=1)
    trainer.callbacks.on("step_end")(lambda state: state.metrics.update(mine=value))
    trainer.optimizer.param_groups[0]["mine"] = value
    trainer.fit()
    found = checkpoint.load(tmp_path / "step-00000001.pt")
    assert equal(found["state"]["metrics"]["mine"], read)
    if kind != "tensor":  # which an optimizer's option stays
        assert equal(found["optimizer"]["param_groups"][0]["mine"], read)
    assert make_trainer(checkpoint_dir=tmp_path, max_steps=2).fit().global_step == 2


@pytest.mark.parametrize("where", ["lr", "weight_decay", "eval_fn", "training_step"])
def test_numbers_of_numpy_may_be_given_anywhere(where: str, tmp_path: Path) -> None:
    def build(epochs: int) -> Trainer:
        model = nn.Linear(FEATURES, CLASSES)
        lr = np.geomspace(0.01, 0.1, 3)[1] if where == "lr" else 0.05
        decay = np.float64(1e-4) if where == "weight_decay" else 0.0
        options: dict[str, Any] = {"loss_fn": F.cross_entropy}
        if where == "training_step":
            options = {
                "training_step": lambda m, b: {"loss": F.cross_entropy(m(b[0]), b[1]), "mine": np.float32(2.5)}
            }
        if where == "eval_fn":
            options["eval_fn"] = lambda m, b: {"mine": np.mean([2.0, 3.0])}
        return Trainer(
            model, optimizer=torch.optim.SGD(model.parameters(), lr=lr, weight_decay=decay), train_loader=loader(),
            eval_loader=loader(), num_epochs=epochs, checkpoint_dir=tmp_path, device="cpu", **options,
        )  # fmt: skip

    build(1).fit()
    state = build(2).fit()
    assert state.global_step == 12
    assert state.metrics.get("mine", 2.5) == 2.5
    assert all(type(value) in (float, Tensor) for value in state.metrics.values())


def test_a_state_that_could_not_be_read_again_is_refused_by_name_when_it_is_saved(tmp_path: Path) -> None:
    trainer = make_trainer(checkpoint_dir=tmp_path)
    trainer.callbacks.on("step_end")(lambda state: state.metrics.update(mine=object()))
    with pytest.raises(TypeError, match="mine is of the type object"):
        trainer.fit()


def test_an_average_of_the_weights_that_is_kept_comes_back(tmp_path: Path) -> None:
    def run(folder: Path | None, stop: int = -1) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(FEATURES, CLASSES)
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        trainer = make_trainer(model=model, checkpoint_dir=folder, keep={"average": average})
        trainer.callbacks.on("step_end")(lambda state: average.update_parameters(model))
        stopped_at(trainer, stop).fit()
        return weights(trainer), torch.cat([p.flatten() for p in average.parameters()])

    undisturbed = run(None)
    run(tmp_path, stop=7)
    assert all(torch.equal(a, b) for a, b in zip(run(tmp_path), undisturbed, strict=True))


def test_parameters_that_would_not_be_saved_are_refused_and_can_be_kept(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(outputs * self.scale, targets)

    def build(keep: bool) -> tuple[Trainer, Scaled]:
        torch.manual_seed(0)
        model, loss = nn.Linear(FEATURES, CLASSES), Scaled()
        optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], lr=0.1)
        return Trainer(
            model, optimizer=optimizer, loss_fn=loss, train_loader=loader(), num_epochs=2, device="cpu",
            checkpoint_dir=tmp_path, keep={"loss": loss} if keep else None,
        ), loss  # fmt: skip

    with pytest.raises(ValueError, match=r"trains 1 parameters that are not the model's.*keep="):
        build(keep=False)
    trainer, loss = build(keep=True)
    stopped_at(trainer, 3).fit()
    resumed, again = build(keep=True)
    starts: list[float] = []
    resumed.callbacks.on("train_start")(lambda state: starts.append(float(again.scale.detach())))
    resumed.fit()
    assert starts == [float(loss.scale.detach())] != [1.0]


@pytest.mark.parametrize("where", ["step_start", "error"])
@pytest.mark.parametrize("at", [0, 3, 6])
def test_the_batches_of_a_step_that_was_not_done_are_trained_after_the_resume(
    where: Event, at: int, tmp_path: Path
) -> None:
    def build(folder: Path | None, *, fails: bool) -> Trainer:
        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            if fails and trainer.state.global_step == at:
                raise RuntimeError("once")
            return F.cross_entropy(outputs, targets)

        trainer = make_trainer(loss_fn=loss, checkpoint_dir=folder)
        return trainer

    undisturbed = build(None, fails=False)
    undisturbed.fit()
    failing = build(tmp_path, fails=True)
    failing.callbacks.on(where)(lambda state: state.global_step == at and failing.save_checkpoint())
    with pytest.raises(RuntimeError, match="once"):
        failing.fit()
    assert checkpoints(tmp_path) == [f"step-{at:08d}.pt"]
    resumed = build(tmp_path, fails=False)
    state = resumed.fit()
    assert torch.equal(weights(resumed), weights(undisturbed))
    assert "error" not in state.metrics


def test_a_checkpoint_in_the_middle_of_a_step_is_refused(tmp_path: Path) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        trainer.save_checkpoint()
        return F.cross_entropy(outputs, targets)

    trainer = make_trainer(loss_fn=loss, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="in the middle of a step"):
        trainer.fit()


def folds() -> Iterator[DataLoader[Any]]:
    whole = dataset()
    for fold in range(3):
        chosen = [i for i in range(len(whole)) if i % 3 != fold]
        inputs, targets = whole[chosen]
        yield DataLoader(TensorDataset(inputs, targets), 8)
        yield DataLoader(Subset(whole, chosen), 8)
        yield DataLoader(whole, 8, sampler=SubsetRandomSampler(chosen))


def test_another_folds_checkpoint_is_refused_and_named_folds_share_a_folder(tmp_path: Path) -> None:
    by_way = list(folds())
    for way in range(3):
        folder = tmp_path / str(way)
        make_trainer(train_loader=by_way[way], checkpoint_dir=folder).fit()
        with pytest.raises(checkpoint.CheckpointError, match=r"on other training data.*Trainer\(run=\.\.\.\)"):
            make_trainer(train_loader=by_way[way + 3], checkpoint_dir=folder).fit()
    for number, batches in enumerate(by_way):
        steps: list[int] = []
        trainer = make_trainer(train_loader=batches, checkpoint_dir=tmp_path / "named", run=f"fold-{number}")
        trainer.callbacks.on("step_end")(lambda state, steps=steps: steps.append(state.global_step))
        trainer.fit()
        assert len(steps) == 12


def test_a_checkpoint_says_whose_it_is_and_a_donors_may_be_continued(tmp_path: Path) -> None:
    make_trainer(checkpoint_dir=tmp_path, run="a", num_epochs=1).fit()
    stored = checkpoint.load(tmp_path / "a" / "step-00000006.pt")
    assert (stored["run"]["name"], stored["run"]["saves"]) == ("a", 1)
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(checkpoint.CheckpointError, match="belongs to the run 'a', not to 'b'"):
        make_trainer(checkpoint_dir=tmp_path, run="b").fit()

    from tests.trainer.test_numbers import Judged

    trial: Any = Judged(tmp_path / "b", set())
    trial.run, trial.donors = "b", ("a",)
    assert make_trainer(trial=trial, num_epochs=2).fit().global_step == 12
    stored = checkpoint.load(tmp_path / "b" / "step-00000012.pt")
    assert (stored["run"]["name"], stored["run"]["saves"]) == ("b", 2)


def test_resume_false_puts_older_checkpoints_aside(tmp_path: Path) -> None:
    make_trainer(checkpoint_dir=tmp_path).fit()
    fresh = stopped_at(make_trainer(checkpoint_dir=tmp_path, seed=1, resume=False), 4)
    fresh.fit()
    assert checkpoints(tmp_path) == ["aside-1", "step-00000004.pt"]
    resumed = make_trainer(checkpoint_dir=tmp_path, seed=2)
    starts: list[Tensor] = []
    resumed.callbacks.on("train_start")(lambda state: starts.append(weights(resumed)))
    resumed.fit()
    assert torch.equal(starts[0], weights(fresh))


def test_a_handler_deletes_only_what_nobody_else_saved(tmp_path: Path) -> None:
    trainer = make_trainer(lr=0.01, eval_loader=loader(48), num_epochs=4, checkpoint_dir=tmp_path)
    trainer.callbacks.on("eval_end")(SaveBest(trainer, "eval_loss", mode="min"))
    trainer.callbacks.on("epoch_end", every=2)(SaveCheckpoint(trainer))
    trainer.fit()  # each epoch is a new best
    assert checkpoints(tmp_path) == ["step-00000012.pt", "step-00000024.pt"]


def test_a_run_that_early_stopping_ended_trains_no_more_when_it_is_run_again(tmp_path: Path) -> None:
    def run(patience: int) -> TrainState:
        trainer = make_trainer(lr=0.0, num_epochs=9, eval_loader=loader(48), checkpoint_dir=tmp_path)
        trainer.callbacks.on("eval_end")(EarlyStopping("eval_loss", mode="min", patience=patience))
        return trainer.fit()

    assert [run(2).global_step for _ in range(3)] == [18, 18, 18]
    assert run(4).global_step == 30


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Draws random numbers in the workers."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, targets = dataset().tensors
        return inputs[index] + torch.rand(FEATURES), targets[index]


@pytest.mark.parametrize("stop", [2, 5])  # at the end of an epoch of two steps, and within the third
def test_workers_that_would_live_on_over_epochs_resume_with_the_same_bits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stop: int
) -> None:
    def trainer(folder: str) -> Trainer:
        batches = DataLoader(Noisy(), 8, shuffle=True, num_workers=1, persistent_workers=True)
        return make_trainer(train_loader=batches, checkpoint_dir=tmp_path / folder)

    undisturbed = trainer("undisturbed")
    undisturbed.fit()
    stopped_at(trainer("stopped"), stop).fit()
    resumed = trainer("stopped")
    resumed.fit()
    assert torch.equal(weights(resumed), weights(undisturbed))
    assert "workers are started anew each epoch" in caplog.text


class Counting(Dataset[tuple[Tensor, Tensor]]):
    loaded = 0

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        Counting.loaded += 1
        inputs, targets = dataset().tensors
        return inputs[index], targets[index]


def test_a_resume_within_an_epoch_loads_only_what_it_trains(tmp_path: Path) -> None:
    def build() -> Trainer:
        return make_trainer(
            train_loader=DataLoader(Counting(), 8, shuffle=True), checkpoint_dir=tmp_path, num_epochs=1
        )

    stopped_at(build(), 5).fit()
    Counting.loaded = 0
    build().fit()
    assert Counting.loaded == 8


def test_batches_that_have_to_be_loaded_again_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def build() -> Trainer:
        batches = DataLoader(dataset(), 8, shuffle=True, num_workers=1)
        return make_trainer(train_loader=batches, checkpoint_dir=tmp_path, num_epochs=1)

    stopped_at(build(), 4).fit()
    build().fit()
    assert "loads 4 batches that were trained already" in caplog.text


class Stateful(Sampler[int]):
    """A sampler whose order depends on how often it was iterated, and on generators of its own."""

    def __init__(self, *, saves: bool) -> None:
        self.epoch = 0
        self.python, self.numpy = random.Random(1), np.random.default_rng(1)
        self.legacy = np.random.RandomState(1)
        if saves:
            self.state_dict = lambda: {"epoch": self.epoch}
            self.load_state_dict = lambda state: setattr(self, "epoch", state["epoch"])

    def __len__(self) -> int:
        return 48

    def __iter__(self) -> Iterator[int]:
        shift = self.epoch if hasattr(self, "state_dict") else 0
        self.epoch += 1
        order = list(self.numpy.permutation(48))
        self.python.shuffle(order)
        self.legacy.shuffle(order)
        return iter([(int(i) + shift) % 48 for i in order])


@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("stop", [2, 6, 8, 15])
def test_samplers_with_generators_and_states_of_their_own_come_back(
    saves: bool, stop: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def build(folder: Path | None) -> Trainer:
        return make_trainer(
            train_loader=DataLoader(dataset(), 8, sampler=Stateful(saves=saves)), checkpoint_dir=folder
        )

    undisturbed = build(None)
    undisturbed.fit()
    stopped_at(build(tmp_path), stop).fit()
    resumed = build(tmp_path)
    resumed.fit()
    assert torch.equal(weights(resumed), weights(undisturbed))
    # It cannot be known whether the order depends on what is not saved: it is said.
    assert ("Stateful.epoch changes while train_loader is read" in caplog.text) is not saves


class KeepsItsPlace:
    """A loader that keeps its place itself, as torchdata's StatefulDataLoader does."""

    def __init__(self) -> None:
        self.generator = random.Random(0)
        self.order: list[int] = []
        self.at = 0
        self.over, self.resumes = True, False

    def __iter__(self) -> Iterator[Any]:
        if not self.resumes:
            self.order, self.at = self.generator.sample(range(6), 6), 0
        self.resumes = self.over = False
        while self.at < 6:
            self.at += 1
            chosen = slice(8 * self.order[self.at - 1], 8 * self.order[self.at - 1] + 8)
            yield dataset()[chosen]
        self.over = True

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.generator.getstate(), "order": self.order, "at": self.at, "over": self.over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        version, internal, gauss = state["random"]
        self.generator.setstate((version, tuple(internal), gauss))
        self.order, self.at, self.resumes = state["order"], state["at"], not state["over"]


@pytest.mark.parametrize("stop", [2, 5, 6, 8, 12, 15])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_loader_that_keeps_its_place_itself_is_asked_to(stop: int, in_place: bool, tmp_path: Path) -> None:
    undisturbed = make_trainer(train_loader=KeepsItsPlace())
    undisturbed.fit()
    first = stopped_at(make_trainer(train_loader=KeepsItsPlace(), checkpoint_dir=tmp_path), stop)
    first.fit()
    resumed = first if in_place else make_trainer(train_loader=KeepsItsPlace(), checkpoint_dir=tmp_path)
    assert resumed.fit().global_step == 18
    assert torch.equal(weights(resumed), weights(undisturbed))


def test_a_model_that_the_user_compiled_is_resumed_uncompiled(tmp_path: Path) -> None:
    compiled: Any = functools.partial(torch.compile, backend="eager")
    model = compiled(nn.Linear(FEATURES, CLASSES))
    first = make_trainer(model=model, checkpoint_dir=tmp_path, num_epochs=1)
    first.fit()
    second = make_trainer(model=nn.Linear(FEATURES, CLASSES), checkpoint_dir=tmp_path, num_epochs=1)
    second.fit()
    assert torch.equal(weights(first), weights(second))


def test_random_states_of_more_devices_than_there_are_now_are_left_out() -> None:
    saved = random_state.capture() | {"cuda": [torch.get_rng_state()] * (torch.cuda.device_count() + 2)}
    random_state.restore(saved)
    assert torch.equal(torch.get_rng_state(), saved["torch"])


def test_an_epoch_that_is_continued_with_another_batch_size_trains_each_of_its_examples_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = TensorDataset(torch.randn(40, FEATURES), torch.arange(40) % CLASSES, torch.arange(40))
    seen: list[int] = []

    def trainer(batch_size: int) -> Trainer:
        def step(model: nn.Module, batch: Any) -> Tensor:
            seen.extend(batch[2].tolist())
            return F.cross_entropy(model(batch[0]), batch[1])

        model = nn.Linear(FEATURES, CLASSES)
        return Trainer(
            model,
            optimizer=torch.optim.SGD(model.parameters()),
            train_loader=DataLoader(data, batch_size, shuffle=True),
            training_step=step,
            checkpoint_dir=tmp_path,
        )

    stopped_at(trainer(10), 2).fit()
    trainer(5).fit()
    assert sorted(seen) == list(range(40))
    assert "continued after the first 20 of its examples" in caplog.text


def test_a_run_resumed_with_another_kind_of_optimizer_begins_that_ones_state_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kinds: list[Any] = [torch.optim.SGD, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.SGD]
    for step, kind in enumerate(kinds, start=1):
        model = nn.Linear(FEATURES, CLASSES)
        trainer = Trainer(
            model,
            optimizer=kind(model.parameters(), lr=0.01),
            train_loader=loader(),
            loss_fn=F.cross_entropy,
            max_steps=step,
            checkpoint_dir=tmp_path,
        )
        trainer.fit()
        assert trainer.state.global_step == step
        assert trainer.optimizer.param_groups[0].keys() >= kind([nn.Parameter()]).defaults.keys()
    assert "saved with SGD: AdamW begins without its state" in caplog.text


def test_a_model_or_groups_that_do_not_fit_the_checkpoint_are_refused_with_what_to_do(tmp_path: Path) -> None:
    make_trainer(checkpoint_dir=tmp_path, max_steps=1).fit()
    other = nn.Linear(FEATURES, CLASSES + 1)
    layer = make_trainer().model
    groups = [{"params": [parameter]} for parameter in layer.parameters()]
    for model, optimizer in (
        (other, torch.optim.SGD(other.parameters())),
        (layer, torch.optim.SGD(groups)),
    ):
        trainer = Trainer(
            model, optimizer=optimizer, train_loader=loader(), loss_fn=F.cross_entropy, checkpoint_dir=tmp_path
        )
        with pytest.raises(ValueError, match=r"cannot be resumed from its checkpoint(?s:.*)resume=False"):
            trainer.fit()


def test_a_counter_that_begins_as_an_attribute_of_its_class_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Rotated(Sampler[int]):
        epoch = 0

        def __iter__(self) -> Iterator[int]:
            self.epoch += 1
            return iter([(i + self.epoch) % 12 for i in range(12)])

        def __len__(self) -> int:
            return 12

    model = nn.Linear(FEATURES, CLASSES)
    Trainer(
        model,
        optimizer=torch.optim.SGD(model.parameters()),
        train_loader=DataLoader(Subset(dataset(), range(12)), 4, sampler=Rotated()),
        loss_fn=F.cross_entropy,
        checkpoint_dir=tmp_path,
    ).fit()
    assert "Rotated.epoch changes while train_loader is read and is in no checkpoint" in caplog.text
