from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

import torch

from tests.integrations import transformers_recipes as recipes
from xaytune.testing.training import JudgedRun, TrainingContract

pytestmark = pytest.mark.slow


class TestEpochs(TrainingContract):
    recipe = "tests.integrations.transformers_recipes:by_epochs"


class TestSteps(TrainingContract):
    recipe = "tests.integrations.transformers_recipes:by_steps"
    judged_by = ("global_step",)


class TestAccumulated(TrainingContract):
    recipe = "tests.integrations.transformers_recipes:accumulated"
    judged_by = ("epoch",)
    kills = 1


class TestBestAtEnd(TrainingContract):
    recipe = "tests.integrations.transformers_recipes:best_at_end"
    judged_by = ("epoch",)
    kills = 1


def test_trls_trainer_stops_and_resumes_as_transformers_own(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from tests.integrations import trl_recipes

    straight = trl_recipes.tuned(JudgedRun(tmp_path / "straight"))
    stopped = JudgedRun(tmp_path / "run", stop_at=2)
    trl_recipes.tuned(stopped)
    assert stopped.history == list(range(1, 13))
    continued = JudgedRun(tmp_path / "run")
    assert trl_recipes.tuned(continued).equal(straight)
    assert continued.history == list(range(13, 25))


def test_a_row_holds_what_was_logged_of_its_step(tmp_path: Path) -> None:
    rows: dict[int, dict[str, Any]] = {}
    run = JudgedRun(tmp_path)
    run.callbacks.on("step_end")(lambda state: rows.update({state.global_step: dict(state.metrics)}))
    recipes.fit(run, num_train_epochs=1, logging_steps=1)
    assert all(row.keys() >= {"loss", "grad_norm", "learning_rate"} for row in rows.values())
    assert len({float(row["loss"]) for row in rows.values()}) == len(rows) == 6


def test_a_trial_evaluates_where_it_is_judged(tmp_path: Path) -> None:
    evaluated: list[int] = []
    run = JudgedRun(tmp_path, by="global_step", times=[3, 5])
    run.callbacks.on("eval_end")(lambda state: evaluated.append(state.global_step))
    recipes.fit(run, num_train_epochs=1)
    assert evaluated == [3, 5, 6]


def test_only_what_the_trainer_saves_for_its_user_stays_in_its_own_folder(tmp_path: Path) -> None:
    recipes.fit(JudgedRun(tmp_path), save_strategy="epoch", num_train_epochs=2)
    assert sorted(path.name for path in (tmp_path / "transformers").iterdir()) == ["checkpoint-12", "checkpoint-6"]


def test_a_checkpoint_that_could_not_be_resumed_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot resume from what save_only_model=True saves"):
        recipes.fit(JudgedRun(tmp_path), save_only_model=True)


def test_what_handlers_keep_in_the_metrics_is_there_when_the_run_goes_on(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path, stop_at=2)
    kept = {"phase": "warm", "error": 0.25, "seen": [1, 2]}
    run.callbacks.on("epoch_end")(lambda state: state.metrics.update(kept, largest=torch.arange(3.0)))
    recipes.by_epochs(run)
    found: dict[str, Any] = {}
    again = JudgedRun(tmp_path)
    again.callbacks.on("train_start")(lambda state: found.update(state.metrics))
    recipes.by_epochs(again)
    assert {name: found[name] for name in kept} == kept
    assert found["largest"].tolist() == [0.0, 1.0, 2.0]
