"""A resumed run has all that the interrupted one had, or refuses in words."""

from __future__ import annotations

import functools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler, TensorDataset

from tests.models import CLASSES, FEATURES, checkpoints, dataset, loader, make_trainer, stopped_at, weights
from xaytune.errors import CheckpointError
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.data import fingerprint
from xaytune.trainer.handlers import EarlyStopping, SaveBest, SaveCheckpoint
from xaytune.trainer.trainer import Trainer


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
        with pytest.raises(CheckpointError, match=r"on other training data.*Trainer\(run=\.\.\.\)"):
            make_trainer(train_loader=by_way[way + 3], checkpoint_dir=folder).fit()
    for number, batches in enumerate(by_way):
        steps: list[int] = []
        trainer = make_trainer(train_loader=batches, checkpoint_dir=tmp_path / "named", run=f"fold-{number}")
        trainer.callbacks.on("step_end")(lambda state, steps=steps: steps.append(state.global_step))
        trainer.fit()
        assert len(steps) == 12


def test_data_of_many_rows_is_told_from_other_data() -> None:
    rows = torch.zeros(2**24 + 4, 1, dtype=torch.uint8)  # numbers of rows that float32 does not have
    batches = DataLoader(TensorDataset(rows), 8)
    assert fingerprint(batches) != fingerprint(DataLoader(TensorDataset(rows + 1), 8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.complex64, torch.float64])
def test_data_is_told_by_its_bits_and_not_by_a_python_number_for_each_value(dtype: torch.dtype) -> None:
    images = torch.zeros(64, 3, 64, 64, dtype=dtype)
    batches = DataLoader(TensorDataset(images), 8)
    tracemalloc.start()
    try:
        before = fingerprint(batches)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    images[-1, -1, -1, -1] = 1
    assert fingerprint(batches) != before


def test_a_checkpoint_of_a_run_of_another_name_is_refused(tmp_path: Path) -> None:
    make_trainer(checkpoint_dir=tmp_path, run="a", num_epochs=1).fit()
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(CheckpointError, match="belongs to the run 'a', not to 'b'"):
        make_trainer(checkpoint_dir=tmp_path, run="b").fit()


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


@pytest.mark.slow
def test_a_model_that_the_user_compiled_is_resumed_uncompiled(tmp_path: Path) -> None:
    compiled: Any = functools.partial(torch.compile, backend="eager")
    model = compiled(nn.Linear(FEATURES, CLASSES))
    first = make_trainer(model=model, checkpoint_dir=tmp_path, num_epochs=1)
    first.fit()
    second = make_trainer(model=nn.Linear(FEATURES, CLASSES), checkpoint_dir=tmp_path, num_epochs=1)
    second.fit()
    assert torch.equal(weights(first), weights(second))


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


@pytest.mark.parametrize("where", ["stop", "step_start", "fit again"])
@pytest.mark.parametrize("step", [0, 2, 6, 7, 17])
def test_handlers_that_draw_where_a_run_or_an_epoch_begins_do_not_disturb_a_resumed_run(
    step: int, where: str, tmp_path: Path
) -> None:
    def build(folder: Path | None) -> Trainer:
        generator = torch.Generator().manual_seed(0)
        batches = DataLoader(dataset(), 8, shuffle=True, generator=generator)
        trainer = make_trainer(train_loader=batches, checkpoint_dir=folder)
        for event in ("train_start", "epoch_start"):
            trainer.callbacks.on(event)(lambda state: (torch.rand(1), torch.rand(1, generator=generator))[0])
        return trainer

    torch.manual_seed(1)
    undisturbed = build(None)
    undisturbed.fit()
    first = build(tmp_path)
    if where == "step_start":

        @first.callbacks.on("step_start")
        def fail(state: TrainState) -> None:
            if state.global_step == step:
                first.save_checkpoint()
                raise RuntimeError("once")

        with pytest.raises(RuntimeError, match="once"):
            first.fit()
    elif step > 0:
        stopped_at(first, step).fit()
    resumed = first if where == "fit again" else build(tmp_path)
    resumed.fit()
    assert resumed.state.global_step == 18
    assert torch.equal(weights(resumed), weights(undisturbed))


class Upgraded(nn.Linear):
    """Its weights were half as large in its first version."""

    _version = 2

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *others: Any) -> None:
        if local_metadata.get("version", 1) < 2:
            state_dict[prefix + "weight"] = 2 * state_dict[prefix + "weight"]
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)


def test_a_module_is_told_the_version_of_its_saved_state(tmp_path: Path) -> None:
    def build(folder: Path | None) -> Trainer:
        torch.manual_seed(0)
        return make_trainer(model=nn.Sequential(Upgraded(FEATURES, CLASSES)), checkpoint_dir=folder)

    undisturbed = build(None)
    undisturbed.fit()
    stopped_at(build(tmp_path), 7).fit()
    resumed = build(tmp_path)
    resumed.fit()
    assert torch.equal(weights(resumed), weights(undisturbed))
