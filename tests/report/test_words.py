"""What is said of a sweep: in its own time, of what differs, and so that it can be read and printed anywhere."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.report.journals import ASHA, Written, simulated
from xaytune.cli.main import main
from xaytune.records.results import Results
from xaytune.records.state import SweepState
from xaytune.report.live import LiveView
from xaytune.report.printing import Lenient, printable
from xaytune.report.story import tell
from xaytune.report.text import losses, metrics, summary

CONSTANTS = {"dataset": "data/letters", "batch_size": 32, "bias": False, "min_lr": 0.0001, "only": {"choice": [7]}}
BY_STEP = {**ASHA, "time_attr": "global_step"}


def said(*arguments: object) -> str:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    return done.output


def watched(folder: Path, **options: Any) -> tuple[Results, str]:
    """A sweep, and all that was printed while it ran and after."""
    printed = io.StringIO()
    with LiveView(Console(file=printed, width=200)) as view:
        results = simulated(folder, listener=view, **options)
    return results, printed.getvalue() + said("status", folder) + said("best", folder) + said("why", folder, 0)


def test_a_sweep_by_steps_is_told_in_steps_everywhere(tmp_path: Path) -> None:
    results, text = watched(tmp_path / "steps", scheduler=BY_STEP)
    assert "completed after 27 steps" in text
    assert "stopped at step 1" in text
    assert results.best is not None
    assert results.best.best is not None
    assert f"at step {results.best.best.global_step}" in text
    assert "epoch" not in text


@pytest.mark.parametrize(("trials", "told"), [(9, 9), (40, 11)])
def test_a_file_has_a_line_on_each_trial_that_ends_unless_they_are_many_and_on_the_last(
    tmp_path: Path, trials: int, told: int
) -> None:
    printed = io.StringIO()
    with LiveView(Console(file=printed, width=200)) as view:
        simulated(tmp_path / "sweep", listener=view, num_samples=trials, scheduler={"algorithm": "fifo"})
    numbers = re.findall(rf"^\[(\d+)/{trials}", printed.getvalue(), re.MULTILINE)
    assert [*map(int, numbers)] == [*range(1, told), trials]


def test_a_line_that_was_held_back_tells_how_far_the_sweep_was_then(tmp_path: Path) -> None:
    written = Written(tmp_path / "sweep")
    for trial in range(12):
        written("trial", trial, config={"x": 0.5}, seed=1)
    for trial in range(11):
        written.at("end", trial, epoch=1, step=1, status="completed", reason=None)
    written.at("end", 11, epoch=1, step=1, status="failed", reason="no")
    *events, end = written.results().events()
    shown, sweep = io.StringIO(), SweepState(str(tmp_path / "sweep"))
    with LiveView(Console(file=shown, width=200)) as view:
        for event in events:
            sweep.apply(event)
            view(sweep, event)
        sweep.apply(end)
    assert re.search(r"^\[11/3\b.*\] trial 10 completed", shown.getvalue(), re.MULTILINE)


def test_without_a_scheduler_a_loop_without_epochs_is_told_in_steps(tmp_path: Path) -> None:
    written = Written(tmp_path / "sweep", scheduler={"algorithm": "fifo"})
    written("trial", 0, config={"x": 0.5}, seed=1)
    written("start", 0, attempt=0, node="n", pid=1)
    written.at("end", 0, epoch=0, step=60, status="completed", reason=None, due=True, checkpoints={})
    results = written.results()
    text = summary(results.sweep) + tell(results.trials[0], results.sweep, results.events())
    assert "at step 60" in text
    assert "after 60 steps" in text
    assert "epoch" not in text


def test_lines_name_what_differs_and_the_constants_once(tmp_path: Path) -> None:
    _, text = watched(tmp_path / "sweep", space=CONSTANTS)
    lines = [line for line in text.splitlines() if "data/letters" in line]
    assert len(lines) == 5  # when it begins; in the summary, status, best and why
    assert all("in all" in line for line in lines)
    assert all(name in line for name in CONSTANTS for line in lines)
    others = [line for line in text.splitlines() if line not in lines and str(tmp_path) not in line]
    assert max(map(len, others)) < 200


@pytest.mark.parametrize("value", ["l" * 300, "two\nlines", "\x1b[31mred\x1b[2J", "\u202egnp.exe", "\udce4"])
def test_odd_values_neither_break_lines_nor_reach_the_terminal_as_they_are(tmp_path: Path, value: str) -> None:
    _, text = watched(tmp_path / "sweep", space={"odd": {"choice": [value, "plain"]}})
    assert all(character.isprintable() or character == "\n" for character in text)
    assert max(map(len, text.splitlines())) < 200
    assert printable(printable(value)) == printable(value)


def test_metrics_of_any_type_and_name_are_written() -> None:
    odd = {"loss": 0.123456, 5: 1, "none": None, "words": "a\nb", "array": [1, 2], "huge": 10.0**300}
    assert metrics(odd) == "loss 0.1235, 5 1, none -, words a\\nb, array [1, 2], huge 1e+300"


def attempts_lost(folder: Path, checkpoint: bool) -> Results:
    """A trial that lost its process after step 35, with a checkpoint of step 30 or without any."""
    written = Written(folder)
    written("trial", 0, config={"x": 0.5}, seed=1)
    written("start", 0, attempt=0, node="n", pid=1)
    if checkpoint:
        written("checkpoint", 0, path="checkpoints/00000/step-00000030.pt", global_step=30)
    written.at("progress", 0, epoch=7, step=35)
    lost = {"error": "its process was lost", "traceback": ""}
    written("failure", 0, kind="lost", retried=True, **lost)
    written("start", 0, attempt=1, node="n", pid=2)
    written.at("end", 0, epoch=9, step=45, status="completed", reason=None, due=True, checkpoints={})
    return written.results()


def test_why_tells_how_many_steps_were_lost_for_want_of_a_checkpoint(tmp_path: Path) -> None:
    attempts_lost(tmp_path / "sweep", checkpoint=False)
    told = said("why", tmp_path / "sweep", 0)
    expected = "from the start: no checkpoint of it had been recorded, at least 35 steps are trained again"
    assert f"restarted on n, process 2, {expected}" in told
    assert f"its process was lost; it is restarted {expected}" in told
    status = said("status", tmp_path / "sweep")
    assert "a trial was restarted: at least 35 steps were trained again" in status
    assert status.count("trial.keep(") == 1


def test_why_tells_from_which_checkpoint_an_attempt_resumed(tmp_path: Path) -> None:
    results = attempts_lost(tmp_path / "sweep", checkpoint=True)
    told = tell(results.trials[0], results.sweep, results.events())
    assert "restarted on n, process 2, from step 30; at least 5 steps are trained again" in told
    assert "trial.keep(" not in said("status", tmp_path / "sweep")


def test_a_view_that_joins_late_tells_restarts_by_what_came_before(tmp_path: Path) -> None:
    events = list(attempts_lost(tmp_path / "sweep", checkpoint=True).events())
    at = [event["event"] for event in events].index("progress")
    shown, sweep = io.StringIO(), SweepState(str(tmp_path / "sweep"), events[:at])
    with LiveView(Console(file=shown, width=200)) as view:
        for event in events[at:]:
            sweep.apply(event)
            view(sweep, event)
    assert "its process was lost; it is restarted from step 30; at least 5 steps are" in shown.getvalue()
    assert "a trial was restarted: at least 5 steps were trained again" in shown.getvalue()


def test_trials_that_lost_one_process_together_are_told_in_one_line(tmp_path: Path) -> None:
    written = Written(tmp_path / "sweep")
    for trial in range(3):
        written("trial", trial, config={"x": 0.5}, seed=1)
        written("start", trial, attempt=0, node="n", pid=1)
    written("checkpoint", 1, path="checkpoints/00001/step-00000030.pt", global_step=30)
    for trial, step in enumerate((20, 35, 35)):
        written.at("progress", trial, epoch=step // 5, step=step)
    for trial in range(3):
        written("failure", trial, kind="lost_with_others", retried=True, error="killed by SIGKILL", traceback="")
    for trial in range(3):
        written("start", trial, attempt=1, node="n", pid=2 + trial)
    shown, sweep = io.StringIO(), SweepState(str(tmp_path / "sweep"))
    with LiveView(Console(file=shown, width=200)) as view:
        for event in written.results().events():
            sweep.apply(event)
            view(sweep, event)
    (told,) = [line for line in shown.getvalue().splitlines() if "SIGKILL" in line]
    expected = "they are restarted from their newest checkpoints; at least 60 steps are trained again"
    assert f"3 trials (0, 1, 2): killed by SIGKILL; {expected}" in told


def test_steps_are_counted_as_lost_after_a_cut_and_a_damaged_checkpoint_but_not_after_a_pause(
    tmp_path: Path,
) -> None:
    written = Written(tmp_path / "sweep")
    for trial in (0, 1):
        written("trial", trial, config={"x": 0.5}, seed=1)
        written("start", trial, attempt=0, node="n", pid=1)
        for step in (10, 20):
            written("checkpoint", trial, path=f"c/step-{step:08d}.pt", global_step=step)
    written.at("pause", 1, epoch=2, step=20, reason="interrupted", checkpoints={})
    written.at("progress", 0, epoch=2, step=25)
    written.begun()  # trial 0 was cut off
    written("start", 0, attempt=1, node="n", pid=2)
    written("start", 1, attempt=1, node="n", pid=3)
    written("damaged", 0, path="c/step-00000020.pt", global_step=20)
    written("deleted", 0, path="c/step-00000010.pt", global_step=10)  # it had one to resume from all the same
    results = written.results()
    assert losses(results.sweep) == ["a trial was restarted: at least 15 steps were trained again"]
    told = tell(results.trials[0], results.sweep, results.events())
    assert "is damaged, and cannot be resumed from: restarted from step 10; at least 15 steps" in told


@pytest.mark.parametrize(("old", "new"), [("node lost", "node_lost"), ("not begun", "not_started")])
def test_journals_of_earlier_versions_are_told_in_the_same_words(tmp_path: Path, old: str, new: str) -> None:
    told = []
    for kind in (old, new):
        written = Written(tmp_path / kind)
        written("trial", 0, config={"x": 0.5}, seed=1)
        written("failure", 0, kind=kind, error="its node was lost", traceback="", retried=True)
        results = written.results()
        story = tell(results.trials[0], results.sweep, results.events()).replace(kind, "kind")
        told.append(re.sub(r"\d+:\d\d(\.\d)?", "", story))  # when it happened
    assert "failed: its node was lost; it is restarted from the start" in told[0]
    assert told[0].partition("new, with")[2] == told[1].partition("new, with")[2]


def test_why_tells_the_numbers_of_a_decision_what_was_started_instead_and_why_a_trial_is_new(
    tmp_path: Path,
) -> None:
    written = Written(tmp_path / "sweep")
    written("trial", 0, config={"x": 0.5}, seed=1, reason="the best of an earlier sweep")
    written("start", 0, attempt=0, node="n", pid=1)
    details = {"predicted": [[9, 0.7, 0.01]], "promise": 0.0012, "promise_of_new": 0.02, "instead": {"x": 0.25}}
    written.at("result", 0, epoch=3, step=30, due=True, checkpoints={})
    place = {"epoch": 3, "global_step": 30, "value": 0.5}
    written(
        "verdict", 0, decision="stop", reason="promises less", cutoff=0.8, compared=3, details=details, **place
    )
    written("fall_back", reason="decisions took 40 s")
    written.results()
    told = said("why", tmp_path / "sweep", 0)
    assert "new, with seed 1: the best of an earlier sweep" in told
    numbers = "promise 0.0012; promise of new 0.02; started instead: x 0.25"
    assert f"judged, to be stopped: promises less ({numbers})" in told
    assert "decided by cheaper means: decisions took 40 s" in said("status", tmp_path / "sweep")


def test_best_tells_of_a_better_value_of_a_trial_that_failed(tmp_path: Path) -> None:
    written = Written(tmp_path / "sweep")
    ends = {"completed": 0.5, "failed": 0.9}
    for number, (status, value) in enumerate(ends.items()):
        written("trial", number, config={"x": 0.5}, seed=1)
        written("start", number, attempt=0, node="n", pid=1)
        written.at("end", number, epoch=1, step=3, value=value, status=status, reason=None)
    written.results()
    told = said("best", tmp_path / "sweep")
    assert told.startswith("best: trial 0, score 0.5")
    assert "trial 1 reached a better value, but failed: that does not count" in told


def test_why_tells_where_a_trial_was_paused_as_its_sweep_was_interrupted(tmp_path: Path) -> None:
    written = Written(tmp_path / "sweep")
    written("trial", 0, config={"x": 0.5}, seed=1)
    written("start", 0, attempt=0, node="n", pid=1)
    written("stop", 0, reason="interrupted", status="paused", of_sweep=True)
    written.at("pause", 0, epoch=5, step=95, reason="interrupted")
    written.results()
    assert "paused after 5 epochs (95 steps)\n" in said("why", tmp_path / "sweep", 0)


def test_best_tells_all_failed_from_none_has_reported(tmp_path: Path) -> None:
    for name in ("failed", "silent"):
        written = Written(tmp_path / name)
        written("trial", 0, config={"x": 0.5}, seed=1)
        written("start", 0, attempt=0, node="n", pid=1)
        if name == "failed":
            written("failure", 0, kind="error", error="ValueError: no", traceback="", retried=False)
            ends = {"status": "failed", "reason": "ValueError: no", "due": False, "checkpoints": {}}
            written.at("end", 0, epoch=0, step=0, value=None, **ends)
        written.results()
    assert "the only trial failed; trial 0: ValueError: no" in said("best", tmp_path / "failed")
    assert "no trial has reported a finite 'score' yet" in said("best", tmp_path / "silent")


def test_commands_in_hints_can_be_pasted_whatever_the_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "my sweeps" / "it's; one"
    written = Written(folder)
    written("trial", 0, config={"x": 0.5}, seed=1)
    written("sweep", state="interrupted", reason="interrupted by the user")
    written.results()
    (hint,) = [line for line in said("status", folder).splitlines() if "to continue it: " in line]
    assert shlex.split(hint.partition("to continue it: ")[2]) == ["xaytune", "resume", str(folder)]


def test_a_sweep_that_failed_before_all_its_trials_were_drawn_tells_how_to_continue_it(tmp_path: Path) -> None:
    for name, trials in (("begun", 2), ("whole", 3)):
        written = Written(tmp_path / name)
        for trial in range(trials):
            written("trial", trial, config={"x": 0.5}, seed=1)
            written.at("end", trial, 1, 1, status="completed", reason=None)
        written("sweep", state="failed", reason="no space left on device")
        assert ("to continue it: " in summary(written.results().sweep)) == (name == "begun")


def test_what_was_noted_while_a_sweep_ran_is_told_by_its_status_and_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = Written(tmp_path / "s")
    for _ in range(2):  # the second time by a resume
        written("note", text="fused: trained alone: its optimizer is Adagrad")
    folder = str(tmp_path / "s")
    assert said("status", folder).splitlines()[-1] == "note: fused: trained alone: its optimizer is Adagrad"
    assert "Fused: trained alone: its optimizer is Adagrad." in Path(said("report", folder).strip()).read_text()


def test_a_sweep_of_a_script_or_notebook_is_said_to_be_resumed_from_there(tmp_path: Path) -> None:
    written = Written(tmp_path / "s", recipe="__main__:train")
    written("sweep", state="interrupted", reason="interrupted by the user")
    assert summary(written.results().sweep).endswith(f"\nto continue it: xaytune.resume('{tmp_path / 's'}')")


class Gone(io.StringIO):
    """A terminal that is not there any more."""

    encoding = "ascii"

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_a_view_whose_terminal_is_gone_does_not_end_a_sweep(tmp_path: Path) -> None:
    for terminal in (False, True):
        with LiveView(Console(file=Gone(), force_terminal=terminal)) as view:
            results = simulated(tmp_path / str(terminal), listener=view)
        assert results.sweep.state == "completed"


def test_characters_that_a_stream_lacks_are_replaced() -> None:
    raw = io.BytesIO()
    stream = Lenient(io.TextIOWrapper(raw, encoding="ascii"))
    stream.write("größe ✓ \udce4")
    stream.flush()
    assert raw.getvalue() == b"gr??e ? ?"


PROGRAM = """
import sys
from pathlib import Path
from tests.report.journals import simulated
from xaytune.report.live import LiveView
with LiveView() as view:
    simulated(Path(sys.argv[1]), space={"name": "größe"}, listener=view)
