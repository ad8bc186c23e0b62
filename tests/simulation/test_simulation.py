"""Sweeps in virtual time: the same decisions, whatever cuts them off."""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.report.journals import Written
from xaytune.errors import JournalError, SpecError
from xaytune.records import history
from xaytune.records.journal import FILE_NAME
from xaytune.records.results import Results
from xaytune.records.resumed_spec import resumed_spec
from xaytune.records.sweep_folder import SweepFolder
from xaytune.simulation.clock import VirtualClock
from xaytune.simulation.curves import Curve, RecordedCurves, Surrogate, surrogate
from xaytune.simulation.simulate import Simulated, simulate
from xaytune.sweep.space_parser import parse_space
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import TimeAxis

POWER_LAW = surrogate("tests.simulation.surrogates:power_law")


def spec(scheduler: dict[str, Any], **options: Any) -> SweepSpec:
    given = {"space": {"x": {"uniform": [0, 1]}}, "num_samples": 12, "scheduler": scheduler, **options}
    return SweepSpec.parse({"recipe": "a:b", "metric": "m", "mode": "max", **given})


ASHA = {"algorithm": "asha", "max_t": 27, "reduction_factor": 3}
SCHEDULERS: list[dict[str, Any]] = [
    {"algorithm": "fifo"},
    ASHA,
    {"algorithm": "median", "grace_period": 3},
    {"algorithm": "hyperband", "max_t": 27},
]
CURVES: dict[str, Any] = {"algorithm": "curves"}


def story(results: Results) -> list[tuple[object, ...]]:
    return [
        (trial.number, trial.config, trial.status, trial.epoch, trial.value, trial.stop_reason)
        for trial in results.trials
    ]


ALL = [*((scheduler, search) for scheduler in SCHEDULERS for search in ("random", "tpe")), (CURVES, "random")]


@pytest.mark.parametrize(
    ("scheduler", "search"),
    ALL,
    ids=lambda option: option["algorithm"] if isinstance(option, dict) else option,
)
def test_a_sweep_that_is_cut_off_anywhere_ends_with_the_same_decisions(
    tmp_path: Path, scheduler: dict[str, Any], search: str
) -> None:
    check_cuts(tmp_path, scheduler, search, seed=3, cuts=3)


def test_a_simulated_sweep_is_not_resumed_with_trials_that_train(tmp_path: Path) -> None:
    played = spec({"algorithm": "fifo"}, budget={"time": 2.0})
    results = simulate(played, POWER_LAW, SweepFolder(tmp_path / "played"), workers=1).results
    with pytest.raises(JournalError, match="it was simulated, and its trials are not trained: `xaytune run`"):
        resumed_spec(Results(results.path).sweep, {"budget.time": 100.0})


def check_cuts(folder: Path, scheduler: dict[str, Any], search: str, seed: int, cuts: int) -> None:
    """Cuts the journal of a sweep off, at its beginning and at random, and resumes the sweep from there."""
    whole = spec(scheduler, search={"algorithm": search, "seed": seed})
    undisturbed = story(simulate(whole, POWER_LAW, SweepFolder(folder / "whole"), workers=1).results)
    lines = (folder / "whole" / FILE_NAME).read_bytes().splitlines(keepends=True)
    for cut in [1, *random.Random(seed).sample(range(2, len(lines)), cuts)]:
        sweep_folder = _cut(folder, lines, cut)
        assert story(simulate(whole, POWER_LAW, sweep_folder, workers=1).results) == undisturbed, (
            scheduler,
            search,
            cut,
        )


def _cut(folder: Path, lines: list[bytes], cut: int) -> SweepFolder:
    """The folder of a sweep of which so many lines of a journal are left."""
    sweep_folder = SweepFolder(folder / f"cut-{cut}")
    sweep_folder.local.mkdir()
    (sweep_folder.local / FILE_NAME).write_bytes(b"".join(lines[:cut]))
    return sweep_folder


def campaign(runs: int, first: int) -> None:
    """Cuts sweeps of so many seeds off, each at ten places."""
    for seed in range(first, first + runs):
        for scheduler, search in ALL:
            with tempfile.TemporaryDirectory() as folder:
                check_cuts(Path(folder), scheduler, search, seed, cuts=10)


