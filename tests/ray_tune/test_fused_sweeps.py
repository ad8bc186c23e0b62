"""Sweeps whose trials are trained fused, on a real Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Run
from tests.ray_tune.fused_recipes import STEPS_PER_EPOCH
from tests.ray_tune.sweeps import ASHA, events_of, fired
from xaytune.ray_tune.sweep import Sweep
from xaytune.records.results import Results

OPTIONS = {"metric": "eval_loss", "mode": "min", "space": {"x": {"loguniform": [0.001, 0.3]}, "drop": 0.2}}


def sweep_of(recipe: str, folder: Path, **options: object) -> Results:
    sweep = Sweep(f"tests.ray_tune.fused_recipes:{recipe}", **{**OPTIONS, **options})  # type: ignore[arg-type]
    return sweep.run(storage=folder)


@pytest.fixture(scope="module")
def fused(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return sweep_of(
        "train",
        tmp_path_factory.mktemp("fused"),
        scheduler=ASHA,
        num_samples=24,
        fused=8,
        callbacks=["tests.recipes:note_events"],
    )


@pytest.fixture(scope="module")
def alone(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return sweep_of("train", tmp_path_factory.mktemp("alone"), num_samples=6)


def test_fused_trials_have_the_values_that_they_have_alone(fused: Results, alone: Results) -> None:
    for trial in range(6):
        rows, others = fused.history(trial), alone.history(trial)
        assert fused.trials[trial].config == alone.trials[trial].config
        steps = len(rows)
        for name in ("metrics.loss", "metrics.grad_norm", "metrics.eval_loss"):
            pairs = list(zip(rows[name], others[name][:steps], strict=True))
            assert all(abs(a - b) < 1e-9 or (a != a and b != b) for a, b in pairs), name
    ends = [event for event in events_of(fused) if event["event"] == "end"]
    assert sum(event.get("fused", 0) >= 3 for event in ends) > len(ends) / 2


def test_fused_trials_are_stopped_exactly_where_they_are_judged(fused: Results) -> None:
    assert fused.sweep.state == "completed"
    statuses = {trial.status for trial in fused.trials}
    assert statuses == {"stopped", "completed"}
    for trial in fused.trials:
        assert trial.global_step == trial.epoch * STEPS_PER_EPOCH
        assert list(fused.history(trial.number)["global_step"]) == list(range(1, trial.global_step + 1))
        assert trial.epoch in (1, 3, 9)
        events = fired(fused, trial.number)
        assert sorted(events[-3:]) == ["checkpoint_saved", "epoch_end", "train_end"]
        assert events[-1] == "train_end"
        assert events.count("train_end") == 1


def test_what_a_fused_trial_prints_is_in_its_own_output(fused: Results) -> None:
    for trial in fused.trials:
        said = (fused.path / "output" / f"{trial.number:05d}.txt").read_text().split("\n")
        epochs = [f"trial {trial.number} epoch {epoch}" for epoch in range(trial.epoch)]
        assert said == [f"begins {trial.number}", *epochs, f"ends {trial.number}", ""]


def test_trials_whose_process_is_killed_resume_from_their_own_checkpoints(run: Run, tmp_path: Path) -> None:
    results = sweep_of("killed", tmp_path, num_samples=6, fused=6, max_concurrent_trials=6)
    assert [trial.status for trial in results.trials] == ["completed"] * 6
    assert results.trials[3].attempts == 2
    assert sum(trial.attempts == 2 for trial in results.trials) >= 2, "others were trained in the same process"
    for trial in results.trials:
        assert list(results.history(trial.number)["global_step"]) == list(range(1, 9 * STEPS_PER_EPOCH + 1))
