"""The command line: what trains in a process of its own, what is refused in this one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.callbacks import notes
from tests.cli.commands import COMMAND, alone, environment, here, spec_file
from tests.report.journals import Written
from xaytune.cli.ending import end_as
from xaytune.records.journal import FILE_NAME, Journal, read_events
from xaytune.records.results import Results
from xaytune.records.stream import event_in
from xaytune.sweep.spec import SweepSpec


@pytest.fixture(scope="module")
def digits(ray_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The digits sweep as the README runs it: its folder, and what it printed."""
    storage = tmp_path_factory.mktemp("runs")
    done = alone(ray_folder, "run", "sweeps/digits.yaml", "--storage", str(storage))
    assert done.returncode == 0, done.stderr
    return storage / "digits", done.stdout + done.stderr


@pytest.fixture(scope="module")
def ran(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path, Result]:
    """A small sweep that is done: its command, its folder, and what was printed of it."""
    folder = tmp_path_factory.mktemp("ran")
    command = ["run", spec_file(folder, "curve", num_samples=50), "--storage", str(folder), "--name", "mine"]
    done = here(*command, "--num-samples", "2", "--set", "space.x={uniform: [2, 3]}", "--json")
    return command, folder / "mine", done


@pytest.fixture
def curved(ran: tuple[list[str], Path, Result]) -> Path:
    """The folder of that sweep."""
    return ran[1]