def test_a_hyperband_sweep_that_is_resumed_with_more_trials_ends_them_all_and_changes_no_end(
    tmp_path: Path,
) -> None:
    hyperband = {"algorithm": "hyperband", "max_t": 27}
    simulate(spec(hyperband, num_samples=9), POWER_LAW, SweepFolder(tmp_path / "whole"), workers=3)
    lines = (tmp_path / "whole" / FILE_NAME).read_bytes().splitlines(keepends=True)
    for cut in (len(lines) // 3, 2 * len(lines) // 3, len(lines)):
        sweep_folder = _cut(tmp_path, lines, cut)
        ended = [one for one in story(Results(sweep_folder)) if one[2] in ("completed", "stopped")]
        resumed = simulate(spec(hyperband, num_samples=40), POWER_LAW, sweep_folder, workers=3)
        now = story(resumed.results)
        assert len(now) == 40
        assert {one[2] for one in now} == {"completed", "stopped"}
        assert set(map(repr, ended)) <= set(map(repr, now))


@settings(max_examples=8)
@given(
    workers=st.integers(1, 20), num_samples=st.integers(1, 30), scheduler=st.sampled_from([*SCHEDULERS, CURVES])
)
def test_every_trial_of_a_simulated_sweep_ends(
    tmp_path_factory: pytest.TempPathFactory, workers: int, num_samples: int, scheduler: dict[str, Any]
) -> None:
    sweep_folder = SweepFolder(tmp_path_factory.mktemp("simulated") / "sweep")
    simulated = simulate(spec(scheduler, num_samples=num_samples), POWER_LAW, sweep_folder, workers)
    counts = simulated.results.sweep.counts()
    assert counts["completed"] + counts["stopped"] == num_samples
    assert simulated.results.sweep.state == "completed"


def test_the_results_of_a_sweep_that_was_run_are_those_that_its_journal_tells(tmp_path: Path) -> None:
    ran = simulate(spec(ASHA, num_samples=30), POWER_LAW, SweepFolder(tmp_path / "sweep"), workers=4).results
    read = Results(tmp_path / "sweep")
    assert ran.trials == read.trials
    assert ran.sweep.to_dict() == read.sweep.to_dict()
    assert list(ran.events()) == list(read.events())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda config: config["y"], r"the function raised KeyError: 'y' \(for {'x': 0.5}\)"),
        (lambda config: 3, r"must return \(times, values\), a number for each epoch or step"),
        (lambda config: ([1.0], []), r"must return as many times as values, and some \(got 1 times, 0 values\)"),
        (
            lambda config: ([0.5, 0.5], [1, 2]),
            r"times must rise from 0, in seconds \(got \[0.5, 0.5\]\)",
        ),
        (lambda config: ([2.0, 1.0], [1, 2]), "times must rise"),
        (lambda config: ([-1.0, 1.0], [1, 2]), "times must rise"),
        (lambda config: ([1.0, math.inf], [1, 2]), "times must rise"),
        (lambda config: ([1.0, math.nan], [1, 2]), "times must rise"),
    ],
)
def test_what_is_wrong_with_a_function_of_curves_is_said_in_words(function: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Surrogate(function).of(0, {"x": 0.5})


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("tests.search.raising:curve", "curves: tests.search.raising cannot be imported: RuntimeError: it raises"),
        ("tests.simulation.surrogates:powerlaw", "did you mean 'power_law'"),
    ],
)
def test_a_function_of_curves_that_cannot_be_found_is_said_in_words(reference: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        surrogate(reference)


@pytest.mark.parametrize("budget", [{}, {"epochs": 500}, {"time": 500.0}], ids=["none", "epochs", "time"])
def test_a_paused_trial_of_which_no_more_is_known_ends_as_censored_when_it_resumes(
    tmp_path: Path, budget: dict[str, float]
) -> None:
    class CutOff:
        def of(self, trial: int, config: Mapping[str, Any]) -> Curve:
            return Curve(dict.fromkeys((1, 2, 3), config["x"]), {1: 1.0, 2: 2.0, 3: 3.0}, ends=False)

    sweep = spec({"algorithm": "hyperband", "max_t": 9}, budget=budget)
    simulated = simulate(sweep, CutOff(), SweepFolder(tmp_path), workers=4)
    assert simulated.results.sweep.state == "completed"
    assert simulated.censored > 0
    assert max(trial.epoch for trial in simulated.results.trials) == 3


def test_a_sweep_without_any_finite_value_has_failed(tmp_path: Path) -> None:
    diverging = Surrogate(lambda config: ([1.0, 2.0], [math.nan, math.nan]))
    sweep = simulate(
        spec({"algorithm": "fifo"}, num_samples=3), diverging, SweepFolder(tmp_path / "sweep"), 2
    ).results.sweep
    assert (sweep.state, sweep.reason) == ("failed", "no trial reported a finite 'm'")


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, CURVES], ids=lambda scheduler: scheduler["algorithm"])
@pytest.mark.parametrize("budget", [{"epochs": 100}, {"time": 60.0}], ids=["epochs", "time"])
def test_a_sweep_ends_within_an_epoch_of_each_worker_when_its_budget_is_spent(
    tmp_path: Path, scheduler: dict[str, Any], budget: dict[str, Any]
) -> None:
    sweep = spec(scheduler, budget=budget, num_samples=60)
    simulated = simulate(sweep, POWER_LAW, SweepFolder(tmp_path), workers=4)
    assert simulated.results.sweep.epochs <= budget.get("epochs", math.inf) + 4
    assert simulated.seconds <= budget.get("time", math.inf) + 2  # no epoch takes longer
    reasons = [trial.reason or "" for trial in simulated.results.trials]
    assert sum("the budget of" in reason for reason in reasons) in (3, 4)


