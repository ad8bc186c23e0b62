"""Every tracker that is built in keeps the contract of trackers, and so does one of a user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.ray_tune.test_trackers import wandb_fields, wandb_records
from tests.trial.json_lines import JsonLines, logged_by
from xaytune.errors import SpecError
from xaytune.sweep.spec import SweepSpec
from xaytune.testing import TrackerContract
from xaytune.trial.trackers.mlflow import Mlflow
from xaytune.trial.trackers.tensorboard import TensorBoard
from xaytune.trial.trackers.tracker import Point, TrackedTrial, Tracker
from xaytune.trial.trackers.tracking import tracker_problems
from xaytune.trial.trackers.wandb import Wandb

pytestmark = pytest.mark.slow

Logged = Mapping[str, Sequence[tuple[int, float]]]


class TestJsonLines(TrackerContract):
    def make_tracker(self) -> Tracker:
        return JsonLines(indent=2)

    def logged(self, trial: TrackedTrial) -> Logged:
        return logged_by(trial.folder / "trackers" / f"{trial.name}.jsonl")


class TestTensorBoard(TrackerContract):
    def make_tracker(self) -> Tracker:
        return TensorBoard()

    def logged(self, trial: TrackedTrial) -> Logged:
        run = EventAccumulator(str(trial.folder / "tensorboard" / trial.name))
        run.Reload()
        return {name: [(e.step, e.value) for e in run.Scalars(name)] for name in run.Tags()["scalars"]}

    def test_what_is_trained_again_after_an_attempt_was_cut_off_is_there_once(self, tmp_path: Path) -> None:
        self.track(self.trial(tmp_path), [1, 2, 3, 4, 5], "paused")
        self.track(self.trial(tmp_path, attempt=1), [4, 5, 6])
        assert [step for step, _ in self.logged(self.trial(tmp_path))["loss"]] == [1, 2, 3, 4, 5, 6]

    def test_a_trial_that_ends_where_it_was_paused_has_its_best_value_there(self, tmp_path: Path) -> None:
        self.track(self.trial(tmp_path), [1, 2, 3], "paused")
        tracker = self.make_tracker()
        tracker.open(replace(self.trial(tmp_path, attempt=1), global_step=3))
        tracker.close("stopped", "weak", 0.5)
        assert self.logged(self.trial(tmp_path))["best"] == [(3, 0.5)]


class TestMlflow(TrackerContract):
    @pytest.fixture(autouse=True)
    def database(self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path_factory.getbasetemp() / "contract.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")

    def make_tracker(self) -> Tracker:
        return Mlflow()

    def run_of(self, trial: TrackedTrial) -> MlflowRun:
        client = MlflowClient()
        experiment = client.get_experiment_by_name(trial.sweep)
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id], f"tags.`xaytune.trial_id` = '{trial.id}'")
        return run

    def logged(self, trial: TrackedTrial) -> Logged:
        client, run = MlflowClient(), self.run_of(trial)
        histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        return {name: [(m.step, m.value) for m in history] for name, history in histories.items()}

    def test_characters_that_it_refuses_in_a_name_are_replaced(self, tmp_path: Path) -> None:
        tracker = self.make_tracker()
        tracker.begin(tmp_path.name)
        tracker.open(replace(self.trial(tmp_path), config={"dropout (%)": 0.1, "lr": 0.2}))
        values = {"val/recall@10": 0.5, "F1 (größe)": 0.25, "loss": 1.0, "/top:5": 2.0}
        tracker.log([Point(1, 1e9, values)])
        tracker.close("completed", None, None)
        kept = self.logged(self.trial(tmp_path))
        names = {"val/recall_10": 0.5, "F1 _größe_": 0.25, "loss": 1.0, "top:5": 2.0}
        assert kept == {name: [(1, value)] for name, value in names.items()}
        assert self.run_of(self.trial(tmp_path)).data.params == {"dropout ___": "0.1", "lr": "0.2"}

    def test_two_names_that_would_be_one_stay_two(self, tmp_path: Path) -> None:
        tracker = self.make_tracker()
        tracker.begin(tmp_path.name)
        tracker.open(self.trial(tmp_path))
        tracker.log([Point(step, 1e9, {"recall@10": 0.1, "recall_10": 0.9}) for step in (1, 2)])
        tracker.close("completed", None, None)
        kept = dict(self.logged(self.trial(tmp_path)))
        assert kept.pop("recall_10") == [(1, 0.9), (2, 0.9)]
        assert list(kept.values()) == [[(1, 0.1), (2, 0.1)]]

    def test_a_run_that_goes_on_has_nothing_of_its_pause_and_the_configuration_that_it_has_now(
        self, tmp_path: Path
    ) -> None:
        first, again = (self.trial(tmp_path, attempt=attempt) for attempt in (0, 1))
        self.make_tracker().begin(tmp_path.name)
        for trial, status, reason in [(first, "paused", "made room"), (again, "completed", None)]:
            tracker = self.make_tracker()
            tracker.open(replace(trial, config={"lr": 0.5 if trial is again else 0.1, "x": 1}))
            tracker.log([Point(trial.attempt + 1, 1e9, {"loss": 1.0})])
            tracker.close(status, reason, 0.5)
        kept = self.run_of(first).data
        assert (kept.tags["xaytune.status"], kept.tags.get("xaytune.reason")) == ("completed", None)
        assert kept.params == {"lr": "0.1", "x": "1"}
        assert {name: value for name, value in kept.tags.items() if name.startswith("xaytune.config")} == {
            "xaytune.config.lr": "0.5"
        }


class TestWandb(TrackerContract):
    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_MODE", "offline")

    def make_tracker(self) -> Tracker:
        return Wandb()

    def logged(self, trial: TrackedTrial) -> Logged:
        found: dict[str, list[tuple[int, float]]] = {}
        for folder in sorted((trial.folder / "wandb").glob(f"offline-run-*-{trial.id}*")):
            records = wandb_records(folder)
            while not any(record.HasField("exit") for record in records):  # another process writes them
                records = wandb_records(folder)
            for record in records:
                row = wandb_fields(record.history.item) if record.HasField("history") else {}
                for name in row.keys() - {"_step", "_runtime", "_timestamp"}:
                    found.setdefault(name, []).append((row["_step"], float(row[name])))
        return found


@pytest.mark.parametrize(
    ("tracker", "told"),
    [
        ("tests.trial.json_lines:JsonLine", "has no 'JsonLine'"),
        ("tests.trial.not_there:Tracker", "No module named 'tests.trial.not_there'"),
        ("pathlib:Path", "pathlib:Path is no Tracker: inherit from xaytune.Tracker"),
        ({"tracker": JsonLines, "indent": -1}, "trackers.0.indent: must be greater than or equal to 0 (got -1)"),
        ({"tracker": JsonLines, "ident": 1}, "unknown option 'ident'; did you mean 'indent'?"),
        ({"tracker": "mlflow", "uri": "x"}, "unknown option 'uri'"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_told_before_the_sweep(tracker: object, told: str) -> None:
    (problem,) = tracker_problems(spec_with(tracker).trackers)
    assert told in str(problem)


def test_a_tracker_by_name_by_reference_and_as_an_object_are_the_same_to_the_journal() -> None:
    name = "tests.trial.json_lines:JsonLines"
    given: list[list[Any]] = [["wandb", JsonLines(indent=2)], ["wandb", {"tracker": name, "indent": 2}]]
    plain: list[Any] = [spec_with(*trackers).plain()["trackers"] for trackers in given]
    assert plain == [["wandb", {"tracker": name, "indent": 2}]] * 2
    assert spec_with(*plain[0]).trackers == spec_with(*given[1]).trackers


@pytest.mark.parametrize(
    ("tracker", "mend"), [("tensorbord", "did you mean 'tensorboard'"), (3, "give its class"), ("", "known: ")]
)
def test_a_tracker_that_there_is_not_is_refused_with_the_nearest(tracker: object, mend: str) -> None:
    told = rf"trackers.0: must be tensorboard, mlflow, wandb, or 'module:Class' \(got .*\); {mend}"
    with pytest.raises(SpecError, match=told):
        spec_with(tracker)


def spec_with(*trackers: Any) -> SweepSpec:
    space = {"x": {"uniform": [0, 1]}}
    return SweepSpec.parse(
        {"recipe": "a:b", "metric": "m", "mode": "max", "space": space, "trackers": list(trackers)}
    )
