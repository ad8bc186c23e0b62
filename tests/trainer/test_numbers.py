"""Each number of a run is what it says: metrics, means, gradients, random states."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from tests.models import CLASSES, FEATURES, dataset, loader, make_trainer, weights
from xaytune.trainer.batches import batch_size, to_device
from xaytune.trainer.callbacks import CallbackManager, TrainState
from xaytune.trainer.data import batches_of
from xaytune.trainer.loop import Trainer


def evaluated(model: nn.Module, inputs: Tensor, targets: Tensor, loss_fn: Any, **options: Any) -> dict[str, Any]:
    """The metrics of a model as it is."""
    batches = DataLoader(TensorDataset(inputs, targets), 4)
    settings: dict[str, Any] = {
        "model": model,
        "lr": 0.0,
        "train_loader": batches,
        "eval_loader": batches,
        "num_epochs": 1,
    }
    return make_trainer(**settings | {"loss_fn": loss_fn} | options).fit().metrics


class Scores(nn.Module):
    """Gives the highest score to the class that it was given: (N, ...) to (N, C, ...), or (N, ..., C)."""

    def __init__(self, classes: int, *, last: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self._classes, self._last = classes, last

    def forward(self, inputs: Tensor) -> Tensor:
        scores = F.one_hot(inputs, self._classes).float() * 10 * self.scale
        return scores if self._last else scores.movedim(-1, 1)


def flat_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def test_accuracy_leaves_out_what_the_loss_ignores() -> None:
    inputs = torch.randint(5, (8, 6))
    targets = inputs.clone()
    targets[:, 3:] = -100
    assert evaluated(Scores(5), inputs, targets, F.cross_entropy)["eval_accuracy"] == 1.0
    targets[:, 3:] = 4
    for loss_fn in (nn.CrossEntropyLoss(ignore_index=4), functools.partial(F.cross_entropy, ignore_index=4)):
        assert evaluated(Scores(5), inputs, targets, loss_fn)["eval_accuracy"] == 1.0


def test_accuracy_is_right_where_there_are_as_many_classes_as_places() -> None:
    inputs = torch.tensor([[0, 1, 2], [0, 0, 1], [2, 0, 0], [1, 1, 2]])
    assert evaluated(Scores(3), inputs, inputs, F.cross_entropy)["eval_accuracy"] == 1.0
    # Of a loss of the user's own it is not known whether the classes are the second dimension, or the last.
    assert "eval_accuracy" not in evaluated(Scores(3, last=True), inputs, inputs, flat_cross_entropy)


@pytest.mark.parametrize(
    ("targets", "loss_fn"),
    [
        (torch.ones(8).long(), lambda o, t: F.binary_cross_entropy_with_logits(o.squeeze(1), t.float())),
        (torch.arange(8), lambda o, t: F.poisson_nll_loss(o.squeeze(1), t.float())),
        (torch.rand(8), lambda o, t: F.mse_loss(o.squeeze(1), t)),
    ],
    ids=["one logit", "counts", "regression"],
)
def test_accuracy_is_not_measured_where_there_are_no_scores_of_classes(targets: Tensor, loss_fn: Any) -> None:
    metrics = evaluated(nn.Linear(FEATURES, 1), torch.randn(8, FEATURES), targets, loss_fn)
    assert "eval_loss" in metrics
    assert "eval_accuracy" not in metrics


class Recall:
    """A metric with the interface of torchmetrics."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.found = self.all = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.found += int(((outputs.argmax(1) == 1) & (targets == 1)).sum())
        self.all += int((targets == 1).sum())

    def compute(self) -> Tensor:
        return torch.tensor(self.found / self.all)


def test_metrics_of_the_users_own_are_measured_over_all_batches_of_each_evaluation() -> None:
    trainer = make_trainer(eval_loader=loader(7), eval_metrics={"recall": Recall()})
    found = trainer.fit().metrics["eval_recall"]
    trainer.model.eval()
    inputs, targets = dataset().tensors
    right = (trainer.model(inputs).argmax(1) == 1)[targets == 1].float().mean().item()
    assert found == pytest.approx(right)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_fn": None, "training_step": lambda model, batch: None}, "with a training_step, measure them"),
        ({"eval_fn": lambda model, batches: {}}, "not both"),
        ({"eval_loader": None}, "need an eval_loader"),
    ],
)
def test_metrics_that_could_not_be_measured_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(**dict[str, Any](eval_loader=loader(), eval_metrics={"recall": Recall()}) | options)