def test_a_budget_of_epochs_is_refused_where_the_curves_are_counted_in_steps(tmp_path: Path) -> None:
    sweep = spec({**ASHA, "time_attr": "global_step"}, budget={"epochs": 50})
    with pytest.raises(SpecError, match=r"budget\.epochs: cannot be simulated with time_attr: global_step"):
        simulate(sweep, POWER_LAW, SweepFolder(tmp_path / "sweep"), workers=4)
    assert not (tmp_path / "sweep").exists()


def test_more_workers_take_less_time(tmp_path: Path) -> None:
    seconds = [
        simulate(spec({"algorithm": "fifo"}), POWER_LAW, SweepFolder(tmp_path / str(workers)), workers).seconds
        for workers in (1, 4)
    ]
    assert seconds[1] < seconds[0] / 2


def _again(earlier: Results, scheduler: dict[str, Any], folder: Path) -> Simulated:
    sweep = spec(scheduler)
    axis = TimeAxis(scheduler.get("time_attr", "epoch"))
    curves = RecordedCurves(earlier, sweep.space, axis, nearest=False, timed=True)
    return simulate(sweep, curves, SweepFolder(folder), curves.workers)


def test_the_curves_of_a_sweep_give_its_own_decisions_again(tmp_path: Path) -> None:
    earlier = simulate(spec(ASHA), POWER_LAW, SweepFolder(tmp_path / "earlier"), workers=4)
    again = _again(earlier.results, ASHA, tmp_path / "again")
    assert story(again.results) == story(earlier.results)
    assert again.censored == 0


def recorded(folder: Path, curve: Surrogate, workers: int, *, every: int = 1, **options: Any) -> Results:
    """A sweep under fifo that is evaluated after each so many epochs: between them a metric stays what it was."""
    results = simulate(spec({"algorithm": "fifo"}, **options), curve, SweepFolder(folder), workers).results
    for trial in results.trials:
        values = curve.of(trial.number, trial.config).values
        newest = {time: values.get(time - time % every) for time in values}
        rows = [
            history.Row(time - 1, 0, time, {} if value is None else {"m": value}) for time, value in newest.items()
        ]
        history.path_for(results.path, trial.number).write_bytes(history.pack(rows))
    return Results(folder)


