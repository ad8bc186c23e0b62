"""Sweeps on a real Ray, from their first trial to their last."""

from __future__ import annotations

import math
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import tune

from tests.conftest import Run
from tests.ray_tune.sweeps import ASHA, events_of, fired
from tests.recipes import STEPS_PER_EPOCH, note_events, score
from xaytune.errors import SpecError
from xaytune.ray_tune.sweep import Sweep, resume
from xaytune.records.journal import FILE_NAME, Event
from xaytune.records.results import Results
from xaytune.records.sweep_folder import SweepFolder
from xaytune.simulation.curves import RecordedCurves
from xaytune.simulation.simulate import simulate
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import TimeAxis
from xaytune.trial.trial import Trial


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


def test_one_trial_at_a_time_with_a_seed_makes_the_same_sweep_again(run: Run, tmp_path: Path) -> None:
    def story(results: Results) -> list[Event]:
        fleeting = ("t", "s", "seconds", "pid", "path", "name", "host", "id")
        return [{k: v for k, v in event.items() if k not in fleeting} for event in events_of(results)]

    options: dict[str, Any] = {
        "metric": "eval_accuracy",
        "space": {"x": {"loguniform": [1e-3, 1]}},
        "search": {"algorithm": "tpe", "seed": 3, "n_startup_trials": 3},
        "scheduler": ASHA,
        "num_samples": 6,
        "max_concurrent_trials": 1,
    }
    first, again = run("trained", **options), run("trained", **options)
    assert story(first) == story(again)
    for trial in range(6):
        assert first.history(trial).equals(again.history(trial))


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


def test_median_stops_what_is_worse_than_the_others(run: Run) -> None:
    results = run("curve", scheduler={"algorithm": "median", "grace_period": 2}, num_samples=10)
    stopped = [trial for trial in results.trials if trial.status == "stopped"]
    assert stopped
    assert all("the median" in str(trial.stop_reason) and trial.epoch >= 2 for trial in stopped)
    assert results.best is not None
    assert results.best.status == "completed"


def test_fifo_trains_every_trial_to_its_end(run: Run) -> None:
    results = run("curve", num_samples=4)
    assert [trial.status for trial in results.trials] == ["completed"] * 4
    assert all(trial.stop_reason is None and trial.value == score(trial.config, 8) for trial in results.trials)


def test_a_recipe_that_raises_fails_its_trial_alone_and_its_traceback_is_kept(run: Run) -> None:
    results = run("fails_for_some", num_samples=8)
    assert results.sweep.state == "completed"
    for trial in results.trials:
        if trial.config["x"] < 0.5:
            assert trial.status == "failed"
            assert f"RuntimeError: broken for {trial.number}" in str(trial.error)
            assert "in fail" in str(trial.error)
            assert fired(results, trial.number)[-2:] == ["error", "train_end"]
            assert len(results.history(trial.number)) == 3  # the third step was trained: its handler raised
        else:
            assert trial.status == "completed"
    assert {trial.status for trial in results.trials} == {"failed", "completed"}


def test_a_sweep_all_of_whose_trials_fail_has_failed(run: Run) -> None:
    results = run("fails_for_some", space={"x": {"uniform": [0, 0.4]}}, num_samples=2)
    assert (results.sweep.state, results.sweep.reason) == ("failed", "every trial failed")


@pytest.mark.parametrize("scheduler", [{"algorithm": "fifo"}, ASHA])
def test_a_metric_that_is_not_finite_stops_its_trial_as_diverged_and_is_never_best(
    run: Run, scheduler: dict[str, Any]
) -> None:
    results = run("diverges_for_some", scheduler=scheduler, space={"x": {"grid": [0.1, 0.8, 0.2, 0.9]}})
    diverged = [trial for trial in results.trials if "diverged" in str(trial.stop_reason)]
    assert diverged or scheduler is ASHA
    for trial in diverged:
        assert trial.config["x"] < 0.5
        assert trial.status == "stopped"
        assert trial.stop_reason == "diverged: score is not finite at epoch 2"
        assert fired(results, trial.number)[-1] == "train_end"
    assert results.best is not None
    assert math.isfinite(results.best.value or math.nan)


def test_a_trial_that_ignores_its_stop_is_killed_after_the_grace_period_and_the_sweep_goes_on(run: Run) -> None:
    results = run(
        "ignores_stops",
        scheduler=ASHA,
        space={"x": {"grid": [0.9, 0.1, 0.8]}},
        max_concurrent_trials=1,
        stop_grace_s=1,
    )
    weak = results.trials[1]
    assert weak.status == "stopped"
    assert weak.reason == "killed: it did not end within 1 s of being asked to stop"
    assert str(weak.stop_reason).startswith("rung 1: 0.05 is below")
    assert results.trials[2].finished
    assert results.trials[2].pid != weak.pid
    assert results.sweep.state == "completed"


def test_each_trial_draws_from_a_seed_of_its_own(run: Run) -> None:
    options: dict[str, Any] = {"space": {"x": {"grid": [1, 2, 3]}}, "search": {"algorithm": "random", "seed": 5}}
    first, again = run("draws", **options), run("draws", **options)
    values = [trial.metrics for trial in first.trials]
    assert values == [trial.metrics for trial in again.trials]
    assert len({metrics["score"] for metrics in values}) == 3
    assert len({trial.seed for trial in first.trials}) == 3


