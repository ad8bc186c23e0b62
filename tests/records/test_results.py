from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from xaytune.errors import JournalError
from xaytune.records import history
from xaytune.records.history import Row
from xaytune.records.journal import FILE_NAME, Journal
from xaytune.records.results import Results
from xaytune.records.sweep_folder import find_sweep
from xaytune.report import text

SPEC = {"metric": "acc", "mode": "max", "space": {}, "scheduler": {}}


def position(value: float | None, step: int = 6) -> dict[str, Any]:
    best = None if value is None else {"value": value, "epoch": 1, "global_step": step, "metrics": {"acc": value}}
    return {"epoch": 1, "global_step": step, "metrics": {"acc": value}, "best": best}


def write(folder: Path, mode: str = "max", pid: int | None = None, state: str | None = "completed") -> None:
    journal = Journal(folder / FILE_NAME)
    journal.write(
        "sweep", state="running", name=folder.name, spec={**SPEC, "mode": mode}, num_trials=5,
        host=socket.gethostname(), pid=pid or os.getpid(),
    )  # fmt: skip
    for number in range(4):
        journal.write("trial", number, config={"lr": number / 10, "model": {"width": 8}}, seed=number)
    for number in range(3):
        journal.write("start", number, node="127.0.0.1", pid=1)
    journal.write("result", 0, value=0.9, **position(0.9))
    journal.write("checkpoint", 0, path="a.pt", global_step=6)
    journal.write("checkpoint", 0, path="b.pt", global_step=12)
    journal.write("end", 0, status="completed", value=0.9, reason=None, **{**position(0.9), "global_step": 12})
    journal.write("stop", 1, reason="rung 1: too low")
    journal.write("end", 1, status="stopped", value=0.2, reason="rung 1: too low", **position(0.2))
    journal.write("failure", 2, error="ValueError: x", traceback="Traceback ...\nValueError: x")
    journal.write("end", 2, status="failed", value=None, reason="ValueError: x", **position(None))
    if state is not None:
        journal.write("sweep", state=state, reason=None)
    journal.close()


def test_the_best_trial_is_the_one_whose_metric_reached_the_best_value(tmp_path: Path) -> None:
    write(tmp_path / "up")
    write(tmp_path / "down", mode="min")
    best = Results(tmp_path / "up").best
    assert best is not None
    assert (best.number, best.value, best.config["lr"]) == (0, 0.9, 0.0)
    lowest = Results(tmp_path / "down").best
    assert lowest is not None
    assert (lowest.number, lowest.stop_reason) == (1, "rung 1: too low")


def test_results_and_trials_show_themselves_in_a_few_words(tmp_path: Path) -> None:
    write(tmp_path / "s")
    results = Results(tmp_path / "s")
    assert repr(results) == "<Results of s: completed, 4 trials, best: trial 0, acc 0.9>"
    assert "_trained_before" not in repr(results.best)


def test_a_trial_shows_the_configuration_of_its_best_value_by_that_name(tmp_path: Path) -> None:
    write(tmp_path / "s")
    best = Results(tmp_path / "s").best
    assert best is not None
    assert f", best_config={best.best_config}, " in repr(best)
    assert " config=" not in repr(best)


def test_the_checkpoint_is_that_of_the_best_step_where_there_is_one(tmp_path: Path) -> None:
    write(tmp_path)
    best = Results(tmp_path).best
    assert best is not None
    assert best.checkpoint == str(tmp_path / "a.pt")


def test_a_sweep_that_was_moved_names_its_checkpoints_where_they_are_now(tmp_path: Path) -> None:
    write(tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    best = Results(tmp_path / "there").best
    assert best is not None
    assert best.checkpoint == str(tmp_path / "there" / "a.pt")


def test_results_survive_a_change_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "runs" / "sweep")
    history.append(history.path_for(tmp_path / "runs" / "sweep", 0), history.pack([Row(0, 1, 1, {"loss": 1.0})]))
    monkeypatch.chdir(tmp_path)
    results = Results("runs/sweep")
    assert results.best is not None
    assert "  checkpoint  runs/sweep/a.pt" in text.best(results.sweep)  # short, where that is true
    monkeypatch.chdir("/")
    assert results.best.checkpoint == str(tmp_path / "runs" / "sweep" / "a.pt")
    assert f"  checkpoint  {results.best.checkpoint}" in text.best(results.sweep)
    assert len(results.history(0)) == 1
    assert list(results.events())


