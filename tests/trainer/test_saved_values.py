"""What a checkpoint holds can be read again, of whatever type it was."""

from __future__ import annotations

import enum
import gc
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models import CLASSES, FEATURES, loader, make_trainer
from tests.trainer.own_loops import run_of
from xaytune.trainer import checkpoint, random_state
from xaytune.trainer.trainer import Trainer


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
    "counter": (Counter(a=2), Counter(a=2)),
    "keys": ({Point(1, 2): {Point(3, Point(4, 5))}}, {(1, 2): {(3, (4, 5))}}),
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


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_value_that_handlers_keep_in_the_metrics_comes_back_in_a_loop_of_ones_own(
    kind: str, tmp_path: Path
) -> None:
    value, read = KINDS[kind]
    run = run_of(tmp_path)
    for _ in run.epochs(1):
        run.state.metrics["mine"] = value
    run.finish()
    again = run_of(tmp_path)
    assert list(again.epochs(1)) == []
    assert equal(again.state.metrics["mine"], read)


@pytest.mark.parametrize(
    "value", [np.float32(0.5), np.array([0.5]), Fraction(1, 2), Decimal("0.5"), torch.tensor([0.5])]
)
def test_any_kind_of_number_may_be_logged(value: Any, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    for _ in run.steps(1):
        run.log(mine=value)
    assert equal(run.state.metrics["mine"], 0.5)


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


def test_an_object_among_the_options_of_an_optimizer_is_refused_where_the_run_is_saved(tmp_path: Path) -> None:
    def build(folder: Path | None) -> Trainer:
        model = nn.Linear(FEATURES, CLASSES)
        optimizer = torch.optim.SGD([{"params": model.parameters(), "mine": len}], lr=0.1)
        return Trainer(
            model, optimizer=optimizer, loss_fn=F.cross_entropy, train_loader=loader(), checkpoint_dir=folder
        )

    assert build(None).fit().global_step == 6
    with pytest.raises(TypeError, match=r"the optimizer's param_groups\[0\]\['mine'\] is of the type builtin"):
        build(tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([defaultdict(int)], r"trial.memory\['mine'\]\[0\] is of the type defaultdict.*use a dict"),
        ({frozenset([1])}, r"\['memory'\]\['mine'\] is of the type frozenset.*save\(folder\)"),
    ],
)
def test_what_would_come_back_as_something_else_from_the_memory_is_refused(
    value: Any, message: str, tmp_path: Path
) -> None:
    run = run_of(tmp_path)
    run.memory["mine"] = value
    with pytest.raises(TypeError, match=message):
        list(run.epochs(1))


def test_whatever_generator_numpy_has_its_state_is_put_back(tmp_path: Path) -> None:
    before = np.random.mtrand.get_bit_generator()
    np.random.mtrand.set_bit_generator(np.random.PCG64(0))
    try:
        checkpoint.save({"random": random_state.capture()}, tmp_path / "step.pt")
        drawn = np.random.rand(3)
        random_state.restore(checkpoint.load(tmp_path / "step.pt")["random"])
        assert np.random.rand(3).tolist() == drawn.tolist()
    finally:
        np.random.mtrand.set_bit_generator(before)


def test_random_states_of_more_devices_than_there_are_now_are_left_out() -> None:
    saved = random_state.capture() | {"cuda": [torch.get_rng_state()] * (torch.cuda.device_count() + 2)}
    random_state.restore(saved)
    assert torch.equal(torch.get_rng_state(), saved["torch"])


def test_a_resumed_loop_holds_no_copy_of_the_model_that_it_has_restored(tmp_path: Path) -> None:
    def train(epochs: int) -> list[int]:
        run = run_of(tmp_path)
        run.keep(model=nn.Linear(37, 41))
        found = []
        for _ in run.epochs(epochs):
            gc.collect()
            tensors = (one for one in gc.get_objects() if type(one) in (Tensor, nn.Parameter))
            found.append(sum(one.shape == (41, 37) for one in tensors))
        run.finish()
        return found

    assert train(2) == [1, 1]
    assert train(4) == [1, 1]