@dataclass
class Pair:
    inputs: Tensor
    targets: Tensor


INPUTS, TARGETS = dataset(10).tensors
FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Any], dict[str, Any]]] = {
    "tuple": (lambda x, y: (x, y), {}),
    "nested": (
        lambda x, y: ({"x": x}, {"y": y}),
        {"loss_fn": lambda o, t: F.cross_entropy(o, t["y"])},
    ),
    "mapping of mappings": (
        lambda x, y: {"in": {"x": x}, "out": {"y": y}},
        {"training_step": lambda model, batch: F.cross_entropy(model(batch["in"]), batch["out"]["y"])},
    ),
    "dataclass": (
        Pair,
        {"training_step": lambda model, batch: F.cross_entropy(model(batch.inputs), batch.targets)},
    ),
    "told": (
        lambda x, y: {"weights": torch.ones(7), "x": x, "y": y},
        {
            "training_step": lambda model, batch: F.cross_entropy(model(batch["x"]), batch["y"]),
            "batch_size": lambda batch: len(batch["x"]),
        },
    ),
}


class Unpacking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)

    def forward(self, inputs: Any) -> Any:
        return self.layer(inputs["x"] if isinstance(inputs, dict) else inputs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_means_are_over_examples_for_unequal_batches_of_every_form(form: str, accumulate: int) -> None:
    wrap, options = FORMS[form]
    batches = [wrap(INPUTS[i : i + 4], TARGETS[i : i + 4]) for i in (0, 4, 8)]
    model = Unpacking()
    right = F.cross_entropy(model(INPUTS), TARGETS).item()
    given: dict[str, Any] = {"loss_fn": None} if "training_step" in options else {}
    trainer = make_trainer(
        model=model, lr=0.0, num_epochs=1, train_loader=batches, eval_loader=batches, accumulate=accumulate,
        **given | options,
    )  # fmt: skip
    metrics = trainer.fit().metrics
    assert metrics["eval_loss"] == pytest.approx(right, rel=1e-6)
    if accumulate == 3:
        assert float(metrics["loss"]) == pytest.approx(right, rel=1e-6)


def test_the_gradient_of_unequal_batches_is_that_of_all_their_examples_at_once() -> None:
    results = []
    start = nn.Linear(FEATURES, CLASSES).state_dict()
    for sizes, accumulate in (((4, 4, 2), 3), ((10,), 1)):
        model = nn.Linear(FEATURES, CLASSES)
        model.load_state_dict(start)
        batches = list(zip(INPUTS.split(sizes), TARGETS.split(sizes), strict=True))
        trainer = make_trainer(model=model, num_epochs=1, train_loader=batches, accumulate=accumulate)
        trainer.fit()
        results.append(weights(trainer))
    assert torch.allclose(results[0], results[1], atol=1e-6)


def test_the_mean_of_a_loss_over_tokens_is_over_tokens() -> None:
    inputs = torch.randint(5, (10, 6))
    targets = torch.randint(5, (10, 6))
    targets[torch.arange(6) > torch.randint(6, (10, 1))] = -100
    right = F.cross_entropy(Scores(5)(inputs), targets).item()
    assert evaluated(Scores(5), inputs, targets, F.cross_entropy)["eval_loss"] == pytest.approx(right, rel=1e-6)
    by_class = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    right = by_class(Scores(5)(inputs), targets).item()
    assert evaluated(Scores(5), inputs, targets, by_class)["eval_loss"] == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize(
    "batch",
    [
        {"weights": torch.ones(7), "x": INPUTS, "y": TARGETS},
        [(x, y) for x, y in zip(INPUTS, TARGETS, strict=True)],
        3,
    ],
    ids=["two sizes", "a list of examples", "a number"],
)
def test_a_batch_whose_size_is_not_known_is_refused_in_the_first_step(batch: Any) -> None:
    steps: list[int] = []
    trainer = make_trainer(
        model=nn.Linear(FEATURES, CLASSES), loss_fn=None,
        training_step=lambda model, batch: F.cross_entropy(model(INPUTS), TARGETS),
        train_loader=[batch], eval_loader=[batch],
    )  # fmt: skip
    trainer.callbacks.on("step_end")(lambda state: steps.append(state.global_step))
    with pytest.raises(
        ValueError, match=r"the number of examples of a batch is not known.*give the Trainer batch_size="
    ):
        trainer.fit()
    assert steps == []


def test_packed_sequences_and_dataclasses_are_moved_and_counted() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(2, 2)])
    moved = to_device({"a": packed, "b": Pair(torch.ones(2, 1), torch.ones(2))}, torch.device("meta"))
    assert isinstance(moved["a"], PackedSequence)
    assert (moved["a"].data.device.type, moved["a"].batch_sizes.device.type) == ("meta", "cpu")
    assert moved["b"].targets.device.type == "meta"
    assert batch_size((packed, torch.ones(2)), in_parts=True) == 2


