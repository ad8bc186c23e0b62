"""Sweeps on a real Ray, from their first trial to their last."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import tune

from tests.callbacks import note_events
from tests.conftest import Run
from tests.ray_tune.sweeps import ASHA, SAVED, events_of, fired
from tests.recipes import STEPS_PER_EPOCH, score
from xaytune.errors import SpecError
from xaytune.ray_tune.sweep import Sweep, resume
from xaytune.records.journal import Event
from xaytune.records.results import Results
from xaytune.records.sweep_folder import SweepFolder
from xaytune.report.text import summary
from xaytune.simulation.curves import RecordedCurves
from xaytune.simulation.simulate import simulate
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import TimeAxis
from xaytune.trial.run.trial import Trial


@pytest.fixture(scope="module")
def swept(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A sweep of hand-written loops under ASHA."""
    sweep = Sweep(
        "tests.recipes:curve",
        metric="score",
        mode="max",
        space={"x": tune.uniform(0, 1)},
        scheduler=ASHA,
        num_samples=16,
        callbacks=[note_events],
    )
    return sweep.run(storage=tmp_path_factory.mktemp("runs"))


def test_every_trial_ends_once_through_its_own_loop(swept: Results) -> None:
    assert swept.sweep.state == "completed"
    ends = Counter(event["trial"] for event in events_of(swept) if event["event"] == "end")
    assert ends == dict.fromkeys(range(16), 1)
    for trial in swept.trials:
        events = fired(swept, trial.number)
        assert events[-2:] == ["checkpoint_saved", "train_end"]
        assert events.count("train_end") == 1


def test_weak_trials_are_stopped_at_the_rung_that_judged_them(swept: Results) -> None:
    stopped = [trial for trial in swept.trials if trial.status == "stopped"]
    assert len(stopped) >= 4
    for trial in stopped:
        assert trial.epoch in (1, 3)
        assert trial.stop_reason is not None
        assert trial.stop_reason.startswith(
            f"rung {trial.epoch}: {score(trial.config, trial.epoch - 1):.4g} is below"
        )
    assert all(trial.epoch == 9 for trial in swept.trials if trial.status == "completed")


def test_no_step_is_trained_after_the_verdict(swept: Results) -> None:
    for trial in swept.trials:
        assert fired(swept, trial.number).count("step_end") == trial.epoch * STEPS_PER_EPOCH == trial.global_step


def test_the_history_has_a_row_for_every_step_of_every_trial(swept: Results) -> None:
    for trial in swept.trials:
        history = swept.history(trial.number)
        assert history["global_step"].tolist() == list(range(1, trial.global_step + 1))
        assert history["metrics.loss"].tolist() == [1 / step for step in history["global_step"]]
        # What was measured after an epoch stands in the row of its last step.
        ends = history[history["step"] == STEPS_PER_EPOCH]
        assert ends["metrics.score"].tolist() == [score(trial.config, epoch) for epoch in range(trial.epoch)]


def test_the_best_trial_has_its_configuration_and_its_checkpoint(swept: Results) -> None:
    best = swept.best
    assert best is not None
    assert best.config["x"] == max(trial.config["x"] for trial in swept.trials)
    assert best.value == score(best.config, 8)
    assert best.checkpoint is not None
    assert torch.load(best.checkpoint)["x"] == best.config["x"]


def test_the_journal_tells_the_whole_story_of_a_trial(swept: Results) -> None:
    stopped = next(trial for trial in swept.trials if trial.status == "stopped")
    story = [event for event in events_of(swept) if event.get("trial") == stopped.number]
    kinds = [event["event"] for event in story]
    judged = ["result", "verdict"] * (1 if stopped.epoch == 1 else 2)
    assert kinds == ["trial", "start", *judged, "stop", "end"]
    start = story[1]
    assert start["node"] == ray.util.get_node_ip_address()
    assert start["pid"] > 0


def test_the_simulation_of_a_sweep_on_its_own_curves_takes_the_decisions_that_it_took(
    swept: Results, tmp_path: Path
) -> None:
    spec = SweepSpec.parse(swept.sweep.spec)
    curves = RecordedCurves(swept, spec.space, TimeAxis(), nearest=False, timed=True)
    simulated = simulate(spec, curves, SweepFolder(tmp_path / "simulated"), curves.workers)

    def decided(results: Results) -> list[tuple[Any, ...]]:
        events = [event for event in events_of(results) if event["event"] == "verdict"]
        return [(e["trial"], e["epoch"], e["decision"], e["value"], e["cutoff"], e["reason"]) for e in events]

    assert sorted(decided(simulated.results)) == sorted(decided(swept))
    assert [(trial.status, trial.epoch) for trial in simulated.results.trials] == [
        (trial.status, trial.epoch) for trial in swept.trials
    ]
    assert simulated.censored == 0


