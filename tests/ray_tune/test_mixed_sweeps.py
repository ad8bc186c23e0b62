"""Trials of every kind in one sweep: however one ends, and whatever it does, the others do not notice."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Run
from tests.ray_tune.kinds import of
from tests.ray_tune.sweeps import ASHA, fired
from tests.recipes import STEPS_PER_EPOCH, score
from xaytune.errors import SpecError
from xaytune.ray_tune.sweep import Sweep
from xaytune.records.journal import FILE_NAME
from xaytune.records.results import Results

KINDS = [
    *("prints 1", "prints 2", "prints 3"),
    *("drawn_at_import 1", "drawn_at_import 2", "hangs_for_some 0.1"),
    *("curve 0.5", "curve 0.9", "documented 1", "documented_and_broken 1"),
    *("fails_for_some 0.1", "fails_for_some 0.9", "diverges_for_some 0.1", "diverges_for_some 0.8"),
    *("stopped_early_for_some 0.1", "stopped_early_for_some 0.9", "too_large_for_some 0.1"),
    *("kills_itself_for_some 0.1", "breaks_at_its_end 0.9", "trains_twice 0.1", "curve 0.7"),
]
STUBBORN = [
    "swallows_everything 0.9",
    "ignores_stops 0.1",
    "swallows_everything 0.1",
    "curve 0.8",
    "reports_words 1",
]
SEEDED: dict[str, Any] = {"module": "tests.ray_tune.kinds", "search": {"algorithm": "random", "seed": 5}}


@pytest.fixture(scope="module")
def swept(run_in: Run) -> Results:
    """A sweep of all kinds of trials, which no scheduler stops."""
    return run_in("train", space={"kind": {"grid": KINDS}}, failures={"retries": 1}, stall_timeout_s=10, **SEEDED)


@pytest.fixture(scope="module")
def again(run_in: Run, swept: Results) -> Results:
    """The first three trials of that sweep in another one, in the same storage."""
    return run_in("train", space={"kind": {"grid": KINDS[:3]}}, storage=swept.path.parent, **SEEDED)


@pytest.fixture(scope="module")
def stubborn(run_in: Run) -> Results:
    """A sweep under ASHA of trials that do not do as they are told, one after another."""
    options: dict[str, Any] = {"scheduler": ASHA, "max_concurrent_trials": 1, "stop_grace_s": 1, "callbacks": []}
    return run_in("train", space={"kind": {"grid": STUBBORN}}, **options, **SEEDED)


def test_fifo_trains_every_trial_to_its_end(swept: Results) -> None:
    for trial in of(swept, "curve"):
        x = float(trial.config["kind"].split()[1])
        assert (trial.status, trial.stop_reason, trial.value) == ("completed", None, score({"x": x}, 8))


def test_a_recipe_that_raises_fails_its_trial_alone_and_its_traceback_is_kept(swept: Results) -> None:
    weak, strong = of(swept, "fails_for_some")
    assert weak.status == "failed"
    assert f"RuntimeError: broken for {weak.number}" in str(weak.error)
    assert "in fail" in str(weak.error)
    assert fired(swept, weak.number)[-2:] == ["error", "train_end"]
    assert len(swept.history(weak.number)) == 3  # the third step was trained: its handler raised
    assert strong.status == "completed"
    assert swept.sweep.state == "completed"


def test_a_metric_that_is_not_finite_stops_its_trial_as_diverged_and_is_never_best(swept: Results) -> None:
    diverged, other = of(swept, "diverges_for_some")
    assert (diverged.status, diverged.stop_reason) == ("stopped", "diverged: score is not finite at epoch 2")
    assert fired(swept, diverged.number)[-1] == "train_end"
    assert other.status == "completed"
    assert swept.best is not None
    assert math.isfinite(swept.best.value or math.nan)


def test_a_trial_that_hangs_in_a_step_is_ended_and_the_sweep_goes_on(swept: Results) -> None:
    (hung,) = of(swept, "hangs_for_some")
    assert (hung.status, hung.failure, hung.attempts) == ("failed", "stalled", 1)
    assert hung.reason == "killed: it trained no step for 10 s"
    assert "in hang" in str(hung.error), "it tells where"
    assert swept.trials[-1].status == "completed"


def test_a_trial_that_is_out_of_memory_is_infeasible_and_not_retried(swept: Results) -> None:
    (large,) = of(swept, "too_large_for_some")
    assert (large.status, large.failure, large.attempts) == ("failed", "infeasible", 1)
    assert str(large.reason).startswith("out of memory: RuntimeError")
    assert swept.sweep.state == "completed"


def test_a_trial_whose_process_is_lost_is_failed_and_says_so(swept: Results) -> None:
    (lost,) = of(swept, "kills_itself_for_some")
    assert (lost.status, lost.reason, lost.lost) == ("failed", "its process was lost, 2 times", 2)
    assert "SIGKILL" in str(lost.error)


def test_a_handler_of_train_end_that_raises_fails_the_trial_and_fires_nothing_twice(swept: Results) -> None:
    (broken,) = of(swept, "breaks_at_its_end")
    assert broken.status == "failed"
    events = fired(swept, broken.number)
    assert events.count("train_end") == 1
    assert "error" not in events


def test_a_second_run_in_one_trial_is_refused_with_the_mend(swept: Results) -> None:
    (twice,) = of(swept, "trains_twice")
    assert twice.status == "failed"
    assert "a trial is one run" in str(twice.reason)


def test_a_callback_that_stops_a_trial_before_its_first_evaluation_does_not_end_the_sweep(swept: Results) -> None:
    early, late = of(swept, "stopped_early_for_some")
    assert (early.status, early.value, early.reason) == ("completed", None, "a callback stopped it at step 2")
    assert late.value == score({"x": 0.9}, 8)


def test_handlers_of_the_documentation_work_in_a_recipe_unchanged(swept: Results) -> None:
    (trial,) = of(swept, "documented")
    assert trial.status == "completed"
    assert trial.reason == f"a callback stopped it at step {trial.global_step}"
    seen = (swept.path / f"seen-{trial.number}.txt").read_text().splitlines()
    assert seen[0].startswith("step 50: grad_norm ")
    assert seen[-1] == f"checkpoint saved at step {trial.global_step}"
    losses = swept.history(trial.number)["metrics.loss"]
    assert losses.iloc[-1] < 0.02
    assert (losses.iloc[:-1] >= 0.02).all()


def test_a_handler_of_the_documentation_hears_of_an_error(swept: Results) -> None:
    (trial,) = of(swept, "documented_and_broken")
    assert trial.status == "failed"
    assert "failed at step 5: RuntimeError: step 5" in (swept.path / f"seen-{trial.number}.txt").read_text()


def test_what_a_module_draws_when_it_is_imported_is_the_same_for_all_trials(swept: Results) -> None:
    drawn = of(swept, "drawn_at_import")
    assert len({trial.value for trial in drawn}) == 1
    assert len({trial.pid for trial in drawn}) == 2


def test_what_a_trial_prints_is_kept_with_its_sweep(swept: Results) -> None:
    for trial in of(swept, "prints"):
        printed = (swept.path / "output" / f"{trial.number:05d}.txt").read_text()
        assert printed == f"trial {trial.number}\nto stderr\n"


def test_each_trial_draws_from_a_seed_of_its_own(swept: Results, again: Results) -> None:
    values = [trial.metrics for trial in of(swept, "prints")]
    assert values == [trial.metrics for trial in again.trials]
    assert len({metrics["score"] for metrics in values}) == 3
    assert len({trial.seed for trial in swept.trials}) == len(swept.trials)


def test_a_name_that_is_taken_is_refused_and_a_default_one_is_numbered(swept: Results, again: Results) -> None:
    assert (swept.path.name, again.path.name) == ("train", "train-2")
    with pytest.raises(SpecError, match="holds a sweep already"):
        Sweep("tests.recipes:draws", metric="m", mode="max", space={"x": {"choice": [1]}}).run(
            name="train", storage=swept.path.parent
        )


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "-x"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(ray_here: None, tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError, match="name: must be letters"):
        Sweep("tests.recipes:draws", metric="score", mode="max", space={"x": {"choice": [1]}}).run(
            name=name, storage=tmp_path
        )
    assert not list(tmp_path.rglob(FILE_NAME))


def test_a_trial_that_ignores_its_stop_is_killed_after_the_grace_period_and_the_sweep_goes_on(
    stubborn: Results,
) -> None:
    weak, later = stubborn.trials[1], stubborn.trials[3]
    assert weak.status == "stopped"
    assert weak.reason == "killed: it did not end within 1 s of being asked to stop"
    assert str(weak.stop_reason).startswith("rung 1: 0.05 is below")
    assert later.finished
    assert later.pid != weak.pid
    assert stubborn.sweep.state == "completed"


def test_a_trial_that_swallows_every_exception_is_ended_after_the_grace_period(stubborn: Results) -> None:
    strong, weak = of(stubborn, "swallows_everything")
    assert strong.status == "completed"
    assert (weak.status, weak.reason) == ("stopped", "killed: it did not end within 1 s of being asked to stop")


def test_a_metric_that_is_no_number_fails_its_trial_with_what_it_was(stubborn: Results) -> None:
    (trial,) = of(stubborn, "reports_words")
    assert trial.status == "failed"
    assert trial.reason == "TypeError: the metric of the sweep must be a number: 'score' is 'good'"
    assert len(stubborn.history(trial.number)) == STEPS_PER_EPOCH