def test_the_curves_of_a_sweep_under_fifo_tell_what_asha_would_have_decided(tmp_path: Path) -> None:
    earlier = recorded(tmp_path / "earlier", POWER_LAW, 4)
    sweep = spec(ASHA)
    curves = RecordedCurves(earlier, sweep.space, TimeAxis(), nearest=False, timed=False)
    told = simulate(sweep, curves, SweepFolder(tmp_path / "told"), workers=4)
    really = simulate(sweep, POWER_LAW, SweepFolder(tmp_path / "really"), workers=4)
    assert story(told.results) == story(really.results)
    assert told.censored == 0


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, CURVES], ids=lambda scheduler: scheduler["algorithm"])
def test_the_best_of_a_simulated_trial_is_that_of_all_its_values_and_its_history_has_them(
    tmp_path: Path, scheduler: dict[str, Any]
) -> None:
    seconds = [float(epoch) for epoch in range(1, 28)]
    curve = Surrogate(lambda config: (seconds, [math.sin(epoch / (0.1 + config["x"])) for epoch in range(1, 28)]))
    for trial in simulate(spec(scheduler), curve, SweepFolder(tmp_path), workers=2).results.trials:
        values = [math.sin(epoch / (0.1 + trial.config["x"])) for epoch in range(1, trial.epoch + 1)]
        assert trial.value == max(values)
        rows = Results(tmp_path).history(trial.number)
        assert list(rows["metrics.m"]) == values
        assert list(rows["epoch"]) == list(range(trial.epoch))


@pytest.mark.parametrize("timed", [True, False])
def test_the_time_in_which_a_sweep_was_interrupted_is_no_training_of_its_trials(
    tmp_path: Path, timed: bool
) -> None:
    clock = VirtualClock()
    for attempt, (begun, epochs) in enumerate([(0.0, [1, 3]), (1000.0, [9, 27])]):
        clock.set_forward(begun)
        written = Written(tmp_path / "sweep", clock)
        if attempt == 0:
            written("trial", 0, config={"x": 0.5}, seed=1)
        written("start", 0, attempt=attempt, node="n", pid=1)
        before = 3 * attempt
        for epoch in epochs:
            clock.set_forward(begun + epoch - before)
            seconds = float(epoch - before)
            written.at("result", 0, epoch=epoch, step=epoch, due=True, seconds=seconds, checkpoints={})
        if attempt == 1:
            clock.set_forward(1030.0)
            written.at("end", 0, epoch=27, step=27, seconds=24.0, status="stopped", reason="weak")
        earlier = written.results()
    space = parse_space({"x": {"uniform": [0, 1]}})
    curve = RecordedCurves(earlier, space, TimeAxis(), nearest=False, timed=timed).of(0, {"x": 0.5})
    assert curve.seconds == {epoch: epoch for epoch in (1, 3, 9, 27)}
    assert curve.ended == (33.0 if timed else None)  # it was still to stop


def test_values_of_a_sweep_under_fifo_come_in_the_order_in_which_they_came_there(tmp_path: Path) -> None:
    earlier = recorded(tmp_path / "earlier", POWER_LAW, 4)
    told = _again(earlier, ASHA, tmp_path / "told")
    judged = [event for event in told.results.events() if event["event"] == "result"]
    trials = [earlier.trials[event["trial"]] for event in judged]
    came = [
        (trial.started or 0.0) + event["epoch"] * (1 + trial.config["x"])
        for trial, event in zip(trials, judged, strict=True)
    ]
    assert len(came) > len(earlier.trials)
    assert came == sorted(came)


@pytest.mark.parametrize("time_attr", ["epoch", "global_step"])
@pytest.mark.parametrize("least", [1, 7], ids=["it rises", "it is the same at first"])
def test_a_trial_is_judged_where_it_was_evaluated_and_not_where_it_still_had_the_same_value(
    tmp_path: Path, time_attr: Any, least: int
) -> None:
    curve = Surrogate(lambda config: (range(1, 28), [config["x"] * max(time, least) for time in range(1, 28)]))
    earlier = recorded(tmp_path / "earlier", curve, 1, every=2)
    told = _again(earlier, {**ASHA, "grace_period": 3, "time_attr": time_attr}, tmp_path / "told")
    judged = {event["global_step"] for event in told.results.events() if event["event"] == "result"}
    assert judged == {4, 10}


@pytest.mark.parametrize(
    ("grace_period", "ends"),
    [
        # Cut-offs at epoch 1, in tenths: -, 5, 4.33, 6, 5, 7, 6, 7, 6.67, 6.33; at epoch 3: -, 5, 7, 8.33, 8.
        (1, [9, 1, 9, 1, 9, 1, 3, 1, 1, 9]),
        (3, [9, 3, 9, 3, 9, 3, 9, 3, 3, 9]),
    ],
)
def test_ten_histories_under_fifo_tell_what_asha_would_have_decided_as_worked_out_by_hand(
    tmp_path: Path, grace_period: int, ends: list[int]
) -> None:
    tenths = [5, 3, 8, 1, 9, 2, 7, 6, 4, 10]
    trials: dict[str, Any] = {"space": {"x": {"grid": tenths}}, "num_samples": 1}
    flat = Surrogate(lambda config: (range(1, 10), [config["x"] / 10] * 9))
    earlier = recorded(tmp_path / "earlier", flat, 1, **trials)
    asked = spec({**ASHA, "max_t": 9, "grace_period": grace_period}, **trials)
    curves = RecordedCurves(earlier, asked.space, TimeAxis(), nearest=False, timed=False)
    told = simulate(asked, curves, SweepFolder(tmp_path / "told"), workers=1)
    assert [trial.epoch for trial in told.results.trials] == ends
    assert told.censored == 0