@pytest.fixture(scope="module")
def mistyped(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A sweep whose recipe has a typo, and what was printed of it."""
    folder = tmp_path_factory.mktemp("mistyped")
    done = here("run", spec_file(folder, "has_a_typo", num_samples=8), "--storage", str(folder))
    return folder / "has_a_typo", done


def test_the_digits_sweep_reaches_97_percent_and_stops_half_of_its_trials_early(digits: tuple[Path, str]) -> None:
    results = Results(digits[0])
    counts = results.sweep.counts()
    assert results.best is not None
    assert (results.best.value or 0) >= 0.97
    assert counts["stopped"] >= 18
    assert counts["completed"] + counts["stopped"] == 36
    assert Path(str(results.best.checkpoint)).is_file()


def test_what_the_callback_of_the_digits_sweep_prints_is_in_the_output(digits: tuple[Path, str]) -> None:
    best = Results(digits[0]).best
    assert best is not None
    said = (digits[0] / "output" / f"{best.number:05d}.txt").read_text()
    assert "step 100: the norm of the gradients is" in said


def test_every_digits_trial_has_one_end_and_a_row_for_every_step(digits: tuple[Path, str]) -> None:
    ends = Counter(e["trial"] for e in read_events(digits[0] / FILE_NAME) if e["event"] == "end")
    assert ends == dict.fromkeys(range(36), 1)
    results = Results(digits[0])
    for trial in results.trials:
        assert results.history(trial.number)["global_step"].tolist() == list(range(1, trial.global_step + 1))
        assert trial.global_step == 22 * trial.epoch


def test_a_run_without_a_terminal_prints_a_plain_line_an_end_at_most_and_names_the_best(
    digits: tuple[Path, str],
) -> None:
    lines = digits[1].splitlines()
    assert lines[0] == "digits: 36 trials"
    ends = [line for line in lines if line.startswith("[")]
    assert len(ends) <= 36
    assert lines[1 + len(ends)].startswith("digits: completed in ")
    assert "\x1b" not in digits[1]
    best = Results(digits[0]).best
    assert best is not None
    assert f"best: trial {best.number}, eval_accuracy {best.value:.4g}" in digits[1]
    assert f"  checkpoint  {best.checkpoint}" in lines


def test_status_and_best_tell_of_a_sweep(digits: tuple[Path, str]) -> None:
    status = json.loads(here("status", str(digits[0]), "--json").stdout)
    assert (status["sweep"], status["state"]) == ("digits", "completed")
    assert status["trials"].keys() == {"pending", "running", "paused", "completed", "stopped", "failed"}
    best = json.loads(here("best", str(digits[0]), "--json").stdout)
    assert best == status["best"]
    assert {"trial", "config", "metrics", "value", "checkpoint"} <= best.keys()
    assert best["metrics"]["eval_accuracy"] == best["value"]
    assert f"best: trial {best['trial']}" in here("best", str(digits[0])).stdout
    assert "digits: completed" in here("status", str(digits[0])).stdout


def test_run_takes_a_name_a_number_of_samples_and_settings_and_prints_json(
    ran: tuple[list[str], Path, Result],
) -> None:
    command, _, done = ran
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert (told["sweep"], told["trials"]["completed"]) == ("mine", 2)
    assert told["best"]["config"]["x"] >= 2
    assert "mine: completed" in done.stderr
    again = here(*command)
    assert again.exit_code == 2
    assert "mine holds a sweep already" in again.stderr


def test_a_sweep_whose_trials_all_fail_exits_with_1_and_shows_why(tmp_path: Path, ray_here: None) -> None:
    spec = spec_file(tmp_path, "fails_for_some", more="callbacks: [tests.callbacks:break_at_step_5]\n")
    done = here("run", spec, "--storage", str(tmp_path), "--set", "space.x={uniform: [0, 0.1]}")
    assert done.exit_code == 1
    assert "RuntimeError: broken for " in done.stdout
    sweep = Results(tmp_path / "fails_for_some").sweep
    assert (sweep.state, sweep.reason) == ("failed", "every trial failed")
    folder = tmp_path / "fails_for_some"
    assert done.stdout.splitlines()[-2].endswith(f"is mended: xaytune resume {folder} --resume-errored")


@pytest.fixture(scope="module")
def interrupted(ray_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, str, Results]:
    """A sweep that was told to end when one trial had failed and two trained: exit code, all it printed, results.

    A batch system's time limit sends SIGTERM to the group, a terminal SIGINT, and Ray to all descendants of a job.
    """
    folder = tmp_path_factory.mktemp("interrupted")
    recipe = "loses_its_process_or_waits"
    more = "resources_per_trial: {cpu: 0.3}\nfailures: {retries: 1}\ncallbacks: [tests.callbacks:note_events]\n"
    spec = spec_file(folder, recipe, 1, more)
    process = subprocess.Popen(
        [*COMMAND, "run", spec, "--storage", str(folder), "--set", "space.x={grid: [0.1, 0.9, 0.8]}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(ray_folder),
        start_new_session=True,
    )
    journal = folder / recipe / FILE_NAME
    while process.poll() is None and _counts(journal, "start", "end") != [4, 1]:
        time.sleep(0.05)
    for pid in (process.pid, *_descendants(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output, Results(folder / recipe)


def _descendants(parent: int) -> list[int]:
    """All processes that a process has started, and that these have, but for Ray's own."""
    tasks = Path(f"/proc/{parent}/task").iterdir()
    children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    own = [pid for pid in children if b"ray" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return [*own, *(pid for child in own for pid in _descendants(child))]


def _counts(journal: Path, *events: str) -> list[int]:
    """How many events of each kind a journal has yet."""
    text = journal.read_text() if journal.exists() else ""
    return [text.count(f'"event":"{event}"') for event in events]


def test_a_signal_to_the_whole_group_pauses_the_trials_through_their_loops_and_exits_with_130(
    interrupted: tuple[int, str, Results],
) -> None:
    code, output, results = interrupted
    assert code == 130
    assert (results.sweep.state, results.sweep.counts()["paused"]) == ("interrupted", 2)
    assert f"{results.sweep.name}: interrupted" in output
    for trial in (trial for trial in results.trials if trial.status == "paused"):
        noted = notes(results.path, trial.number).read_text().split()
        assert noted[-2:] == ["checkpoint_saved", "train_end"]
        assert noted.count("train_end") == 1
        assert trial.checkpoint is not None
        assert len(results.history(trial.number)) == noted.count("step_end")


@pytest.mark.parametrize(("number", "after_s"), [(signal.SIGTERM, 1.5), (signal.SIGINT, 2.5)])
def test_a_signal_while_a_run_starts_ends_it_with_130(
    ray_folder: Path, tmp_path: Path, number: int, after_s: float
) -> None:
    spec = spec_file(tmp_path, "waits")
    process = subprocess.Popen(
        [*COMMAND, "run", spec, "--storage", str(tmp_path / "runs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(ray_folder),
        start_new_session=True,
    )
    time.sleep(after_s)  # at any moment: none of them may be a bad one
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in output
    assert "***" not in output


def test_a_signal_that_python_drops_while_a_command_starts_is_not_lost() -> None:
    program = (
        "import os, signal\n"
        "from xaytune.interrupts import Interrupts, interrupt\n"
        "class Finalized:\n"
        "    def __del__(self): os.kill(os.getpid(), signal.SIGTERM)\n"
        "signal.signal(signal.SIGTERM, interrupt)\n"
        "Finalized()\n"
        "with Interrupts() as interrupts: print(interrupts.asked)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Exception ignored in" in done.stderr
    assert done.stdout == "True\n"


def test_a_lost_process_is_told_in_a_line_without_output_of_ray(interrupted: tuple[int, str, Results]) -> None:
    output = interrupted[1]
    assert "failed: trial 0, with\n  its process was lost, 2 times\n" in output
    assert "raylet" not in output
    assert "actor" not in output


def test_a_sweep_without_an_end_but_its_budget_trains_on_with_a_larger_one(tmp_path: Path, ray_here: None) -> None:
    spec = spec_file(tmp_path, "curve", -1, "budget: {epochs: 3}\n")
    assert here("run", spec, "--storage", str(tmp_path)).exit_code == 0
    before = Results(tmp_path / "curve").sweep
    again = here("resume", "curve", "--storage", str(tmp_path), "--set", "budget.epochs=3")
    assert (again.exit_code, Results(tmp_path / "curve").sweep.epochs) == (0, before.epochs)
    assert "the budget of 3 epochs is spent" in again.stdout
    more = before.epochs + 5
    assert here("resume", "curve", "--storage", str(tmp_path), "--set", f"budget.epochs={more}").exit_code == 0
    after = Results(tmp_path / "curve").sweep
    assert after.epochs >= more
    assert len(after.trials) > len(before.trials)


def test_a_sweep_some_of_whose_trials_failed_is_done_and_exits_with_0(tmp_path: Path) -> None:
    written = Written(tmp_path / "written")
    written("trial", 0, config={"x": 0.5}, seed=1)
    written("start", 0, attempt=0, node="n", pid=1)
    written.at("end", 0, 1, 4, None, status="failed", reason="its process was lost", due=False, checkpoints={})
    written("sweep", state="completed", reason=None)
    sweep = written.results().sweep
    assert (sweep.state, sweep.counts()["failed"]) == ("completed", 1)
    with pytest.raises(SystemExit) as ended:
        end_as(sweep, as_json=False)
    assert ended.value.code == 0


def test_resume_adds_trials_to_a_sweep_and_leaves_what_was_finished(tmp_path: Path, curved: Path) -> None:
    shutil.copytree(curved, tmp_path / "mine")
    before = [(trial.config, trial.value, trial.ended) for trial in Results(tmp_path / "mine").trials]
    done = here("resume", "mine", "--storage", str(tmp_path), "--num-samples", "3", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["trials"]["completed"] == 3
    after = [(trial.config, trial.value, trial.ended) for trial in Results(tmp_path / "mine").trials]
    assert after[:2] == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-samples", "1"], "num_samples: the sweep has 2 trials already (got 1 in all)"),
        (["--set", "space.x=1"], "space: cannot be changed any more"),
        (["--set", "budget.time=soon"], "budget.time: must be seconds, or a duration"),
    ],
)
def test_a_resume_that_would_change_what_was_decided_is_refused(
    curved: Path, arguments: list[str], message: str
) -> None:
    before = (curved / FILE_NAME).read_bytes()
    done = here("resume", str(curved), *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert (curved / FILE_NAME).read_bytes() == before


def test_resuming_a_sweep_that_is_done_says_so_and_changes_nothing(curved: Path) -> None:
    before = (curved / FILE_NAME).read_bytes()
    done = here("resume", str(curved))
    assert done.exit_code == 0
    assert "mine: completed" in done.stdout
    assert done.stdout.endswith("nothing is left to do; --num-samples N adds trials, to N in all\n")
    told = [event_in(line) for line in here("resume", str(curved), "--events").stdout.rstrip().split("\n")]
    assert told == list(read_events(curved / FILE_NAME))
    assert (curved / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize(
    ("options", "why", "more"),
    [
        ({"num_samples": 3}, None, True),
        ({"num_samples": 1, "space": {"x": {"grid": [1, 2, 3]}}}, None, False),
        ({"num_samples": 3, "budget": {"epochs": 9}}, None, False),
        ({"num_samples": 3}, "the space is used up: all of its 3 configurations were tried", False),
    ],
)
def test_a_sweep_that_is_done_tells_how_to_add_trials_only_where_that_adds_them(
    tmp_path: Path, options: dict[str, Any], why: str | None, more: bool
) -> None:
    written = Written(tmp_path / "written", **options)
    for trial in range(3):
        written("trial", trial, config={"x": trial + 1}, seed=1)
        written.at("end", trial, 1, 4, status="completed", reason=None, due=False, checkpoints={})
    written("sweep", state="completed", reason=why)
    written.results()
    last = here("resume", str(tmp_path / "written")).stdout.splitlines()[-1]
    assert last == "nothing is left to do" + "; --num-samples N adds trials, to N in all" * more


def test_a_larger_budget_with_no_trial_left_says_that_what_the_budget_has_stopped_is_over(tmp_path: Path) -> None:
    reason = "the budget of 9 epochs is spent"
    written = Written(tmp_path / "written", num_samples=3, budget={"epochs": 9})
    for trial in range(3):
        written("trial", trial, config={"x": 1}, seed=1)
        written.at("end", trial, 1, 4, status="stopped", reason=reason, due=False, checkpoints={})
    written("sweep", state="completed", reason=reason)
    written.results()
    said = here("resume", str(tmp_path / "written"), "--set", "budget.epochs=99").stdout.splitlines()[-1]
    told = "what the budget has stopped is over; a larger --num-samples and budget add trials"
    assert said == f"nothing is left to do: {told}"


def test_a_typo_ends_the_sweep_at_once_with_its_traceback(mistyped: tuple[Path, Result]) -> None:
    folder, done = mistyped
    assert done.exit_code == 1
    assert "NameError: name 'curv' is not defined" in done.output
    assert "return curv(config, trial)" in done.output
    assert len(Results(folder).trials) <= 4


def test_trials_that_a_typo_failed_are_begun_again_once_it_is_mended(mistyped: tuple[Path, Result]) -> None:
    done = here("resume", str(mistyped[0]), "--set", "recipe=tests.recipes:curve", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["trials"]["completed"] == 8


@pytest.mark.ray
def test_a_sweep_that_is_running_cannot_be_resumed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "busy" / FILE_NAME)
    spec = SweepSpec.parse(
        {"recipe": "tests.recipes:curve", "metric": "score", "mode": "max", "space": {"x": {"uniform": [0, 1]}}}
    )
    journal.write("sweep", state="running", name="busy", spec=spec.plain(), num_trials=1, host="here", pid=1)
    done = here("resume", "busy", "--storage", str(tmp_path))
    assert done.exit_code == 2
    assert "busy: the sweep is running, in another process" in done.stderr
    journal.close()


@pytest.mark.slow
def test_try_trains_one_configuration_without_ray(tmp_path: Path) -> None:
    spec = spec_file(tmp_path, "curve")
    program = (
        "import sys; sys.modules['ray'] = None; sys.argv[1:] = ['try', sys.argv[1], '--set', 'x=0.5']\n"
        "from xaytune.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program, spec], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "x 0.5"
    assert lines[1] == "epoch 1: loss 0.25, score 0.25"
    assert lines[-1] == "completed: best score 0.499"


@pytest.mark.parametrize("scheduler", ["curves", "asha", "hyperband"])
def test_try_takes_a_value_for_each_parameter_of_the_space(tmp_path: Path, scheduler: str) -> None:
    spec = spec_file(tmp_path, "curve", more=f"\nscheduler: {{algorithm: {scheduler}, max_t: 9}}\n")
    done = here("try", spec, "--set", "x=0.5")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "completed: best score 0.499"


def test_try_trains_what_the_space_does_not_have_and_says_so(tmp_path: Path) -> None:
    done = here("try", spec_file(tmp_path, "curve"), "--set", "x=3")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == "x 3"
    assert done.stderr == "note: x: must be from 0 to 1 (got 3): the sweep would not try that\n"


def test_try_shows_the_traceback_of_a_recipe_that_raises(tmp_path: Path) -> None:
    done = here("try", spec_file(tmp_path, "fails_for_some"), "--set", "x=0.1")
    assert done.exit_code == 1
    assert "RuntimeError: broken for 0" in done.stderr
    assert "in fail" in done.stderr


def test_check_says_what_a_sweep_will_do_without_running_it() -> None:
    done = here("check", "sweeps/digits.yaml")
    assert done.exit_code == 0
    assert "36" in done.stdout
    assert "judged at levels up to the epochs that the recipe trains" in done.stdout
    assert "trials      12, " in here("check", "sweeps/digits.yaml", "--num-samples", "12").stdout
    assert "cpu 1" in done.stdout