def test_each_trial_has_a_process_of_its_own(swept: Results) -> None:
    assert len({trial.pid for trial in swept.trials}) == len(swept.trials)


def test_one_trial_at_a_time_with_a_seed_makes_the_same_sweep_again(run: Run, undisturbed: Results) -> None:
    def story(results: Results) -> list[Event]:
        fleeting = ("t", "s", "seconds", "pid", "path", "checkpoints", "name", "host", "id")
        events = [event for event in events_of(results) if event["event"] not in ("checkpoint", "progress")]
        return [{k: v for k, v in event.items() if k not in fleeting} for event in events]

    again = run("saved", num_samples=12, **{**SAVED, "callbacks": []})
    assert story(again) == story(undisturbed)
    for trial in again.trials:
        assert again.history(trial.number).equals(undisturbed.history(trial.number))


def test_trainers_are_evaluated_and_judged_at_the_rungs_exactly(run: Run) -> None:
    results = run(
        "trained_by_steps",
        metric="eval_loss",
        mode="min",
        space={"x": {"loguniform": [1e-3, 1]}},
        scheduler={**ASHA, "time_attr": "global_step", "grace_period": 4, "max_t": 40},
        num_samples=8,
    )
    judged = {event["global_step"] for event in events_of(results) if event["event"] == "result"}
    assert judged <= {4, 12, 36, 40}
    for trial in results.trials:
        history = results.history(trial.number).set_index("global_step")
        for result in trial.results:
            assert history.loc[result.global_step, "metrics.eval_loss"] == result.value


def test_ray_domains_mean_what_they_mean_to_ray() -> None:
    space = {
        "a": tune.uniform(0, 1),
        "b": tune.loguniform(1e-3, 1),
        "c": tune.quniform(0, 1, 0.25),
        "d": {"e": tune.randint(1, 5), "f": tune.lograndint(1, 5)},
        "g": tune.choice(["x", "y"]),
        "h": tune.grid_search([1, 2]),
        "i": 3,
    }
    sweep = Sweep("a:b", metric="m", mode="max", space=space)
    assert sweep.spec.space.raw == {
        "a": {"uniform": [0.0, 1.0]},
        "b": {"loguniform": [1e-3, 1.0]},
        "c": {"quniform": [0.0, 1.0, 0.25]},
        "d": {"e": {"randint": [1, 5]}, "f": {"lograndint": [1, 5]}},
        "g": {"choice": ["x", "y"]},
        "h": {"grid": [1, 2]},
        "i": 3,
    }
    with pytest.raises(SpecError, match=r"of Ray's domains .* are known"):
        Sweep("a:b", metric="m", mode="max", space={"a": tune.randn(0, 1)})


@pytest.mark.parametrize("choices", [tune.choice, tune.grid_search])
def test_a_domain_of_rays_within_a_choice_is_refused_with_its_place(choices: Any) -> None:
    space = {"opt": choices([{"name": "sgd", "momentum": tune.uniform(0, 1)}, {"name": "adam"}])}
    with pytest.raises(SpecError, match=r"^space\.opt\.\w+\.0\.momentum: takes values, not domains: give each"):
        Sweep("a:b", metric="m", mode="max", space=space)


def test_a_diverged_trial_counts_as_worst_at_its_rung(run: Run) -> None:
    space = {"x": {"grid": [0.4, 0.3, 0.2, 0.6, 0.5]}}
    scheduler = {"algorithm": "asha", "max_t": 8, "grace_period": 2, "reduction_factor": 2}
    results = run("diverges_for_some", scheduler=scheduler, space=space, max_concurrent_trials=1)
    reasons = [trial.stop_reason for trial in results.trials]
    assert reasons[:3] == ["diverged: score is not finite at epoch 2"] * 3
    # Of five at rung 2 three are the worst there are: the other two go on, to be compared at the next.
    assert reasons[3] == "reached max_t at epoch 8"
    assert str(reasons[4]).startswith("rung 4:")


