"""The commands that look at a sweep: why, export, compare and dashboard."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ray
from click.testing import CliRunner, Result
from optuna.trial import TrialState
from playwright.sync_api import Browser

from tests.report.journals import Written, simulated
from xaytune.cli.main import main
from xaytune.records.results import Results
from xaytune.records.sweep_folder import SweepFolder
from xaytune.report.curves import progress
from xaytune.report.dashboard import StudyMirror
from xaytune.report.terms import number


def xaytune(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_why_tells_each_decision_with_the_cut_off_that_the_values_before_it_make(swept: Results) -> None:
    reached: dict[int, list[float]] = {1: [], 3: []}
    judged: dict[int, list[str]] = {trial.number: [] for trial in swept.trials}
    for event in swept.events():
        if event["event"] == "result" and event["epoch"] in reached:
            before = reached[event["epoch"]]
            # ASHA of Ray Tune: the best third of those before go on.
            if before:
                cutoff = float(np.percentile(np.array(before), (1 - 1 / 3) * 100))
                side = "below" if event["value"] < cutoff else "not below"
                judged[event["trial"]].append(
                    f"rung {event['epoch']}: {number(event['value'])} is {side} the cut-off {number(cutoff)} "
                    f"of {len(before)} trial{'' if len(before) == 1 else 's'}"
                )
            before.append(event["value"])
    assert any(" is below " in text for texts in judged.values() for text in texts)
    for trial in swept.trials:
        told = xaytune("why", swept.path, trial.number)
        assert told.exit_code == 0
        assert f"trial {trial.number} of {swept.sweep.name}: {trial.status}" in told.output
        assert f"x {number(trial.config['x'])}" in told.output
        for text in judged[trial.number]:
            assert text in told.output
        assert told.output.count("judged, ") >= len(judged[trial.number])
        if trial.status == "stopped":
            assert judged[trial.number][-1] == trial.reason
        if trial.status == "failed":
            assert f"RuntimeError: broken for {trial.number}" in told.output
            assert "Traceback" in told.output


def test_why_of_a_trial_that_is_not_there_is_told(swept: Results) -> None:
    told = xaytune("why", swept.path, 99)
    assert told.exit_code != 0
    assert "has no trial 99; it has 16 so far, from 0" in str(told.output)


def read_json(file: Path) -> pd.DataFrame:
    return pd.DataFrame(json.loads(file.read_text()))


@pytest.mark.parametrize("format", ["csv", "parquet", "json"])
def test_export_writes_a_row_a_trial_and_a_row_a_step(swept: Results, tmp_path: Path, format: str) -> None:
    assert xaytune("export", swept.path, "--format", format, "--output", tmp_path).exit_code == 0
    read: dict[str, Any] = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": read_json}
    trials, history = (read[format](tmp_path / f"{name}.{format}") for name in ("trials", "history"))
    assert list(trials["trial"]) == [trial.number for trial in swept.trials]
    for trial, row in zip(swept.trials, trials.to_dict("records"), strict=True):
        assert row["status"] == trial.status
        assert row["config.lr"] == pytest.approx(trial.config["lr"], rel=1e-14)
        value = float("nan") if trial.value is None else trial.value
        assert row["value"] == pytest.approx(value, rel=1e-14, nan_ok=True)
    for trial in swept.trials:
        rows, expected = history[history["trial"] == trial.number], swept.history(trial.number)
        assert len(rows) == len(expected) == trial.global_step
        assert list(rows["metrics.loss"]) == list(expected["metrics.loss"])


@pytest.fixture
def other(tmp_path: Path) -> Results:
    """Another sweep of the same metric."""
    return simulated(tmp_path / "other")


def test_compare_prints_the_best_values_over_time_and_over_training(
    swept: Results, other: Results, in_folder: Path, chromium: Browser
) -> None:
    told = xaytune("compare", swept.path, other.path, "--output", "both.html")
    assert told.exit_code == 0, told.output
    lines = {re.split(r"\s{2,}", line.strip())[0]: line.split() for line in told.output.splitlines()}
    best = [max(trial.value for trial in one.trials if trial.value is not None) for one in (swept, other)]
    assert lines["best score"][-2:] == [number(value) for value in best]
    assert lines["epochs of all trials"][-2:] == [str(sum(t.epoch for t in one.trials)) for one in (swept, other)]
    over_training = told.output.partition("best after epochs")[2].splitlines()[1:]
    for line in filter(None, map(str.split, over_training)):
        if line[0].isdigit():
            for shown, one in zip(line[1:], (swept, other), strict=True):
                assert shown == best_after(one, float(line[0]))
    page = chromium.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((in_folder / "both.html").as_uri())
    page.wait_for_selector(".js-plotly-plot .scatterlayer path.js-line")
    assert page.locator(".js-plotly-plot").count() == 2
    assert problems == []
    page.close()


def best_after(results: Results, epochs: float) -> str:
    """The best score when all trials together had trained so many epochs, from the journal."""
    trained: dict[int, int] = {}
    best: float | None = None
    for event in results.events():
        if event["event"] in ("result", "end") and event["epoch"] is not None:
            trained[event["trial"]] = event["epoch"]
            if sum(trained.values()) > epochs + 0.5:
                break
            value = event["value"] if event["event"] == "result" else (event["best"] or {}).get("value")
            best = max((one for one in (best, value) if one is not None), default=None)
    return number(best)


def test_a_sweep_compared_with_itself_and_a_place_that_cannot_be_written_are_told(swept: Results) -> None:
    assert "name two different sweeps at least" in xaytune("compare", swept.path, swept.path).output
    for command in ("export", "report"):
        told = xaytune(command, swept.path, "--output", "/proc/nothing/here")
        assert told.exit_code == 1
        assert "cannot be written: No such file or directory; name another place with --output" in told.output


@pytest.mark.parametrize("output", [".", "v1.5"])
def test_pictures_of_a_report_in_a_folder_are_in_that_folder_and_nowhere_else(
    swept: Results, in_folder: Path, output: str
) -> None:
    (in_folder / output).mkdir(exist_ok=True)
    (in_folder / output / "plots").write_text("mine")
    told = xaytune("report", swept.path, "--output", output, "--png")
    assert told.exit_code == 1
    assert f"{Path(output, 'plots')} cannot be written: File exists" in told.output


def test_a_metric_has_its_own_name_in_a_comparison_whatever_it_is(tmp_path: Path, in_folder: Path) -> None:
    sweeps = [simulated(tmp_path / name, metric="f1[macro][/x]") for name in "ab"]
    told = xaytune("compare", *(sweep.path for sweep in sweeps))
    assert "best f1[macro][/x]" in told.output


def test_a_comparison_is_named_by_its_sweeps_however_they_were_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "ab":
        simulated(tmp_path / name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "a")
    assert xaytune("compare", ".", f"file://{tmp_path}/b?secret_key=SECRET").output.splitlines()[-1] == (
        "a-b-comparison.html"
    )


@pytest.mark.parametrize("epochs", [1, 3, 5])
def test_a_comparison_of_a_short_training_has_a_row_for_each_epoch(
    tmp_path: Path, in_folder: Path, epochs: int
) -> None:
    for name in "ab":
        written = Written(tmp_path / name)
        written("trial", 0, config={"x": 0.5}, seed=0)
        for epoch in range(1, epochs + 1):
            written.at("result", 0, epoch, epoch, epoch / 10)
    told = xaytune("compare", tmp_path / "a", tmp_path / "b").output.partition("best after epochs")[2]
    rows = [line.split()[:2] for line in told.splitlines()[1:-1] if line.strip()]
    assert rows == [[str(epoch), number(epoch / 10)] for epoch in range(1, epochs + 1)]


def test_epochs_that_are_trained_again_after_a_crash_do_not_make_the_training_spent_less(tmp_path: Path) -> None:
    written = Written(tmp_path / "s")
    for trial in (0, 1):
        written("trial", trial, config={"x": 0.5}, seed=0)
    for trial, epoch in ((0, 8), (1, 2), (0, 5), (1, 4), (0, 9)):
        written.at("result", trial, epoch, epoch, epoch + 10 * trial)
    results = written.results()
    assert progress(results.sweep, results.events(), results.sweep.axis).trained == [8, 10, 12, 13]


def test_a_trial_that_was_skipped_counts_in_no_comparison(tmp_path: Path, in_folder: Path) -> None:
    for name in "ab":
        written = Written(tmp_path / name)
        for trial, value in enumerate((0.5, 0.9)):
            written("trial", trial, config={"x": value}, seed=0)
            written.at("result", trial, 1, 1, value)
        written.at("end", 0, 1, 1, 0.5, status="completed", reason=None)
        written("failure", 1, attempt=0, kind="skipped", error="no such size", traceback="")
        written.at("end", 1, 1, 1, None, status="stopped", reason="no such size")
        assert Results(tmp_path / name).sweep.trials[1].value is None
    told = xaytune("compare", tmp_path / "a", tmp_path / "b")
    assert "0.9" not in told.output


def test_an_error_that_is_no_unicode_does_not_keep_a_report_from_being_written(tmp_path: Path) -> None:
    written = Written(tmp_path / "s")
    written("trial", 0, config={"x": 1.0}, seed=0)
    written.at("end", 0, 0, 0, None, status="failed", reason="bad image caf\udce9.png", error="caf\udce9.png")
    told = xaytune("report", tmp_path / "s", "--output", tmp_path / "s.html")
    assert told.exit_code == 0, told.output
    assert "caf\\udce9.png" in (tmp_path / "s.html").read_text()


def test_sweeps_of_different_metrics_are_not_compared(swept: Results, tmp_path: Path) -> None:
    losses = simulated(tmp_path / "losses", metric="loss", mode="min")
    told = xaytune("compare", swept.path, losses.path)
    assert "cannot be compared: they optimise max score and min loss" in str(told.output)


class Dashboard:
    """A dashboard that serves a sweep in a process of its own."""

    def __init__(self, sweep: Path) -> None:
        command = [sys.executable, "-m", "xaytune", "dashboard", str(sweep), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[0]

    def trials(self) -> list[dict[str, Any]]:
        """What its own HTTP interface says of the study's trials."""
        base = self.url.partition("/dashboard")[0]
        with urllib.request.urlopen(f"{base}/api/studies/0?after=0") as answer:
            study = json.load(answer)
        found: list[dict[str, Any]] = study["trials"]
        return found

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def test_the_dashboard_has_every_trial_with_its_state_and_values(swept: Results, chromium: Browser) -> None:
    dashboard = Dashboard(swept.path)
    states = {"completed": "Complete", "stopped": "Pruned", "failed": "Fail"}
    try:
        for shown, trial in zip(dashboard.trials(), swept.trials, strict=True):
            assert (shown["number"], shown["state"]) == (trial.number, states[trial.status])
            params = {param["name"]: param["param_external_value"] for param in shown["params"]}
            assert float(params["lr"]) == pytest.approx(trial.config["lr"])
            assert params["kind"] == trial.config["kind"]
            reached = [(one["step"], one["value"]) for one in shown["intermediate_values"]]
            history = swept.history(trial.number)
            known = (
                history.dropna(subset="metrics.score")
                if trial.value is not None
                else history[:0].assign(**{"metrics.score": 0.0})
            )
            at_ends = dict(zip(known["epoch"] + 1, known["metrics.score"], strict=True))
            assert reached == list(at_ends.items())
            if trial.status == "completed":
                assert shown["values"] == [trial.value]
        page = chromium.new_page()
        page.goto(dashboard.url)
        page.get_by_text("fails_for_some").first.wait_for()
        page.close()
    finally:
        assert dashboard.end() == 130


