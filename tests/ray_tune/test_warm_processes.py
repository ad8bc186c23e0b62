"""Processes that serve trial after trial: none finds anything of those before it."""

from __future__ import annotations

from typing import Any

from tests.conftest import Run
from tests.ray_tune.test_faults import assert_same, last_checkpoint

OPTIONS: dict[str, Any] = {
    "metric": "eval_accuracy",
    "max_concurrent_trials": 1,
    "callbacks": ["tests.recipes:note_process"],
}


def test_a_trial_after_20_others_in_its_process_trains_the_same_bits_as_alone(run: Run) -> None:
    after = run("pollutes", space={"x": {"grid": list(range(21))}}, **OPTIONS)
    assert [trial.status for trial in after.trials] == ["completed"] * 21
    assert len({trial.pid for trial in after.trials}) == 1
    assert (after.path / "output" / "00020.txt").read_text() == "begun\nleaks: []\n"
    assert not (after.path / "leaked.txt").read_text()
    # Seeds go by number: the last of 21 is compared with a 21st in a process where none changed anything.
    others = run("pollutes", space={"x": {"grid": [20]}}, num_samples=21, **OPTIONS)
    assert others.trials[20].seed == after.trials[20].seed
    assert after.history(20).equals(others.history(20))
    assert_same(last_checkpoint(after, 20), last_checkpoint(others, 20))


def test_a_process_with_a_thread_of_a_trial_left_serves_no_other(run: Run) -> None:
    results = run("leaves_a_thread", space={"x": {"grid": [1, 2]}}, max_concurrent_trials=1)
    assert results.sweep.state == "completed"
    assert len({trial.pid for trial in results.trials}) == 2
