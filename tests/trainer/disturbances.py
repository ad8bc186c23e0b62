"""Random runs that are stopped, saved, killed and resumed at random places, against the same runs undisturbed."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import hypothesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from tests.trainer.problems import SCHEDULES, Setting, bits, same, trainer
from xaytune.trainer.callbacks import Event, TrainState
from xaytune.trainer.trainer import Trainer

PLACES = ["forward", "step_start", "step_end", "eval_end", "epoch_end", "epoch_start", "checkpoint_saved"]


class Killed(BaseException):
    """Unwinds a run at once: nothing of it is left but its checkpoints."""


class FailedError(Exception):
    """Fails a run, which fires ``error``."""


@dataclass(frozen=True)
class Disturbance:
    """What ends a run early: at the first such event, or forward pass, at which so many steps are done."""

    kind: str  # stop, kill, or fail
    place: str
    step: int
    goes_on_in_place: bool  # whether the same Trainer is told to fit again, in place of a new one


@dataclass(frozen=True)
class Saves:
    """When a handler saves a checkpoint."""

    event: Event
    every: int


def settings() -> st.SearchStrategy[Setting]:
    drawn = st.builds(
        Setting,
        model=st.sampled_from(["mlp", "mlp", "linear", "frozen", "head", "sparse", "tokens"]),
        optimizer=st.sampled_from(["sgd", "momentum", "adamw"]),
        data=st.sampled_from(["shuffled", "in order", "own generator", "replaced", "subset", "noisy", "dropped"]),
        schedule=st.sampled_from([None, *SCHEDULES]),
        interval=st.sampled_from(["epoch", "step"]),
        accumulate=st.sampled_from([1, 1, 2, 3, 10]),
        clip=st.sampled_from([None, 0.3]),
        precision=st.sampled_from(["fp32", "fp32", "bf16", "fp16"]),
        eval_every=st.sampled_from([None, "epoch", 1, 2, 3, 5]),
        batch=st.sampled_from([3, 4, 6]),
        epochs=st.integers(1, 3),
    )
    return drawn.filter(_is_possible)


def _is_possible(setting: Setting) -> bool:
    if setting.model == "sparse" and setting.optimizer != "sgd":
        return False
    if setting.model in ("sparse", "tokens") and setting.data == "noisy":
        return False
    return not (setting.model == "sparse" and setting.schedule == "one cycle")  # which adds a momentum


def disturbances() -> st.SearchStrategy[list[Disturbance]]:
    one = st.builds(
        Disturbance,
        kind=st.sampled_from(["stop", "kill", "fail"]),
        place=st.sampled_from(PLACES),
        step=st.integers(0, 9),
        goes_on_in_place=st.booleans(),
    )
    return st.lists(one, min_size=1, max_size=4)


def saves() -> st.SearchStrategy[list[Saves]]:
    events: list[Event] = ["step_start", "step_end", "eval_end", "epoch_end", "error"]
    return st.lists(
        st.builds(Saves, event=st.sampled_from(events), every=st.sampled_from([1, 1, 2, 3])), max_size=2
    )


def check(setting: Setting, saved: list[Saves], disturbed: list[Disturbance]) -> None:
    """Asserts that a disturbed run ends with the bits, the metrics and the place of an undisturbed one."""
    undisturbed = trainer(setting)
    undisturbed.fit()
    with tempfile.TemporaryDirectory() as scratch:
        again: Trainer | None = None
        for disturbance in [*disturbed, None]:
            run = again or _saving(trainer(setting, Path(scratch)), saved)
            again = _train(run, disturbance)
        assert again is not None
        ended = again
    assert same(bits(ended.model), bits(undisturbed.model))
    assert _told(ended.state) == _told(undisturbed.state)


def _saving(run: Trainer, saved: list[Saves]) -> Trainer:
    for save in saved:
        run.callbacks.on(save.event, every=save.every)(lambda state: run.save_checkpoint())
    return run


def _train(run: Trainer, disturbance: Disturbance | None) -> Trainer | None:
    """Trains until the run is disturbed or over; returns it if it is to go on in place."""
    if disturbance is None:
        run.fit()
        return run
    armed = True

    def disturb(state: TrainState) -> None:
        nonlocal armed
        if not armed or state.global_step < disturbance.step:
            return
        armed = False
        if disturbance.kind == "stop":
            state.stop_training()
        else:
            raise Killed if disturbance.kind == "kill" else FailedError

    if disturbance.place == "forward":
        run.model.register_forward_pre_hook(lambda model, _: disturb(run.state) if model.training else None)
    else:
        run.callbacks.on(cast("Event", disturbance.place))(disturb)
    try:
        run.fit()
    except (Killed, FailedError):
        armed = False
        return None
    armed = False
    return run if disturbance.goes_on_in_place else None


def _told(state: TrainState) -> dict[str, Any]:
    metrics = {name: repr(float(value)) for name, value in state.metrics.items()}  # also where it is nan
    return {"step": state.step, "epoch": state.epoch, "global_step": state.global_step} | metrics


def campaign(runs: int, seed: int) -> None:
    """Checks so many random runs.

    Raises:
        AssertionError: One of them ended otherwise than undisturbed; hypothesis prints the smallest that it finds.
    """

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=runs,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(settings(), saves(), disturbances())
    def disturbed_runs(setting: Setting, saved: list[Saves], disturbed: list[Disturbance]) -> None:
        check(setting, saved, disturbed)

    disturbed_runs()
