"""The Trainer ends with the bits of a plain loop; a run that was interrupted with those of one that was not."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.trainer.disturbances import campaign
from tests.trainer.problems import TABLE, Setting, bits, plain_loop, same, trainer
from xaytune.trainer.callbacks import TrainState

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("setting", TABLE, ids=str)
def test_the_trainer_ends_with_the_bits_of_a_plain_loop(setting: Setting) -> None:
    run = trainer(setting)
    losses: list[float] = []
    run.callbacks.on("step_end")(lambda state: losses.append(float(state.metrics["loss"])))
    run.fit()
    model, expected = plain_loop(setting)
    assert same(bits(run.model), bits(model))
    assert losses == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("setting", TABLE, ids=str)
def test_an_interrupted_run_ends_with_the_bits_of_an_undisturbed_one(setting: Setting, tmp_path: Path) -> None:
    undisturbed = trainer(setting)
    steps = undisturbed.fit().global_step
    for at in {1, steps // 2, steps - 1}:
        folder = tmp_path / str(at)
        interrupted = trainer(setting, folder)

        @interrupted.callbacks.on("step_end")
        def stop(state: TrainState, at: int = at) -> None:
            if state.global_step == at:
                state.stop_training()

        assert interrupted.fit().global_step == max(at, 1)
        resumed = trainer(setting, folder)
        resumed.fit()
        assert same(bits(resumed.model), bits(undisturbed.model)), f"interrupted after step {at} of {steps}"


def test_runs_disturbed_at_random_places_end_with_the_bits_of_undisturbed_ones() -> None:
    seed = secrets.randbelow(2**32)
    print(f"to repeat it: python -m tests.campaigns trainer --runs 20 --seed {seed}")
    campaign(20, seed)
