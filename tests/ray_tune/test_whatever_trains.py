"""Lightning and Hugging Face in sweeps on a real Ray; loops of one's own are those of tests/executors."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import Run
from tests.ray_tune.sweeps import events_of
from tests.ray_tune.test_pausing import assert_every_trial_ends_once
from xaytune.trial.common.output import file_of

ASHA: dict[str, Any] = {"algorithm": "asha", "max_t": 9, "reduction_factor": 3}
HYPERBAND: dict[str, Any] = {"algorithm": "hyperband", "max_t": 9, "reduction_factor": 3}


@pytest.mark.parametrize(
    ("recipe", "metric", "scheduler", "steps_an_epoch"),
    [
        ("with_lightning", "score", HYPERBAND, 6),
        ("with_transformers", "eval_score", ASHA, 3),
    ],
)
def test_weak_trials_end_at_their_rungs_and_paused_ones_go_on(
    run: Run, recipe: str, metric: str, scheduler: dict[str, Any], steps_an_epoch: int
) -> None:
    pytest.importorskip(recipe.removeprefix("with_"))
    results = run(
        "train",
        f"tests.ray_tune.{recipe}",
        metric=metric,
        space={"lr": {"loguniform": [1e-4, 0.3]}},
        scheduler=scheduler,
        num_samples=6,
    )
    assert results.sweep.state == "completed"
    assert_every_trial_ends_once(results)
    for trial in results.trials:
        assert trial.epoch in (1, 3, 9)
        assert trial.global_step == trial.epoch * steps_an_epoch
        assert trial.checkpoint is not None
        output = results.path / file_of(trial.number)
        said = output.read_text() if output.exists() else ""
        assert "it/s" not in said, "a progress bar"
        assert said.count("\n") < 60, said
    pauses = [event for event in events_of(results) if event["event"] == "pause"]
    assert bool(pauses) == (scheduler is HYPERBAND)
