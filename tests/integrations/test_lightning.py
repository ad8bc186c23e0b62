from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tests.integrations import lightning_recipes as recipes
from tests.models import dataset, loader
from xaytune.integrations.lightning import XaytuneCallback
from xaytune.testing.training import JudgedRun, TrainingContract, weights_of
from xaytune.trainer.own import OwnLoop

pytestmark = pytest.mark.slow


class TestEpochs(TrainingContract):
    recipe = "tests.integrations.lightning_recipes:by_epochs"
    judged_by = ("epoch",)
    kills = 4


class TestOnPlateau(TrainingContract):
    recipe = "tests.integrations.lightning_recipes:on_plateau"
    judged_by = ("epoch",)


class TestEvaluatedWithinEpochs(TrainingContract):
    recipe = "tests.integrations.lightning_recipes:evaluated_within_epochs"


class TestAccumulated(TrainingContract):
    recipe = "tests.integrations.lightning_recipes:accumulated"
    judged_by = ("epoch",)


class TestTwoOptimizers(TrainingContract):
    recipe = "tests.integrations.lightning_recipes:two_optimizers"
    steps_by_optimizers = 2


class TestLoaderWithWorkers(TrainingContract):
    recipe = "tests.integrations.lightning_recipes:with_workers"
    kills = 1


def test_a_run_that_is_finished_begins_and_ends_without_a_step(tmp_path: Path) -> None:
    recipes.by_epochs(JudgedRun(tmp_path))
    again = JudgedRun(tmp_path)
    recipes.by_epochs(again)
    assert again.order() == "Tt"


def test_metrics_that_are_logged_are_the_runs(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path)
    recipes.by_epochs(run)
    found: list[dict[str, float]] = []
    again = JudgedRun(tmp_path / "again")
    again.callbacks.on("epoch_end")(lambda state: found.append(dict(state.metrics)))
    recipes.by_epochs(again)
    assert all({"loss", "train_loss", "score"} <= metrics.keys() for metrics in found)
    assert len(found) == 4


def test_a_trainer_that_would_not_stop_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trains on where a trial is told to stop"):
        recipes.fit(JudgedRun(tmp_path), recipes.Classifier(), min_epochs=2, max_epochs=3)


def test_alone_it_trains_as_without(tmp_path: Path) -> None:
    pl.seed_everything(0)
    trained = recipes.fit(OwnLoop(), recipes.Classifier(), max_epochs=2, default_root_dir=tmp_path)
    pl.seed_everything(0)
    module = recipes.Classifier()
    plain = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=2)
    plain.fit(module, loader(), DataLoader(dataset(), 16))
    assert trained.equal(weights_of(module))


def test_the_callback_is_one_of_lightnings_own_kind() -> None:
    assert isinstance(XaytuneCallback(OwnLoop()), pl.callbacks.Checkpoint)


def test_a_limit_that_counts_each_of_two_optimizers_is_not_taken_for_one_of_steps(tmp_path: Path) -> None:
    for module, steps, limit in ((recipes.Adversaries(), 3, -1), (recipes.Classifier(), 6, 6)):
        run = JudgedRun(tmp_path / f"{steps}")
        limits: list[int] = []
        run.callbacks.on("step_end")(lambda state, limits=limits: limits.append(state.max_steps))
        recipes.fit(run, module, max_steps=6)
        assert limits == [limit] * steps


@pytest.mark.parametrize("evaluation", range(1, 8))
def test_gradients_of_a_step_that_is_not_done_come_back(evaluation: int, tmp_path: Path) -> None:
    def trained(run: OwnLoop) -> Tensor:
        pl.seed_everything(0)
        return recipes.evaluated_within_steps(run)

    stopped = JudgedRun(tmp_path)
    evaluations = itertools.count(1)
    stopped.callbacks.on("eval_end")(lambda state: next(evaluations) == evaluation and state.stop_training())
    trained(stopped)
    assert trained(JudgedRun(tmp_path)).equal(trained(OwnLoop()))


def test_what_handlers_keep_in_the_metrics_is_there_when_the_run_goes_on(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path, stop_at=2)
    kept = {"phase": "warm", "error": 0.25, "seen": [1, 2]}
    arrays = {"mean": np.asarray(0.5), "seen": [np.int64(1), np.asarray(2)]}
    run.callbacks.on("epoch_end")(lambda state: state.metrics.update(kept | arrays, largest=torch.arange(3.0)))
    recipes.by_epochs(run)
    found: dict[str, Any] = {}
    again = JudgedRun(tmp_path)
    again.callbacks.on("train_start")(lambda state: found.update(state.metrics))
    recipes.by_epochs(again)
    assert {name: found[name] for name in (*kept, "mean")} == {**kept, "mean": 0.5}
    assert found["largest"].tolist() == [0.0, 1.0, 2.0]