def test_a_recipe_that_cannot_be_sent_leaves_nothing(tmp_path: Path) -> None:
    options: dict[str, Any] = {"metric": "score", "mode": "max", "space": {"x": {"uniform": [0, 1]}}}
    lock = threading.Lock()
    with pytest.raises(SpecError, match=r"cannot be sent to its trials, .*: lock \(a lock\)"):
        Sweep(lambda config, trial: lock.locked(), **options).run(name="locked", storage=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_is_no_folder_is_refused() -> None:
    sweep = Sweep("a:b", metric="m", mode="max", space={"x": {"uniform": [0, 1]}})
    with pytest.raises(SpecError, match=r"storage: must be a folder, or the URI of one \(got 3\)"):
        sweep.run(storage=3)  # type: ignore[arg-type]


def its_score(config: dict[str, Any], trial: Trial) -> float:
    return float(config["x"])


def test_a_script_resumes_a_sweep_of_its_own_recipe_which_the_command_line_is_told_not_to_find(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(its_score, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "its_score", its_score, raising=False)
    sweep = Sweep(its_score, metric="score", mode="max", space={"x": {"uniform": [0, 1]}}, scheduler="asha")
    results = sweep.run(name="script", storage=tmp_path)
    (note,) = (event["text"] for event in events_of(results) if event["event"] == "note")
    assert "its_score is defined in the script or notebook itself: it cannot be found by its name later" in note
    results = resume("script", storage=tmp_path, overrides={"num_samples": 2})
    assert [trial.value for trial in results.trials] == [trial.config["x"] for trial in results.trials]
    assert len(results.trials) == 2
    monkeypatch.delattr(sys.modules["__main__"], "its_score")
    with pytest.raises(SpecError, match="its_score was defined in a script or notebook, which this process"):
        resume("script", storage=tmp_path, overrides={"num_samples": 3})


def test_a_sweep_of_a_lambda_gets_more_trials_where_it_is_given_again(ray_here: None, tmp_path: Path) -> None:
    sweep = Sweep(lambda config, trial: config["x"], metric="score", mode="max", space={"x": {"uniform": [0, 1]}})
    sweep.run(name="lambda", storage=tmp_path)
    results = resume("lambda", storage=tmp_path, overrides={"recipe": its_score, "num_samples": 2})
    assert [trial.status for trial in results.trials] == ["completed", "completed"]


def test_trials_that_failed_are_resumed_once_their_recipe_is_mended(run: Run, tmp_path: Path) -> None:
    space = {"x": {"grid": [0.1, 0.2, 0.3]}, "mended": str(tmp_path / "mended")}
    results = run("raises_until_it_is_mended", space=space, max_concurrent_trials=1)
    assert [(trial.status, trial.epoch) for trial in results.trials] == [
        *[("completed", 4), ("failed", 2), ("failed", 2)]
    ]
    assert f"xaytune resume {results.path} --resume-errored" in summary(results.sweep)
    (tmp_path / "mended").touch()
    assert resume(results.path).sweep.counts()["failed"] == 2
    resumed = resume(results.path, resume_errored=True)
    assert [(trial.status, trial.epoch, trial.attempts) for trial in resumed.trials] == [
        *[("completed", 4, 1), ("completed", 4, 2), ("completed", 4, 2)]
    ]
    for trial in resumed.trials:
        assert resumed.history(trial.number)["global_step"].tolist() == [1, 2, 3, 4]
        assert trial.value == pytest.approx(4 * trial.config["x"])


def test_a_sweep_that_failed_is_told_to_a_script_that_listens_to_nothing(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    results = run("raises_until_it_is_mended", space={"x": {"choice": [0.5]}, "mended": "nowhere"})
    assert results.sweep.state == "failed"
    reason = results.trials[0].reason
    assert reason is not None
    assert f"the sweep {results.sweep.name} failed: every trial failed; trial 0: {reason}" in caplog.messages


def test_a_sweep_that_was_interrupted_is_told_to_a_script_that_goes_on(
    ray_here: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    driver = os.getpid()

    def interrupts(config: dict[str, Any], trial: Trial) -> None:
        os.kill(driver, signal.SIGINT)
        for _ in trial.epochs(10**9):
            trial.report(score=1.0)

    sweep = Sweep(interrupts, metric="score", mode="max", space={"x": {"choice": [1]}})
    results = sweep.run(storage=tmp_path, name="a")
    assert results.sweep.state == "interrupted"
    assert f"the sweep a was interrupted: xaytune.resume('{tmp_path / 'a'}') continues it" in caplog.messages
