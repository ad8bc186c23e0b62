"""Journals of the version before, where Ray decided, and HyperBand and PBT had all trials at the start."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from xaytune.records.journal import Event, read_events
from xaytune.search.build import method_for
from xaytune.search.method import Done, End, Exploit, NewTrial, Pause, Result, Resume, SearchMethod, Stop
from xaytune.search.replay import Replayed, replay
from xaytune.sweep.spec import SweepSpec

JOURNALS = Path(__file__).parent / "journals"
NAMES = ["asha", "median", "hyperband", "pbt"]


def load(name: str) -> tuple[SweepSpec, list[Event]]:
    first, *events = read_events(JOURNALS / f"{name}.jsonl")
    return SweepSpec.parse(first["spec"]), events


def finish(method: SearchMethod, left: Replayed, ages: dict[int, int], num_trials: int) -> set[int]:
    """Trains what is left of a sweep to its end; returns the trials that ended."""
    rng, ended, begun = Random(0), set(), len(ages)
    paused, running = set(left.paused), set(left.unfinished) - left.paused
    waiting = list(left.stops)

    def follow(actions: Any) -> None:
        for action in actions:
            if isinstance(action, Stop):
                waiting.append(action.trial)
            elif isinstance(action, (Pause, Exploit)):
                running.discard(action.trial)
                paused.add(action.trial)

    while True:
        while waiting:
            trial = waiting.pop()
            running.discard(trial)
            paused.discard(trial)
            ended.add(trial)
            follow(method.on_end(trial, End("stopped")))
        answer = method.next()
        if isinstance(answer, NewTrial):
            running.add(begun)
            ages[begun] = 0
            begun += 1
        elif isinstance(answer, Resume):
            assert answer.trial in paused
            paused.discard(answer.trial)
            running.add(answer.trial)
            method.on_resume(answer.trial)
        elif not running:
            assert isinstance(answer, Done)
            assert not paused
            assert begun == num_trials
            return ended
        if not running:
            continue
        trial = rng.choice(sorted(running))
        ages[trial] = (
            int(min(method.points.after(ages[trial]), 12)) if method.points.milestones else ages[trial] + 2
        )
        if ages[trial] >= 12:
            running.discard(trial)
            ended.add(trial)
            follow(method.on_end(trial, End("completed", 1.0, Result(12, 1.0, due=False))))
        else:
            follow(method.on_result(trial, Result(ages[trial], rng.random())))


@pytest.mark.parametrize("name", NAMES)
def test_a_journal_of_the_version_before_is_taken_up_wherever_it_was_cut(name: str) -> None:
    spec, events = load(name)
    for cut in [*range(0, len(events), 3), len(events)]:
        known = events[:cut]
        method = method_for(spec)
        left = replay(method, known, spec.metric)
        begun = {event["trial"] for event in known if event["event"] == "trial"}
        over = {event["trial"] for event in known if event["event"] == "end"}
        assert set(left.unfinished) == begun - over
        configs = {event["trial"]: event["config"] for event in known if "config" in event}
        assert all(config == configs[trial] for trial, config in left.unfinished.items())
        ages = dict.fromkeys(begun, 0)
        ages |= {event["trial"]: event["epoch"] for event in known if event["event"] == "result"}
        assert spec.num_trials is not None
        assert finish(method, left, ages, spec.num_trials) | over == set(range(spec.num_trials))


@pytest.mark.parametrize("name", ["asha", "median", "hyperband"])
def test_what_ray_decided_is_decided_again(name: str) -> None:
    spec, events = load(name)
    method = method_for(spec)
    recalled: list[Any] = []
    method.recall = recalled.append  # type: ignore[method-assign, assignment]
    replay(method, events, spec.metric)
    assert not recalled


def test_the_configurations_that_a_population_took_over_stand_as_recorded() -> None:
    spec, events = load("pbt")
    exploits = [index for index, event in enumerate(events) if event["event"] == "exploit"]
    assert exploits
    for index in exploits:
        event = events[index]
        left = replay(method_for(spec), events[: index + 1], spec.metric)
        assert left.unfinished[event["trial"]] == event["config"]
        assert event["trial"] in left.paused
        assert event["trial"] not in left.exploits
