"""The trial of this process, which a program finds without being handed it."""

from __future__ import annotations

import atexit
import logging
import sys

from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.metrics import shown
from xaytune.trainer.own import OwnLoop

logger = logging.getLogger(__name__)

_current: OwnLoop | None = None


def current_trial() -> OwnLoop:
    """Returns the trial of this process.

    Outside of a sweep it is a run that counts, logs a line an epoch, and never stops, saves or restores anything:
    the program does what it would do without.
    """
    global _current
    if _current is None:
        _current = OwnLoop()
        _current.callbacks.on("epoch_end", last=True)(_log_epoch)
        atexit.register(_finish_alone, _current)
    return _current


def set_current_trial(trial: OwnLoop | None) -> None:
    """Makes a trial the one of this process."""
    global _current
    _current = trial


def _log_epoch(state: TrainState) -> None:
    """Logs an epoch; where nobody has set logging up, its line would be lost: it goes to standard error."""
    metrics = ", ".join(f"{name} {shown(value)}" for name, value in state.metrics.items())
    line = f"epoch {state.epoch + 1}, step {state.global_step}: {metrics}"
    if logger.hasHandlers():
        logger.info(line)
    else:
        print(line, file=sys.stderr)


def _finish_alone(trial: OwnLoop) -> None:
    trial.finish(getattr(sys, "last_value", None))