def test_all_metrics_of_a_window_are_means_over_it() -> None:
    count = iter(range(1, 100))

    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        number = float(next(count))
        return {"loss": model(batch[0]).sum() * 0 + number, "number": number, "tensor": torch.tensor(number)}

    trainer = make_trainer(loss_fn=None, training_step=step, accumulate=3, max_steps=1)
    metrics = trainer.fit().metrics
    assert {name: float(metrics[name]) for name in ("loss", "number", "tensor")} == {
        "loss": 2.0,
        "number": 2.0,
        "tensor": 2.0,
    }


def test_a_window_does_not_hold_the_batches_that_it_has_used() -> None:
    alive: set[int] = set()
    most = 0

    class Counted:
        def __init__(self, number: int) -> None:
            self.number = number
            alive.add(number)

        def __del__(self) -> None:
            alive.discard(self.number)

    class Loader:
        def __iter__(self) -> Any:
            return (Counted(number) for number in range(8))

    def step(model: nn.Module, batch: Any) -> Tensor:
        nonlocal most
        most = max(most, len(alive))
        return F.cross_entropy(model(INPUTS), TARGETS)

    make_trainer(
        loss_fn=None, training_step=step, train_loader=Loader(), accumulate=8, num_epochs=1, batch_size=lambda b: 1
    ).fit()
    assert most <= 2


@pytest.mark.parametrize("clip", [None, 0.5])
def test_gradients_are_measured_and_clipped_over_what_is_optimized(clip: float | None) -> None:
    def build() -> tuple[nn.Sequential, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))
        return model, torch.optim.SGD(model[2].parameters(), lr=0.5)

    model, optimizer = build()
    batches = loader(shuffle=False)
    trainer = Trainer(
        model, optimizer=optimizer, train_loader=batches, loss_fn=F.cross_entropy, num_epochs=3,
        clip_grad_norm=clip, device="cpu",
    )  # fmt: skip
    norms: list[float] = []
    trainer.callbacks.on("step_end")(lambda state: norms.append(float(state.metrics["grad_norm"])))
    trainer.fit()
    plain, optimizer = build()
    expected = []
    for _ in range(3):
        for inputs, targets in batches:
            plain.zero_grad()
            F.cross_entropy(plain(inputs), targets).backward()
            expected.append(float(nn.utils.clip_grad_norm_(plain[2].parameters(), clip or 1e9)))
            optimizer.step()
    assert norms == expected
    # The backbone's gradients are one step's, not the sum of all.
    for parameter, other in zip(model[0].parameters(), plain[0].parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        assert torch.equal(parameter.grad, other.grad)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_sparse_gradients_are_measured_and_clipped_like_dense_ones(clip: float | None) -> None:
    words, targets = torch.randint(20, (8, 5)), torch.randint(CLASSES, (8,))
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.EmbeddingBag(20, 4, sparse=sparse), nn.Linear(4, CLASSES))
        trainer = make_trainer(model=model, train_loader=[(words, targets)], clip_grad_norm=clip, num_epochs=1)
        found.append((float(trainer.fit().metrics["grad_norm"]), weights(trainer)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-7)


def test_parameters_of_two_dtypes_are_measured_and_clipped_together() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(FEATURES, FEATURES).to(torch.bfloat16)
            self.head = nn.Linear(FEATURES, CLASSES)

        def forward(self, inputs: Tensor) -> Any:
            return self.head(self.body(inputs.to(torch.bfloat16)).float())

    trainer = make_trainer(model=Mixed(), clip_grad_norm=0.1, max_steps=1)
    trainer.fit()
    clipped = [p.grad.double().flatten() for p in trainer.model.parameters() if p.grad is not None]
    assert float(torch.cat(clipped).norm()) == pytest.approx(0.1, rel=1e-2)


def test_a_step_that_fp16_skips_does_not_advance_the_schedule() -> None:
    calls = iter(range(100))

    def step(model: nn.Module, batch: Any) -> Tensor:
        loss = F.cross_entropy(model(batch[0]).float(), batch[1])
        return loss * (float("inf") if next(calls) in (0, 2) else 1.0)

    trainer = make_trainer(
        lr=1.0, loss_fn=None, training_step=step, precision="fp16", max_steps=6, lr_interval="step",
        schedule=lambda optimizer: LambdaLR(optimizer, lambda count: 0.5**count),
    )  # fmt: skip
    rates: list[float] = []
    trainer.callbacks.on("step_end")(lambda state: rates.append(state.metrics["learning_rate"]))
    trainer.fit()
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25, 0.125]