def test_handlers_of_the_documentation_work_in_a_recipe_unchanged(run: Run) -> None:
    results = run("documented", metric="loss", mode="min")
    (trial,) = results.trials
    assert trial.status == "completed"
    assert trial.reason == f"a callback stopped it at step {trial.global_step}"
    seen = (results.path / "seen.txt").read_text().splitlines()
    assert seen[0].startswith("step 50: grad_norm ")
    assert seen[-1] == f"checkpoint saved at step {trial.global_step}"
    assert results.history(0)["metrics.loss"].iloc[-1] < 0.02
    assert (results.history(0)["metrics.loss"].iloc[:-1] >= 0.02).all()


def test_a_handler_of_the_documentation_hears_of_an_error(run: Run) -> None:
    results = run("documented", metric="loss", mode="min", callbacks=["tests.recipes:break_at_step_5"])
    assert results.trials[0].status == "failed"
    assert "failed at step 5: RuntimeError: step 5" in (results.path / "seen.txt").read_text()


def test_a_metric_that_is_never_reported_ends_the_sweep_with_what_was_reported(run: Run, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="never reported 'score'; did you mean 'scores'"):
        run("reports_another_metric", num_samples=50)
    found = Results(tmp_path / "reports_another_metric")
    assert found.sweep.state == "failed"
    assert len(found.trials) <= 6


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            "two_arguments_short",
            r"recipe: tests\.recipes:two_arguments_short must take \(config, trial\) \(got \(\)",
        ),
        ("trains", r"recipe: tests\.recipes has no 'trains'; did you mean 'trained'"),
    ],
)
def test_a_recipe_that_cannot_be_called_is_refused_before_anything_runs(
    run: Run, tmp_path: Path, recipe: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        run(recipe)
    assert not list(tmp_path.glob(f"*/{FILE_NAME}"))


@pytest.mark.parametrize("resources", [{"cpu": 64}, {"cpu": 1, "gpu": 1}, {"tpu": 1}])
def test_resources_that_no_node_has_are_refused_at_once(run: Run, resources: dict[str, float]) -> None:
    with pytest.raises(
        SpecError, match=r"resources_per_trial: no node can ever run a trial \(got .*nodes have at most"
    ):
        run("curve", resources_per_trial=resources)


def test_a_name_that_is_taken_is_refused_and_a_default_one_is_numbered(run: Run, tmp_path: Path) -> None:
    assert [run("draws").path.name for _ in range(2)] == ["draws", "draws-2"]
    with pytest.raises(SpecError, match="holds a sweep already"):
        Sweep("tests.recipes:draws", metric="m", mode="max", space={"x": {"choice": [1]}}).run(
            name="draws", storage=tmp_path
        )


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "-x"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError, match="name: must be letters"):
        Sweep("tests.recipes:draws", metric="score", mode="max", space={"x": {"choice": [1]}}).run(
            name=name, storage=tmp_path
        )
    assert not list(tmp_path.rglob(FILE_NAME))


def test_what_a_module_draws_when_it_is_imported_is_the_same_for_all_trials(run: Run) -> None:
    results = run("drawn_at_import", space={"x": {"grid": [1, 2]}}, module="tests.drawing_recipe")
    assert len({trial.value for trial in results.trials}) == 1
    assert len({trial.pid for trial in results.trials}) == 2


def test_what_a_trial_prints_is_kept_with_its_sweep(run: Run) -> None:
    results = run("prints", space={"x": {"grid": [1, 2, 3]}})
    for trial in results.trials:
        printed = (results.path / "output" / f"{trial.number:05d}.txt").read_text()
        assert printed == f"trial {trial.number}\nto stderr\n"


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


def test_a_callback_that_stops_a_trial_before_its_first_evaluation_does_not_end_the_sweep(run: Run) -> None:
    results = run("stopped_early_for_some", space={"x": {"grid": [0.1, 0.9]}})
    assert results.sweep.state == "completed"
    early, late = results.trials
    assert (early.status, early.value, early.reason) == ("completed", None, "a callback stopped it at step 2")
    assert late.value == score(late.config, 8)


def test_a_sweep_without_any_finite_value_has_failed(run: Run) -> None:
    results = run("stopped_early_for_some", space={"x": {"grid": [0.1, 0.2]}})
    assert (results.sweep.state, results.sweep.reason) == ("failed", "no trial reported a finite 'score'")


def test_a_metric_that_is_no_number_fails_its_trial_with_what_it_was(run: Run) -> None:
    results = run("reports_words", scheduler=ASHA)
    (trial,) = results.trials
    assert trial.status == "failed"
    assert trial.reason == "TypeError: the metric of the sweep must be a number: 'score' is 'good'"
    assert len(results.history(0)) == STEPS_PER_EPOCH


def test_a_trial_whose_process_is_lost_is_failed_and_says_so(run: Run) -> None:
    results = run("kills_itself_for_some", space={"x": {"grid": [0.1, 0.9]}}, failures={"retries": 1})
    lost, other = results.trials
    assert (lost.status, lost.reason, lost.lost) == ("failed", "its process was lost, 2 times", 2)
    assert "SIGKILL" in str(lost.error)
    assert other.status == "completed"


def test_a_handler_of_train_end_that_raises_fails_the_trial_and_fires_nothing_twice(run: Run) -> None:
    results = run("breaks_at_its_end")
    assert results.trials[0].status == "failed"
    events = fired(results, 0)
    assert events.count("train_end") == 1
    assert "error" not in events


def test_a_second_run_in_one_trial_is_refused_with_the_mend(run: Run) -> None:
    results = run("trains_twice", metric="eval_accuracy")
    assert results.trials[0].status == "failed"
    assert "a trial is one run" in str(results.trials[0].reason)


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