"""


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_closed_pipe_neither_ends_a_sweep_nor_changes_the_exit_code(tmp_path: Path, encoding: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "sweep")]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, env=environment, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert Results(tmp_path / "sweep").sweep.state == "completed"


def test_best_tells_where_no_checkpoint_was_saved_at_the_best_value_and_how_to_keep_it(tmp_path: Path) -> None:
    def told(name: str, saved: int) -> str:
        written = Written(tmp_path / name)
        written("trial", 0, config={"x": 0.5}, seed=1)
        written("start", 0, attempt=0, node="n", pid=1)
        written("checkpoint", 0, global_step=saved, path=f"checkpoints/00000/step-{saved:08d}.pt")
        written.at("end", 0, epoch=1, step=3, status="completed", reason=None)
        return said("best", tmp_path / name)

    last = told("last", 9)
    assert "step-00000009.pt (the newest, of step 9)" in last
    assert "the best value was at step 3, where the trial saved no checkpoint of its own" in last
    assert all(way in last for way in ("SaveBest in a Trainer", 'a line with "checkpoint" of'))
    assert "the newest" not in told("best", 3)


def test_a_sweep_that_has_run_says_where_its_files_and_the_output_of_trials_are(tmp_path: Path) -> None:
    text = watched(tmp_path / "sweep")[1]
    assert f"files: {tmp_path}/sweep (what trials printed is in output, checkpoints are in checkpoints)" in text


def test_why_tells_a_step_that_was_judged_and_reported_again_once(tmp_path: Path) -> None:
    written = Written(tmp_path / "sweep", scheduler=BY_STEP)
    written("trial", 0, config={"x": 0.5}, seed=1)
    written("start", 0, attempt=0, node="n", pid=1)
    written.at("result", 0, epoch=0, step=3, due=True, checkpoints={})
    for step in (3, 8):
        written.at("progress", 0, epoch=0, step=step)
    written.results()
    told = said("why", tmp_path / "sweep", 0)
    assert [told.count(f"step {step}: score") for step in (3, 8)] == [1, 1]
