"""A member that is trained fused with three others: it gets a trial, and returns its weights."""

from __future__ import annotations

from torch import Tensor

from tests.trainer.fused_models import Case, changes_the_rate, changes_weights, trainer_of
from xaytune.testing.training import weights_of
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.handlers import SaveCheckpoint
from xaytune.trainer.own import OwnLoop

CASE = Case(model="dropout", optimizer="adam", epochs=4)
# Steps that the optimizer of the member has counted, at the end of the last run.
COUNTED = [0]


def member(trial: OwnLoop) -> Tensor:
    """Its handlers read gradients, and change its weights and its rate."""
    trainer = trainer_of(CASE, 1, trial=trial)
    changes_the_rate(trainer)
    changes_weights(trainer)
    trial.callbacks.on("step_end")(SaveCheckpoint(trainer))
    try:
        fit_fused([trainer_of(CASE, 0), trainer, trainer_of(CASE, 2), trainer_of(CASE, 3)])
    except ExceptionGroup as failed:
        (error,) = failed.exceptions
        raise error from None
    COUNTED[0] = max((int(state["step"]) for state in trainer.optimizer.state.values()), default=0)
    return weights_of(trainer.model)
