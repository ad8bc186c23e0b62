"""A sweep of a shell script: judged, told to stop by SIGTERM, and resumed after its driver was killed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.ray_tune.sweeps import start
from xaytune.ray_tune.sweep import Sweep, resume
from xaytune.records.journal import FILE_NAME, read_events
from xaytune.records.results import Results
from xaytune.trial.common.output import file_of

SCRIPT = Path(__file__).parents[1] / "trial" / "counting.sh"
SPEC = f"""
command: sh {SCRIPT} epoch 9 {{folder}} {{worth}} 0.2
metric: score
mode: max
space: {{worth: {{grid: [9, 8, 7, 6, 5, 4]}}}}
scheduler: {{algorithm: asha, max_t: 9, reduction_factor: 3}}
max_concurrent_trials: 2
"""


@pytest.fixture(scope="module")
def swept(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A sweep whose driver was killed in its midst, resumed."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "counted.yaml").write_text(SPEC)
    journal = folder / "counted" / FILE_NAME
    driver = start(["run", str(folder / "counted.yaml")], folder)
    while driver.poll() is None and not _has_saved(journal, 0):
        time.sleep(0.01)
    driver.kill()
    driver.communicate()
    return resume("counted", storage=folder)


def _has_saved(journal: Path, trial: int) -> bool:
    events = read_events(journal) if journal.exists() else ()
    return any(event.get("trial") == trial and event.get("checkpoints") for event in events)


def said(results: Results, trial: int) -> str:
    output = results.path / file_of(trial)
    return output.read_text() if output.exists() else ""


def test_a_script_is_resumed_from_what_it_saved_after_its_driver_was_killed(swept: Results) -> None:
    assert swept.sweep.state == "completed"
    best = swept.trials[0]
    assert (best.number, best.status, best.epoch, best.value) == (0, "completed", 9, 0.99)
    assert best.attempts == 2
    assert "resumed at " in said(swept, 0)
    assert swept.history(0)["epoch"].tolist() == list(range(9))


def test_a_weak_script_is_told_to_stop_and_what_it_trains_then_does_not_count(swept: Results) -> None:
    stopped = [trial for trial in swept.trials if trial.status == "stopped"]
    for trial in stopped:
        assert trial.epoch in (1, 3)
        assert len(swept.history(trial.number)) == trial.epoch
    # Where the driver was killed within a stop, the script may be asked again before it can say so.
    undisturbed = [trial for trial in stopped if trial.attempts == 1]
    assert undisturbed
    for trial in undisturbed:
        assert "asked to stop at " in said(swept, trial.number)


def test_the_best_checkpoint_is_what_the_script_wrote(swept: Results) -> None:
    checkpoint = swept.trials[0].checkpoint
    assert checkpoint is not None
    (written,) = (Path(checkpoint) / "written").iterdir()
    assert written.read_text() == "9\n"


def test_a_program_that_is_killed_is_restarted(ray_here: None, tmp_path: Path) -> None:
    command = f"sh {SCRIPT.with_name('killed_once.sh')} {{folder}}"
    sweep = Sweep(command=command, metric="score", mode="max", space={"x": {"uniform": [0, 1]}}, num_samples=1)
    (trial,) = sweep.run(storage=tmp_path).trials
    assert (trial.status, trial.attempts, trial.value) == ("completed", 2, 0.5)
