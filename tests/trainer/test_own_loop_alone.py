"""Outside of a sweep a program with a loop of its own runs as without xaytune."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

import xaytune
from sweeps.callbacks import print_gradients
from tests.models import loader
from tests.trainer import own_loops
from xaytune.testing.training import weights_of
from xaytune.trainer.current import set_current_trial
from xaytune.trainer.own import OwnLoop


@pytest.fixture
def alone() -> OwnLoop:
    """The trial that a program finds outside of a sweep."""
    set_current_trial(None)
    return xaytune.current_trial()


def test_the_callback_of_the_examples_serves_a_loop_that_measures_no_gradients_too(
    alone: OwnLoop, capsys: pytest.CaptureFixture[str]
) -> None:
    trial: Any = alone
    print_gradients(trial, {})
    for step in alone.steps(100):
        alone.log(**({"grad_norm": 0.5} if step > 50 else {}))
    assert capsys.readouterr().out == "step 100: the norm of the gradients is 0.5\n"


def test_outside_of_a_sweep_a_program_runs_as_without_and_saves_nothing(
    alone: OwnLoop, caplog: pytest.LogCaptureFixture
) -> None:
    def train(epochs: Any, steps: Any, log: Any) -> Tensor:
        torch.manual_seed(alone.seed)
        model = own_loops.network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in epochs(2):
            for inputs, targets in steps(loader()):
                log(loss=own_loops.step(model, optimizer, inputs, targets))
        return weights_of(model)

    plain = train(range, iter, lambda loss: None)
    with caplog.at_level(logging.INFO):
        assert torch.equal(train(alone.epochs, alone.steps, alone.log), plain)
    assert (alone.checkpoint_dir, alone.latest_checkpoint, alone.stopped) == (None, None, False)
    assert "epoch 2, step 12: loss " in caplog.text


@pytest.mark.slow
def test_outside_of_a_sweep_an_epoch_is_a_line_on_standard_error_where_nobody_has_set_logging_up() -> None:
    program = """
import xaytune
trial = xaytune.current_trial()
trial.callbacks.on("epoch_end")(lambda state: state.metrics.update(phase="warm"))
for epoch in trial.epochs(2):
    trial.report(accuracy=epoch / 2)
print("done")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "done\n"
    assert ran.stderr == "epoch 1, step 1: accuracy 0, phase warm\nepoch 2, step 2: accuracy 0.5, phase warm\n"
