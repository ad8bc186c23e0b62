"""Sweeps whose trials are trained fused, on a real Ray."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.ray_tune.fused_recipes import STEPS_PER_EPOCH
from tests.ray_tune.sweeps import ASHA, events_of, fired, start, wait_for
from xaytune.ray_tune.sweep import Sweep, resume
from xaytune.records.journal import FILE_NAME
from xaytune.records.results import Results
from xaytune.report.text import summary
from xaytune.search.build import method_for
from xaytune.search.method import Action, Decision, Result
from xaytune.search.replay import replay
from xaytune.sweep.spec import SweepSpec
from xaytune.trainer.fused.timing import FEWEST
from xaytune.trial.common.output import file_of

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
        fused="auto",
        callbacks=["tests.callbacks:note_events"],
    )


@pytest.fixture(scope="module")
def alone(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return sweep_of("train", tmp_path_factory.mktemp("alone"), num_samples=12)


def of_the_module(recipe: str, folder: Path, **options: object) -> Results:
    options = {"metric": "eval_loss", "mode": "min", **options}
    return Sweep(f"tests.ray_tune.fused_module_level:{recipe}", **options).run(storage=folder)  # type: ignore[arg-type]


def test_a_model_made_at_the_top_of_a_module_begins_anew_in_each_fused_trial(
    ray_here: None, tmp_path: Path
) -> None:
    space = {"x": {"grid": [0.01, 0.02, 0.05, 0.1, 0.2]}}
    fused = of_the_module("train", tmp_path / "fused", space=space, fused=4)
    alone = of_the_module("train", tmp_path / "alone", space=space)
    assert [trial.status for trial in fused.trials] == ["completed"] * 5
    for mine, other in zip(fused.trials, alone.trials, strict=True):
        assert mine.metrics["eval_loss"] == pytest.approx(other.metrics["eval_loss"], rel=1e-5)
    told = [event["text"] for event in events_of(fused) if event["event"] == "note"]
    assert (
        sum(text.startswith("fused: trained in processes of their own: trials share a model") for text in told)
        == 1
    )
    moved = {event["trial"] for event in events_of(fused) if event["event"] == "failure"}
    assert 0 < len(moved) < 5


def test_a_shared_backbone_that_is_unfrozen_sends_its_trials_to_processes_of_their_own(
    ray_here: None, tmp_path: Path
) -> None:
    space = {"x": {"grid": [0.01, 0.02, 0.05, 0.1]}}
    fused = of_the_module("unfreezes", tmp_path / "fused", space=space, fused=4)
    alone = of_the_module("unfreezes", tmp_path / "alone", space=space)
    assert {event["trial"] for event in events_of(fused) if event["event"] == "failure"} == {0, 1, 2, 3}
    for mine, other in zip(fused.trials, alone.trials, strict=True):
        assert mine.metrics["eval_loss"] == pytest.approx(other.metrics["eval_loss"], rel=1e-5)


def test_fused_trials_that_raise_before_any_has_trained_end_alone_unless_all_do(
    ray_here: None, tmp_path: Path
) -> None:
    space = {"number": {"grid": list(range(8))}}
    some = of_the_module("raises_for_some", tmp_path / "some", space=space, fused=8)
    assert [trial.number for trial in some.trials if trial.status == "failed"] == [0, 3, 4]
    assert [trial.status for trial in some.trials if trial.status != "failed"] == ["completed"] * 5
    many = {"number": {"grid": list(range(80))}}
    none = of_the_module("raises_always", tmp_path / "all", space=many, fused=4)
    (ended,) = [event for event in events_of(none) if event["event"] == "sweep" and event["state"] == "failed"]
    assert ended["reason"] == "its first trials raised before their first step: ValueError: none of them"


def assert_as_alone(results: Results, alone: Results) -> None:
    """Each step is in the histories once, with the values that it has alone, to rounding."""
    for trial in results.trials[: len(alone.trials)]:
        rows, others = results.history(trial.number), alone.history(trial.number)
        assert trial.config == alone.trials[trial.number].config
        assert list(rows["global_step"]) == list(range(1, trial.global_step + 1))
        for name in ("metrics.loss", "metrics.grad_norm", "metrics.eval_loss"):
            pairs = list(zip(rows[name], others[name][: len(rows)], strict=True))
            assert all(abs(a - b) < 1e-9 or (a != a and b != b) for a, b in pairs), name


def test_fused_trials_have_the_values_that_they_have_alone(fused: Results, alone: Results) -> None:
    assert_as_alone(fused, alone)
    together = {event["fused"] for event in events_of(fused) if event["event"] == "end" and event.get("fused")}
    assert together
    assert min(together) >= FEWEST
    assert "of them trained fused" in summary(fused.sweep)


def test_the_journal_of_a_fused_sweep_gives_its_decisions_again(fused: Results) -> None:
    method, events = method_for(SweepSpec.parse(fused.sweep.spec)), events_of(fused)
    decide, decided = method.on_result, list[tuple[object, ...]]()

    def note(trial: int, result: Result) -> Sequence[Action]:
        actions = decide(trial, result)
        own = actions[0]
        assert isinstance(own, Decision)
        decided.append((trial, own.word, own.reason, own.cutoff))
        return actions

    setattr(method, "on_result", note)  # noqa: B010
    replay(method, events, fused.sweep.spec["metric"])
    verdicts = [event for event in events if event["event"] == "verdict"]
    assert decided == [(e["trial"], e["decision"], e["reason"], e.get("cutoff")) for e in verdicts]
    assert {verdict["decision"] for verdict in verdicts} == {"continue", "stop"}


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


def test_trials_whose_process_is_killed_resume_from_their_own_checkpoints(
    run: Run, alone: Results, tmp_path: Path
) -> None:
    results = sweep_of("killed", tmp_path, num_samples=6, fused=6, max_concurrent_trials=6)
    assert [trial.status for trial in results.trials] == ["completed"] * 6
    assert_as_alone(results, alone)
    failures = [event for event in events_of(results) if event["event"] == "failure"]
    assert {event["kind"] for event in failures} == {"lost_with_others"}
    assert len(failures) >= 2, "others were trained in the same process"
    assert all(results.trials[event["trial"]].attempts == 2 for event in failures)


def test_a_member_that_raises_or_diverges_ends_alone_and_a_budget_stops_the_others_through_their_loops(
    run: Run, alone: Results, tmp_path: Path
) -> None:
    results = sweep_of(
        "ends_badly",
        tmp_path,
        num_samples=8,
        fused=8,
        max_concurrent_trials=8,
        scheduler={"algorithm": "median", "grace_period": 1000},  # it is asked after each epoch
        budget={"epochs": 400},  # all have joined long before
        callbacks=["tests.callbacks:note_events"],
    )
    raised, diverged = results.trials[2], results.trials[3]
    assert (raised.status, raised.global_step, raised.failure) == ("failed", 10, "error")
    assert "its own matter" in str(raised.reason)
    assert diverged.status == "stopped"
    assert "diverged" in str(diverged.stop_reason)
    for trial in results.trials:
        events = fired(results, trial.number)
        assert events[-1] == "train_end"
        assert events.count("train_end") == 1
        assert list(results.history(trial.number)["global_step"]) == list(range(1, trial.global_step + 1))
        if trial not in (raised, diverged):
            assert trial.status == "stopped"
            assert "budget" in str(trial.stop_reason)
            assert trial.global_step in trial.checkpoints, "it can be continued"


def test_trials_of_several_cpus_are_fused_but_for_one_that_changes_settings_which_is_said_and_not_shared(
    ray_here: None, tmp_path: Path
) -> None:
    cpus = {"cpu": 2}
    results = sweep_of("changes_settings", tmp_path, num_samples=6, fused=6, resources_per_trial=cpus)
    assert all(trial.status == "completed" for trial in results.trials)
    assert results.trials[0].fused == 0
    assert max(trial.fused for trial in results.trials) >= FEWEST
    told = [event["text"] for event in events_of(results) if event["event"] == "note"]
    assert "fused: trained alone: its recipe changes a setting of torch for the whole process" in told


def test_an_error_of_torch_looks_at_no_stack_but_that_of_its_recipe(ray_here: None, tmp_path: Path) -> None:
    results = sweep_of("shows_its_stack", tmp_path, num_samples=2, fused=2)
    for trial in results.trials:
        shown = (results.path / file_of(trial.number)).read_text()
        assert "frame" in shown
        assert "greenlet" not in shown


def test_a_fused_sweep_that_was_interrupted_continues_as_if_it_had_not_been(
    run: Run, alone: Results, tmp_path: Path
) -> None:
    spec, journal = tmp_path / "fused.yaml", tmp_path / "fused" / FILE_NAME
    options = {**OPTIONS, "recipe": "tests.ray_tune.fused_recipes:interrupted", "num_samples": 12, "fused": 8}
    spec.write_text(json.dumps(options))  # JSON is YAML
    process = start(["run", str(spec)], tmp_path)
    wait_for(journal, 27, process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    (tmp_path / "fused" / "interrupted").touch()
    interrupted = Results(tmp_path / "fused").sweep
    assert interrupted.state == "interrupted"
    assert interrupted.counts()["paused"] >= 2
    results = resume("fused", storage=tmp_path)
    assert [trial.status for trial in results.trials] == ["completed"] * 12
    assert_as_alone(results, alone)
