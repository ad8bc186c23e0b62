"""Which configurations the weights of a trial were trained with that took over others."""

from __future__ import annotations

from typing import Any

import pytest

from xaytune.records.journal import Event
from xaytune.report.lineage import lineage


def event(kind: str, trial: int, **fields: Any) -> Event:
    return {"event": kind, "trial": trial, **fields}


def exploit(trial: int, source: int, step: int, lr: float) -> list[Event]:
    offer = event("offer", source, global_step=step, path="c")
    return [offer, event("exploit", trial, source=source, config={"lr": lr}, global_step=step, path="c")]


BEGUN = [event("trial", trial, config={"lr": lr}) for trial, lr in enumerate((0.1, 0.2, 0.3))]


def stages(events: list[Event], trial: int, until: int) -> list[tuple[int, float, int]]:
    return [(stage.trial, stage.config["lr"], stage.until) for stage in lineage(events, trial, until)]


def test_a_trial_has_the_configurations_of_those_whose_checkpoints_it_went_on_from() -> None:
    events = [*BEGUN, *exploit(0, 2, 4, 0.36), *exploit(1, 0, 8, 0.43)]
    assert stages(events, 1, 12) == [(2, 0.3, 4), (0, 0.36, 8), (1, 0.43, 12)]
    assert stages(events, 0, 12) == [(2, 0.3, 4), (0, 0.36, 12)]
    assert stages(events, 2, 12) == [(2, 0.3, 12)]


@pytest.mark.parametrize("until", [3, 4])
def test_what_a_trial_took_over_after_a_step_is_not_part_of_what_it_was_there(until: int) -> None:
    assert stages([*BEGUN, *exploit(0, 2, 4, 0.36)], 0, until) == [(0, 0.1, until)]


def test_a_donor_counts_as_it_was_when_its_checkpoint_was_kept() -> None:
    offered = event("offer", 2, global_step=4, path="c")
    changed = exploit(2, 1, 4, 0.24)
    taken = event("exploit", 0, source=2, config={"lr": 0.36}, global_step=4, path="c")
    assert stages([*BEGUN, offered, *changed, taken], 0, 8) == [(2, 0.3, 4), (0, 0.36, 8)]


def test_a_trial_that_went_back_has_nothing_of_what_came_after() -> None:
    events = [*BEGUN, *exploit(0, 2, 10, 0.36), *exploit(0, 1, 8, 0.24)]
    assert stages(events, 0, 9) == [(1, 0.2, 8), (0, 0.24, 9)]
    assert stages(events, 0, 8) == [(0, 0.1, 8)]