def test_the_dashboard_tells_of_a_trial_what_the_journal_tells_last_also_of_one_that_is_restarted(
    tmp_path: Path,
) -> None:
    written = Written(tmp_path / "sweep")
    written("trial", 0, config={"x": 0.5}, seed=1)
    written("start", 0, attempt=0, node="n", pid=1)
    mirror = StudyMirror(SweepFolder(tmp_path / "sweep"))
    ends: dict[str, Any] = {"due": False, "checkpoints": {"9": "9.pt"}}
    told = []
    for attempt, (status, reason) in enumerate([("failed", "broken"), ("completed", None)], 1):
        written.at("end", 0, epoch=3, step=9, status=status, reason=reason, **ends)
        mirror.update()
        told.append(mirror.storage.get_trial(0))
        written("reopen", 0)
        written("start", 0, attempt=attempt, node="n", pid=2)
        mirror.update()
        told.append(mirror.storage.get_trial(0))
    states = [TrialState.FAIL, TrialState.RUNNING, TrialState.COMPLETE, TrialState.RUNNING]
    assert [trial.state for trial in told] == states
    assert [trial.user_attrs["status"] for trial in told] == ["failed", "running", "completed", "running"]
    assert [trial.user_attrs.get("reason") for trial in told] == ["broken", None, None, None]
    assert told[2].value == 0.5
    with pytest.raises(ValueError, match="No trials are completed yet"):
        mirror.storage.get_best_trial(0)  # it runs again
    assert told[0].user_attrs["checkpoint"] == f"{tmp_path / 'sweep'}/9.pt"


