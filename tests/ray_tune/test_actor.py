"""The actor of a trial: thin, reused for trial after trial, and never without its trial's process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayTaskError
from ray.tune.experiment import Trial as TuneTrial

from tests.driver.harness import Played
from tests.trial.conftest import is_gone
from xaytune.driver.orders import Kill, RequestStop
from xaytune.messages import Assignment, DecisionDue, Ended, Message, Started, StopRequest, Task
from xaytune.ray_tune.actor import TrialActor
from xaytune.ray_tune.bridge import Bridge, without_colours
from xaytune.ray_tune.node_actor import actor_for
from xaytune.sweep.objective import Objective
from xaytune.sweep.time_axis import DecisionPoints
from xaytune.trainer.callbacks import TrainState
from xaytune.trial.client.template_client import Template
from xaytune.trial.common.output import file_of
from xaytune.trial.run.trial import Trial


@ray.remote
def add_one(value: float) -> float:
    return value + 1.0


def writes_and_hangs(config: dict[str, Any], trial: Trial) -> TrainState:
    """Its second step never ends; it leaves a file of its own and has printed something."""
    for epoch in trial.epochs(2):
        if epoch == 1:
            print("hangs now")
            time.sleep(3600)
        (trial.checkpoint_dir / "mine.txt").write_text("mine")
        trial.report(score=1.0)
    return TrainState()


def uses_ray(config: dict[str, Any], trial: Trial) -> TrainState:
    """Its score comes from a task of Ray's, by what was put into its store."""
    ray.init()
    state = TrainState(max_steps=1, global_step=1, metrics={"score": 0.0})
    state.metrics["score"] = ray.get(add_one.remote(ray.put(1.0)))
    trial.callbacks.fire("step_end", state)
    return state


@pytest.fixture
def task(tmp_path: Path) -> Iterator[Task]:
    made = Task(
        sweep="s",
        sweep_id="1",
        sweep_dir=str(tmp_path),
        remote=None,
        recipe="tests.trial.recipes:train",
        objective=Objective("score", "max"),
        seed=0,
        points=DecisionPoints(milestones=(1, 2)),
        import_paths=(os.getcwd(),),
        heartbeat_s=0.2,
    )
    template = Template(made)
    yield made
    template.end()


Make = Callable[..., Any]


@pytest.fixture
def make(ray_here: None, task: Task) -> Iterator[Make]:
    """Makes an actor with its first trial."""
    made: list[Any] = []

    def make_actor(recipe: Any = task.recipe, storage: str | None = None) -> Any:
        given_task = replace(task, recipe=recipe, remote=storage)
        remote: Any = ray.remote(num_cpus=0)(actor_for(given_task, TrialActor))
        made.append(remote.remote(given(0)))
        return made[-1]

    yield make_actor
    for actor in made:
        ray.kill(actor)


def given(trial: int) -> Assignment:
    return Assignment(trial=trial, seed=trial, config={})


def next_message(actor: Any, *orders: RequestStop | Kill) -> Message:
    message: Message = ray.get(actor.train.remote(orders))["message"]
    return message


def until(actor: Any, kind: type[Message], *orders: RequestStop | Kill) -> Message:
    message = next_message(actor, *orders)
    while not isinstance(message, kind):
        message = next_message(actor)
    return message


def test_an_actor_serves_trial_after_trial_each_in_a_process_of_its_own(make: Make) -> None:
    actor = make()
    pids = set()
    for number in range(2):
        if number:
            assert ray.get(actor.reset.remote(given(number)))
        started = next_message(actor)
        assert isinstance(started, Started)
        pids.add(started.pid)
        assert isinstance(until(actor, DecisionDue), DecisionDue)
        stop = RequestStop(number, StopRequest("weak"))  # it is there before the next step
        ended = until(actor, Ended, stop)
        assert isinstance(ended, Ended)
        assert (ended.trial, ended.status, ended.epoch) == (number, "stopped", 1)
    assert len(pids) == 2
    there = ray.get(actor.__ray_call__.remote(lambda self: sorted(__import__("sys").modules)))
    assert "xaytune.trial.client.attempt" in there
    assert not {"torch", "ray.tune", "tests.trial.recipes"} & set(there)


def test_a_trial_ends_with_its_actor(make: Make, tmp_path: Path) -> None:
    actor = make("tests.trial.recipes:hangs")
    started = next_message(actor)
    assert isinstance(started, Started)
    while not (tmp_path / "hangs").exists():
        next_message(actor)
    os.kill(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())), signal.SIGKILL)
    assert is_gone(started.pid)


def test_an_actor_that_does_not_kill_a_trial_that_hangs_is_ended_with_it(make: Make, tmp_path: Path) -> None:
    actor = make("tests.trial.recipes:hangs")
    started = next_message(actor)
    assert isinstance(started, Started)
    while not (tmp_path / "hangs").exists():
        next_message(actor)
    os.kill(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())), signal.SIGSTOP)
    sweep = Played(tmp_path / "sweep", stall_timeout_s=60)
    running = TuneTrial("a trainable", stub=True)
    running.temporary_state.ray_actor = actor
    bridge = Bridge(sweep.driver, {sweep.start().trial: running})
    for seconds in (61, 61 + 19):
        sweep.clock.set_forward(seconds)
        bridge.tick()
    assert not is_gone(started.pid, within=0.5)
    sweep.clock.set_forward(61 + 22)
    bridge.tick()
    assert is_gone(started.pid)
    sweep.close()


def test_what_a_trial_left_on_its_node_is_kept_when_it_is_paused_and_when_it_is_killed(
    make: Make, tmp_path: Path
) -> None:
    actor, storage = make(writes_and_hangs, f"file://{tmp_path}/stored"), tmp_path / "stored"
    until(actor, DecisionDue)
    assert ray.get(actor.reset.remote(given(1)))  # as where the first is paused
    assert (storage / "checkpoints" / "00000" / "mine.txt").read_text() == "mine"
    until(actor, DecisionDue)
    next_message(actor)
    ended = until(actor, Ended, Kill(1))
    assert isinstance(ended, Ended)
    assert ended.failure is not None
    assert ended.failure.kind == "lost"
    assert "in writes_and_hangs" in str(ended.failure.traceback)
    assert "hangs now" in (storage / file_of(1)).read_text()


def test_a_recipe_can_use_the_ray_of_its_sweep(make: Make) -> None:
    actor = make(uses_ray)
    ended = until(actor, Ended)
    assert isinstance(ended, Ended)
    assert ended.best is not None, ended
    assert ended.best.value == 2.0


def test_the_error_of_an_actor_is_told_without_the_colours_of_a_terminal() -> None:
    error = RayTaskError("train", "Traceback (most recent call last):\nValueError: no", ValueError("no"))
    assert "\x1b[36m" in str(error)
    assert "\x1b" not in without_colours(error)
    assert without_colours(error).endswith("ValueError: no")