def test_a_journal_that_does_not_begin_with_its_sweep_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path / FILE_NAME)
    journal.write("note", text="x")
    journal.close()
    with pytest.raises(JournalError, match="does not say what sweep it is of"):
        Results(tmp_path)


def test_a_failed_trial_is_never_the_best(tmp_path: Path) -> None:
    write(tmp_path)
    journal = Journal(tmp_path / FILE_NAME)
    journal.write("end", 0, status="failed", value=0.9, reason="x", **position(0.9))
    journal.close()
    best = Results(tmp_path).best
    assert best is not None
    assert best.number == 1


def test_trials_are_counted_by_status_those_not_yet_suggested_as_pending(tmp_path: Path) -> None:
    write(tmp_path)
    assert Results(tmp_path).sweep.counts() == {
        "pending": 2, "running": 0, "paused": 0, "completed": 1, "stopped": 1, "failed": 1,
    }  # fmt: skip


def test_a_dataframe_has_a_row_a_trial_with_its_configuration(tmp_path: Path) -> None:
    write(tmp_path)
    frame = Results(tmp_path).to_dataframe()
    assert list(frame["status"]) == ["completed", "stopped", "failed", "pending"]
    assert list(frame["config.lr"]) == [0.0, 0.1, 0.2, 0.3]
    assert list(frame["config.model.width"]) == [8] * 4
    assert frame["value"].tolist()[:2] == [0.9, 0.2]
    assert frame["metrics.acc"].tolist()[:2] == [0.9, 0.2]


def test_a_failed_trial_keeps_its_traceback(tmp_path: Path) -> None:
    write(tmp_path)
    assert Results(tmp_path).trials[2].error == "Traceback ...\nValueError: x"


@pytest.fixture(scope="module")
def no_process() -> int:
    """An id that no process has."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


def test_a_sweep_whose_driver_is_gone_is_lost_also_where_its_id_in_another_container_is_of_a_process_here(
    tmp_path: Path, no_process: int
) -> None:
    for number, pid in enumerate((no_process, os.getpid())):
        write(tmp_path / str(number), pid=pid, state=None)
        assert Results(tmp_path / str(number)).sweep.state == "lost"


def test_a_sweep_that_still_runs_is_running_also_where_its_id_in_another_container_is_of_no_process_here(
    tmp_path: Path, no_process: int
) -> None:
    write(tmp_path, pid=no_process, state=None)
    journal = Journal(tmp_path / FILE_NAME)
    assert Results(tmp_path).sweep.state == "running"
    journal.close()


def test_a_sweep_is_found_by_its_name_or_its_folder_and_else_those_that_there_are_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "digits")
    write(tmp_path / "runs" / "here")
    monkeypatch.chdir(tmp_path)
    assert Results("here").path == tmp_path / "runs" / "here"
    assert find_sweep("digits", str(tmp_path)).local == tmp_path / "digits"
    assert find_sweep(str(tmp_path / "digits"), "elsewhere").local == tmp_path / "digits"
    with pytest.raises(JournalError, match=r"no sweep 'digit'.*there are: digits"):
        find_sweep("digit", str(tmp_path))


def test_a_history_comes_back_chunk_by_chunk_and_drops_a_half_written_one(tmp_path: Path) -> None:
    write(tmp_path)
    rows = [Row(0, n, n, {"loss": 1 / n} | ({"acc": 0.5} if n > 2 else {})) for n in range(1, 7)]
    path = history.path_for(tmp_path, 0)
    history.append(path, history.pack(rows[:2]))
    history.append(path, history.pack(rows[2:4]))
    history.append(path, history.pack(rows[4:])[:-9])
    frame = Results(tmp_path).history(0)
    assert list(frame["global_step"]) == [1, 2, 3, 4]
    assert frame["metrics.acc"].isna().tolist() == [True, True, False, False]
    assert list(frame.columns) == ["epoch", "step", "global_step", "metrics.loss", "metrics.acc"]


def test_a_trial_that_trained_nothing_has_an_empty_history_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    assert Results(tmp_path).history(3).empty
    with pytest.raises(KeyError, match="has no trial 9"):
        Results(tmp_path).history(9)
