"""Trackers, each for real: TensorBoard's files, a database of MLflow's, the records of W&B's offline mode."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import Run
from tests.trial.json_lines import JsonLines, logged_by
from xaytune.errors import SpecError
from xaytune.records.results import Results
from xaytune.records.trial_record import TrialRecord

wandb_internal_pb2: Any = pytest.importorskip("wandb.proto.wandb_internal_pb2")
ASHA = {"algorithm": "asha", "max_t": 9, "reduction_factor": 3}
XS = [0.9, 0.6, 0.55, 0.1]


@pytest.fixture(scope="module", autouse=True)
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The database of MLflow's runs, which the first sweep makes: that takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "runs.db"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        environment.setenv("WANDB_MODE", "offline")
        yield path


@pytest.fixture(scope="module")
def tracked(run_in: Run) -> Results:
    """A sweep that all trackers follow: trials of it complete, are stopped, and fail."""
    return run_in(
        "fails_for_some",
        space={"x": {"grid": XS}, "net": {"width": 8}},
        scheduler=ASHA,
        trackers=["tensorboard", "mlflow", "wandb", JsonLines(indent=1)],
        resources_per_trial={"cpu": 1},
    )


def steps_of(results: Results, trial: TrialRecord, metric: str) -> list[tuple[int, float]]:
    """What the history has of a metric, without the steps that only repeat what was measured before."""
    history = results.history(trial.number)
    measured = history[history[f"metrics.{metric}"].notna()]
    rows = [
        (int(step), value)
        for step, value in zip(measured["global_step"], measured[f"metrics.{metric}"], strict=True)
    ]
    if metric == "loss":
        return rows
    return [row for before, row in zip([None, *rows], rows, strict=False) if before is None or row[1] != before[1]]


def test_the_sweep_that_is_tracked_has_trials_of_every_end(tracked: Results) -> None:
    assert {trial.status for trial in tracked.trials} == {"completed", "stopped", "failed"}


def test_tensorboard_has_every_step_the_end_and_the_configuration(tracked: Results) -> None:
    for trial in tracked.trials:
        run = EventAccumulator(str(tracked.path / "tensorboard" / f"{tracked.sweep.name}-{trial.number:05d}"))
        run.Reload()
        for metric in ("loss", "score") if trial.status != "failed" else ("loss",):
            logged = [(event.step, event.value) for event in run.Scalars(metric)]
            assert [step for step, _ in logged] == [step for step, _ in steps_of(tracked, trial, metric)]
            assert [value for _, value in logged] == pytest.approx(
                [value for _, value in steps_of(tracked, trial, metric)]
            )
        status, reason = trial.status, trial.reason
        told = run.Tensors("status/text_summary")[-1].tensor_proto.string_val[0].decode()
        assert told == (f"{status}: {reason}" if reason else status)
        plugin = run.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        assert b"net.width" in plugin


def mlflow_runs(experiment: str) -> dict[int, MlflowRun]:
    client = MlflowClient()
    found = client.get_experiment_by_name(experiment)
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    numbered = {int(run.data.tags["xaytune.trial"]): run for run in runs}
    assert len(numbered) == len(runs)
    return numbered


def test_mlflow_has_every_step_the_end_and_the_configuration(tracked: Results) -> None:
    client, runs = MlflowClient(), mlflow_runs(tracked.sweep.name)
    assert runs.keys() == {trial.number for trial in tracked.trials}
    for trial in tracked.trials:
        run = runs[trial.number]
        assert run.data.params == {"x": str(trial.config["x"]), "net.width": "8"}
        logged = client.get_metric_history(run.info.run_id, "loss")
        assert [(one.step, one.value) for one in logged] == steps_of(tracked, trial, "loss")
        status, reason = trial.status, trial.reason
        assert run.info.status == ("FAILED" if status == "failed" else "FINISHED")
        assert run.info.end_time is not None
        assert (run.data.tags["xaytune.status"], run.data.tags.get("xaytune.reason")) == (status, reason)


def wandb_records(folder: Path) -> list[Any]:
    """What W&B wrote of a run, to be synchronized later: a log as LevelDB writes it, of blocks of 32 KiB."""
    (path,) = folder.glob("*.wandb")
    data, at = path.read_bytes(), 7
    records: list[Any] = []
    parts = b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block is too short for a header
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(wandb_internal_pb2.Record.FromString(parts))
            parts = b""
    return records


def test_wandb_has_every_step_the_end_and_the_configuration(tracked: Results) -> None:
    folders = list((tracked.path / "wandb").glob("offline-run-*"))
    assert len(folders) == len(tracked.trials)
    for trial in tracked.trials:
        (folder,) = (one for one in folders if one.name.endswith(f"-{trial.number:05d}"))
        records = wandb_records(folder)
        (run,) = (record.run for record in records if record.HasField("run"))
        assert run.run_group == tracked.sweep.name
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert config.items() >= {"x": trial.config["x"], "net.width": 8}.items()
        rows = [wandb_fields(record.history.item) for record in records if record.HasField("history")]
        logged = [(row["_step"], row["loss"]) for row in rows if "loss" in row]
        assert logged == steps_of(tracked, trial, "loss")
        summary: dict[str, Any] = {}
        for record in records:
            summary |= wandb_fields(record.summary.update)
        assert (summary["status"], summary["reason"]) == (trial.status, trial.reason)
        (exit,) = (record.exit for record in records if record.HasField("exit"))
        assert exit.exit_code == (1 if trial.status == "failed" else 0)


def wandb_fields(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_a_tracker_of_ones_own_has_every_step(tracked: Results) -> None:
    for trial in tracked.trials:
        logged = logged_by(tracked.path / "trackers" / f"{tracked.sweep.name}-{trial.number:05d}.jsonl")
        assert logged["loss"] == steps_of(tracked, trial, "loss")


def test_a_trial_that_is_begun_again_goes_on_in_its_run(run: Run) -> None:
    results = run(
        "saved",
        metric="eval_accuracy",
        space={"x": {"grid": [0.1]}},
        callbacks=["tests.callbacks:kill_once_at_step_40"],
        trackers=["mlflow", "tensorboard"],
    )
    (trial,) = results.trials
    assert (trial.status, trial.attempts) == ("completed", 2)
    (tracked_run,) = mlflow_runs(results.sweep.name).values()
    assert tracked_run.info.status == "FINISHED"
    steps = {one.step for one in MlflowClient().get_metric_history(tracked_run.info.run_id, "loss")}
    assert steps == set(results.history(0)["global_step"])


def test_a_tracker_that_fails_is_given_up_and_the_training_goes_on(
    run: Run, database: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if database.exists():
        shutil.copy(database, tmp_path / "runs.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    results = run(
        "curve",
        space={"x": {"grid": [0.5]}},
        callbacks=["tests.callbacks:break_the_database"],
        trackers=["mlflow"],
    )
    (trial,) = results.trials
    assert trial.status == "completed"
    assert "mlflow is given up by a trial, which trains on" in (results.path / "output" / "00000.txt").read_text()


def test_a_tracking_server_that_is_not_there_is_told_at_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/runs.db")
    with pytest.raises(SpecError, match=r"trackers.0: mlflow: .*/dev/null"):
        run("curve", trackers=["mlflow"])
    assert list(tmp_path.iterdir()) == []