@pytest.mark.parametrize(
    ("trained", "now", "wanted"),
    [
        ([[0.9, 0.1], [0.2, 0.8]], [{"uniform": [0, 1]}, {"uniform": [0, 1]}], [0.3, 0.9]),
        ([0.0, 0.02], {"loguniform": [0.01, 0.1]}, 0.03),
        (["auto", 0.02], {"uniform": [0.01, 0.1]}, 0.03),
        ([0.5, 0.02], {"quniform": [0.01, 0.1, 0.03]}, 0.04),
    ],
    ids=["in lists", "no logarithm", "text", "outside"],
)
def test_the_nearest_configuration_is_found_whatever_the_earlier_sweep_searched(
    tmp_path: Path, trained: list[Any], now: Any, wanted: Any
) -> None:
    flat = Surrogate(lambda config: ([1.0], [0.5]))
    earlier = spec({"algorithm": "fifo"}, space={"x": {"grid": trained}}, num_samples=1)
    results = simulate(earlier, flat, SweepFolder(tmp_path), workers=1).results
    curves = RecordedCurves(results, parse_space({"x": now}), TimeAxis(), nearest=True, timed=False)
    curves.of(5, {"x": wanted})
    assert curves.matched == {5: 1}


def test_what_a_stricter_sweep_never_saw_is_counted_as_censored(tmp_path: Path) -> None:
    earlier = simulate(spec(ASHA), POWER_LAW, SweepFolder(tmp_path / "earlier"), workers=4)
    again = _again(earlier.results, {**ASHA, "grace_period": 9}, tmp_path / "again")
    assert again.censored > 0


def test_a_configuration_plays_the_curve_of_the_same_type_and_not_of_what_only_equals_it(tmp_path: Path) -> None:
    space = {"x": {"grid": [0, False, 2]}}
    worth = Surrogate(lambda config: ([1.0], [float(config["x"] is False)]))
    earlier = simulate(spec({"algorithm": "fifo"}, space=space, num_samples=1), worth, SweepFolder(tmp_path), 1)
    curves = RecordedCurves(earlier.results, parse_space(space), TimeAxis(), nearest=False, timed=False)
    assert [curves.of(7, {"x": x}).values for x in (0, False, 2)] == [{1: 0.0}, {1: 1.0}, {1: 0.0}]


def test_a_trial_that_never_had_a_value_ends_at_once_and_is_nearest_to_none(tmp_path: Path) -> None:
    space: dict[str, Any] = {"x": {"grid": [1, 2, 3]}}
    written = Written(tmp_path / "earlier", space=space, scheduler={"algorithm": "fifo"}, num_samples=1)
    for trial in range(3):
        written("trial", trial, config={"x": trial + 1}, seed=1)
        written("start", trial, attempt=0, node="n", pid=1)
    written.at("end", 0, epoch=1, step=20, status="completed", reason=None)
    written("failure", 1, traceback="t", error="e", kind="error")
    written.at("end", 1, epoch=0, step=0, value=None, status="failed", reason="e")
    sweep = SweepSpec.parse({**spec({"algorithm": "fifo"}, space=space, num_samples=1).plain(), "metric": "score"})
    curves = RecordedCurves(written.results(), sweep.space, TimeAxis(), nearest=True, timed=True)
    told = simulate(sweep, curves, SweepFolder(tmp_path / "told"), workers=1)
    assert [(trial.status, trial.value) for trial in told.results.trials] == [
        ("completed", 0.5),
        ("stopped", None),
        ("stopped", None),
    ]
    assert told.censored == 2
    curves.of(9, {"x": 2.4})
    assert curves.matched == {9: 0}