def randomness() -> tuple[Any, ...]:
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()


def test_evaluation_draws_no_random_numbers() -> None:
    own = torch.Generator().manual_seed(0)

    def measure(model: nn.Module, batches: Any) -> dict[str, float]:
        return {"noise": sum(float(x.sum()) for x, _ in batches) + random.random() + np.random.rand()}

    seen: list[Any] = []
    both: list[dict[str, Any]] = [{}, {"eval_fn": measure}]
    for options in both:
        batches = DataLoader(dataset(), 8, shuffle=True, generator=own)
        trainer = make_trainer(eval_loader=batches, **options)
        for event in ("eval_start", "eval_end"):
            trainer.callbacks.on(event)(lambda state: seen.append((randomness(), own.get_state().tolist())))
        trainer.fit()
    assert len(seen) == 12
    assert all(before == after for before, after in zip(seen[::2], seen[1::2], strict=True))


class Judged:
    """A trial that is judged at given steps."""

    def __init__(self, folder: Path, steps: set[int]) -> None:
        self.callbacks, self.checkpoint_dir, self._steps = CallbackManager(), folder, steps

    def attach(self, save_checkpoint: Callable[[], Path]) -> None:
        pass

    def discard(self, checkpoint: Path) -> None:
        checkpoint.unlink()

    def decision_due(self, *, epoch: int | None = None, global_step: int | None = None) -> bool:
        return global_step in self._steps


def test_weights_do_not_depend_on_where_a_scheduler_looked(tmp_path: Path) -> None:
    found = []
    for name, steps in (("a", set[int]()), ("b", {1, 3, 9})):
        trainer = make_trainer(
            eval_loader=loader(16), trial=Judged(tmp_path / name, steps),
            schedule=lambda optimizer: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0),
        )  # fmt: skip
        trainer.fit()
        found.append(weights(trainer))
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("event", [None, "epoch_start", "step_start"])
def test_a_module_that_the_user_froze_stays_in_eval_mode(event: Any) -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))
    before = model[1].running_mean.clone()  # type: ignore[operator]
    trainer = make_trainer(model=model, eval_loader=loader(), eval_every=2)
    if event is None:
        model[1].eval()
    else:
        trainer.callbacks.on(event)(lambda state: model[1].eval())
    modes: list[tuple[bool, bool]] = []
    trainer.callbacks.on("step_end")(lambda state: modes.append((model.training, model[1].training)))
    trainer.fit()
    assert set(modes) == {(True, False)}
    assert torch.equal(model[1].running_mean, before)  # type: ignore[arg-type]


def test_a_model_that_a_handler_left_in_eval_mode_trains_on_in_train_mode() -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, CLASSES)).eval()
    trainer = make_trainer(model=model)
    modes: list[tuple[bool, bool]] = []
    trainer.callbacks.on("epoch_end")(lambda state: model.eval())
    trainer.callbacks.on("step_end")(lambda state: modes.append((model.training, model[2].training)))
    trainer.fit()
    assert set(modes) == {(True, True)}


