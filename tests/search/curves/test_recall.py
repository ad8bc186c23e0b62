"""What a journal tells of a sweep stands, where it would be decided otherwise now."""

from __future__ import annotations

import json
import math
from typing import Any

from tests.search.curves.test_method import Event, sweep
from xaytune.search.method import Continue, Decision, NewTrial, Stop
from xaytune.search.replay import replay
from xaytune.sweep import values


def journal(events: list[Event]) -> list[dict[str, Any]]:
    """What the journal of a sweep holds after such events, without the ends of trials."""
    told: list[dict[str, Any]] = []
    for kind, given, decided in events:
        if kind == "next":
            number = sum(event["event"] == "trial" for event in told)
            told.append({"event": "trial", "trial": number, "config": values.write(decided)})
            continue
        (trial, result), own = given, decided[0]
        place = {"trial": trial, "epoch": result.time, "metrics": {}}
        told.append({"event": "result", **place, "value": result.value})
        told.append({"event": "verdict", **place, "decision": own.word, "reason": own.reason})
        if own.details:
            told[-1]["details"] = json.loads(json.dumps(own.details))
    return told


def cut_after_a_verdict(events: list[Event], kind: type[Decision]) -> list[dict[str, Any]]:
    """A journal whose last line is a verdict of a kind, which the model made."""
    last = next(
        index
        for index, (name, _, decided) in enumerate(events)
        if name == "result" and type(decided[0]) is kind and "predicted" in decided[0].details
    )
    return journal(events[: last + 1])


DISCRETE: dict[str, Any] = {
    "lr": {"choice": [1e-4, 1e-3, 1e-2, 0.1, 1.0]},
    "size": {"choice": [(1, 2), (3, 4), (5,)]},
}


def value_of_choices(config: dict[str, Any], time: int) -> float:
    return float(1 - abs(math.log10(config["lr"]) + 2) / 4 - sum(config["size"]) / 20) * (1 - 0.5 / time)


def test_a_trial_that_went_on_by_its_journal_trains_on_and_nothing_is_started_instead(make: Any) -> None:
    events = sweep(make(DISCRETE), 60, value=value_of_choices)
    told = cut_after_a_verdict(events, Stop)
    trial, before = told[-1]["trial"], [event for event in told if event["event"] == "trial"]
    told[-1] |= {"decision": "continue", "details": {}}
    method = make(DISCRETE)
    left = replay(method, told, "accuracy")
    assert trial in left.unfinished
    assert trial not in left.stops
    assert not method._planned
    assert trial in method._trials.running
    # What was planned for it is tried in its own time, once.
    more = sweep(method, 500, value=value_of_choices, first=len(before))
    tried = [event["config"] for event in [*before, *journal(more)] if event["event"] == "trial"]
    assert len({json.dumps(config) for config in tried}) == len(tried) == 15


def test_what_a_journal_tried_instead_of_what_is_planned_leaves_that_to_be_tried(make: Any) -> None:
    given = {"lr": 0.1, "size": (5,)}
    method = make(DISCRETE, points_to_evaluate=[given])
    method.adopt({"lr": 1.0, "size": (5,)})
    tried = [event[2] for event in sweep(method, 500, value=value_of_choices, first=1) if event[0] == "next"]
    assert len(tried) == 14
    assert tried.count(given) == 1


def test_a_trial_that_was_stopped_by_its_journal_is_and_what_was_to_start_instead_is_next(make: Any) -> None:
    events = sweep(make(DISCRETE), 60, value=value_of_choices)
    told = cut_after_a_verdict(events, Continue)
    tried = [event["config"] for event in told if event["event"] == "trial"]
    instead = next(
        config
        for config in ({"lr": 1.0, "size": size} for size in ((1, 2), (3, 4), (5,)))
        if values.write(config) not in tried
    )
    told[-1] |= {"decision": "stop", "details": {"instead": values.write(instead)}}
    method = make(DISCRETE)
    assert told[-1]["trial"] in replay(method, told, "accuracy").stops
    assert method.next() == NewTrial(instead)