def test_the_dashboard_follows_a_sweep_that_runs(ray_here: None, ray_folder: Path, tmp_path: Path) -> None:
    spec = tmp_path / "slow.yaml"
    spec.write_text(
        "{recipe: 'tests.recipes:curve', metric: score, mode: max, space: {x: {grid: [0.9, 0.8]}},"
        " callbacks: ['tests.callbacks:sleep_a_little']}"
    )
    shared = {"RAY_TMPDIR": str(ray_folder), "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    command = [sys.executable, "-m", "xaytune", "run", str(spec), "--storage", str(tmp_path)]
    sweep = subprocess.Popen(command, env={**os.environ, **shared}, stdout=subprocess.PIPE, text=True)
    assert sweep.stdout is not None
    sweep.stdout.readline()  # the sweep has begun
    dashboard = Dashboard(tmp_path / "slow")
    try:
        seen: set[str] = set()
        while sweep.poll() is None:
            seen |= {trial["state"] for trial in dashboard.trials()}
            time.sleep(0.2)
        assert "Running" in seen
        deadline = time.monotonic() + 30
        while {trial["state"] for trial in dashboard.trials()} != {"Complete"}:
            assert time.monotonic() < deadline
        ended = {trial.number: trial.value for trial in Results(tmp_path / "slow").trials}
        assert {trial["number"]: trial["values"][0] for trial in dashboard.trials()} == ended
    finally:
        sweep.communicate()
        assert dashboard.end() == 130


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_a_port_that_is_taken_is_told(swept: Results, taken_port: int) -> None:
    told = xaytune("dashboard", swept.path, "--port", taken_port)
    assert told.exit_code == 1
    assert f"cannot listen at 127.0.0.1:{taken_port}: Address already in use; choose another --port" in told.output