@pytest.mark.parametrize("kind", ["drop_last", "iterator"])
def test_an_evaluation_of_nothing_is_refused_by_name(kind: str) -> None:
    batches: Any = DataLoader(dataset(), 100, drop_last=True) if kind == "drop_last" else iter(loader())
    with pytest.raises(ValueError, match=r"eval_loader .*(yielded no batch|used up after one evaluation)"):
        make_trainer(eval_loader=batches).fit()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss_fn": lambda o, t: (F.cross_entropy(o, t), 1)}, TypeError, "one number.*a tuple of 2"),
        ({"loss_fn": lambda o, t: {"loss": F.cross_entropy(o, t)}}, TypeError, "one number.*keys loss"),
        ({"loss_fn": nn.CrossEntropyLoss(reduction="none")}, ValueError, "reduction is 'none'"),
        ({"loss_fn": nn.CrossEntropyLoss(reduction="sum")}, ValueError, "must be a mean: its reduction is 'sum'"),
        ({"loss_fn": lambda o, t: F.cross_entropy(o, t, reduction="none")}, TypeError, r"of shape \(8,\)"),
    ],
)
def test_a_loss_that_is_not_a_mean_of_one_number_is_refused_in_words(
    options: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        make_trainer(**options).fit()


def test_optimizers_that_the_trainer_does_not_step_are_refused_when_it_is_made() -> None:
    model = nn.Linear(FEATURES, CLASSES)
    several: Any = [torch.optim.SGD([model.weight]), torch.optim.SGD([model.bias])]
    others = torch.optim.SGD(nn.Linear(2, 2).parameters())
    for optimizer, message in (
        (torch.optim.LBFGS(model.parameters()), "LBFGS.*loop of your own"),
        (several, "a list"),
        (others, "no parameter of the model"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            Trainer(model, optimizer=optimizer, train_loader=loader(), loss_fn=F.cross_entropy)


def test_the_state_of_an_optimizer_that_was_made_before_the_model_was_moved_follows_it() -> None:
    model = nn.Linear(FEATURES, CLASSES, device="meta")  # any device that is not the CPU
    optimizer = torch.optim.Adagrad(model.parameters())
    for state in optimizer.state.values():
        state["sum"] = torch.zeros(state["sum"].shape)
    Trainer(model, optimizer=optimizer, train_loader=loader(), loss_fn=F.cross_entropy, device="meta")
    assert {state["sum"].device.type for state in optimizer.state.values()} == {"meta"}
    assert {state["step"].device.type for state in optimizer.state.values()} == {"cpu"}


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (0.3, r"metrics by name, \{'eval_loss': 0.3\} \(got a float\)"),
        (None, r"metrics by name.*\(got a NoneType\)"),
        ({"f1": {"a": 1.0}}, "one number as 'f1'.*a dict with the keys a"),
        ({"f1": np.ones(3)}, "one number as 'f1'.*a ndarray"),
        ({"f1": torch.ones(3)}, "one number as 'f1'.*a Tensor of shape"),
    ],
)
def test_what_an_eval_fn_returns_is_numbers_by_name_or_refused(returned: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make_trainer(eval_loader=loader(), eval_fn=lambda model, batches: returned).fit()


def test_a_loader_over_tensors_is_read_in_the_same_order_with_the_same_bits() -> None:
    data = TensorDataset(torch.randn(23, 3), torch.randint(5, (23,)), torch.rand(23) > 0.5)
    own = {"shuffle": True, "generator": torch.Generator()}
    ways: list[dict[str, Any]] = [{"shuffle": True}, {}, own, {"drop_last": True}]
    for options in ways:
        read = []
        for way in (iter, batches_of):
            torch.manual_seed(1)
            if "generator" in options:
                options["generator"].manual_seed(2)
            batches: DataLoader[Any] = DataLoader(data, 4, **options)
            read.append(([[*batch] for _ in range(2) for batch in way(batches)], torch.get_rng_state()))
        (one, state), (other, other_state) = read
        assert len(one) == len(other)
        assert all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))
        assert torch.equal(state, other_state)


def test_the_state_of_a_run_that_fit_is_called_again_for_goes_on() -> None:
    straight, again = make_trainer(), make_trainer()
    straight.fit()
    again = make_trainer()
    again.callbacks.on("step_end")(lambda state: state.global_step in (2, 6, 9) and state.stop_training())
    assert [again.fit().global_step for _ in range(4)] == [2, 6, 9, 18]
    assert torch.equal(weights(again), weights(straight))


def test_max_steps_alone_trains_so_many_steps() -> None:
    state: TrainState = make_trainer(num_epochs=None, max_steps=20).fit()
    assert (state.global_step, state.epoch, state.num_epochs) == (20, 3, 0)
