"""Schedulers that pause trials: nothing of a trial is lost where it waits, or where another takes it over."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from tests.conftest import Run
from tests.driver.harness import Played
from tests.ray_tune.sweeps import assert_same, events_of, fired, last_checkpoint, start, wait_for
from xaytune.errors import CheckpointError
from xaytune.ray_tune.sweep import resume
from xaytune.records.journal import FILE_NAME
from xaytune.records.results import Results
from xaytune.trial.common.output import file_of

OPTIONS: dict[str, Any] = {
    "metric": "eval_accuracy",
    "space": {"x": {"loguniform": [1e-3, 1]}},
    "callbacks": ["tests.callbacks:note_events"],
}
HYPERBAND = {"algorithm": "hyperband", "max_t": 9, "reduction_factor": 3}


def assert_every_trial_ends_once(results: Results) -> None:
    ends = Counter(event["trial"] for event in events_of(results) if event["event"] == "end")
    assert ends == dict.fromkeys(range(len(results.trials)), 1)
    for trial in results.trials:
        events = fired(results, trial.number)
        assert events.count("train_end") == 1
        assert events[-1] == "train_end"
        steps = results.history(trial.number)["global_step"].tolist()
        assert steps == [
            step for step in range(1, trial.global_step + 1) if step not in skipped(results, trial.number)
        ]


def skipped(results: Results, trial: int) -> set[int]:
    """The steps that a trial did not train, for it took over one that was further than it was."""
    steps: set[int] = set()
    reached = 0
    for event in events_of(results):
        if event.get("trial") == trial and event["event"] == "exploit":
            steps = {step for step in steps if step <= event["global_step"]}
            steps |= set(range(reached + 1, event["global_step"] + 1))
        if event.get("trial") == trial:
            reached = event.get("global_step", reached)
    return steps


@pytest.fixture(scope="module")
def alone(run_in: Any) -> Results:
    """The trials that HyperBand is given, each trained to its end."""
    results: Results = run_in("saved", num_samples=17, **OPTIONS)
    return results


def assert_as_if_never_paused(results: Results, alone: Results) -> None:
    for trial, other in zip(results.trials, alone.trials, strict=True):
        assert trial.config == other.config
        whole = alone.history(trial.number)
        pd.testing.assert_frame_equal(results.history(trial.number), whole[: trial.global_step])
        if trial.epoch == 9:
            assert_same(
                last_checkpoint(results, trial.number)["model"], last_checkpoint(alone, trial.number)["model"]
            )


def test_trials_that_hyperband_pauses_go_on_exactly_and_end_through_their_loops(run: Run, alone: Results) -> None:
    results = run("saved", num_samples=17, scheduler=HYPERBAND, **OPTIONS)
    assert_every_trial_ends_once(results)
    assert_as_if_never_paused(results, alone)
    pauses = [event for event in events_of(results) if event["event"] == "pause"]
    assert len(pauses) >= 8
    counts = results.sweep.counts()
    assert counts["stopped"] >= 8
    assert counts["completed"] >= 3
    stopped = next(trial for trial in results.trials if trial.status == "stopped")
    assert " is not among the best " in str(stopped.stop_reason)


def test_a_hyperband_sweep_whose_driver_is_killed_goes_on_exactly(alone: Results, tmp_path: Path) -> None:
    spec = tmp_path / "saved.yaml"
    spec.write_text(
        "recipe: tests.recipes:saved\nmetric: eval_accuracy\nmode: max\nspace: {x: {loguniform: [1e-3, 1]}}\n"
        "scheduler: {algorithm: hyperband, max_t: 9, reduction_factor: 3}\nnum_samples: 17\n"
        "callbacks: [tests.callbacks:note_events]\n"
    )
    journal = tmp_path / "saved" / FILE_NAME
    process = start(["run", str(spec)], tmp_path)
    wait_for(journal, 50, process)
    process.kill()
    process.wait()
    results = resume("saved", storage=tmp_path)
    assert results.sweep.state == "completed"
    assert all(trial.finished for trial in results.trials)
    assert_as_if_never_paused(results, alone)


@pytest.mark.parametrize("algorithm", ["pbt", "pb2"])
def test_the_worst_of_a_population_go_on_from_what_the_best_are_with_a_configuration_of_their_own(
    run: Run, algorithm: str
) -> None:
    scheduler = {"algorithm": algorithm, "perturbation_interval": 2, "quantile_fraction": 0.5}
    results = run("saved", num_samples=8, scheduler=scheduler, max_concurrent_trials=2, **OPTIONS)
    assert_every_trial_ends_once(results)
    assert results.sweep.counts()["completed"] == 8
    exploits = [event for event in events_of(results) if event["event"] == "exploit"]
    assert exploits
    for exploit in exploits:
        assert 1e-3 <= exploit["config"]["x"] <= 1
    for trial in results.trials:
        own = [exploit for exploit in exploits if exploit["trial"] == trial.number]
        history = results.history(trial.number)
        if own:
            taken = torch.load(results.path / own[-1]["path"])
            assert taken["state"]["global_step"] == own[-1]["global_step"]
            after = history[history["global_step"] > own[-1]["global_step"]]
            assert len(after) > 0
            assert (after["metrics.learning_rate"] == own[-1]["config"]["x"]).all()
            assert trial.config == own[-1]["config"]


@pytest.mark.parametrize(("recipe", "fused"), [("own_loop", 1), ("trainer", 1), ("trainer", 4)])
def test_a_trial_that_takes_over_another_is_worth_what_it_reached_itself_and_with_which_configuration(
    run: Run, recipe: str, fused: int
) -> None:
    given = [0.1, 0.2, 0.3, 0.99]
    results = run(
        recipe,
        module="tests.programs.population",
        metric="acc",
        points_to_evaluate=[{"x": x} for x in given],
        num_samples=len(given),
        scheduler={"algorithm": "pbt", "perturbation_interval": 2, "resample_probability": 0, "synch": True},
        fused=fused,
    )
    taken_over = {event["trial"] for event in events_of(results) if event["event"] == "exploit"}
    assert taken_over == {0, 1}
    for trial, x in zip(results.trials, given, strict=True):
        assert trial.value == x  # what it was worth before, and no trial is worth as much later
        assert trial.best_config == {"x": x}
        assert (trial.config == trial.best_config) == (trial.number not in taken_over)
        assert results.history(trial.number)["metrics.acc"].max() == x
    assert results.best is not None
    assert (results.best.number, results.best_config) == (3, {"x": 0.99})


@pytest.mark.parametrize(
    "scheduler",
    [{"algorithm": "pbt", "perturbation_interval": 2, "synch": True}, {"algorithm": "hyperband", "max_t": 6}],
    ids=lambda scheduler: scheduler["algorithm"],
)
def test_a_loop_that_is_left_where_its_trial_would_be_paused_has_ended(
    run: Run, scheduler: dict[str, Any]
) -> None:
    module = "tests.programs.population"
    results = run("leaves_its_loop", module=module, metric="acc", num_samples=4, scheduler=scheduler)
    for trial in results.trials:
        assert (trial.status, trial.attempts, trial.epoch, trial.global_step) == ("completed", 1, 2, 4)
        assert (results.path / file_of(trial.number)).read_text() == "after the loop\n"


def test_a_sweep_that_cannot_begin_its_trials_again_is_not_left_running_in_its_journal(
    ray_here: None, tmp_path: Path
) -> None:
    scheduler = {"algorithm": "pbt", "perturbation_interval": 3, "hyperparam_mutations": ["x"]}
    killed = Played(tmp_path / "sweep", recipe="tests.recipes:saved", scheduler=scheduler)
    killed.start()
    checkpoint = "checkpoints/00000/step-00000030.pt"
    with pytest.raises(CheckpointError):  # it was deleted by hand
        killed.report(0, 3, 0.5, checkpoints={30: checkpoint})
    killed.close()
    with pytest.raises(CheckpointError, match="there is no such checkpoint"):
        resume(tmp_path / "sweep")
    sweep = Results(tmp_path / "sweep").sweep
    assert sweep.state == "failed"
    assert "there is no such checkpoint" in str(sweep.reason)
